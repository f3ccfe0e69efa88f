"""What all scorers share: the official files, answers by id, and the shape of a score.

Every refusal is a LabError that names the file and the line (or the record of a JSON array).
"""

import csv
import gc
import io
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import worksheet
from sgv_lab.benchmarks.harness import as_answer
from sgv_lab.errors import LabError

File = str | Path | None  # a file or folder; None where a scorer can do without
# How LLaVA and ShareGPT4V ask for a short answer, and for an option.
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."
LAST, EACH, FIRST = "the last one counts", "each counts", "the first one counts"
_SAID = ("prediction", "text", "response", "caption", "tuple", "score", "answer")


@dataclass(slots=True)
class Entry:
    """One record of a file, and where it stands."""

    where: str
    row: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        if key not in self.row:
            held = ", ".join(map(str, self.row)) or "nothing"
            raise self.error(f"has no {key!r} (it has {held})", "give the file of this benchmark")
        return self.row[key]

    def first(self, *keys: str) -> Any:
        """The value of the first of ``keys`` the record has; LabError if it has none."""
        return self[next((key for key in keys if key in self.row), " or ".join(keys))]

    def text(self, *keys: str) -> str:
        """``first(*keys)``, which must be a string."""
        value = self.first(*keys)
        if not isinstance(value, str):
            raise self.error(f"the answer {value!r} is not a string")
        return value

    def error(self, what: str, fix: str = "") -> LabError:
        """The refusal of this record."""
        return LabError(what, where=self.where, fix=fix)

    def records(self, key: str) -> list["Entry"]:
        """The objects of the list under ``key``."""
        return [Entry(f"{self.where}, record {n}", row) for n, row in enumerate(self[key], 1)]


class Answers(dict[str, Entry]):
    """A file's answers: id -> the entry that counts (the first, where each of several counts).

    Official tools take files in which an id stands more than once, each by its own ``rule``
    (`LAST`, `EACH` or `FIRST`), and answers of several lines: ``warnings`` say so beside a score.
    ``groups``: id -> all entries that count. ``often``: ids that the questions themselves repeat.
    ``missing``: how many questions have no answer, once `against` has looked.
    """

    def __init__(
        self, found: Sequence[Entry], *keys: str, rule: str, often: Mapping[str, int] | None = None
    ) -> None:
        groups = grouped((str(entry.first(*keys)), entry) for entry in found)
        self.warnings = list(_warnings(found, groups, rule, often or {}))
        self.missing = 0
        counting = {LAST: slice(-1, None), EACH: slice(None), FIRST: slice(1)}[rule]
        self.groups = {key: group[counting] for key, group in groups.items()}
        super().__init__({key: group[0] for key, group in self.groups.items()})

    def against(
        self, questions: Mapping[str, Entry], source: object, said: str = "", asked: str = ""
    ) -> None:
        """Count what is ``missing``; LabError for an answer to none of ``questions`` (by id).

        An answer's own copy of the question, in ``said``, must be the one that was ``asked``.
        """
        self.missing = check_ids(self, questions, source)
        for key, group in self.groups.items():
            for entry in group:
                if said in entry.row:
                    check_same_question(entry, entry[said], questions[key][asked])


def _warnings(
    found: Sequence[Entry], groups: Mapping[str, list[Entry]], rule: str, often: Mapping[str, int]
) -> Iterator[str]:
    """What JSON and worksheets can hold, and official tools take: answers of several lines, …"""
    several = [e for e in found if isinstance(t := _said(e), str) and ("\n" in t or "\r" in t)]
    if several:
        yield (
            f"{len(several)} answers have several lines (first: {several[0].where}): they "
            "count as they stand, as in the official tool"
        )
    twice = {key: group for key, group in groups.items() if len(group) > 1}
    differ = [g for g in twice.values() if any(_said(entry) != _said(g[0]) for entry in g)]
    if repeated := [g for key, g in twice.items() if len(g) > often.get(key, 1)] or differ:
        yield (
            f"{len(repeated)} ids stand more than once ({len(differ)} with answers that differ; "
            f"first: {repeated[0][1].where}): {rule}, as in the official tool"
        )


