"""MMBench and MMBench-CN: CircularEval accuracy over letter answers.

Rules: opencompass tools/eval_mmbench.py, VLMEvalKit utils/multiple_choice.py (the extraction of
letters from prose; what it cannot read would go to an LLM there and is wrong here), prompt:
ShareGPT4V model_vqa_mmbench.py. The legacy files hold the rotations as index + k·10^6.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core, worksheet
from sgv_lab.benchmarks.core import EACH, LAST, Answers, Entry, File
from sgv_lab.intervals import clustered_mean

VARIANTS = ("vanilla_first_pass", "vanilla_all_rows", "exact_letter")
LETTERS = "ABCD"
ROTATION = 10**6
SUFFIX = {"en": core.LETTER_ANSWER, "cn": "\n请直接回答选项字母。"}
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
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """CircularEval of a submission (.xlsx, .tsv with ``prediction``) or of LLaVA's answers file.

    ``annotations`` (or ``questions``) is the benchmark's TSV; without it the submission itself must
    hold ``answer``. Category accuracies need the TSV.
    """
    given = core.rows(predictions)
    # LLaVA's script that makes a submission of an answers file lets the last answer count
    rule = EACH if "index" in given[0].row else LAST
    answers = Answers(given, "index", "question_id", rule=rule)
    source = annotations or questions
    truth = core.index(core.rows(source), "index") if source else answers
    answers.against(truth, source or predictions, said="question", asked="question")
    circles = circular_groups(truth, predictions)
    reads, right = {}, {}
    for key, entry in truth.items():
        reads[key] = [_read(answer, entry, variant) for answer in answers.groups.get(key, ())]
        right[key] = [read == entry["answer"] for read in reads[key] or [None]]
    outcomes = {  # (index of the question, right or wrong) rows of each way to count
        "circular": [
            (key, all(one for member in members for one in right[member]))
            for key, members in circles.items()
            for _ in right[key]
        ],
        "vanilla_first_pass": [(key, one) for key in circles for one in right[key]],
        "vanilla_all_rows": [(key, one) for key in right for one in right[key]],
    }
    accuracy = {way: core.percent([one for _, one in rows]) for way, rows in outcomes.items()}
    way = variant if variant in outcomes else "circular"
    keys, marks = zip(*outcomes[way], strict=True)
    clusters = [int(key) % ROTATION for key in keys]
    scores: dict[str, Any] = {"accuracy": accuracy[way], "correct": sum(marks), "n": len(marks)}
    scores |= {other: accuracy[other] for other in ("vanilla_first_pass", "vanilla_all_rows")}
    for column in ("l2-category", "category"):
        if all(column in truth[key].row for key in circles):
            scores[column] = core.means((truth[key][column], one) for key, one in outcomes[way])
    unparsed = sum(read is None for group in reads.values() for read in group)
    intervals = {"accuracy": clustered_mean(marks, clusters)}
    return core.result(scores, answers, unparsed, intervals, "circular group", clusters)


def _read(answer: Entry, truth: Entry, variant: str) -> str | None:
    text, choices = answer.text("prediction", "text"), options(truth.row)
    if variant == "exact_letter":
        return text if text in choices else None
    return extract(text, choices)


def circular_groups(truth: Mapping[str, Entry], source: object) -> dict[str, list[str]]:
    """Question index (below 10^6) -> indices of its rotations; LabError for a group without it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, entry in truth.items():
        if not key.isdecimal():
            raise entry.error(f"the index {key!r} is not a number")
        groups[str(int(key) % ROTATION)].append(key)
    for key, members in groups.items():
        if key not in members:
            what = f"index {members[0]} is a rotation of {key}, which is not in {source}"
            raise truth[members[0]].error(what, fix="keep all rotations of a question together")
    return dict(groups)


def submission(rows: Iterable[Mapping[str, str]], answers: Mapping[str, str], path: Path) -> None:
    """Write the official .xlsx: the TSV's columns without ``DROPPED``, and ``prediction``."""
    rows = list(rows)
    names = [name for name in rows[0] if name not in DROPPED]
    names.insert(6, "prediction")  # the official place: after D
    table: list[list[Any]] = [names]
    for row in rows:
        known = row | {"index": int(row["index"]), "prediction": answers[str(row["index"])]}
        table.append([known[name] for name in names])
    worksheet.write(path, table)
