"""Files written whole or not at all, paths that stay below their root, hashes."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sgv_lab.errors import LabError


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
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Write ``rows`` as JSON lines, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def whole_lines(path: Path) -> list[Any]:
    """The JSON lines of a file that grows (none if it is absent), less one that a kill cut short.

    What was cut short is taken from the file, too, so that more can be appended.
    """
    if not path.is_file():
        return []
    whole, end, cut = path.read_bytes().rpartition(b"\n")
    if cut:
        os.truncate(path, len(whole + end))
    return [json.loads(line) for line in whole.splitlines()]


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


def below(root: str | Path, relative: str) -> Path:
    """``root / relative``, by the letters alone: links below ``root`` are the user's to lay.

    Raises LabError for a path that `leaves_root`.
    """
    if leaves_root(relative):
        what = f"the path {relative!r} leaves its root"
        raise LabError(what, where=root, fix="use a path below the root")
    return Path(root) / relative


def leaves_root(relative: str) -> bool:
    """Whether a path is absolute, climbs by "..", is empty or no path at all, on any system."""
    parts = relative.replace("\\", "/").split("/")
    return not parts[0] or ".." in parts or relative[1:2] == ":" or "\0" in relative


def files_below(folder: str | Path) -> Iterator[Path]:
    """Every file below a folder, in no order; linked folders are followed.

    A folder is listed once, by its own name before a link's, so links may lead in a circle. One
    that is not there or may not be read is passed over.
    """
    seen: set[tuple[int, int]] = set()
    waiting, links = [Path(folder)], list[Path]()
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        with suppress(FileNotFoundError, PermissionError):
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if not _is_folder(entry):
                        yield Path(entry.path)
                    elif entry.is_symlink():
                        links.append(Path(entry.path))
                    else:
                        waiting.append(Path(entry.path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look
        return False
