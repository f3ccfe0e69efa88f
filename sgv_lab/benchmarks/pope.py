"""POPE: is an object in the picture; F1 of "yes" per negative-sampling split, and their mean.

Rules: AoiDragon/POPE evaluate.py and LLaVA eval_pope.py (identical). Labels are matched by
position there, so every question is compared with its label's before anything is counted.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import FIRST, by_id, several_lines
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError

VARIANTS = ("exact_word",)  # lmms-eval: the answer must be "yes" or "no" (and one pooled F1)
SUFFIX = "\nAnswer the question using a single word or phrase."
CELLS = ("TP", "FP", "TN", "FN")


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
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score LLaVA's answers (with its ``questions`` file) or POPE's own {question, answer} lines.

    ``annotations`` is the folder of coco_pope_<split>.json, or one of them. Raises LabError where
    an answer, its question and the label at that position are not about the same thing.
    """
    source = core.need(annotations, "--annotations", "coco_pope_<split>.json, or their folder")
    labels = {
        path.stem.rsplit("_", 1)[-1]: core.entries(path)
        for path in core.within(source, "*pope_*.json", "*.json", "*.jsonl")
    }
    given = core.entries(predictions)
    if questions is None:
        if len(labels) > 1:
            raise LabError(
                "needs --questions: the file that was run, with categories",
                where=predictions,
                fix="or give one split's annotations",
            )
        (split,) = labels
        asked = {split: [(e, e["question"], None) for e in given]}
        warnings = several_lines(given)
    else:
        asked, warnings = _asked(given, Path(questions))
    if asked.keys() != labels.keys():
        raise LabError(
            f"asks {', '.join(asked)}, but {source} holds {', '.join(labels)}",
            where=questions or predictions,
        )
    reads = {split: _aligned(asked[split], labels[split], source, variant) for split in labels}
    return _result(reads, labels, warnings)


def _asked(
    given: list[Entry], path: Path
) -> tuple[dict[str, list[tuple[Entry, str, str | None]]], list[str]]:
    """Split -> (answer, question, image) in the order of the questions file, and warnings.

    The official tool compares answers with labels one by one, and leaves out what comes after the
    last label: a question answered again there counts as answered first.
    """
    groups, warnings = by_id(given, "question_id", rule=FIRST)
    answers = {key: group[0] for key, group in groups.items()}
    found = core.index(core.entries(path), "question_id")
    if core.known(answers, found, path):
        absent = next(q for key, q in found.items() if key not in answers)
        raise LabError(
            f"question {absent['question_id']} has no answer",
            where=absent.where,
            fix="complete the run: the official tool matches by position",
        )
    asked: dict[str, list[tuple[Entry, str, str | None]]] = {}
    for key, question in found.items():
        text = question["text"]
        if "prompt" in answers[key].row:
            core.aligned(answers[key], answers[key]["prompt"], text)
        row = (answers[key], text.removesuffix(SUFFIX), question["image"])
        asked.setdefault(question["category"], []).append(row)
    _refuse_between(given, {key: question["category"] for key, question in found.items()}, asked)
    return asked, warnings


def _refuse_between(given: list[Entry], splits: dict[str, str], asked: dict[str, list]) -> None:
    """Refuse a repeated answer that pushes later ones of its split to other questions' labels."""
    seen: dict[str, set[str]] = {split: set() for split in asked}
    for entry in given:
        key = str(entry["question_id"])
        of_split = seen[splits[key]]
        if key in of_split and len(of_split) < len(asked[splits[key]]):
            raise LabError(
                f"question {key} stands twice, before other answers of its split",
                where=entry.where,
                fix="keep one answer a question: the official tool matches by position",
            )
        of_split.add(key)


def _aligned(
    asked: list[tuple[Entry, str, str | None]], labels: list[Entry], source: Path, variant: str
) -> list[str]:
    reads = []
    for number, (answer, text, image) in enumerate(asked):
        if number == len(labels):
            raise LabError(f"{source} holds only {number} labels", where=answer.where)
        label = labels[number]
        core.aligned(answer, text, label["text"])
        if image not in (None, label["image"]):
            raise LabError(
                f"is about {image}, but {label.where} about {label['image']}",
                where=answer.where,
                fix="the files are out of step: use POPE@e3e3926",
            )
        if label["label"] not in ("yes", "no"):
            raise LabError(f"the label is {label['label']!r}, not yes or no", where=label.where)
        reads.append(parse(answer.text("text", "answer"), variant))
    if len(labels) > len(asked):
        raise LabError(
            "has no answer",
            where=labels[len(asked)].where,
            fix="the files are out of step: use the version that was run",
        )
    return reads


def _result(
    reads: dict[str, list[str]], labels: dict[str, list[Entry]], warnings: list[str]
) -> dict[str, Any]:
    splits, columns, images = list(reads), [], []
    for number, split in enumerate(splits):
        for read, label in zip(reads[split], labels[split], strict=True):
            row = np.zeros((len(splits), 4))
            # an answer that is neither (variant exact_word) is wrong without being a "yes"
            cells = {("yes", "yes"): 0, ("yes", "no"): 1, ("no", "no"): 2}
            row[number, cells.get((read, label["label"]), 3)] = 1
            columns.append(row.ravel())
            images.append(label["image"])
    sums = jackknife.by_cluster(images, np.array(columns)).reshape(-1, len(splits), 4)
    scores: dict[str, Any] = {}
    for number, split in enumerate(splits):
        cells = sums[:, number].sum(0)
        counts = dict(zip(CELLS, map(int, cells), strict=True))
        values = {name: float(value) for name, value in metrics(cells).items()}
        scores[split] = {"n": int(cells.sum()), **counts, **values}
    f1 = [scores[split]["f1"] for split in splits]
    return core.result(
        scores
        | {"mean_f1": sum(f1) / len(f1), "pooled_f1": float(metrics(sums.sum((0, 1)))["f1"])},
        unparsed=Counter(r for split in reads.values() for r in split)["other"],
        missing=0,
        intervals={
            "mean_f1": jackknife.interval(lambda s: metrics(s)["f1"].mean(-1), sums, 1.0),
            **{
                s: {"f1": jackknife.interval(lambda t: metrics(t)["f1"], sums[:, n], 1.0)}
                for n, s in enumerate(splits)
            },
        },
        clustered_by="image",
        clusters=len(sums),
        warnings=warnings,
    )
