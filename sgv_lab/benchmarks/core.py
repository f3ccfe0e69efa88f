"""What all scorers share: reading the official files and refusing bad ones.

Every refusal is a LabError that names the file and the line (or the record of a JSON array).
"""

import gc
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgv_lab.errors import LabError

Given = str | Path | None  # a file or folder that a scorer is given


@dataclass(slots=True)
class Entry:
    """One record of a file, and where it stands."""

    where: str
    row: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        if key not in self.row:
            raise LabError(
                f"has no {key!r} (it has {', '.join(map(str, self.row)) or 'nothing'})",
                where=self.where,
                fix="give the file of this benchmark",
            )
        return self.row[key]

    def first(self, *keys: str) -> Any:
        """The value of the first of ``keys`` the record has; LabError if it has none."""
        for key in keys:
            if key in self.row:
                return self.row[key]
        return self[" or ".join(keys)]

    def records(self, key: str) -> list["Entry"]:
        """The objects of the list under ``key``."""
        return [Entry(f"{self.where}, record {n}", row) for n, row in enumerate(self[key], 1)]

    def text(self, *keys: str, one_line: bool = False) -> str:
        """``first(*keys)`` as a string; with ``one_line`` tabs and newlines are refused."""
        value = self.first(*keys)
        if not isinstance(value, str):
            raise LabError(f"the answer {value!r} is not a string", where=self.where)
        if one_line and any(c in value for c in "\t\n\r"):
            raise LabError(
                f"the answer {value!r} holds a tab or a newline",
                where=self.where,
                fix="write each answer as one line without tabs",
            )
        return value


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
                raise LabError(f"the key {twice[0]!r} stands twice")
            repeated.extend(twice)
        return value

    try:
        return json.loads(read_text(path), object_pairs_hook=checked)
    except json.JSONDecodeError as error:
        raise LabError(f"line {error.lineno} is not JSON ({error.msg})", where=path) from error
    except LabError as error:
        raise error if str(path) in str(error) else LabError(str(error), where=path) from error


def keyed(path: str | Path, field: str, repeated: list[str] | None = None) -> dict[str, Entry]:
    """The records {id: object} of a JSON file; {id: value} counts as {id: {``field``: value}}."""
    value = read_json(path, repeated)
    if not isinstance(value, dict) or not value:
        raise LabError("is not a JSON object of ids", where=path)
    return {
        key: Entry(f"{path}, {key}", row if isinstance(row, dict) else {field: row})
        for key, row in value.items()
    }


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

    The last form is what model_vqa_qbench.py and POPE's caption_data hold. Raises LabError naming
    the line that is no JSON object.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        found = [(f"{path}, record {number}", row) for number, row in enumerate(read_json(path), 1)]
    else:
        found = [(f"{path}, line {line}", row) for line, row in _objects(text, path)]
    if not found:
        raise LabError("holds no record", where=path)
    for where, row in found:
        if not isinstance(row, dict):
            raise LabError(f"{row!r} is not a JSON object", where=where)
    return [Entry(where, row) for where, row in found]


def _objects(text: str, path: str | Path) -> Iterator[tuple[int, Any]]:
    decode = json.JSONDecoder().raw_decode
    position, line, size = 0, 1, len(text)
    while True:
        start = position
        while position < size and text[position] in " \t\r\n,":
            position += 1
        line += text.count("\n", start, position)
        if position == size:
            return
        try:
            row, end = decode(text, position)
        except json.JSONDecodeError as error:
            raise LabError(f"is not JSON ({error.msg})", where=f"{path}, line {line}") from error
        yield line, row
        line += text.count("\n", position, end)
        position = end


def table(path: str | Path) -> list[Entry]:
    """The rows of a .tsv, .csv or .xlsx with a header, all cells as strings ("" if empty)."""
    import pandas as pd  # half a second to import, and only tables need it

    path = Path(path)
    try:
        if path.suffix == ".xlsx":
            frame = _sheet(path)
        else:
            read_text(path)
            separator = "\t" if path.suffix == ".tsv" else ","
            frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except LabError:
        raise
    except FileNotFoundError as error:
        raise LabError("no such file", where=path) from error
    except Exception as error:  # zipfile, XML and parser errors alike
        raise LabError(f"is not a table ({error})", where=path) from error
    if frame.empty:
        raise LabError("holds no row", where=path)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first cells for an index
        raise LabError("has rows with more cells than the header", where=path)
    rows = frame.fillna("").to_dict("records")
    return [Entry(f"{path}, line {number}", row) for number, row in enumerate(rows, 2)]


