"""MM-Vet: a judge's grades in [0, 1]; 100 × their mean, by capability and capability set.

Rules and prompt: yuweihao/MM-Vet mm-vet_evaluator.py. Absolute values hold for one judge only.
"""

from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import File
from sgv_lab.errors import LabError
from sgv_lab.intervals import clustered_mean

VARIANTS = ()
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
TRIES = 5  # then the grade is 0


def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Aggregate a grades file {id: {model, content, score}} (one list element a judge run).

    ``annotations`` is mm-vet.json, or {id: capabilities}. Columns are rounded to one decimal as
    export_result does; a question without grade counts 0.
    """
    source = core.require(annotations or questions, "mm-vet.json")
    asked = core.keyed(source, "capability")
    grades = core.keyed(predictions, "score", repeated=[])
    grades.against(asked, source)
    for entry in grades.values():
        given = entry["score"] if isinstance(entry["score"], list) else [None]
        if not all(isinstance(grade, int | float) and 0 <= grade <= 1 for grade in given):
            what = f"the grades are {entry['score']}, not a list of numbers in [0, 1]"
            raise entry.error(what)
    judges = sorted({str(name) for entry in grades.values() for name in entry["model"]})
    core.check_one_judge(judges, predictions)
    runs = sorted({len(entry["score"]) for entry in grades.values()})
    if len(runs) > 1:
        raise LabError(f"questions have {runs} runs", where=predictions, fix="finish the grading")
    table = np.array([grades[key]["score"] if key in grades else [0.0] * runs[0] for key in asked])
    scores = _columns(table, [entry["capability"] for entry in asked.values()])
    scores["judge"] = judges[0]
    unparsed = sum(_number(c) is None for e in grades.values() for c in e["content"])
    intervals = {"total": clustered_mean(table.mean(1), list(asked))}
    return core.result(scores, grades, unparsed, intervals, "question", asked)


def _columns(table: np.ndarray, capabilities: list[list[str]]) -> dict[str, Any]:
    """The columns of export_result for (questions, runs) grades."""
    known = [(row, sorted(set(names))) for row, names in enumerate(capabilities)]
    groups = core.grouped((name, row) for row, names in known for name in names)
    sets = core.grouped(("_".join(names), row) for row, names in known)

    def per_run(rows: list[int]) -> np.ndarray:  # one grade after the other, as the official sum
        return sum(table[rows]) / len(rows) * 100

    def column(rows: list[int]) -> float:
        return round(float(per_run(rows).mean()), 1)

    totals = per_run(list(range(len(table))))
    return {name: column(groups[name]) for name in CAPABILITIES if name in groups} | {
        "total": round(float(totals.mean()), 1),
        "runs": [round(float(total), 1) for total in totals],
        "std": round(float(totals.std()), 1),
        "total_exact": float(totals.mean()),
        "integration": {name: column(rows) for name, rows in sorted(sets.items())},
    }


def _number(content: str) -> float | None:
    """The judge's grade: the first word as a number in [0, 1], or None."""
    try:
        value = float(content.split(" ")[0].strip())
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def judge_messages(question: str, truth: str, answer: str, few_shot: str) -> list[dict[str, str]]:
    """The chat that asks for one grade: the few-shot table ``few_shot``, then the new row."""
    truth = truth.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    row = " | ".join([question, truth, answer, ""])
    return [{"role": "user", "content": few_shot + "\n" + row}]


def grade(ask: Any, messages: list[dict[str, str]]) -> tuple[str, str, float]:
    """(judge's name, its words, grade): up to five tries with rising temperature, then 0.0.

    ``ask(messages, temperature, max_tokens)`` returns (name, text).
    """
    name, content = ask(messages, 0.0, 3)
    retry = messages[0]["content"] + "\nPredict the correctness of the answer (digit): "
    for attempt in range(TRIES - 1):
        if _number(content) is not None:
            break
        name, content = ask([{"role": "user", "content": retry}], 0.5 * attempt, 3)
    value = _number(content)
    return name, content.split(" ")[0].strip(), 0.0 if value is None else value
