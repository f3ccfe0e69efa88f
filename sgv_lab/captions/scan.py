"""Find the records of a JSON file of any size without holding it.

The published caption files are one JSON array of up to 1.5 GB; COCO's is an object of arrays. Of
a block of bytes, what lies before its last beginning of a record is decoded at once where it is
sound, and record by record where it is not. A broken record costs itself alone: reading starts
again at the next beginning of a record.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

from sgv_lab.errors import LabError

T = TypeVar("T", bound=msgspec.Struct)

BLOCK = 1 << 20  # bytes read at a time: what fits the processor's cache is fastest
LONGEST = 16 << 20  # bytes of a record; what does not end by then lacks a quote or a bracket

_KEYS = rb"id|image|image_id|caption|file_name|conversations|license"  # a record begins with one
_FIRST = re.compile(rb'\{\s*"([^"\\]*)"\s*:')
_COCO = re.compile(rb'\{\s*"(?:info|licenses|images|annotations|type|categories)"\s*:')
_ID = re.compile(rb'"id"\s*:\s*"?([^",}\s]{1,80})')
_GLUE = b" \t\r\n,["
_JSON = json.JSONDecoder(strict=False)  # tells where an object ends; msgspec then judges it
_AGAIN = "download the file again"


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be used: its number in the file (from 0), its id if legible, why."""

    record: int
    id: str | None
    reason: str
    fix: str


@dataclass
class Batch(Generic[T]):
    """The sound records of a block, each with its number in the file, and the rejected ones."""

    records: list[tuple[int, T]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def layout(path: str | Path) -> str:
    """ "array", "lines" (JSON lines) or "coco": how the records of a file are laid out.

    Raises LabError if the file cannot be read, is empty or is not JSON.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        fix = "give the path of a readable JSON file"
        raise LabError(f"cannot be read ({error.strerror})", where=path, fix=fix) from error
    if not head:
        raise LabError("is empty", where=path, fix=_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise LabError("is a Git LFS pointer", where=path, fix="download the file it points to")
    if head[:1] not in (b"[", b"{"):
        raise LabError(f"is not JSON: it begins with {head[:20]!r}", where=path, fix=_AGAIN)
    return "array" if head[:1] == b"[" else "coco" if _COCO.match(head) else "lines"


def scan(path: str | Path, record: type[T]) -> Iterator[Batch[T]]:
    """The objects of a file as ``record``, batch by batch and in order, whatever the file's size.

    Raises LabError as ``layout`` does.
    """
    kind = layout(path)
    with Path(path).open("rb") as file:
        yield from _Scanner(file, kind, record).batches()


class _Scanner(Generic[T]):
    """A file being read, and the number of its records so far."""

    def __init__(self, file: BinaryIO, kind: str, record: type[T]) -> None:
        self.file, self.kind, self.number = file, kind, 0
        self.one = msgspec.json.Decoder(record)
        self.many = msgspec.json.Decoder(list[record])

    def batches(self) -> Iterator[Batch[T]]:
        data = self.file.read(BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip()
        if self.kind == "coco":
            data = data[1:]  # the object around all arrays
        first = _FIRST.search(data)  # somebody's own records may begin with a key of their own
        keys = _KEYS + b"|" + re.escape(first[1]) if first else _KEYS
        self.beginning = re.compile(rb'\{\s*"(?:' + keys + rb')"\s*:')
        ended = False
        while data or not ended:
            cut = self._last_beginning(data)
            records = self._sound(data[:cut]) if cut > 0 else None
            if records is None:
                batch, data = self._one_by_one(data, ended)
            else:
                batch, data = Batch(list(enumerate(records, self.number))), data[cut:]
                self.number += len(records)
            yield batch
            more = b"" if ended else self.file.read(BLOCK)
            data, ended = data + more, len(more) < BLOCK

    def _last_beginning(self, data: bytes) -> int:
        at = data.rfind(b"{")
        while at > 0 and not self.beginning.match(data, at):
            at = data.rfind(b"{", 0, at)
        return at

    def _sound(self, chunk: bytes) -> list[T] | None:
        """The records of a chunk, or None unless it holds nothing but whole and sound ones."""
        try:
            if self.kind == "lines":
                return self.one.decode_lines(chunk)
            return self.many.decode(b"[" + chunk.strip(_GLUE) + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _one_by_one(self, data: bytes, ended: bool) -> tuple[Batch[T], bytes]:
        """The records of data that may hold unsound ones, and its rest, if more may complete it."""
        batch: Batch[T] = Batch()
        text, at = data.decode("latin-1"), 0  # a character a byte: only structure is looked for
        while (start := data.find(b"{", at)) >= 0:
            gap = data[at:start]
            self._between(batch, gap)
            try:
                at = _JSON.raw_decode(text, start)[1]
            except json.JSONDecodeError as error:
                short = error.msg.startswith("Unterminated") or error.pos >= len(data.rstrip())
                more = not ended and len(data) - start < LONGEST
                found = None if short and more else self.beginning.search(data, start + 1)
                if more and not found:
                    return batch, data[start:]
                at = found.start() if found else len(data)
                cut = short and ended and not found
                what = "the file ends inside the record" if cut else f"malformed: {error.msg}"
                self._reject(batch, what, _AGAIN, data[start:at])
                if cut:
                    return batch, b""
            else:
                if self.kind != "coco" or not gap.rstrip().endswith(b":"):  # "info" is no record
                    self._take(batch, data[start:at])
        if ended:
            self._close(batch, data[at:].rstrip())
        return batch, b"" if ended else data[at:]

    def _take(self, batch: Batch[T], raw: bytes) -> None:
        try:
            batch.records.append((self.number, self.one.decode(raw)))
            self.number += 1
        except msgspec.ValidationError as error:
            self._reject(batch, str(error), "correct the record or leave it out", raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._reject(batch, f"malformed: {error}", _AGAIN, raw)

    def _between(self, batch: Batch[T], gap: bytes) -> None:
        """Reject what stands between records and is none."""
        if self.kind != "coco" and (found := gap.strip(_GLUE)):
            self._reject(batch, f"not an object: {found[:40]!r}", "leave it out", gap)

    def _close(self, batch: Batch[T], rest: bytes) -> None:
        """Look at what stands behind the last record."""
        closing = {"array": b"]", "coco": b"}", "lines": b""}[self.kind]
        self._between(batch, rest.removesuffix(closing))
        if not rest.endswith(closing):
            self._reject(batch, "the file ends before it is closed", _AGAIN, b"")

    def _reject(self, batch: Batch[T], reason: str, fix: str, raw: bytes) -> None:
        legible = _ID.search(raw)
        name = legible[1].decode(errors="replace") if legible else None
        batch.rejected.append(Rejected(self.number, name, reason, fix))
        self.number += 1
