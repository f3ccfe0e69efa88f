"""MM-Vet: a judge's grades in [0, 1]; 100 × their mean, by capability and capability set.

Rules and prompt: yuweihao/MM-Vet mm-vet_evaluator.py. Absolute values hold for one judge only.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import LAST
from sgv_lab.benchmarks.core import Given
from sgv_lab.errors import LabError

VARIANTS = ()
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
TRIES = 5  # then the grade is 0


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Aggregate a grades file {id: {model, content, score}} (one list element a judge run).

    ``annotations`` is mm-vet.json, or {id: capabilities}. Columns are rounded to one decimal as
    export_result does; a question without grade counts 0. Raises LabError for grades of different
    judges, or of different numbers of runs.
    """
    source = core.need(annotations or questions, "--annotations", "mm-vet.json")
    asked = core.keyed(source, "capability")
    capabilities = {key: frozenset(entry["capability"]) for key, entry in asked.items()}
    repeated: list[str] = []
    grades = core.keyed(predictions, "score", repeated)
    warnings = [f"the key {k!r} stands more than once: {LAST}, as in Python" for k in repeated]
    for entry in grades.values():
        given = entry["score"] if isinstance(entry["score"], list) else [None]
        if not all(isinstance(grade, int | float) and 0 <= grade <= 1 for grade in given):
            what = f"the grades are {entry['score']}, not a list of numbers in [0, 1]"
            raise LabError(what, where=entry.where)
    missing = core.known(grades, capabilities, source)
    judges = {str(name) for entry in grades.values() for name in entry["model"]}
    if len(judges) > 1:
        raise LabError(
            f"grades of {', '.join(sorted(judges))} share a column",
            where=predictions,
            fix="keep one file a judge",
        )
    runs = {len(entry["score"]) for entry in grades.values()}
    if len(runs) != 1:
        raise LabError(
            f"questions have {sorted(runs)} runs", where=predictions, fix="finish the grading"
        )
    table = np.zeros((len(capabilities), *runs))
    for row, key in enumerate(capabilities):
        if key in grades:
            table[row] = grades[key]["score"]
    failed = sum(_number(c) is None for e in grades.values() for c in e["content"])
    return _result(table, capabilities, failed, missing, warnings, *judges)


def _number(content: str) -> float | None:
    """The judge's grade: the first word as a number in [0, 1], or None."""
    try:
        value = float(content.split(" ")[0].strip())
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _result(
    table: np.ndarray,
    capabilities: dict[str, frozenset[str]],
    failed: int,
    missing: int,
    warnings: list[str],
    judge: str,
) -> dict[str, Any]:
    groups: dict[str, list[int]] = defaultdict(list)
    sets: dict[str, list[int]] = defaultdict(list)
    for row, names in enumerate(capabilities.values()):
        for name in names:
            groups[name].append(row)
        sets["_".join(sorted(names))].append(row)

    def per_run(rows: list[int]) -> np.ndarray:  # one grade after the other, as the official sum
        return sum(table[rows]) / len(rows) * 100

    def column(rows: list[int]) -> float:
        return round(float(per_run(rows).mean()), 1)

    totals = per_run(list(range(len(table))))
    scores = {name: column(groups[name]) for name in CAPABILITIES if name in groups} | {
        "total": round(float(totals.mean()), 1),
        "runs": [round(float(total), 1) for total in totals],
        "std": round(float(totals.std()), 1),
        "total_exact": float(totals.mean()),
        "integration": {name: column(rows) for name, rows in sorted(sets.items())},
    }
    return core.result(
        scores,
        unparsed=failed,
        missing=missing,
        intervals={"total": jackknife.mean_interval(table.mean(1), list(capabilities))},
        clustered_by="question",
        clusters=len(table),
        warnings=warnings,
        judge=judge,
    )


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
