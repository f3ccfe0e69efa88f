"""SEED-Bench, image part: exact letter match, micro average over questions.

Rules: LLaVA and ShareGPT4V scripts/convert_seed_for_submission.py; ids and repeated rows: the
SEED-Bench leaderboard's own files. An image question has an all-digit id ("v…" is video).
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import EACH, LAST, by_id
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError

VARIANTS = ("first_character", "macro")  # lmms-eval's reading; the leaderboard's later average
REPEATED = {"49914": 2}  # stands twice in the official SEED-Bench.json, with the same answer
SUFFIX = "\nAnswer with the option's letter from the given choices directly."
CHOICES = {"A": "choice_a", "B": "choice_b", "C": "choice_c", "D": "choice_d"}


def prompt(question: dict[str, Any]) -> str:
    """Question, four options and the letter instruction, one a line."""
    lines = [question["question"], *(f"{k}. {question[field]}" for k, field in CHOICES.items())]
    return "\n".join(lines) + SUFFIX


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score ``{question_id, prediction or text}`` rows against SEED-Bench.json or gt_answer rows.

    A result file of the leaderboard holds its own ``gt_answer`` and needs no ``annotations``; its
    rows count as they stand. Video questions whose truth was withdrawn are counted, not scored.
    """
    given = core.rows(predictions)
    source = annotations or questions
    if source is None and all("gt_answer" in entry.row for entry in given):
        _, warnings = by_id(given, "question_id", rule=EACH)
        return _result([(e, e["gt_answer"], None) for e in given], 0, 0, variant, warnings)
    source = core.need(source, "--annotations", "SEED-Bench.json, or rows with gt_answer")
    truth, kinds = _truth(source)
    answers, warnings = by_id(given, "question_id", rule=LAST, often=REPEATED)
    asked, without = [], 0
    for key, group in answers.items():
        if key in truth:
            asked += [(group[-1], truth[key], kinds.get(key))] * REPEATED.get(key, 1)
        elif key.isdecimal():
            raise LabError(f"question {key!r} is not in {source}", where=group[-1].where)
        else:
            without += len(group)
    if not asked:
        raise LabError(f"answers no question of {source}", where=predictions)
    images = [key for key in truth if key.isdecimal()]
    missing = [key for key in images if key not in answers for _ in range(REPEATED.get(key, 1))]
    for key in missing:  # an absent answer is a wrong one
        absent = Entry(str(predictions), {"question_id": key, "prediction": ""})
        asked.append((absent, truth[key], kinds.get(key)))
    return _result(asked, len(missing), without, variant, warnings)


def _truth(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Answers by id, and (of SEED-Bench.json) the dimension of each question."""
    rows, names = core.rows(path), {}
    if "questions" in rows[0].row:
        names = {number: name for name, number in rows[0]["question_type"].items()}
        rows = rows[0].records("questions")
    truth: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for entry in rows:
        key, answer = str(entry["question_id"]), entry.first("gt_answer", "answer")
        if truth.setdefault(key, answer) != answer:
            raise LabError(f"question {key} has two answers", where=entry.where)
        if names:
            kinds[key] = names[entry["question_type_id"]]
    return truth, kinds


def _result(
    asked: list[tuple[Entry, str, str | None]],
    missing: int,
    without: int,
    variant: str,
    warnings: list[str],
) -> dict[str, Any]:
    parts: dict[bool, list[bool]] = {True: [], False: []}  # image?, then right or wrong
    by_kind: dict[str, list[bool]] = defaultdict(list)
    images, unparsed = [], 0
    for entry, truth, kind in asked:
        key, text = str(entry["question_id"]), entry.text("prediction", "text")
        if variant == "first_character":
            text = text.strip()[:1].upper()
        unparsed += text not in CHOICES and text != ""
        right = text == truth
        parts[key.isdecimal()].append(right)
        if key.isdecimal():
            images.append(key)
            by_kind[kind].append(right)
    image, video = parts[True], parts[False]
    if not image:
        raise LabError("holds no image question (all-digit id)", where=asked[0][0].where)
    kinds = {k: 100 * sum(v) / len(v) for k, v in by_kind.items() if k is not None}
    accuracy = 100 * sum(image) / len(image)
    if variant == "macro":
        if not kinds:
            raise LabError("the macro average needs question types", fix="give SEED-Bench.json")
        accuracy = sum(kinds.values()) / len(kinds)
    scores = {
        "image_rows": len(image),
        "image_correct": sum(image),
        "image_accuracy": accuracy,
        "image_accuracy_unique": _unique(images, image),
        "video_rows_with_gt": len(video),
        "video_accuracy_on_those": 100 * sum(video) / len(video) if video else None,
        "video_rows_without_gt": without,
    }
    return core.result(
        scores | ({"dimensions": kinds} if kinds else {}),
        unparsed=unparsed,
        missing=missing,
        intervals={}
        if variant == "macro"
        else {"image_accuracy": jackknife.mean_interval(image, images)},
        # the files do not say which questions share a picture
        clustered_by="question",
        clusters=len(set(images)),
        warnings=warnings,
    )


def _unique(ids: list[str], right: list[bool]) -> float:
    """The accuracy where a repeated id counts once, as its first row."""
    first = dict(zip(reversed(ids), reversed(right), strict=True))
    return 100 * sum(first.values()) / len(first)
