"""Find the records of a file of any size without holding it.

JSON arrays (the published caption files are of up to 1.5 GB), JSON lines, Parquet, and COCO's
objects of arrays; each as it is or gzipped, with a byte order mark or without, under any name. Of
a block of JSON, what lies before its last beginning of a record is decoded at once where it is
sound, and record by record where it is not. A broken record costs itself alone: reading starts
again at the next beginning of a record.
"""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sgv_lab.captions.formats import AGAIN, BOM, layout, opened, undamaged
from sgv_lab.errors import LabError

T = TypeVar("T")

BLOCK = 1 << 20  # bytes read at a time: what fits the processor's cache is fastest
LONGEST = 16 << 20  # bytes of a record; what does not end by then lacks a quote or a bracket
ENDS = "the file ends"  # how the reason of what a cut file has last begins
HALF = "text that is not Unicode: half of a surrogate pair"

_KEYS = rb"id|image|image_id|caption|file_name|conversations|license"  # a record begins with one
_FIRST = re.compile(rb'\{\s*"([^"\\]*)"\s*:')
_ID = re.compile(rb'"id"\s*:\s*"?([^",}\s]{1,80})')
_HALF = re.compile(  # an escape of one half of a surrogate pair without the other
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
)
_GLUE = b" \t\r\n,["
_JSON = json.JSONDecoder(strict=False)  # tells where an object ends; msgspec then judges it
_LEAVE = "correct the record or leave it out"


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be used: its number in the file (from 0), its id if legible, why."""

    record: int
    id: str | None
    reason: str
    fix: str
    line: int | None = None  # of the file, from 1


@dataclass
class Batch(Generic[T]):
    """The sound records of a block, each with its number in the file, and the rejected ones."""

    records: list[tuple[int, T]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    lines: list[int] | None = None  # of JSON lines: the line of each of ``records``, from 1


def scan(path: str | Path, record: type[T]) -> Iterator[Batch[T]]:
    """The objects of a file as ``record``, batch by batch and in order, whatever the file's size.

    ``record``: a msgspec Struct, or dict. Raises LabError as ``layout`` does, and for Parquet
    without conversations.
    """
    kind = layout(path)
    if kind == "parquet":
        yield from _parquet(path, record)
        return
    with opened(path) as file, undamaged(path):
        yield from _Scanner(file, kind, record).batches()


def _parquet(path: str | Path, record: type[T]) -> Iterator[Batch[T]]:
    count = 0
    try:
        with opened(path) as file, undamaged(path):
            packed = isinstance(file, gzip.GzipFile)
            table = pq.ParquetFile(pa.BufferReader(file.read()) if packed else path)
        wanted = [
            name for name in ("id", "image", "conversations") if name in table.schema_arrow.names
        ]
        if "conversations" not in wanted:
            fix = "give a table with the columns id, image and conversations"
            raise LabError("has no column conversations", where=path, fix=fix)
        for rows in table.iter_batches(BLOCK >> 10, columns=wanted):
            batch: Batch[T] = Batch()
            for number, row in enumerate(rows.to_pylist(), count):
                try:
                    batch.records.append((number, msgspec.convert(row, record)))
                except msgspec.ValidationError as error:
                    batch.rejected.append(Rejected(number, str(row.get("id")), str(error), _LEAVE))
            count += len(rows)
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise LabError(f"cannot be read as Parquet ({error})", where=path, fix=AGAIN) from error


class _Scanner(Generic[T]):
    """A file being read, the number of its records so far, the block at hand and its first line."""

    def __init__(self, file: BinaryIO, kind: str, record: type[T]) -> None:
        self.file, self.kind, self.number, self.data, self.line = file, kind, 0, b"", 1
        self.one = msgspec.json.Decoder(record)
        self.many = msgspec.json.Decoder(list[record])

    def batches(self) -> Iterator[Batch[T]]:
        if self.kind == "lines":
            yield from self._by_line()
            return
        block = self.file.read(BLOCK)
        self.data = block.removeprefix(BOM).lstrip()
        if self.kind == "coco":
            self.data = self.data[1:]  # the object around all arrays
        self.line += block.count(b"\n", 0, len(block) - len(self.data))
        first = _FIRST.search(self.data)  # somebody's own records may begin with a key of their own
        keys = _KEYS + b"|" + re.escape(first[1]) if first else _KEYS
        self.beginning = re.compile(rb'\{\s*"(?:' + keys + rb')"\s*:')
        ended = False
        while self.data or not ended:
            cut = self._last_beginning(self.data)
            records = self._sound(self.data[:cut]) if cut > 0 else None
            if records is None:
                batch, cut = self._one_by_one(self.data, ended)
            else:
                batch = Batch(list(enumerate(records, self.number)))
                self.number += len(records)
            yield batch
            more = b"" if ended else self.file.read(BLOCK)
            self.line += self.data.count(b"\n", 0, cut)
            self.data, ended = self.data[cut:] + more, len(more) < BLOCK

    def _by_line(self) -> Iterator[Batch[T]]:
        """JSON lines: each costs itself alone, blank ones nothing."""
        batch: Batch[T] = Batch(lines=[])
        for number, line in enumerate(self.file, 1):
            self.line = number
            raw = (line.removeprefix(BOM) if number == 1 else line).strip()
            if raw[:1] == b"{":
                if self._take(batch, raw, cut=not line.endswith(b"\n")):
                    batch.lines.append(number)
            elif raw:
                self._between(batch, raw)
            if len(batch.records) >= BLOCK >> 10:
                yield batch
                batch = Batch(lines=[])
        yield batch

    def _last_beginning(self, data: bytes) -> int:
        at = data.rfind(b"{")
        while at > 0 and not self.beginning.match(data, at):
            at = data.rfind(b"{", 0, at)
        return at

    def _sound(self, chunk: bytes) -> list[T] | None:
        """The records of a chunk, or None unless it holds nothing but whole and sound ones."""
        try:
            return self.many.decode(b"[" + chunk.strip(_GLUE) + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _one_by_one(self, data: bytes, ended: bool) -> tuple[Batch[T], int]:
        """The records of data that may hold unsound ones, and where what is left of it begins."""
        batch: Batch[T] = Batch()
        text, at = data.decode("latin-1"), 0  # a character a byte: only structure is looked for
        while (start := data.find(b"{", at)) >= 0:
            gap = data[at:start]
            self._between(batch, gap, at)
            try:
                at = _JSON.raw_decode(text, start)[1]
            except json.JSONDecodeError as error:
                short = error.msg.startswith("Unterminated") or error.pos >= len(data.rstrip())
                more = not ended and len(data) - start < LONGEST
                found = None if short and more else self.beginning.search(data, start + 1)
                if more and not found:
                    return batch, start
                at = found.start() if found else len(data)
                cut = short and ended and not found
                what = f"{ENDS} inside the record" if cut else f"malformed: {error.msg}"
                self._reject(batch, what, AGAIN, data[start:at], start)
                if cut:
                    return batch, len(data)
            else:
                if self.kind != "coco" or not gap.rstrip().endswith(b":"):  # "info" is no record
                    self._take(batch, data[start:at], start)
        if ended:
            self._close(batch, data[at:].rstrip(), at)
        return batch, len(data) if ended else at

    def _take(self, batch: Batch[T], raw: bytes, at: int = 0, cut: bool = False) -> bool:
        """Whether an object is sound, and so a record; ``cut``: the file ends behind it."""
        try:
            batch.records.append((self.number, self.one.decode(raw)))
            self.number += 1
            return True
        except msgspec.ValidationError as error:
            self._reject(batch, str(error), _LEAVE, raw, at)
        except UnicodeDecodeError as error:
            self._reject(batch, f"malformed: {error}", AGAIN, raw, at)
        except msgspec.DecodeError as error:
            if _HALF.search(raw):
                self._reject(batch, HALF, _LEAVE, raw, at)
            elif cut and "truncated" in str(error):
                self._reject(batch, f"{ENDS} inside the record", AGAIN, raw, at)
            else:
                self._reject(batch, f"malformed: {error}", AGAIN, raw, at)
        return False

    def _between(self, batch: Batch[T], gap: bytes, at: int = 0) -> None:
        """Reject what stands between records and is none, each by itself where that can be told."""
        if self.kind == "coco" or not (found := gap.strip(_GLUE)):
            return
        at += gap.find(found)
        try:
            parts = msgspec.json.decode(b"[" + found + b"]", type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            parts = [msgspec.Raw(found)]
        for part in map(bytes, parts):
            self._reject(batch, f"not an object: {part[:40]!r}", "leave it out", b"", at)

    def _close(self, batch: Batch[T], rest: bytes, at: int) -> None:
        """Look at what stands behind the last record."""
        closing = {"array": b"]", "coco": b"}"}.get(self.kind, b"")
        self._between(batch, rest.removesuffix(closing), at)
        if not rest.endswith(closing):
            self._reject(batch, f"{ENDS} before it is closed", AGAIN, b"", at)

    def _reject(self, batch: Batch[T], reason: str, fix: str, raw: bytes, at: int) -> None:
        legible = _ID.search(raw)
        name = legible[1].decode(errors="replace") if legible else None
        line = self.line + self.data.count(b"\n", 0, at)
        batch.rejected.append(Rejected(self.number, name, reason, fix, line))
        self.number += 1
