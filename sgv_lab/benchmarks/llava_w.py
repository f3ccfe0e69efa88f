"""LLaVA-Bench in the Wild: a judge's two marks; the ratio of the model's mean to the reference's.

Rules: LLaVA eval_gpt_review_bench.py (prompt, parse) and summarize_gpt_review.py (ratio of means,
each mean rounded to three decimals first). A review that cannot be read is [-1, -1] and counts.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import EACH, Answers, Entry, File
from sgv_lab.intervals import by_cluster, clustered, ratio

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
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Summarise a review file, or a folder of them (several runs of one judge: mean of "all").

    Each category is [relative %, reference × 10, model × 10, reviews]. With ``questions``
    (questions.jsonl) the intervals are clustered by image and absent reviews counted.
    """
    files = core.find_files(predictions, "*.jsonl")
    runs = {path.stem: _score(path, questions or annotations) for path in files}
    if len(files) == 1:
        return runs[files[0].stem]
    core.check_one_judge({run["judge"] for run in runs.values()}, predictions)
    mean = float(np.mean([run["all"][0] for run in runs.values()]))
    sums = {key: sum(run[key] for run in runs.values()) for key in ("unparsed", "missing")}
    return {"mean": mean, "runs": runs, **sums}


def _score(path: Path, questions: File) -> dict[str, Any]:
    reviews = core.entries(path)
    answers = Answers(reviews, "question_id", rule=EACH)
    clusters = [str(entry["question_id"]) for entry in reviews]
    if questions is not None:
        asked = core.index(core.entries(questions), "question_id")
        answers.against(asked, questions)
        clusters = [asked[key]["image"] for key in clusters]
    core.check_one_judge(judges := {entry.row.get("judge") for entry in reviews}, path)
    marks = np.array([_marks(entry) for entry in reviews])
    groups = core.grouped((entry["category"], number) for number, entry in enumerate(reviews))
    groups["all"] = list(range(len(reviews)))
    sums = by_cluster(clusters, marks[:, ::-1])
    scores: dict[str, Any] = {name: _summary(marks[n]) for name, n in sorted(groups.items())}
    scores["judge"] = judges.pop()
    unparsed, intervals = int((marks[:, 0] < 0).sum()), {"all": clustered(ratio(), sums)}
    by = "question" if questions is None else "image"
    return core.result(scores, answers, unparsed, intervals, by, clusters)


def _marks(entry: Entry) -> list[float]:
    marks = entry.first("tuple", "score")
    numbers = isinstance(marks, list) and all(isinstance(mark, int | float) for mark in marks)
    if not numbers or len(marks) != 2:
        raise entry.error(f"the marks {marks!r} are not two numbers")
    return marks


def _summary(marks: np.ndarray) -> list[float]:
    reference, model = (round(mean, 3) for mean in marks.mean(0).tolist())
    relative = model / reference * 100
    return [round(relative, 1), round(reference * 10, 1), round(model * 10, 1), len(marks)]


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
