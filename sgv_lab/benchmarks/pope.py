"""POPE: is an object in the image; F1 of "yes" per negative-sampling split, and their mean.

Rules: AoiDragon/POPE evaluate.py and LLaVA eval_pope.py (identical). Labels are matched by
position there, so every question is compared with its label's before anything is counted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import EACH, FIRST, Answers, Entry, File
from sgv_lab.errors import LabError
from sgv_lab.intervals import by_cluster_and_group, clustered

VARIANTS = ("exact_word",)  # lmms-eval: the answer must be "yes" or "no" (and one pooled F1)
SUFFIX = core.SHORT_ANSWER
CELLS = ("TP", "FP", "TN", "FN")
Asked = tuple[Entry, str, str | None]  # an answer, its question, its image where that is known
Outcome = tuple[str, str, str, str]  # split, image, answer as it was read, label


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

    ``annotations`` is the folder of coco_pope_<split>.json, or one of them. Another harness's rows
    hold category and truth, and need neither.
    """
    given = core.rows(predictions)
    if annotations is None and {"category", "answer"} <= given[0].row.keys():
        return _result(*_of_harness(given, variant))
    source = core.require(annotations, "coco_pope_<split>.json, or their folder")
    labels = {
        path.stem.rsplit("_", 1)[-1]: core.entries(path)
        for path in core.find_files(source, "*pope_*.json", "*.json", "*.jsonl")
    }
    if questions is not None:
        answers, asked = _by_category(given, Path(questions))
    elif len(labels) == 1:
        numbered = [Entry(e.where, e.row | {"number": n}) for n, e in enumerate(given)]
        answers = Answers(numbered, "number", rule=FIRST)
        asked = {split: [(entry, entry["question"], None) for entry in given] for split in labels}
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
    return _result(answers, outcomes)


def _of_harness(given: list[Entry], variant: str) -> tuple[Answers, list[Outcome]]:
    """The same of rows with their own truth; a question may be of several splits, "a,b"."""
    rows, outcomes = [], []
    for entry in given:
        text = entry.text("prediction", "text")
        image = str(entry.first("image_path", "image_source", "index"))
        if (label := entry["answer"].lower()) not in ("yes", "no"):
            raise entry.error(f"the truth is {entry['answer']!r}, not Yes or No")
        for split in entry["category"].split(","):
            about = {"id": (split, image, entry["question"]), "text": text}
            rows.append(Entry(entry.where, about))
            outcomes.append((split, image, parse(text, variant), label))
    return Answers(rows, "id", rule=EACH), outcomes


def _by_category(given: list[Entry], path: Path) -> tuple[Answers, dict[str, list[Asked]]]:
    """The answers, and by split in the order of the questions file.

    The official tool compares answers with labels one by one, and leaves out what comes after the
    last label: a question answered again there counts as answered first.
    """
    answers = Answers(given, "question_id", rule=FIRST)
    questions = core.index(core.entries(path), "question_id")
    answers.against(questions, path, said="prompt", asked="text")
    if answers.missing:
        absent = next(key for key in questions if key not in answers)
        what = f"question {absent} has no answer"
        fix = "complete the run: the official tool matches by position"
        raise questions[absent].error(what, fix=fix)
    asked: dict[str, list[Asked]] = core.grouped(
        (q["category"], (answers[key], q["text"].removesuffix(SUFFIX), q["image"]))
        for key, q in questions.items()
    )
    seen: dict[str, set[str]] = {split: set() for split in asked}
    for entry in given:  # one that stands twice pushes later ones of its split to others' labels
        key = str(entry["question_id"])
        split = questions[key]["category"]
        if key in seen[split] and len(seen[split]) < len(asked[split]):
            what = f"question {key} stands twice, before other answers of its split"
            fix = "keep one answer a question: the official tool matches by position"
            raise entry.error(what, fix=fix)
        seen[split].add(key)
    return answers, asked


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


def _result(answers: Answers, outcomes: list[Outcome]) -> dict[str, Any]:
    splits, images, *read_as = zip(*outcomes, strict=True)
    names = list(dict.fromkeys(splits))
    # an answer that is neither (variant exact_word) is wrong without being a "yes"
    cells = {("yes", "yes"): 0, ("yes", "no"): 1, ("no", "no"): 2}
    counts = np.eye(len(CELLS))[[cells.get(pair, 3) for pair in zip(*read_as, strict=True)]]
    sums = by_cluster_and_group(images, splits, counts)
    totals = sums.sum(0)
    scores: dict[str, Any] = {}
    intervals: dict[str, Any] = {
        "mean_f1": clustered(lambda s: metrics(s)["f1"].mean(-1), sums, 1.0)
    }
    for number, split in enumerate(names):
        found = dict(zip(CELLS, map(int, totals[number]), strict=True))
        values = {name: float(value) for name, value in metrics(totals[number]).items()}
        scores[split] = {"n": sum(found.values()), **found, **values}
        intervals[split] = {"f1": clustered(lambda s: metrics(s)["f1"], sums[:, number], 1.0)}
    mean = sum(scores[split]["f1"] for split in names) / len(names)
    scores |= {"mean_f1": mean, "pooled_f1": float(metrics(totals.sum(0))["f1"])}
    return core.result(scores, answers, read_as[0].count("other"), intervals, "image", images)
