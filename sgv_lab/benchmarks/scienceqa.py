"""ScienceQA: the official nine columns; ``IMG`` is the paper's SQA-I.

Rules: lupantech/ScienceQA tools/evaluate_acc.py (columns), LLaVA eval_science_qa.py (reading of an
answer; what cannot be read is wrong), prompt: LLaVA's llava_test_CQM-A.json.
"""

import re
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import LAST, by_id
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError

VARIANTS = ("lenient_letter", "stored")  # lmms-eval's reading; the result file's own "acc"
LETTERS = "ABCDE"
COLUMNS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "AVG")
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
SUFFIX = "\nAnswer with the option's letter from the given choices directly."


def parse(text: str, choices: int, variant: str = OFFICIAL) -> int | None:
    """The index of the choice an answer names, or None (a letter beyond the choices included).

    A lone letter, "X. …", or exactly one "The answer is X."; ``lenient_letter`` takes "x" and
    "X." as well but no "The answer is".
    """
    if variant == "lenient_letter":
        found = re.match(r"([A-Ea-e])(?:\.|$)", text.strip())
        letter = found[1].upper() if found else ""
    elif text in tuple(LETTERS):
        letter = text
    elif text[1:3] == ". " and text[0] in LETTERS:
        letter = text[0]
    else:
        said = re.findall(r"The answer is ([A-Z]).", text)
        letter = said[0] if len(said) == 1 else ""
    return LETTERS.index(letter) if letter in tuple(LETTERS[:choices]) else None


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score LLaVA's answers file, or a result file {"results": {id: choice index}} by recount.

    The truth is ``annotations``: problems.json with pid_splits.json beside it, or the folder of
    either layout, or (with ``questions`` = llava_test_CQM-A.json) a table of question_id, grade and
    subject. Raises LabError for an answer to an unknown question.
    """
    problems = _problems(annotations, questions)
    stored, reads, prompted, warnings = _reads(Path(predictions), problems, variant)
    right = {key: reads.get(key) == p["answer"] for key, p in problems.items()}
    scores: dict[str, Any] = {}
    for column in COLUMNS:
        part = [right[key] for key, problem in problems.items() if column in problem["columns"]]
        scores[column] = _share(part)
    if variant == "stored":
        scores["AVG"] |= {"accuracy": stored}
    if prompted is not None:  # LLaVA's own count: prompts that held <image>
        scores["IMG_prompted"] = _share([right[key] for key in prompted])
    images = [key for key, problem in problems.items() if "IMG" in problem["columns"]]
    missing = [key for key in problems if key not in reads]
    return core.result(
        scores,
        unparsed=sum(read is None for read in reads.values()),
        missing=len(missing),
        intervals={
            "IMG": jackknife.mean_interval([right[key] for key in images], images)
            if images
            else None,
            "AVG": jackknife.mean_interval(list(right.values()), list(right)),
        },
        clustered_by="question",  # each has its own picture
        clusters=len(problems),
        warnings=warnings,
    )


def _share(right: list[bool]) -> dict[str, Any]:
    share = round(100 * sum(right) / len(right), 4) if right else None
    return {"correct": sum(right), "n": len(right), "accuracy": share}


def _reads(
    path: Path, problems: dict[str, Any], variant: str
) -> tuple[Any, dict[str, int | None], list[str] | None, list[str]]:
    """(stored accuracy, choice index by id, ids whose prompt held <image> or None, warnings)."""
    found = core.rows(path)
    if "results" in found[0].row:
        results = {
            str(k): Entry(f"{path}, {k}", {"choice": v}) for k, v in found[0]["results"].items()
        }
        core.known(results, problems, "the problems")
        return found[0].row.get("acc"), {k: e["choice"] for k, e in results.items()}, None, []
    groups, warnings = by_id(found, "question_id", rule=LAST)
    answers = {key: group[-1] for key, group in groups.items()}
    core.known(answers, problems, "the problems")
    reads = {}
    for key, entry in answers.items():
        reads[key] = parse(entry.text("text", "prediction"), problems[key]["choices"], variant)
        if "prompt" in entry.row and "prompt" in problems[key]:
            said = entry["prompt"].replace("<image>", "").removesuffix(SUFFIX)
            core.aligned(entry, said, problems[key]["prompt"].replace("<image>", ""))
    if not all("prompt" in entry.row for entry in answers.values()):
        return None, reads, None, warnings
    prompted = [key for key, e in answers.items() if "<image>" in e["prompt"]]
    return None, reads, prompted, warnings


def _problems(annotations: str | Path | None, questions: str | Path | None) -> dict[str, Any]:
    """id -> answer (index), choices (number), columns it counts in, prompt (where known)."""
    source = core.need(annotations or questions, "--annotations", "problems.json or its folder")
    folder = source if source.is_dir() else source.parent
    listing = source if source.name == "problems.json" else folder / "problems.json"
    if listing.is_file():
        return _official(listing)
    rows = core.within(source if source.suffix == ".csv" else folder, "*grade_subject*.csv")[0]
    converted = core.within(questions or folder, "llava_test*.json")[0]
    return _converted(converted, rows)


def _columns(subject: str, grade: int, hint: bool, image: bool) -> set[str]:
    """The columns of evaluate_acc.py a question counts in; TXT and IMG overlap."""
    named = {SUBJECTS[subject], "G1-6" if grade <= 6 else "G7-12", "AVG"}
    named |= {"TXT"} if hint else set()
    named |= {"IMG"} if image else set()
    return named if hint or image else named | {"NO"}


def _official(listing: Path) -> dict[str, Any]:
    splits = core.read_json(listing.parent / "pid_splits.json")
    problems = core.read_json(listing)
    return {
        key: {
            "answer": problems[key]["answer"],
            "choices": len(problems[key]["choices"]),
            "columns": _columns(
                problems[key]["subject"],
                int(problems[key]["grade"].removeprefix("grade")),
                bool(problems[key]["hint"]),
                problems[key]["image"] is not None,
            ),
        }
        for key in splits["test"]
    }


def _converted(path: Path, table: Path) -> dict[str, Any]:
    """The test set from LLaVA's conversion and a table of grades and subjects."""
    about = core.index(core.table(table), "question_id")
    problems = {}
    for key, entry in core.index(core.entries(path), "id").items():
        human, truth = (turn["value"] for turn in entry["conversations"])
        if key not in about:
            raise LabError(f"question {key} has no row in {table}", where=entry.where)
        text = human.replace("<image>", "").strip()
        problems[key] = {
            "answer": LETTERS.index(truth),
            "choices": len(re.findall(r"^[A-E]\. ", human, re.MULTILINE)),
            "columns": _columns(
                about[key]["subject"],
                int(about[key]["grade"]),
                text.startswith("Context: "),
                "image" in entry.row,
            ),
            "prompt": human,
        }
    return problems
