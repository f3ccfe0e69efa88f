"""Find the records of a file of any size without holding it.

JSON arrays (the published caption files are of up to 1.5 GB), JSON lines and Parquet; each as it is
or gzipped, with a byte order mark or without, under any name. Of a block of JSON, what lies before
its last beginning of a record is decoded at once where it is sound, and record by record where it
is not. A broken record costs itself alone: reading starts again at the next beginning of a record.
"""

import gzip
import json
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sgv_lab.errors import LabError

BLOCK = 1 << 18  # bytes read at a time: what fits the processor's cache is fastest
ROWS = 1024  # of Parquet read at a time
LONGEST = 16 << 20  # bytes of a record; what does not end by then lacks a quote or a bracket
ENDS = "the file ends"  # how the problem of what a cut file has last begins
HALF = "text that is not Unicode: half of a surrogate pair"
DEEP = "nested too deeply"
AGAIN, LEAVE = "download the file again", "correct the record or leave it out"

_BOM = b"\xef\xbb\xbf"
_TELLS = re.compile(rb'"(annotations|conversations)"\s*:\s*\[')
_KEYS = rb"id|image|conversations"  # a record begins with one
_FIRST = re.compile(rb'\{\s*"([^"\\]*)"\s*:')
_ID = re.compile(rb'"id"\s*:\s*"?([^",}\s]{1,80})')
HALF_PAIR = re.compile("[\ud800-\udfff]")
_HALF = re.compile(  # an escape of one half of a surrogate pair without the other
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
)
_NO_RECORD = re.compile(  # a whole line of JSON that holds no object
    rb'(?:null|true|false|-?[0-9][0-9.eE+-]*|"(?:[^"\\\n]|\\.)*"|\[\s*[^\[{\]\s][^\[{\]]*\])\s*'
)
_GLUE = re.compile(r"[ \t\r\n,]*")
_JSON = json.JSONDecoder(strict=False)  # tells where a value ends; msgspec then judges it


@dataclass(frozen=True)
class Broken:
    """A record that cannot be used."""

    number: int  # in the file or list, from 0
    id: str | None  # None: not legible
    line: int | None  # of the file, from 1, where known
    problem: str
    fix: str = LEAVE

    @property
    def reason(self) -> str:
        """The problem without what is special to this record."""
        return self.problem.partition(": ")[0]

    def __str__(self) -> str:
        where = f", line {self.line}" if self.line else ""
        return f"record {self.id!r} (number {self.number} from 0{where}): {self.problem}"


Found = Iterator[tuple[int, int | None, Any]]
"""Number, line (where known: in JSON lines, and of all that is not sound) and value or Broken."""


