"""Find the records of a JSON file of any size without holding it.

The published caption files are one JSON array of up to 1.5 GB; COCO's is an object of arrays. A
block of bytes is searched for quotes and brackets with numpy, which gives the records that are
whole in it; msgspec decodes them, all at once where they are sound and one by one where they are
not. A broken record costs itself alone: scanning starts again at the next beginning of a record.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec
import numpy as np

from sgv_lab.errors import LabError

T = TypeVar("T", bound=msgspec.Struct)

BLOCK = 1 << 20  # bytes scanned at a time: what fits the processor's cache is fastest
LONGEST = 16 << 20  # bytes of a record; what does not end by then lacks a quote or a bracket
_RESTART = 64 << 10  # bytes scanned after a broken record: more broken ones may follow
_LEVELS = {"lines": 1, "array": 2, "coco": 3}  # bracket depth inside a record

_BEGINNING = re.compile(rb'\{\s*"(?:id|image|image_id|caption|file_name|conversations)"\s*:')
_COCO = re.compile(rb'\{\s*"(?:info|licenses|images|annotations|type|categories)"\s*:')
_ID = re.compile(rb'"id"\s*:\s*"?([^",}\s]{1,80})')
_GLUE = b" \t\r\n,["
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
    """Bytes not yet decoded, the bracket depth at their start, the number of records so far."""

    def __init__(self, file: BinaryIO, kind: str, record: type[T]) -> None:
        self.file, self.kind, self.level = file, kind, _LEVELS[kind]
        self.one = msgspec.json.Decoder(record)
        self.many = msgspec.json.Decoder(list[record])
        self.data, self.depth, self.window, self.number = b"", 0, BLOCK, 0
        self.done = False

    def batches(self) -> Iterator[Batch[T]]:
        if self.file.read(3) != b"\xef\xbb\xbf":
            self.file.seek(0)
        while True:
            self.data += self.file.read(max(0, self.window - len(self.data)))
            ended = len(self.data) < self.window
            starts, ends, close = _spans(self.data[: self.window], self.depth, self.level)
            if len(ends):
                yield self._decode(starts, ends)
            elif close is not None:
                yield self._close(close)
            elif not ended and self.window < LONGEST:
                self.window *= 2
                continue
            else:
                yield self._broken(starts, ended)
            if self.done:
                return

    def _decode(self, starts: np.ndarray, ends: np.ndarray) -> Batch[T]:
        """The whole records at the beginning of the data, which then loses them."""
        end = int(ends[-1])
        chunk = self.data[:end].lstrip(_GLUE)
        try:
            if self.kind == "lines":
                records = self.one.decode_lines(chunk)
            else:
                records = self.many.decode(b"[" + chunk + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._one_by_one(starts, ends)
        batch = Batch(list(enumerate(records, self.number)))
        self.number += len(records)
        self._go_on(self.data[end:], min(2 * self.window, BLOCK))
        return batch

    def _one_by_one(self, starts: np.ndarray, ends: np.ndarray) -> Batch[T]:
        """The same for records of which at least one is unsound."""
        batch: Batch[T] = Batch()
        last = 0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=False):
            self._between(batch, self.data[last:start])
            raw, last = self.data[start:end], end
            try:
                batch.records.append((self.number, self.one.decode(raw)))
                self.number += 1
            except msgspec.ValidationError as error:
                self._reject(batch, str(error), "correct the record or leave it out", raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._reject(batch, f"malformed: {error}", _AGAIN, raw)
                if swallowed := _BEGINNING.search(raw, 1):
                    self._go_on(self.data[start + swallowed.start() :], _RESTART)
                    return batch
        self._go_on(self.data[last:], min(2 * self.window, BLOCK))
        return batch

    def _between(self, batch: Batch[T], gap: bytes) -> None:
        """Reject what stands between records and is none."""
        if self.kind != "coco" and gap.strip(_GLUE):
            self._reject(batch, f"not an object: {gap.strip(_GLUE)[:40]!r}", "leave it out", gap)

    def _close(self, close: int) -> Batch[T]:
        """The bracket that closes the whole: the end, unless more records stand behind it."""
        batch: Batch[T] = Batch()
        self._between(batch, self.data[:close])
        self._seek(close + 1)
        if not self.done:
            self._reject(batch, "a bracket closes the whole before its end", _AGAIN, b"")
        return batch

    def _broken(self, starts: np.ndarray, ended: bool) -> Batch[T]:
        """A record without an end, or a file without one."""
        batch: Batch[T] = Batch()
        if len(starts):
            start = int(starts[0])
            raw = self.data[start : start + 1000]
            self._between(batch, self.data[:start])
            self._seek(start + 1)
            cut = ended and self.done
            what = "the file ends inside the record" if cut else "malformed: it has no end"
            self._reject(batch, what, _AGAIN, raw)
        else:
            self._between(batch, self.data)
            if ended and self.kind != "lines":
                self._reject(batch, "the file ends before it is closed", _AGAIN, b"")
            self._seek(len(self.data))
        return batch

    def _seek(self, offset: int) -> None:
        """Go on at the next beginning of a record from ``offset`` on, or be done."""
        found = _BEGINNING.search(self.data, offset)
        while not found and (more := self.file.read(BLOCK)):
            self.data, offset = self.data[max(offset, len(self.data) - 256) :] + more, 0
            found = _BEGINNING.search(self.data)
        self.done = not found
        self._go_on(self.data[found.start() :] if found else b"", _RESTART)

    def _go_on(self, data: bytes, window: int) -> None:
        """Take ``data``, which begins outside a record, next."""
        self.data, self.depth, self.window = data, self.level - 1, window

    def _reject(self, batch: Batch[T], reason: str, fix: str, raw: bytes) -> None:
        legible = _ID.search(raw)
        name = legible[1].decode(errors="replace") if legible else None
        batch.rejected.append(Rejected(self.number, name, reason, fix))
        self.number += 1


def _spans(data: bytes, depth: int, level: int) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Where records start and end in ``data``, which begins outside strings at ``depth``.

    Returns starts (N,) or (N + 1,), ends (N,), both byte offsets, and the offset of the bracket
    that closes the whole, if it is there.
    """
    code = np.frombuffer(data, np.uint8)
    # with bit 5 set, [ \ ] { | } are the codes 0x7b to 0x7d
    at = np.flatnonzero(((code | 0x20) - np.uint8(0x7B) <= 2) | (code == ord('"')))
    kinds = code[at]
    quotes = at[kinds == ord('"')]
    slashes = at[kinds == ord("\\")]
    if len(slashes):  # in a run of backslashes every other one escapes the byte after it
        first = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
        place = np.arange(len(slashes)) - np.repeat(first, np.diff(first, append=len(slashes)))
        escaped = np.zeros(len(data) + 1, bool)
        escaped[slashes[place % 2 == 0] + 1] = True
        quotes = quotes[~escaped[quotes]]
    brackets = at[((kinds | 0x20) != 0x7C) & (kinds != ord('"'))]
    brackets = brackets[np.searchsorted(quotes, brackets) % 2 == 0]  # those outside strings
    kinds = code[brackets]
    depths = depth + np.cumsum(np.where(kinds & 2, 1, -1))  # bit 1 tells [ { from ] }
    closing = np.flatnonzero(depths < (1 if level > 1 else 0))
    close = None
    if len(closing):
        close = int(brackets[closing[0]])
        brackets, kinds, depths = (x[: closing[0]] for x in (brackets, kinds, depths))
    starts = brackets[(kinds == ord("{")) & (depths == level)]
    ends = brackets[(kinds == ord("}")) & (depths == level - 1)] + 1
    return starts, ends[: len(starts)], close
