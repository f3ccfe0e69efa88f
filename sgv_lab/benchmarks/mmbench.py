"""MMBench and MMBench-CN: CircularEval accuracy over letter answers.

Rules: opencompass tools/eval_mmbench.py, VLMEvalKit utils/multiple_choice.py (the extraction of
letters from prose; what it cannot read would go to an LLM there and is wrong here), prompt:
ShareGPT4V model_vqa_mmbench.py. The legacy files hold the rotations as index + k·10^6.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import EACH, LAST, by_id
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError

log = logging.getLogger(__name__)
VARIANTS = ("vanilla_first_pass", "vanilla_all_rows", "exact_letter")
LETTERS = "ABCD"
ROTATION = 10**6
SUFFIX = {
    "en": "\nAnswer with the option's letter from the given choices directly.",
    "cn": "\n请直接回答选项字母。",
}
DROPPED = {"hint", "category", "source", "image", "comment", "l2-category"}  # for submission


def options(row: Mapping[str, str]) -> dict[str, str]:
    """The options A, B, … of a row, up to the first that is empty, "nan" or "None"."""
    found = {}
    for letter in LETTERS:
        text = str(row.get(letter) or "")
        if text.lower() in ("", "nan", "none"):
            break
        found[letter] = text
    return found


def prompt(row: Mapping[str, str], language: str = "en") -> str:
    """Hint, question, options and the letter instruction, one a line."""
    hint = str(row.get("hint") or "")
    lines = [hint] if hint.lower() not in ("", "nan", "none") else []
    lines += [row["question"], *(f"{k}. {v}" for k, v in options(row).items())]
    return "\n".join(lines) + SUFFIX[language]


def extract(answer: str, choices: Mapping[str, str]) -> str | None:
    """The option letter an answer names: the letter, one letter among its words, or one text.

    "A" in a longer sentence is an article, not an option. None where nothing, or more than one
    option, is found.
    """
    answer = answer.strip()
    if answer in choices:
        return answer
    words = "".join(" " if c in ".()[],:;!*#{}" else c for c in answer).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and not ("A" in words and len(words) > 3):
        return named[0]
    held = [letter for letter, text in choices.items() if text.lower() in answer.lower()]
    return held[0] if len(held) == 1 else None


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """CircularEval of a submission (.xlsx, .tsv with ``prediction``) or of LLaVA's answers file.

    ``annotations`` (or ``questions``) is the benchmark's TSV; without it the submission itself must
    hold ``answer``. Category accuracies need the TSV. Raises LabError for files out of step.
    """
    given = core.rows(predictions)
    table = "index" in given[0].row  # LLaVA's script that makes it one lets the last answer count
    rule = EACH if table else LAST
    answers, warnings = by_id(given, "index", "question_id", rule=rule)
    answers = answers if table else {key: group[-1:] for key, group in answers.items()}
    first = {key: group[0] for key, group in answers.items()}
    source = annotations or questions
    truth = core.index(core.rows(source), "index", name="index") if source else first
    missing = core.known(first, truth, source or predictions)
    reads = {key: [_read(a, truth[key], variant) for a in group] for key, group in answers.items()}
    right = {
        key: [read == entry.first("answer") for read in reads.get(key, [None])]
        for key, entry in truth.items()
    }
    groups = circles(truth, predictions)
    first_pass = [(key, one) for key in groups for one in right[key]]
    all_rows = [(key, one) for key in right for one in right[key]]
    circular = [
        (key, all(one for member in members for one in right[member]))
        for key, members in groups.items()
        for _ in right[key]
    ]
    by_variant = {"vanilla_first_pass": first_pass, "vanilla_all_rows": all_rows}
    overall = by_variant.get(variant, circular)
    clusters = [int(key) % ROTATION for key, _ in overall]
    scores: dict[str, Any] = {
        "accuracy": _percent(overall),
        "correct": sum(one for _, one in overall),
        "n": len(overall),
        "vanilla_first_pass": _percent(first_pass),
        "vanilla_all_rows": _percent(all_rows),
    }
    for column in ("l2-category", "category"):
        if all(column in truth[key].row for key in groups):
            scores[column] = core.means((truth[key][column], one) for key, one in overall)
    return core.result(
        scores,
        unparsed=sum(read is None for group in reads.values() for read in group),
        missing=missing,
        intervals={"accuracy": jackknife.mean_interval([one for _, one in overall], clusters)},
        clustered_by="circular group",
        clusters=len(groups),
        warnings=warnings,
    )


def _percent(outcome: list[tuple[str, bool]]) -> float:
    return 100 * sum(one for _, one in outcome) / len(outcome)


def _read(answer: Entry, truth: Entry, variant: str) -> str | None:
    if "question" in answer.row:
        core.aligned(answer, answer["question"], truth["question"])
    text = answer.text("prediction", "text")
    choices = options(truth.row)
    if variant == "exact_letter":
        return text if text in choices else None
    return extract(text, choices)


def circles(truth: Mapping[str, Entry], source: object) -> dict[str, list[str]]:
    """Question index (below 10^6) -> indices of its rotations; LabError for a group without it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, entry in truth.items():
        if not key.isdecimal():
            raise LabError(f"the index {key!r} is not a number", where=entry.where)
        groups[str(int(key) % ROTATION)].append(key)
    for key, members in groups.items():
        if key not in members:
            raise LabError(
                f"index {members[0]} is a rotation of {key}, which is not in {source}",
                where=truth[members[0]].where,
                fix="keep all rotations of a question together",
            )
    return dict(groups)


def submission(rows: Iterable[Mapping[str, str]], answers: Mapping[str, str], path: Path) -> None:
    """The official .xlsx: the TSV's columns without ``DROPPED``, and ``prediction``.

    Text is written as text: an answer or option "=x+1" is no formula, "#N/A" no error. Control
    characters, which no worksheet can hold, are left out.
    """
    try:
        import openpyxl
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ModuleNotFoundError:  # it can be written later, from the same answers
        log.warning("no %s to submit: run `pip install openpyxl`, then the same again", path.name)
        return

    book = openpyxl.Workbook()
    for number, row in enumerate(rows):
        kept = {key: value for key, value in row.items() if key not in DROPPED}
        cells = list((kept | {"index": int(row["index"])}).items())
        cells.insert(6, ("prediction", answers[str(row["index"])]))  # the official place: after D
        if not number:
            book.active.append([name for name, _ in cells])
        for column, (_, value) in enumerate(cells, 1):
            text = isinstance(value, str)
            value = ILLEGAL_CHARACTERS_RE.sub("", value) if text else value
            cell = book.active.cell(number + 2, column, value)
            cell.data_type = "s" if text else cell.data_type
    book.save(path)
