"""What kind of file holds records, by what it holds and not by its name."""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from sgv_lab.errors import LabError

BOM = b"\xef\xbb\xbf"
AGAIN = "download the file again"
_FOREIGN = {  # first bytes -> what a file is, and what to do about it
    b"version https://git-lfs": ("a Git LFS pointer", "download the file it points to"),
    b"PK\x03\x04": ("a zip archive", "unpack it"),
    b"BZh": ("compressed by bzip2", "unpack it"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstandard", "unpack it"),
    b"\xff\xfe": ("UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8"),
}
_TELLS = re.compile(rb'"(annotations|conversations)"\s*:\s*\[')


def opened(path: str | Path) -> BinaryIO:
    """The file, unpacked if it is gzipped. Raises LabError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if packed else Path(path).open("rb")
    except OSError as error:
        fix = "give the path of a readable file"
        raise LabError(f"cannot be read ({error.strerror})", where=path, fix=fix) from error


def layout(path: str | Path) -> str:
    """ "array", "lines" (JSON lines), "objects" (of several lines each), "coco" or "parquet".

    COCO's is known by its "annotations", wherever they stand. Raises LabError if the file cannot
    be read, is empty or is none of these.
    """
    with opened(path) as file, undamaged(path):
        head = file.read(4096)
        if head.startswith(b"PAR1"):
            return "parquet"
        for mark, (what, fix) in _FOREIGN.items():
            if head.startswith(mark):
                raise LabError(f"is {what}", where=path, fix=fix)
        if b"\0" in head[:4]:
            raise LabError("is UTF-16 or binary", where=path, fix="save it as JSON in UTF-8")
        begins = head.removeprefix(BOM).lstrip()[:20]
        if not begins:
            raise LabError("is empty", where=path, fix=AGAIN)
        if begins[:1] not in (b"[", b"{"):
            raise LabError(f"is not JSON: it begins with {begins!r}", where=path, fix=AGAIN)
        if begins[:1] == b"[":
            return "array"
        file.seek(len(head) - len(head.removeprefix(BOM).lstrip()))
        return _kind_of_objects(file)


def _kind_of_objects(file: BinaryIO) -> str:
    """The layout of a file that begins with an object: by its first line, or by what comes first
    of what only COCO's files and what only conversations have."""
    start = file.tell()
    line = file.readline(16 << 20)
    try:
        known = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        known = None
    if known is not None:
        return "coco" if "annotations" in known and "conversations" not in known else "lines"
    file.seek(start)
    rest = b""
    while block := file.read(1 << 20):
        rest += block
        if found := _TELLS.search(rest):
            if found[1] == b"annotations":
                return "coco"
            break
        rest = rest[-100:]
    return "lines" if line.rstrip().endswith(b"}") else "objects"


@contextmanager
def undamaged(path: str | Path) -> Iterator[None]:
    """Raises LabError where a gzipped file turns out to be damaged or cut short."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"is damaged gzip ({error})", where=path, fix=AGAIN) from error
