"""ScienceQA: the official nine columns; ``IMG`` is the paper's SQA-I.

Rules: lupantech/ScienceQA tools/evaluate_acc.py (columns), LLaVA eval_science_qa.py (reading of an
answer; what cannot be read is wrong), prompt: LLaVA's llava_test_CQM-A.json.
"""

import re
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import LAST, Answers, Entry, File
from sgv_lab.intervals import clustered_mean

VARIANTS = ("lenient_letter",)  # lmms-eval's reading
LETTERS = "ABCDE"
COLUMNS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "AVG")
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
SUFFIX = core.LETTER_ANSWER


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
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score LLaVA's answers file, or a result file {"results": {id: choice index}} by recount.

    The truth is ``annotations``: problems.json with pid_splits.json beside it, or the folder of
    either layout, or (with ``questions`` = llava_test_CQM-A.json) a table of question_id, grade and
    subject.
    """
    problems = _problems(annotations, questions)
    given = core.rows(predictions)
    if "results" in (file := given[0]).row:
        rows = ({"question_id": key, "choice": n} for key, n in file["results"].items())
        given = [Entry(f"{predictions}, results", row) for row in rows]
    answers = Answers(given, "question_id", rule=LAST)
    answers.missing = core.check_ids(answers, problems, "the problems")
    reads = {key: _read(entry, problems[key], variant) for key, entry in answers.items()}
    right = {key: reads.get(key) == problem["answer"] for key, problem in problems.items()}
    columns = {
        name: [key for key, problem in problems.items() if name in problem["columns"]]
        for name in COLUMNS
    }
    if all("prompt" in entry.row for entry in answers.values()):
        # LLaVA's own count: prompts that held <image>
        columns["IMG_prompted"] = [k for k, e in answers.items() if "<image>" in e["prompt"]]
    scores = {name: _share([right[key] for key in keys]) for name, keys in columns.items()}
    intervals = {  # each question has its own image
        name: clustered_mean([right[key] for key in columns[name]], columns[name])
        for name in ("IMG", "AVG")
    }
    unparsed = list(reads.values()).count(None)
    return core.result(scores, answers, unparsed, intervals, "question", problems)


def _share(right: list[bool]) -> dict[str, Any]:
    share = round(core.percent(right), 4) if right else None
    return {"correct": sum(right), "n": len(right), "accuracy": share}


def _read(entry: Entry, problem: dict[str, Any], variant: str) -> int | None:
    if "choice" in entry.row:
        return entry["choice"]
    if "prompt" in entry.row and "prompt" in problem:
        said = entry["prompt"].replace("<image>", "").removesuffix(SUFFIX)
        core.check_same_question(entry, said, problem["prompt"].replace("<image>", ""))
    return parse(entry.text("text", "prediction"), problem["choices"], variant)


def _problems(annotations: File, questions: File) -> dict[str, dict[str, Any]]:
    """id -> answer (index), choices (number), columns it counts in, prompt (where known)."""
    source = core.require(annotations or questions, "problems.json or its folder")
    folder = source if source.is_dir() else source.parent
    listing = source if source.name == "problems.json" else folder / "problems.json"
    if listing.is_file():
        problems = core.keyed(listing, "problem")
        splits = core.read_json(listing.parent / "pid_splits.json")
        return {key: _official(problems[key]) for key in splits["test"]}
    grades = core.find_files(source if source.suffix == ".csv" else folder, "*grade_subject*.csv")
    converted = core.find_files(questions or folder, "llava_test*.json")
    return _converted(converted[0], grades[0])


def _official(problem: Entry) -> dict[str, Any]:
    grade = int(problem["grade"].removeprefix("grade"))
    hint, image = bool(problem["hint"]), problem["image"] is not None
    return {
        "answer": problem["answer"],
        "choices": len(problem["choices"]),
        "columns": _columns(problem["subject"], grade, hint, image),
    }


def _converted(path: Path, table: Path) -> dict[str, dict[str, Any]]:
    """The test set from LLaVA's conversion and a table of grades and subjects."""
    about = core.index(core.table(table), "question_id")
    problems = {}
    for key, entry in core.index(core.entries(path), "id").items():
        if key not in about:
            raise entry.error(f"question {key} has no row in {table}")
        human, truth = (turn["value"] for turn in entry["conversations"])
        subject, grade = about[key]["subject"], int(about[key]["grade"])
        hint = human.replace("<image>", "").strip().startswith("Context: ")
        problems[key] = {
            "answer": LETTERS.index(truth),
            "choices": len(re.findall(r"^[A-E]\. ", human, re.MULTILINE)),
            "columns": _columns(subject, grade, hint, "image" in entry.row),
            "prompt": human,
        }
    return problems


def _columns(subject: str, grade: int, hint: bool, image: bool) -> set[str]:
    """The columns of evaluate_acc.py a question counts in; TXT and IMG overlap."""
    named = {SUBJECTS[subject], "G1-6" if grade <= 6 else "G7-12", "AVG"}
    named |= {"TXT"} if hint else set()
    named |= {"IMG"} if image else set()
    return named if hint or image else named | {"NO"}
