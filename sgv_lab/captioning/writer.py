"""The one writer of captions: append-only files that survive a kill at any moment and a full disk.

A run is a folder: ``run.json`` (settings, and which images) and ``rows/000000.jsonl`` ..., CHUNK
images each, one line an image in the order of completion. Each is a `files.Journal` that one
process alone writes. What is there is never written again, so the same command carries on where it
stopped.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from sgv_lab.captioning.image_lists import ImageList
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, full_disk, only_writer, write_json

CHUNK = 1024
Row = dict[str, Any]
"""An image's row: ``index``, ``image``, ``sha256`` of the file; ``caption``, or None and the
``reason``; ``model``, ``revision``, ``seed`` and ``settings`` (hash of those in run.json); and what
else its maker tells."""


class CaptionRun:
    """The files of a run, as one process sees them: what is missing, and a way to add it.

    ``settings`` say everything that decides the captions and hold "model", "revision" and "seed";
    ``shard``: (i, n), this process writes every n-th file from the i-th. ``notes``: what the
    endpoint was found to refuse ("learned"), and the tokens of rows that were not kept ("spent").
    Raises LabError if ``out`` holds captions of other settings or images, or the disk is full.
    """

    def __init__(
        self,
        out: str | Path,
        images: ImageList,
        settings: Mapping[str, Any],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.out, self.images, self.shard = Path(out), images, shard
        if not 0 <= shard[0] < shard[1]:
            raise LabError(f"no shard {shard[0]}/{shard[1]}", fix="count from 0: 0/2 and 1/2")
        self.stamp = {key: settings[key] for key in ("model", "revision", "seed")}
        self.stamp["settings"] = digest(settings)
        run = {"images": len(images), "names": images.digest(), "ids": images.ids()}
        run["settings"] = dict(settings)
        self.run, self.notes = json.loads(json.dumps(run)), {"learned": {}, "spent": tokens([])}
        self._open: dict[int, tuple[Journal, BaseFileLock, set[int]]] = {}  # by first number
        with full_disk(self.out):
            self._claim()

    def _claim(self) -> None:
        if not (self.out / "run.json").is_file():
            return write_json(self.out / "run.json", self.run)
        before = settings(self.out)
        self.notes |= {name: before.pop(name) for name in self.notes if name in before}
        if before == self.run:
            return None
        if not any(row["caption"] is not None for row in rows(self.out)) and self.empty():
            self.notes["learned"] = {}
            return write_json(self.out / "run.json", self.run | {"spent": self.notes["spent"]})
        old, new = ({**run, **run["settings"], "settings": None} for run in (before, self.run))
        keys = sorted(k for k in old | new if old.get(k) != new.get(k))
        told = "; ".join(f"{k} was {str(old.get(k))!r:.60}" for k in keys)
        fix = "give the same settings and images to go on, or another folder"
        raise LabError(f"holds another run ({told})", where=self.out, fix=fix)

    def note(self, **told: Any) -> None:
        """Keep in run.json what is no setting of the run: "learned" or "spent"."""
        if self.notes | told != self.notes:
            self.notes |= told
            with full_disk(self.out):
                write_json(self.out / "run.json", settings(self.out) | told)

    def spend(self, lost: Iterable[Row]) -> None:
        """Note what rows cost that are not kept; it stays spent."""
        self.note(spent=tokens([self.notes["spent"], *lost]))

    def empty(self) -> bool:
        """Delete the rows, not what they cost; False, if another process is writing them."""
        self.__exit__()
        held = [*(self.out / "rows").glob("*.jsonl")]
        with suppress(LabError), ExitStack() as locks:
            for path in held:
                locks.enter_context(only_writer(path.parent, path.name))
            self.spend(rows(self.out))
            for path in held:
                path.unlink()
            return True
        return False

    def missing(self) -> Iterator[tuple[range, list[int]]]:
        """(all images' numbers, those without a row) of each file of this shard not yet whole.

        Raises LabError for a file another process is writing, or one that is damaged.
        """
        for numbers, file in islice(files(self.out, self.run), self.shard[0], None, self.shard[1]):
            missing, lock = set(numbers), only_writer(file.path.parent, file.path.name).lock
            self._open[numbers.start] = file, lock, missing
            missing.difference_update(row["index"] for row in file.read())
            if missing:
                yield numbers, sorted(missing)
            else:
                self._close(numbers.start)

    def add(self, rows: Sequence[Row]) -> int:
        """Append those of the rows that are missing, all of a file's or none; how many these are.

        A row holds ``index`` and what its maker tells. Raises LabError if the disk is full; what
        was there before stays.
        """
        added = 0
        for start, group in groupby(rows, key=lambda row: row["index"] // CHUNK * CHUNK):
            file, _, missing = self._open[start]
            new = [
                {"index": row["index"], "image": self.images[row["index"]], **row, **self.stamp}
                for row in group
                if row["index"] in missing
            ]
            file.append(new)
            missing.difference_update(row["index"] for row in new)
            added += len(new)
            if not missing:
                self._close(start)
        return added

    def _close(self, start: int) -> None:
        self._open.pop(start)[1].release()

    def __enter__(self) -> "CaptionRun":
        return self

    def __exit__(self, *failure: object) -> None:
        """Let go of the files that are not whole."""
        for start in [*self._open]:
            self._close(start)


def digest(settings: Mapping[str, Any]) -> str:
    """The hash that rows carry of their run's settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def files(out: str | Path, run: Mapping[str, Any]) -> Iterator[tuple[range, Journal]]:
    """(its images' numbers, the file) of each file of rows; ``run``: what run.json says."""
    for start in range(0, run["images"], CHUNK):
        file = Journal(Path(out) / "rows" / f"{start // CHUNK:06d}.jsonl")
        yield range(start, min(start + CHUNK, run["images"])), file


def rows(out: str | Path) -> Iterator[Row]:
    """All rows of a run so far, file by file."""
    for _, file in files(out, settings(out)):
        yield from file.read()


def settings(out: str | Path) -> dict[str, Any]:
    """What run.json says. Raises LabError if there is none."""
    path = Path(out) / "run.json"
    if not path.is_file():
        raise LabError("holds no run", where=out, fix="give the folder that captions were put in")
    run = json.loads(path.read_text(encoding="utf-8"))
    return {"images" if name == "pictures" else name: run[name] for name in run}  # as it was


def tokens(given: Iterable[Row]) -> dict[str, int]:
    """The tokens in and out of some rows together."""
    total = {"tokens_in": 0, "tokens_out": 0}
    for row in given:
        for name in total:
            total[name] += row.get(name, 0)
    return total
