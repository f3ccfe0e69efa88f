"""SEED-Bench, image part: exact letter match, micro average over questions.

Rules: LLaVA and ShareGPT4V scripts/convert_seed_for_submission.py; ids and repeated rows: the
SEED-Bench leaderboard's own files. An image question has an all-digit id ("v…" is video).
"""

from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import EACH, LAST, Answers, Entry, File
from sgv_lab.errors import LabError
from sgv_lab.intervals import clustered_mean

VARIANTS = ("first_character", "macro")  # lmms-eval's reading; the leaderboard's later average
REPEATED = {"49914": 2}  # stands twice in the official SEED-Bench.json, with the same answer
SUFFIX = core.LETTER_ANSWER
CHOICES = {"A": "choice_a", "B": "choice_b", "C": "choice_c", "D": "choice_d"}


def prompt(question: dict[str, Any]) -> str:
    """Question, four options and the letter instruction, one a line."""
    lines = [question["question"], *(f"{k}. {question[field]}" for k, field in CHOICES.items())]
    return "\n".join(lines) + SUFFIX


def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score ``{question_id, prediction or text}`` rows against SEED-Bench.json or gt_answer rows.

    A result file of the leaderboard (or of another harness) holds its own ``gt_answer`` (or
    ``answer``) and needs no ``annotations``; its rows count as they stand. Video questions whose
    truth was withdrawn are counted, not scored.
    """
    given = core.rows(predictions)
    if "index" in given[0].row:  # VLMEvalKit's name for it
        given = [Entry(e.where, e.row | {"question_id": e["index"]}) for e in given]
    source = annotations or questions
    own = source is None and all({"gt_answer", "answer"} & e.row.keys() for e in given)
    source = predictions if own else source
    source = core.require(source, "SEED-Bench.json, or rows with gt_answer")
    repeated = {} if own else REPEATED
    answers = Answers(given, "question_id", rule=EACH if own else LAST, often=repeated)
    truth, kinds = _truth(given if own else core.rows(source))
    core.check_ids({key: e for key, e in answers.items() if key.isdecimal()}, truth, source)
    if not answers.keys() & truth.keys():
        raise LabError(f"answers no question of {source}", where=predictions)
    image: list[tuple[str, bool]] = []  # (id, right or wrong) of each row
    video: list[bool] = []
    unparsed = 0
    for key, letter in truth.items():
        times = repeated.get(key, 1)
        said = [_said(answer, variant) for answer in answers.groups.get(key, [])] * times
        unparsed += sum(text not in CHOICES and text != "" for text in said)
        if key.isdecimal():  # an absent answer is a wrong one
            image += [(key, text == letter) for text in said or [""] * times]
        else:
            video += [text == letter for text in said]
    if not image:
        raise LabError("holds no image question (all-digit id)", where=predictions)
    ids, right = zip(*image, strict=True)
    dimensions = core.means((kinds[key], one) for key, one in image) if kinds else {}
    scores = {
        "image_rows": len(image),
        "image_correct": sum(right),
        "image_accuracy": _macro(dimensions) if variant == "macro" else core.percent(right),
        "image_accuracy_unique": core.percent(list(dict(reversed(image)).values())),  # first rows
        "video_rows_with_gt": len(video),
        "video_accuracy_on_those": core.percent(video) if video else None,
        "video_rows_without_gt": sum(str(e["question_id"]) not in truth for e in given),
    }
    answers.missing = sum(repeated.get(key, 1) for key in {*ids} - answers.keys())
    scores |= {"dimensions": dimensions} if kinds else {}
    # by question: the files do not say which of them share an image
    intervals = {} if variant == "macro" else {"image_accuracy": clustered_mean(right, ids)}
    return core.result(scores, answers, unparsed, intervals, "question", ids)


def _macro(dimensions: dict[str, float]) -> float:
    if not dimensions:
        raise LabError("the macro average needs question types", fix="give SEED-Bench.json")
    return sum(dimensions.values()) / len(dimensions)


def _said(answer: Entry, variant: str) -> str:
    text = answer.text("prediction", "text")
    return text.strip()[:1].upper() if variant == "first_character" else text


def _truth(rows: list[Entry]) -> tuple[dict[str, str], dict[str, str]]:
    """Answers by id, and (of SEED-Bench.json) the dimension of each question."""
    names = {}
    if "questions" in rows[0].row:
        names = {number: name for name, number in rows[0]["question_type"].items()}
        rows = rows[0].records("questions")
    truth: dict[str, str] = {}
    for entry in rows:
        key, answer = str(entry["question_id"]), entry.first("gt_answer", "answer")
        if truth.setdefault(key, answer) != answer:
            raise entry.error(f"question {key} has two answers")
    return truth, {str(e["question_id"]): names[e["question_type_id"]] for e in rows if names}
