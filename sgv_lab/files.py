"""Files written whole or not at all, journals, paths that stay below their root, hashes."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from sgv_lab.errors import LabError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes the place of ``path``.

    Works for a file and for a folder that does not exist yet. After an exception or a kill,
    ``path`` is what it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch / path.name
        (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Write ``rows`` as JSON lines, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def full_disk(
    where: str | Path, fix: str = "free some space and run the same again: it goes on from there"
) -> Iterator[None]:
    """Turn the errors of a full disk or quota into a LabError; every other error passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise LabError("the disk is full", where=where, fix=fix) from error


def only_writer(folder: Path, file: str = "") -> AcquireReturnProxy:
    """A held lock that keeps a folder, or one ``file`` in it, to this process until its release.

    LabError if another process holds it.
    """
    with full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(folder / f"{file}.lock").acquire(timeout=0)
        except Timeout as error:
            fix = "wait for it, or choose another --out"
            raise LabError("another run is writing here", where=folder / file, fix=fix) from error


class Journal:
    """A file of JSON lines that grows and survives a kill at any moment.

    A last line without its end was cut by a kill: it is not read, and the next `append` cuts it
    off. Several processes may append at once.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[Any]:
        """The rows so far, none if there is no file. Raises LabError naming a damaged line."""
        if not self.path.is_file():
            return []
        rows = []
        *whole, _ = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(whole, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                fix = "delete the line or the file: what it held is made again"
                raise LabError(f"line {number} is damaged", where=self.path, fix=fix) from error
        return rows

    def append(self, rows: Iterable[Any], sync: bool = True) -> None:
        """Write rows, all or none; ``sync``: wait until the disk has them.

        Raises LabError if the disk is full; what was there before stays.
        """
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with full_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _append(file.fileno(), text.encode(errors="replace"), sync)


def _append(file: int, data: bytes, sync: bool) -> None:
    """Cut a torn last line, then write ``data``, or leave the file as it was."""
    end = os.fstat(file).st_size
    if end and os.pread(file, 1, end - 1) != b"\n":
        end = os.pread(file, end, 0).rfind(b"\n") + 1
        os.ftruncate(file, end)
    try:
        while data:
            data = data[os.write(file, data) :]
        if sync:
            os.fsync(file)
    except OSError:
        os.ftruncate(file, end)
        raise


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, or of a folder's names and bytes."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in files_below(path) if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def in_threads(
    work: Callable[[Any], Any],
    items: Iterable[Any],
    threads: int = min(32, 4 + (os.cpu_count() or 1)),
    spare: int = 1,
    in_order: bool = True,
) -> Iterator[Any]:
    """``work`` of each item, done in threads: for what waits for a disk or a network.

    At most ``spare`` results more than there are threads are worked on or wait to be taken. Without
    ``in_order`` they come as they end.
    """
    items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(work, item) for item in islice(items, threads + spare)]
        try:
            while waiting:
                due = waiting[:1] if in_order else waiting
                ended = wait(due, return_when=FIRST_COMPLETED).done
                for one in [each for each in due if each in ended]:
                    waiting.remove(one)
                    yield one.result()
                    waiting += [pool.submit(work, item) for item in islice(items, 1)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def leaves_root(relative: str) -> bool:
    """Whether a path is absolute, climbs by "..", is empty or no path at all, on any system."""
    path = relative.replace("\\", "/")
    climbs = ".." in path and ".." in path.split("/")  # a million paths are not split
    return climbs or path[:1] in ("", "/") or path[1:2] == ":" or "\0" in path


def files_below(folder: str | Path) -> Iterator[Path]:
    """Every file below a folder; linked folders are followed, behind all others.

    A folder is listed once, by its own name before a link's, so links may lead in a circle. One
    that is not there or may not be read is passed over.
    """
    seen: set[tuple[int, int]] = set()
    tops = [Path(folder)]
    for top in tops:  # which grows
        for path, folders, names in os.walk(top):
            status = Path(path).stat()
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            tops += [link for one in folders if (link := Path(path, one)).is_symlink()]
            yield from (Path(path, one) for one in sorted(names))
