"""LLaVA-Bench in the Wild: a judge's two marks; the ratio of the model's mean to the reference's.

Rules: LLaVA eval_gpt_review_bench.py (prompt, parse) and summarize_gpt_review.py (ratio of means,
each mean rounded to three decimals first). A review that cannot be read is [-1, -1] and counts.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import EACH, by_id
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError

VARIANTS = ()
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."


def parse(review: str) -> list[float]:
    """The two numbers on a review's first line (a comma is a blank), or [-1, -1]."""
    parts = review.split("\n")[0].replace(",", " ").split(" ")
    try:
        first, second = map(float, parts)
    except ValueError:
        return [-1, -1]
    return [first, second]


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Summarise a review file, or a folder of them (several runs of one judge: mean of "all").

    Each category is [relative %, reference × 10, model × 10, reviews]. With ``questions``
    (questions.jsonl) the intervals are clustered by image and absent reviews counted.
    """
    asked = questions or annotations
    files = core.within(predictions, "*.jsonl")
    runs = {path.stem: _score(path, asked) for path in files}
    if len(files) == 1:
        return runs[files[0].stem]
    judges = {run["judge"] for run in runs.values()}
    if len(judges) > 1:
        raise LabError(
            f"reviews of {', '.join(map(str, judges))} share a column",
            where=predictions,
            fix="keep one folder a judge",
        )
    mean = float(np.mean([run["all"][0] for run in runs.values()]))
    return {
        "mean": mean,
        "runs": runs,
        **{key: sum(run[key] for run in runs.values()) for key in ("unparsed", "missing")},
    }


def _score(path: Path, questions: str | Path | None) -> dict[str, Any]:
    reviews = core.entries(path)
    given, warnings = by_id(reviews, "question_id", rule=EACH)
    images, missing = [str(entry["question_id"]) for entry in reviews], 0
    if questions is not None:
        found = core.index(core.entries(questions), "question_id")
        missing = core.known({key: group[0] for key, group in given.items()}, found, questions)
        images = [found[key]["image"] for key in images]
    marks, groups = [], defaultdict(list)
    for number, entry in enumerate(reviews):
        marks.append(_marks(entry))
        groups["all"].append(number)
        groups[entry["category"]].append(number)
    judges = {entry.row.get("judge") for entry in reviews}
    if len(judges) > 1:
        raise LabError(f"reviews of {judges} share a column", where=path)
    table = np.array(marks)
    scores = {name: _summary(table[rows]) for name, rows in sorted(groups.items())}
    sums = jackknife.by_cluster(images, table[:, ::-1])
    return core.result(
        scores,
        unparsed=int((table[:, 0] < 0).sum()),
        missing=missing,
        intervals={"all": jackknife.interval(jackknife.ratio(), sums)},
        clustered_by="question" if questions is None else "image",
        clusters=len(sums),
        warnings=warnings,
        judge=judges.pop(),
    )


def _marks(entry: Entry) -> list[float]:
    marks = entry.first("tuple", "score")
    if not (
        isinstance(marks, list)
        and len(marks) == 2
        and all(isinstance(mark, int | float) for mark in marks)
    ):
        raise LabError(f"the marks {marks!r} are not two numbers", where=entry.where)
    return marks


def _summary(table: np.ndarray) -> list[float]:
    reference, model = (round(mean, 3) for mean in table.mean(0).tolist())
    relative = model / reference * 100
    return [round(relative, 1), round(reference * 10, 1), round(model * 10, 1), len(table)]


def judge_messages(
    caption: str, question: str, reference: str, answer: str, rule: dict[str, str]
) -> list[dict[str, str]]:
    """The chat that asks for two marks; the reference answer always comes first.

    ``rule`` is the entry "llava_bench_<category>" of the release's rule.json.
    """
    role = rule["role"]
    content = (
        f"[Context]\n{caption}\n\n[Question]\n{question}\n\n"
        f"[{role} 1]\n{reference}\n\n[End of {role} 1]\n\n"
        f"[{role} 2]\n{answer}\n\n[End of {role} 2]\n\n[System]\n{rule['prompt']}\n\n"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
