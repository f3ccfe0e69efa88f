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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sgv_lab.errors import LabError

BLOCK = 1 << 18  # bytes read at a time: what fits the processor's cache is fastest
ROWS = 1024  # records of Parquet read at a time
LONGEST = 16 << 20  # bytes of a record; what does not end by then lacks a quote or a bracket
ENDS = "the file ends"  # how the problem of what a cut file has last begins
HALF = "text that is not Unicode: half of a surrogate pair"
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


Found = tuple[int, int | None, Any]
"""A record's number (from 0), its line where known, and itself or what is `Broken` in it."""


def scan(path: str | Path, record: type) -> Iterator[Found]:
    """The objects of a file as ``record`` (a msgspec Struct, or dict), in order.

    The line is known of every broken record, and of sound ones in JSON lines. Raises LabError as
    ``layout`` does, and for Parquet without conversations.
    """
    kind = layout(path)
    if kind == "parquet":
        yield from _parquet(path, record)
        return
    with opened(path) as file:
        blocks = _lines if kind == "lines" else _Blocks(kind == "array").records
        yield from blocks(file, record)


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
        fix = "give the path of a readable file"
        raise LabError(
            f"cannot be read ({error.strerror or error})", where=path, fix=fix
        ) from error


def layout(path: str | Path) -> str:
    """ "array", "lines" (JSON lines), "objects" (of several lines each), "coco" or "parquet".

    COCO's is known by its "annotations", wherever they stand. Raises LabError if the file cannot
    be read, is empty or is none of these.
    """
    with opened(path) as file:
        head = file.read(4096)
        if head.startswith(b"PAR1"):
            return "parquet"
        begins = head.removeprefix(_BOM).lstrip()[:20]
        if not begins:
            raise LabError("is empty", where=path, fix=AGAIN)
        if begins[:1] not in (b"[", b"{") or b"\0" in begins:
            fix = "download it again, or unpack it, or save it as JSON in UTF-8"
            raise LabError(f"is not JSON: it begins with {begins!r}", where=path, fix=fix)
        if begins[:1] == b"[":
            return "array"
        file.seek(head.index(b"{"))
        line = file.readline(LONGEST)
        kind = "lines" if line.rstrip().endswith(b"}") else "objects"
        rest = b""
        for block in chain([line], iter(lambda: file.read(BLOCK), b"")):
            if told := set(_TELLS.findall(rest + block)):  # by what comes first
                return "coco" if told == {b"annotations"} else kind
            rest = block[-100:]
        return kind


def _parquet(path: str | Path, record: type) -> Iterator[Found]:
    try:
        with opened(path) as file:
            table = pq.ParquetFile(file)
            names = {"id", "image", "conversations"} & set(table.schema_arrow.names)
            if "conversations" not in names:
                fix = "give a table with the columns id, image and conversations"
                raise LabError("has no column conversations", where=path, fix=fix)
            batches = table.iter_batches(ROWS, columns=list(names))
            for number, row in enumerate(row for rows in batches for row in rows.to_pylist()):
                try:
                    found = msgspec.convert(row, record)
                except msgspec.ValidationError as error:
                    found = Broken(number, str(row.get("id")), None, str(error))
                yield number, None, found
    except pa.ArrowException as error:
        raise LabError(f"cannot be read as Parquet ({error})", where=path, fix=AGAIN) from error


def _lines(file: BinaryIO, record: type) -> Iterator[Found]:
    """JSON lines: each costs itself alone, blank ones nothing."""
    decoder, number = msgspec.json.Decoder(record), 0
    for line, text in enumerate(file, 1):
        if raw := text.removeprefix(_BOM).strip():
            cut = not text.endswith(b"\n")
            yield number, line, _decoded(decoder, raw, number, line, cut)
            number += 1


def _decoded(
    decoder: msgspec.json.Decoder, raw: bytes, number: int, line: int | None, cut: bool = False
) -> Any:
    """A JSON value, or what is `Broken` in it; ``cut``: the file may have been cut short there."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem, fix = f"malformed: {error}", AGAIN
        if raw[:1] != b"{":
            problem, fix = f"not an object: {raw[:40]!r}", "leave it out"
        elif isinstance(error, msgspec.ValidationError):
            problem, fix = str(error), LEAVE
        elif isinstance(error, msgspec.DecodeError) and _HALF.search(raw):
            problem, fix = HALF, LEAVE
        elif cut and "truncated" in str(error):
            problem = f"{ENDS} inside the record"
    return Broken(number, _legible_id(raw), line, problem, fix)


def _legible_id(raw: bytes) -> str | None:
    found = _ID.search(raw)
    return found[1].decode(errors="replace") if found else None


class _Blocks:
    """An array, or objects of several lines each: how many records were read, and of lines."""

    def __init__(self, array: bool) -> None:
        self.array, self.number, self.line = array, 0, 1

    def records(self, file: BinaryIO, record: type) -> Iterator[Found]:
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
            sound = self._sound(data[:cut], ended) if cut > 0 else None
            if sound is None:
                cut = yield from self._one_by_one(data, ended)
            else:
                yield from ((n, None, one) for n, one in enumerate(sound, self.number))
                self.number += len(sound)
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
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _one_by_one(self, data: bytes, ended: bool) -> Generator[Found, None, int]:
        """The records of data that may hold unsound ones; returns where what is left begins."""
        text = data.decode("latin-1")  # a character a byte: only structure is looked for
        at, counted, line, end = 0, 0, self.line, len(text.rstrip())
        while (start := _GLUE.match(text, at).end()) < end:
            if ended and self.array and text[start:end] == "]":
                return end
            line, counted = line + data.count(b"\n", counted, start), start
            try:
                at = _JSON.raw_decode(text, start)[1]
                found = _decoded(self.one, data[start:at], self.number, line)
            except json.JSONDecodeError as error:
                short = error.msg.startswith("Unterminated") or error.pos >= end
                more = not ended and end - start < LONGEST
                next_one = None if short and more else self.beginning.search(data, start + 1)
                if more and not next_one:
                    return start
                at = next_one.start() if next_one else end
                cut = short and ended and not next_one
                what = f"{ENDS} inside the record" if cut else f"malformed: {error.msg}"
                found = Broken(self.number, _legible_id(data[start:at]), line, what, AGAIN)
                if cut:
                    yield self.number, line, found
                    return end
            yield self.number, line, found
            self.number += 1
        if ended and self.array:
            what = f"{ENDS} before it is closed"
            yield self.number, line, Broken(self.number, None, line, what, AGAIN)
        return end