def _said(entry: Entry) -> Any:
    return next((entry.row[key] for key in _SAID if key in entry.row), None)


def read_text(path: str | Path) -> str:
    """The text of ``path``; LabError if it is absent, empty or not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise LabError("no such file", where=path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"is not UTF-8 text ({error.reason})", where=path) from error
    if not text.strip():
        raise LabError("is empty", where=path, fix="give a file with predictions")
    return text


def read_json(path: str | Path, repeated: list[str] | None = None) -> Any:
    """The JSON value of ``path``; a key that stands twice in one object is a LabError.

    With ``repeated`` it is added to that list instead, and its last value counts.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(value := dict(pairs)) < len(pairs):
            twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
            if repeated is None:
                raise LabError(f"the key {twice[0]!r} stands twice", where=path)
            repeated.extend(twice)
        return value

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=checked)
    except json.JSONDecodeError as error:
        raise LabError(f"line {error.lineno} is not JSON ({error.msg})", where=path) from error


def keyed(path: str | Path, field: str, repeated: list[str] | None = None) -> Answers:
    """The records {id: object} of a JSON file; {id: value} counts as {id: {``field``: value}}.

    A key that stands twice is a LabError; with a list for what is ``repeated``, a warning.
    """
    value = read_json(path, repeated)
    if not isinstance(value, dict) or not value:
        raise LabError("is not a JSON object of ids", where=path)
    rows = {key: row if isinstance(row, dict) else {field: row} for key, row in value.items()}
    found = [Entry(f"{path}, {key}", row | {"key": key}) for key, row in rows.items()]
    answers, told = Answers(found, "key", rule=LAST), f"stands more than once: {LAST}, as in Python"
    answers.warnings = [f"the key {key!r} {told}" for key in repeated or ()]
    return answers


@contextmanager
def no_collector() -> Iterator[None]:
    """Pause the garbage collector: over a million small dicts it takes longer than the parser."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@no_collector()
def entries(path: str | Path) -> list[Entry]:
    """The records of a JSON array, JSON lines (a comma may end a line) or concatenated objects.

    The last form is what model_vqa_qbench.py and POPE's caption_data hold.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        found = [Entry(f"{path}, record {n}", row) for n, row in enumerate(read_json(path), 1)]
    else:
        found = [Entry(f"{path}, line {line}", row) for line, row in _objects(text, path)]
    if not found:
        raise LabError("holds no record", where=path)
    for entry in found:
        if not isinstance(entry.row, dict):
            raise entry.error(f"{entry.row!r} is not a JSON object")
        entry.row = as_answer(entry.row)
    return found


def _objects(text: str, path: str | Path) -> Iterator[tuple[int, Any]]:
    decode, between = json.JSONDecoder().raw_decode, re.compile(r"[ \t\r\n,]*")
    line, end = 1, 0
    while (start := between.match(text, end).end()) < len(text):
        line += text.count("\n", end, start)
        try:
            row, end = decode(text, start)
        except json.JSONDecodeError as error:
            raise LabError(f"is not JSON ({error.msg})", where=f"{path}, line {line}") from error
        yield line, row
        line += text.count("\n", start, end)


def table(path: str | Path) -> list[Entry]:
    """The rows of a .tsv, .csv or .xlsx with a header, all cells as strings ("" if empty)."""
    path = Path(path)
    if path.suffix == ".xlsx":
        rows = worksheet.read(path)
    else:
        csv.field_size_limit(sys.maxsize)  # MMBench's cells hold images
        text = io.StringIO(read_text(path), newline="")
        rows = list(csv.reader(text, delimiter="\t" if path.suffix == ".tsv" else ","))
    names, *cells = [row for row in rows if any(row)] or [[]]
    if not cells:
        raise LabError("holds no row", where=path)
    found = []
    for number, row in enumerate(cells, 2):
        where = f"{path}, line {number}"
        if any(row[len(names) :]):
            raise LabError("has more cells than the header", where=where)
        found.append(Entry(where, {k: v for k, v in zip_longest(names, row, fillvalue="") if k}))
    return found