def _sheet(path: Path) -> Any:
    """The first worksheet as strings, formulas too (pandas gives a stored value or nothing)."""
    import openpyxl
    import pandas as pd

    with path.open("rb") as file:
        sheet = openpyxl.load_workbook(file, read_only=True).worksheets[0]
        sheet.reset_dimensions()  # some writers leave them wrong
        names, *cells = ([_typed(v) for v in row] for row in sheet.iter_rows(values_only=True))
    named = [dict(zip(names, row, strict=False)) for row in cells if any(row)]
    return pd.DataFrame(named, columns=[name for name in names if name]).fillna("")


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).upper()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def rows(path: str | Path) -> list[Entry]:
    """``table`` for .tsv, .csv and .xlsx, ``entries`` for everything else."""
    return table(path) if Path(path).suffix in {".tsv", ".csv", ".xlsx"} else entries(path)


def index(found: Iterable[Entry], *keys: str, name: str = "question") -> dict[str, Entry]:
    """Records by the first of ``keys`` (as string); LabError if an id stands twice."""
    result: dict[str, Entry] = {}
    for entry in found:
        identifier = str(entry.first(*keys))
        if identifier in result:
            raise LabError(
                f"{name} {identifier} stands twice (first: {result[identifier].where})",
                where=entry.where,
                fix="keep one answer a question",
            )
        result[identifier] = entry
    return result


def known(answers: dict[str, Entry], asked: Iterable[Any], source: object) -> int:
    """The number of ``asked`` ids without an answer; LabError for an answer to none of them."""
    asked = {str(identifier) for identifier in asked}
    for identifier, entry in answers.items():
        if identifier not in asked:
            raise LabError(
                f"question {identifier!r} is not in {source}",
                where=entry.where,
                fix="score a file against the questions it answers",
            )
    return len(asked - answers.keys())


def aligned(entry: Entry, said: str, asked: str) -> None:
    """Refuse an answer whose own copy of the question (``said``) is not the one ``asked``."""
    if " ".join(said.split()) != " ".join(asked.split()):
        raise LabError(
            f"answers {said!r}, but the question is {asked!r}",
            where=entry.where,
            fix="the files are out of step: use the version of the questions that was run",
        )


def need(path: Given, option: str, holding: str) -> Path:
    """``path``, or a LabError saying which option is missing and what it must hold."""
    if path is None:
        raise LabError(f"needs {option}: {holding}", fix=f"add {option} PATH")
    return Path(path)


def within(path: str | Path, *patterns: str) -> list[Path]:
    """``path`` if it is a file, or its files that match the first fruitful of ``patterns``."""
    path = Path(path)
    if path.is_dir():
        found = next((f for p in patterns if (f := sorted(path.glob(p)))), [])
        if not found:
            raise LabError(f"holds no {' or '.join(patterns)}", where=path)
        return found
    if not path.is_file():
        raise LabError("no such file or folder", where=path)
    return [path]


def means(pairs: Iterable[tuple[str, float]], scale: float = 100) -> dict[str, float]:
    """``scale`` times the mean of the values of each name, by name."""
    groups: dict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        groups[name].append(value)
    return {name: scale * sum(found) / len(found) for name, found in sorted(groups.items())}


def result(
    scores: dict[str, Any],
    *,
    unparsed: int,
    missing: int,
    intervals: dict[str, list[float] | None],
    clustered_by: str,
    clusters: int,
    warnings: list[str] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """The one shape of a score: the benchmark's own names first, then what all report.

    ``warnings`` say what a reader has to know of the predictions; the key is absent without any.
    """
    return {
        **scores,
        **extra,
        "unparsed": unparsed,
        "missing": missing,
        "interval": intervals,
        "clusters": {"by": clustered_by, "n": clusters},
        **({"warnings": warnings} if warnings else {}),
    }
