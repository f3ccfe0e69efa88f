"""A run's answers as numbers: the benchmarks' scores, points by image, the bias towards yes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgv_lab.benchmarks import HEADLINES, core, exam, mmbench, mme

SUBTASKS = ("existence", "count", "position", "color", "scene")
POINTS = {"yesno": "Yes/no", "open": "Open"}  # forms of the exam with points by image
SEEN = "MME-P seen"  # MME-P of SUBTASKS: what the first instrument's base could answer
PLAIN = {SEEN: "MME-P (what the base can answer)"}  # where people read it
UNITS = {"MME-P": "points", "MME-C": "points", SEEN: "points"}  # all others: percent
BIAS = "yes-bias"  # percentage points of MME's answers; 50: always yes
EXAM_BIAS = "Yes/no bias"  # the same of the exam's


def metrics(benchmark: str, scores: Mapping[str, Any] | None, answers: Path) -> dict[str, float]:
    """What a record keeps of a benchmark: headlines, yes-bias, MME's subtasks, exam's abilities.

    ``scores``: None where the answers are for a server to judge, as VQAv2's test-dev: {}.
    """
    if scores is None:
        return {}
    kept = {name: factor * scores[k] for k, name, factor in HEADLINES[benchmark] if k in scores}
    if benchmark == "mme":
        kept |= {f"MME {name}": scores[name] for name in mme.OFFICIAL_QUESTIONS if name in scores}
        _, _, answered, truth = zip(*_mme(answers), strict=True)
        kept[BIAS] = yes_bias(answered, truth)
    if benchmark == "exam":
        kept |= {
            f"{name} {ability}": value
            for form, name in POINTS.items()
            for ability, value in scores["abilities"][form].items()
        }
        kept[EXAM_BIAS] = scores["yes_bias"]
    return {name: round(float(value), 4) for name, value in kept.items()}


def yes_bias(answers: Sequence[str], truth: Sequence[str]) -> float:
    """Share of "yes" among answers minus that among the true ones, in percentage points."""
    said, true = ([one == "yes" for one in column] for column in (answers, truth))
    return 100 * float(np.mean(said) - np.mean(true))


def _mme(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """(subtask, image, answer, truth) of a submission, the answer as MME's own tool reads it."""
    for path in sorted((folder / "mme").glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            image, _, truth, answer = line.split("\t")
            yield path.stem, image, mme.parse(f"{answer}\n"), truth.lower()


def points(benchmark: str, answers: Path) -> pd.DataFrame:
    """Points by image: score, stratum, image, points; of MME, MMBench and the exam.

    A score is the sum over its strata of the mean points: MME's subtasks at 0 to 200 an image,
    MMBench's circular groups at 0 or 100, the exam's abilities at 0 to 100 over their number.
    """
    columns = ["score", "stratum", "image", "points"]
    rows: list[tuple[str, str, str, float]] = []
    if benchmark == "mme":
        table = pd.DataFrame(_mme(answers), columns=["subtask", "image", "answer", "truth"])
        table["right"] = table["answer"] == table["truth"]
        for (subtask, image), right in table.groupby(["subtask", "image"])["right"]:
            score = "MME-P" if subtask in mme.PERCEPTION else "MME-C"
            rows.append((score, subtask, image, 100 * right.mean() + 100 * right.all()))
    if benchmark == "mmbench":
        truth = core.index(core.rows(answers / "questions.jsonl"), "index")
        given = core.index(core.rows(answers / "mmbench.jsonl"), "question_id")
        for key, members in mmbench.circular_groups(truth, answers).items():
            right = [
                mmbench.extract(given[k].text("text"), mmbench.options(truth[k].row))
                == truth[k]["answer"]
                for k in members
            ]
            rows.append(("MMB", "", key, 100 * np.all(right)))
    if benchmark == "exam":
        marked, *_ = exam.answered(answers / "answers.jsonl", answers / "questions.jsonl")
        table = pd.DataFrame(marked)
        for form, score in POINTS.items():
            part = table[(table["form"] == form) & table["ability"].isin(exam.PRIMARY)]
            each = 100 / max(1, part["ability"].nunique())
            for (ability, image), right in part.groupby(["ability", "image"])["right"]:
                rows.append((score, ability, image, each * right.mean()))
    return pd.DataFrame(rows, columns=columns)
