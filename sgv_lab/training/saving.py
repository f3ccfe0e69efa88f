"""Checkpoints that are whole or not there: written beside their place, then renamed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from sgv_lab.errors import LabError

MARKER = "complete.json"  # written last: the size of every other file


@contextmanager
def refusing_full_disk(folder: Path) -> Iterator[None]:
    """Turn a failed write into a LabError; what was saved before stays as it is."""
    bars = is_progress_bar_enabled()  # transformers' own, which would break the run's bar
    disable_progress_bar()
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        free = shutil.disk_usage(folder).free / 1e9
        raise LabError(
            f"saving failed ({error}); {free:.1f} GB are free",
            where=folder,
            fix="free some space and give the same command again: it goes on from the last "
            "checkpoint, which is intact",
        ) from error
    finally:
        if bars:
            enable_progress_bar()


def complete(scratch: Path, target: Path) -> None:
    """Mark ``scratch`` as whole, on the disk, and move it to ``target``; older ones are deleted."""
    files = [p for p in sorted(scratch.rglob("*")) if p.is_file()]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sizes = {p.relative_to(scratch).as_posix(): p.stat().st_size for p in files}
    (scratch / MARKER).write_text(json.dumps(sizes), encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    scratch.replace(target)
    for path in target.parent.glob("checkpoint-*"):
        if path != target:
            shutil.rmtree(path)


def is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and every file it lists has its size."""
    marker = checkpoint / MARKER
    if not marker.is_file():
        return False
    sizes = json.loads(marker.read_bytes())
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in sizes.items()
    )


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints below ``folder``, the oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if is_complete(p)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))