def rows(path: str | Path) -> list[Entry]:
    """``table`` for .tsv, .csv and .xlsx, ``entries`` for everything else."""
    return table(path) if Path(path).suffix in {".tsv", ".csv", ".xlsx"} else entries(path)


def index(found: Iterable[Entry], key: str) -> dict[str, Entry]:
    """Records by ``key`` (as string); LabError if an id stands twice."""
    result: dict[str, Entry] = {}
    for entry in found:
        identifier = str(entry[key])
        if identifier in result:
            what = f"{key} {identifier} stands twice (first: {result[identifier].where})"
            raise entry.error(what, fix="keep one")
        result[identifier] = entry
    return result


def check_ids(answers: Mapping[str, Entry], asked: Iterable[Any], source: object) -> int:
    """The number of ``asked`` ids without an answer; LabError for an answer to none of them."""
    asked = {str(identifier) for identifier in asked}
    for identifier, entry in answers.items():
        if identifier not in asked:
            what = f"question {identifier!r} is not in {source}"
            raise entry.error(what, fix="score a file against the questions it answers")
    return len(asked - answers.keys())


def check_same_question(entry: Entry, said: str, asked: str) -> None:
    """Refuse an answer whose own copy of the question (``said``) is not the one ``asked``."""
    if " ".join(said.split()) != " ".join(asked.split()):
        what = f"answers {said!r}, but the question is {asked!r}"
        fix = "the files are out of step: use the version of the questions that was run"
        raise entry.error(what, fix=fix)


def check_one_judge(judges: Collection[str | None], where: object) -> None:
    """Refuse grades of several judges."""
    if len(judges) > 1:
        what = f"grades of {', '.join(map(str, judges))} share a column"
        raise LabError(what, where=where, fix="keep each judge's apart")


def require(annotations: File, holding: str) -> Path:
    """``annotations``, or a LabError that says what they must hold."""
    if annotations is None:
        raise LabError(f"needs --annotations: {holding}", fix="add --annotations PATH")
    return Path(annotations)


def find_files(path: str | Path, *patterns: str) -> list[Path]:
    """``path`` if it is a file, else what lies in it by the first pattern that matches anything."""
    path = Path(path)
    if not path.exists():
        raise LabError("no such file or folder", where=path)
    if path.is_file():
        return [path]
    for pattern in patterns:
        if found := sorted(path.glob(pattern)):
            return found
    raise LabError(f"holds no {' or '.join(patterns)}", where=path)


def grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    """Name -> its values, of (name, value) in order."""
    groups = defaultdict(list)
    for name, value in pairs:
        groups[name].append(value)
    return dict(groups)


def percent(values: Collection[float]) -> float:
    """100 times the mean of ``values``."""
    return 100 * sum(values) / len(values)


def means(pairs: Iterable[tuple[str, float]], scale: float = 100) -> dict[str, float]:
    """``scale`` times the mean of the values of each name, by name."""
    groups = sorted(grouped(pairs).items())
    return {name: scale * sum(found) / len(found) for name, found in groups}


def result(
    scores: dict[str, Any],
    answers: Answers | None,
    unparsed: int,
    intervals: dict[str, Any],
    by: str,
    clusters: Iterable[Hashable],
) -> dict[str, Any]:
    """The one shape of a score: the benchmark's own names first, then what all report.

    ``by``: what the intervals are clustered by; ``clusters``: each row's. "warnings" say what a
    reader has to know of the ``answers``; the key is absent without any.
    """
    missing, warnings = (0, []) if answers is None else (answers.missing, answers.warnings)
    scores = scores | {"unparsed": unparsed, "missing": missing, "interval": intervals}
    scores["clusters"] = {"by": by, "n": len(set(clusters))}
    return scores | ({"warnings": warnings} if warnings else {})
