"""POPE: is an object in the image; F1 of "yes" per negative-sampling split, and their mean.

Rules: AoiDragon/POPE evaluate.py and LLaVA eval_pope.py (identical). Labels are matched by
position there, so every question is compared with its label's before anything is counted.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import FIRST, Answers, Entry, File
from sgv_lab.errors import LabError
from sgv_lab.intervals import clustered

VARIANTS = ("exact_word",)  # lmms-eval: the answer must be "yes" or "no" (and one pooled F1)
SUFFIX = core.SHORT_ANSWER
CELLS = ("TP", "FP", "TN", "FN")
Asked = tuple[Entry, str, str | None]  # an answer, its question, its image where that is known


def parse(answer: str, variant: str = OFFICIAL) -> str:
    """ "no" if the first sentence holds the word No, not or no, else "yes" (even if empty)."""
    if variant == "exact_word":
        answer = answer.lower().strip()
        return answer if answer in ("yes", "no") else "other"
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 4) counts of TP, FP, TN, FN -> accuracy, precision, recall, F1, share of yes."""
    tp, fp, tn, fn = np.moveaxis(sums, -1, 0)
    precision, recall = _over(tp, tp + fp), _over(tp, tp + fn)
    return {
        "accuracy": _over(tp + tn, tp + tn + fp + fn),
        "precision": precision,
        "recall": recall,
        "f1": _over(2 * precision * recall, precision + recall),
        "yes_ratio": _over(tp + fp, tp + fp + tn + fn),
    }


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0: without any "yes" the official script stops."""
    return np.divide(a, b, out=np.zeros(np.shape(b)), where=np.asarray(b) != 0)


def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score LLaVA's answers (with its ``questions`` file) or POPE's own {question, answer} lines.

    ``annotations`` is the folder of coco_pope_<split>.json, or one of them.
    """
    source = core.require(annotations, "--annotations", "coco_pope_<split>.json, or their folder")
    labels = {
        path.stem.rsplit("_", 1)[-1]: core.entries(path)
        for path in core.find_files(source, "*pope_*.json", "*.json", "*.jsonl")
    }
    given = core.entries(predictions)
    if questions is not None:
        asked, warnings = _by_category(given, Path(questions))
    elif len(labels) == 1:
        asked = {split: [(entry, entry["question"], None) for entry in given] for split in labels}
        warnings = list(core.several_lines(given))
    else:
        what = "needs --questions: the file that was run, with categories"
        raise LabError(what, where=predictions, fix="or give one split's annotations")
    if asked.keys() != labels.keys():
        what = f"asks {', '.join(asked)}, but {source} holds {', '.join(labels)}"
        raise LabError(what, where=questions or predictions)
    outcomes = [
        (split, label["image"], parse(answer.text("text", "answer"), variant), label["label"])
        for split in labels
        for answer, label in _paired(asked[split], labels[split], source)
    ]
    return _result(outcomes, warnings)


def _by_category(given: list[Entry], path: Path) -> tuple[dict[str, list[Asked]], list[str]]:
    """Split -> answers in the order of the questions file, and warnings.

    The official tool compares answers with labels one by one, and leaves out what comes after the
    last label: a question answered again there counts as answered first.
    """
    answers = Answers(given, "question_id", rule=FIRST)
    questions = core.index(core.entries(path), "question_id")
    if core.check_ids(answers, questions, path):
        absent = next(key for key in questions if key not in answers)
        what = f"question {absent} has no answer"
        fix = "complete the run: the official tool matches by position"
        raise questions[absent].error(what, fix=fix)
    asked: dict[str, list[Asked]] = defaultdict(list)
    for key, question in questions.items():
        if "prompt" in answers[key].row:
            core.check_same_question(answers[key], answers[key]["prompt"], question["text"])
        text = question["text"].removesuffix(SUFFIX)
        asked[question["category"]].append((answers[key], text, question["image"]))
    seen: dict[str, set[str]] = {split: set() for split in asked}
    for entry in given:  # one that stands twice pushes later ones of its split to others' labels
        key = str(entry["question_id"])
        split = questions[key]["category"]
        if key in seen[split] and len(seen[split]) < len(asked[split]):
            what = f"question {key} stands twice, before other answers of its split"
            fix = "keep one answer a question: the official tool matches by position"
            raise entry.error(what, fix=fix)
        seen[split].add(key)
    return dict(asked), answers.warnings


def _paired(asked: list[Asked], labels: list[Entry], source: Path) -> Iterator[tuple[Entry, Entry]]:
    """Each answer and the label at its position, which must be about the same thing."""
    for (answer, text, image), label in zip(asked, labels, strict=False):
        core.check_same_question(answer, text, label["text"])
        if image not in (None, label["image"]):
            what = f"is about {image}, but {label.where} about {label['image']}"
            raise answer.error(what, fix="the files are out of step: use POPE@e3e3926")
        if label["label"] not in ("yes", "no"):
            raise label.error(f"the label is {label['label']!r}, not yes or no")
        yield answer, label
    if len(asked) != len(labels):
        what = f"holds {len(labels)} labels for {len(asked)} answers"
        fix = "the files are out of step: use the version that was run"
        raise LabError(what, where=source, fix=fix)


def _result(outcomes: list[tuple[str, str, str, str]], warnings: list[str]) -> dict[str, Any]:
    """The score of (split, image, answer as it was read, label) rows."""
    splits = {name: n for n, name in enumerate(dict.fromkeys(row[0] for row in outcomes))}
    images = {name: n for n, name in enumerate(dict.fromkeys(row[1] for row in outcomes))}
    sums = np.zeros((len(images), len(splits), len(CELLS)))
    for split, image, read, label in outcomes:
        # an answer that is neither (variant exact_word) is wrong without being a "yes"
        cell = {("yes", "yes"): 0, ("yes", "no"): 1, ("no", "no"): 2}.get((read, label), 3)
        sums[images[image], splits[split], cell] += 1
    totals = sums.sum(0)
    scores: dict[str, Any] = {}
    intervals: dict[str, Any] = {
        "mean_f1": clustered(lambda s: metrics(s)["f1"].mean(-1), sums, 1.0)
    }
    for split, number in splits.items():
        counts = dict(zip(CELLS, map(int, totals[number]), strict=True))
        values = {name: float(value) for name, value in metrics(totals[number]).items()}
        scores[split] = {"n": sum(counts.values()), **counts, **values}
        f1 = clustered(lambda s: metrics(s)["f1"], sums[:, number], 1.0)
        intervals[split] = {"f1": f1}
    f1 = [scores[split]["f1"] for split in splits]
    pooled = float(metrics(totals.sum(0))["f1"])
    return core.result(
        scores | {"mean_f1": sum(f1) / len(f1), "pooled_f1": pooled},
        unparsed=sum(read == "other" for _, _, read, _ in outcomes),
        missing=0,
        intervals=intervals,
        clusters=("image", images),
        warnings=warnings,
    )