def scan(path: str | Path, record: type) -> Found:
    """The objects of a file as ``record`` (a msgspec Struct, or dict), in the file's order.

    A JSON value that is no ``record`` comes as it is, and what is no JSON as Broken. Raises
    LabError as ``layout`` does, and for Parquet without conversations.
    """
    kind = layout(path)
    if kind == "parquet":
        yield from _parquet(path, record)
        return
    with opened(path) as file:
        values = _lines if kind == "lines" else _Blocks(kind == "array").values
        yield from values(file, record)


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The file, unpacked if it is gzipped. Raises LabError if it cannot be read or is damaged."""
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if packed else nullcontext(file) as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"is damaged gzip ({error})", where=path, fix=AGAIN) from error
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise LabError(what, where=path, fix="give the path of a readable file") from error


def layout(path: str | Path) -> str:
    """ "array", "lines" (JSON lines), "objects" (of several lines each), "coco" or "parquet".

    COCO's is known by its "annotations", wherever they stand. Raises LabError if the file cannot
    be read, is empty or is none of these.
    """
    with opened(path) as file:
        head = file.read(4096)
        if head.startswith(b"PAR1"):
            return "parquet"
        begins = head.removeprefix(_BOM).lstrip()
        if not begins:
            raise LabError("is empty", where=path, fix=AGAIN)
        file.seek(len(head) - len(begins))
        line, begins = file.readline(LONGEST), begins[:20]
        if _NO_RECORD.fullmatch(line):
            return "lines"
        if begins[:1] not in (b"[", b"{") or b"\0" in begins:
            fix = "download it again, or unpack it, or save it as JSON in UTF-8 (not CSV; "
            fix += "docs/own_captions.md shows a record)"
            raise LabError(f"is not JSON: it begins with {begins!r}", where=path, fix=fix)
        if begins[:1] == b"[":
            return "array"
        kind = "lines" if line.rstrip().endswith(b"}") else "objects"
        rest = b""
        for block in chain([line], iter(lambda: file.read(BLOCK), b"")):
            if told := set(_TELLS.findall(rest + block)):  # by what comes first
                return "coco" if told == {b"annotations"} else kind
            rest = block[-100:]
        return kind


def _parquet(path: str | Path, record: type) -> Found:
    number = 0
    try:
        with opened(path) as file:
            table = pq.ParquetFile(file)
            names = {"id", "image", "conversations"} & set(table.schema_arrow.names)
            if "conversations" not in names:
                fix = "give a table with the columns id, image and conversations"
                raise LabError("has no column conversations", where=path, fix=fix)
            for rows in table.iter_batches(ROWS, columns=list(names)):
                for row in rows.to_pylist():
                    with suppress(msgspec.ValidationError):
                        row = msgspec.convert(row, record)
                    yield number, None, row
                    number += 1
    except pa.ArrowException as error:
        raise LabError(f"cannot be read as Parquet ({error})", where=path, fix=AGAIN) from error


def _lines(file: BinaryIO, record: type) -> Found:
    """JSON lines: each costs itself alone, blank ones nothing."""
    decoder, number = msgspec.json.Decoder(record), 0
    for line, text in enumerate(file, 1):
        if raw := text.removeprefix(_BOM).strip():
            value = _decoded(decoder, raw, number, line, cut=not text.endswith(b"\n"))
            yield number, line, value
            number += 1


def _decoded(
    decoder: msgspec.json.Decoder, raw: bytes, number: int, line: int, cut: bool = False
) -> Any:
    """A JSON value, or Broken; ``cut``: the file may have been cut short in it."""
    try:
        try:
            return decoder.decode(raw)
        except msgspec.ValidationError:
            return msgspec.json.decode(raw)
    except RecursionError:
        problem, fix = DEEP, LEAVE
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem, fix = f"malformed: {error}", AGAIN
        if isinstance(error, msgspec.DecodeError) and _HALF.search(raw):
            problem, fix = HALF, LEAVE
        elif cut and "truncated" in str(error):
            problem = f"{ENDS} inside the record"
    return Broken(number, _legible_id(raw), line, problem, fix)


def _legible_id(raw: bytes) -> str | None:
    return found[1].decode(errors="replace") if (found := _ID.search(raw)) else None


class _Blocks:
    """An array, or objects of several lines each: how many records were read, and of lines."""

    def __init__(self, array: bool) -> None:
        self.array, self.number, self.line = array, 0, 1

    def values(self, file: BinaryIO, record: type) -> Found:
        self.one, self.many = msgspec.json.Decoder(record), msgspec.json.Decoder(list[record])
        block = file.read(BLOCK)
        data = block.lstrip(_BOM + b" \t\r\n")[self.array :]
        self.line += block.count(b"\n", 0, len(block) - len(data))
        first = _FIRST.search(data)  # somebody's own records may begin with a key of their own
        keys = _KEYS + b"|" + re.escape(first[1]) if first else _KEYS
        self.beginning = re.compile(rb'\{\s*"(?:' + keys + rb')"\s*:')
        while True:
            ended = len(block) < BLOCK
            cut = len(data) if ended else self._last_beginning(data)
            records = self._sound(data[:cut], ended) if cut > 0 else None
            if records is None:
                cut = yield from self._one_by_one(data, ended)
            else:
                yield from ((n, None, one) for n, one in enumerate(records, self.number))
                self.number += len(records)
            if ended:
                return
            self.line += data.count(b"\n", 0, cut)
            block = file.read(BLOCK)
            data = data[cut:] + block

    def _last_beginning(self, data: bytes) -> int:
        at = data.rfind(b"{")
        while at > 0 and not self.beginning.match(data, at):
            at = data.rfind(b"{", 0, at)
        return at

    def _sound(self, data: bytes, ended: bool) -> list[Any] | None:
        """The records of a chunk, or None unless it holds nothing but whole and sound ones."""
        closing = b"" if ended and self.array else b"]"  # an array's own, where there is one
        try:
            return self.many.decode(b"[" + data.strip(b" \t\r\n,") + closing)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _one_by_one(self, data: bytes, ended: bool) -> Generator[tuple[int, int, Any], None, int]:
        """The values of data that may hold unsound ones; returns where the rest of it begins."""
        text = data.decode("latin-1")  # a character a byte: only structure is looked for
        at, counted, line, end = 0, 0, self.line, len(text.rstrip())
        while (start := _GLUE.match(text, at).end()) < end:
            if ended and self.array and text[start:end] == "]":
                return end
            line, counted = line + data.count(b"\n", counted, start), start
            cut = False
            try:
                at = _JSON.raw_decode(text, start)[1]
                value = _decoded(self.one, data[start:at], self.number, line)
            except (json.JSONDecodeError, RecursionError) as error:
                deep = isinstance(error, RecursionError)
                short = not deep and (error.msg.startswith("Unterminated") or error.pos >= end)
                more = not ended and end - start < LONGEST
                found = None if short and more else self.beginning.search(data, start + 1)
                if more and not found:
                    return start
                at = found.start() if found else end
                cut = short and ended and not found
                what = DEEP if deep else f"malformed: {error.msg}"
                what = f"{ENDS} inside the record" if cut else what
                value = Broken(self.number, _legible_id(data[start:at]), line, what, AGAIN)
            yield self.number, line, value
            if cut:
                return end
            self.number += 1
        if ended and self.array:
            what = f"{ENDS} before it is closed"
            yield self.number, line, Broken(self.number, None, line, what, AGAIN)
        return end
