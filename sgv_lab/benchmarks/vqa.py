"""VQAv2 and VizWiz: agreement with ten human answers, leave one out.

Rules: GT-Vision-Lab/VQA vqaEval.py@a013f00 (2021) and @a4f1afd (2017); what LLaVA does to an answer
before submission: m4c_evaluator.py EvalAIAnswerProcessor.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import LAST, Answers, Entry, File
from sgv_lab.errors import LabError
from sgv_lab.intervals import clustered_mean

# The rule is the official script of 2021. Others: the one of 2017, the processing of a submission
# on both sides, the same with min(1, n / 3), and answers as the model gave them.
VARIANTS = ("vqaeval_2017", "m4c", "naive", "unprocessed")
SUFFIX = core.SHORT_ANSWER
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
NUMBERS = "none zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
NUMBER = {word: str(max(0, value - 1)) for value, word in enumerate(NUMBERS)}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# What is written without apostrophes, and with: the map both official tools share, without its
# capitalised keys, which never match. Of the original is "somebody'd" -> "somebodyd".
CONTRACTIONS: dict[str, str] = core.read_json(Path(__file__).with_name("contractions.json"))


@lru_cache(1 << 20)
def punctuation(text: str) -> str:
    """Each mark is deleted if it touches a blank (or digits hold a comma), else made a blank."""
    thousands = re.search(r"\d,\d", text) is not None
    out = text
    for mark in PUNCTUATION:
        gone = thousands or mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if gone else " ")
    # the original's lookbehind is mistyped and matches nothing, and it gives re.UNICODE as count
    return re.sub(r"\.(?!\d)", "", out, count=32)


def digits_articles(text: str) -> str:
    """Lower case, number words as digits, no articles, apostrophes put back."""
    words = (NUMBER.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(w, w) for w in words if w not in ("a", "an", "the"))


@lru_cache(1 << 20)
def _blanks(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(1 << 20)
def normalise(text: str) -> str:
    """What vqaEval.py does to an answer."""
    return digits_articles(punctuation(_blanks(text)))


@lru_cache(1 << 20)
def process(text: str) -> str:
    """What LLaVA does to an answer before submission (EvalAIAnswerProcessor)."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise(text.strip())


def matches(answer: str, humans: list[str], variant: str = OFFICIAL) -> int:
    """How many of the ten human answers equal ``answer`` under the variant's normalisation."""
    if variant in ("m4c", "naive"):
        answer, humans = process(answer), [process(human) for human in humans]
    else:
        answer, humans = _blanks(answer), [_blanks(human) for human in humans]
        differ = len(set(humans)) > 1
        if variant == "vqaeval_2017":
            answer = normalise(answer)
            humans = [punctuation(human) for human in humans] if differ else humans
        elif differ:
            answer, humans = normalise(answer), [normalise(human) for human in humans]
    return humans.count(answer)


def accuracy(matching: int, humans: int = 10, variant: str = OFFICIAL) -> float:
    """The mean over humans of min(1, matches among the others / 3); ``naive``: min(1, n / 3)."""
    if variant == "naive":
        return min(1.0, matching / 3)
    own, other = min(1.0, (matching - 1) / 3), min(1.0, matching / 3)
    return (matching * own + (humans - matching) * other) / humans


@core.no_collector()
def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score an answers file (``text``: processed first) or a submission (``answer``: as it is).

    ``annotations`` is the official annotation file (VQAv2, or VizWiz with images as ids), or an
    EvalAI submission: then the processed answers are compared with it string by string.
    """
    source = core.require(annotations, "the human answers")
    truth, by_image = _truth(source)
    given = core.entries(predictions)
    raw = "text" in given[0].row  # the model's own words
    named = by_image and "image" in given[0].row
    answers = Answers(given, "image" if named else "question_id", rule=LAST)
    found: dict[str, Entry] = answers
    if questions is not None and not named:
        asked = core.index(core.rows(questions), "question_id")
        answers.against(asked, questions, said="prompt", asked="text")
        found = {asked[k]["image"] if by_image else k: entry for k, entry in answers.items()}
    elif by_image and not named:
        raise LabError("needs --questions: which image a question is about", where=predictions)
    answers.missing = core.check_ids(found, truth, "the annotations")
    sent = {key: entry.text("text" if raw else "answer") for key, entry in found.items()}
    if raw and variant != "unprocessed":
        sent = {key: process(text) for key, text in sent.items()}
    if "answers" not in next(iter(truth.values())).row:
        same = sum(sent.get(key) == entry["answer"] for key, entry in truth.items())
        told = {"warnings": answers.warnings} if answers.warnings else {}
        counts = {"rows": len(truth), "identical_to_upload": same, "unparsed": 0}
        return {**counts, "missing": answers.missing, **told}
    return _result(answers, sent, truth, variant)


def _truth(path: Path) -> tuple[dict[str, Entry], bool]:
    """The annotations by id, and whether images are the ids (VizWiz)."""
    found = core.entries(path)
    if len(found) == 1 and "annotations" in found[0].row:
        found = found[0].records("annotations")
    by_image = "question_id" not in found[0].row
    return core.index(found, "image" if by_image else "question_id"), by_image


def _result(
    answers: Answers, sent: dict[str, str], truth: dict[str, Entry], variant: str
) -> dict[str, Any]:
    values, images = {}, []
    for key, entry in truth.items():
        humans = [human["answer"] for human in entry["answers"]]
        found = matches(sent.get(key, ""), humans, variant)
        values[key] = accuracy(found, len(humans), variant)
        images.append(entry.first("image_id", "image"))
    overall = core.percent(values.values())
    scores: dict[str, Any] = {"overall": round(overall, 2), "accuracy": overall, "n": len(values)}
    for field, name in (("question_type", "perQuestionType"), ("answer_type", "perAnswerType")):
        there = [key for key in truth if field in truth[key].row]
        means = core.means((truth[key][field], values[key]) for key in there)
        scores |= {name: {kind: round(mean, 2) for kind, mean in means.items()}} if means else {}
    unparsed = sum(not answer.strip() for answer in sent.values())
    intervals = {"overall": clustered_mean(list(values.values()), images)}
    return core.result(scores, answers, unparsed, intervals, "image", images)
