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
    answers = core.index(core.rows(predictions), "index", "question_id", name="index")
    source = annotations or questions
    truth = core.index(core.rows(source), "index", name="index") if source else answers
    missing = core.known(answers, truth, source or predictions)
    reads = {key: _read(answers.get(key), entry, variant) for key, entry in truth.items()}
    right = {key: reads[key] == entry.first("answer") for key, entry in truth.items()}
    groups = circles(truth, predictions)
    circular = {key: all(right[k] for k in rows) for key, rows in groups.items()}
    first = {key: right[key] for key in groups}
    overall = {"vanilla_first_pass": first, "vanilla_all_rows": right}.get(variant, circular)
    clusters = [int(key) % ROTATION for key in overall]
    scores: dict[str, Any] = {
        "accuracy": 100 * sum(overall.values()) / len(overall),
        "correct": sum(overall.values()),
        "n": len(overall),
        "vanilla_first_pass": 100 * sum(first.values()) / len(first),
        "vanilla_all_rows": 100 * sum(right.values()) / len(right),
    }
    for column in ("l2-category", "category"):
        if all(column in truth[key].row for key in groups):
            scores[column] = core.means((truth[k][column], v) for k, v in overall.items())
    return core.result(
        scores,
        unparsed=sum(reads[key] is None for key in answers),
        missing=missing,
        intervals={"accuracy": jackknife.mean_interval(list(overall.values()), clusters)},
        clustered_by="circular group",
        clusters=len(groups),
    )


def _read(answer: Entry | None, truth: Entry, variant: str) -> str | None:
    if answer is None:
        return None
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

    Control characters, which no worksheet can hold, are left out of the answers.
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
        said = ILLEGAL_CHARACTERS_RE.sub("", answers[str(row["index"])])
        cells.insert(6, ("prediction", said))  # the official place: after D
        if not number:
            book.active.append([name for name, _ in cells])
        book.active.append([cell for _, cell in cells])
    book.save(path)
