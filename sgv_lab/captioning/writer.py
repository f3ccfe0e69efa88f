"""The one writer of captions: append-only files that survive a kill at any moment and a full disk.

A run is a folder: ``run.json`` (settings, and which pictures) and ``rows/000000.jsonl`` ..., CHUNK
pictures each, one line a picture in the order of completion. Each is a `files.Journal`, claimed by
the process that writes it. What is there is never written again, so the same command carries on
where it stopped.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sgv_lab.captioning.image_lists import ImageList
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, full_disk, write_json

CHUNK = 1024
Row = dict[str, Any]
"""A picture's row: ``index``, ``image``, ``sha256`` of the file; ``caption``, or None and the
``reason``; ``model``, ``revision``, ``seed`` and ``settings`` (hash of those in run.json); and what
else its maker tells."""


class CaptionRun:
    """The files of a run, as one process sees them: what is missing, and a way to add it.

    ``settings`` say everything that decides the captions and hold "model", "revision" and "seed";
    ``shard``: (i, n), this process writes every n-th file from the i-th. ``learned``: what the run
    found out of its endpoint. Raises LabError if ``out`` holds captions of other settings or
    pictures, and for a disk that is full.
    """

    def __init__(
        self,
        out: str | Path,
        pictures: ImageList,
        settings: Mapping[str, Any],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.out, self.pictures, self.shard = Path(out), pictures, shard
        if not 0 <= shard[0] < shard[1]:
            raise LabError(f"no shard {shard[0]}/{shard[1]}", fix="count from 0: 0/2 and 1/2")
        self.stamp = {key: settings[key] for key in ("model", "revision", "seed")}
        self.stamp["settings"] = digest(settings)
        run = {"pictures": len(pictures), "names": pictures.digest(), "ids": pictures.ids()}
        run["settings"] = dict(settings)
        self.run, self.learned = json.loads(json.dumps(run)), {}
        with full_disk(self.out):
            (self.out / "rows").mkdir(parents=True, exist_ok=True)
            self._claim(self.run)
        self._open: dict[int, tuple[Journal, int]] = {}  # chunk -> file, rows still missing

    def _claim(self, run: dict[str, Any]) -> None:
        path = self.out / "run.json"
        if not path.is_file():
            return write_json(path, run)
        before = json.loads(path.read_text(encoding="utf-8"))
        learned = before.pop("learned", {})
        if before == run:
            self.learned = learned
            return None
        if not any(row["caption"] is not None for row in rows(self.out)) and _emptied(self.out):
            return write_json(path, run)
        old, new = ({**r.pop("settings"), **r} for r in (before, run))
        keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
        told = "; ".join(f"{k} was {str(old.get(k))!r:.60}" for k in keys)
        fix = "give the same settings and pictures to go on, or another folder"
        raise LabError(f"holds another run ({told})", where=self.out, fix=fix)

    def start_over(self) -> None:
        """Delete all rows, unless another process is writing them."""
        _emptied(self.out)

    def learn(self, learned: Mapping[str, Any]) -> None:
        """Note in run.json what the endpoint was found to refuse; it is no setting of the run."""
        if learned != self.learned:
            self.learned = dict(learned)
            with full_disk(self.out):
                write_json(self.out / "run.json", self.run | {"learned": self.learned})

    def missing(self) -> Iterator[tuple[range, list[int]]]:
        """(all pictures' numbers, those without a row) of each file of this shard not yet whole.

        Raises LabError for a file another process is writing, or one that is damaged.
        """
        for chunk in range(self.shard[0], chunks(len(self.pictures)), self.shard[1]):
            numbers, file = span(chunk, len(self.pictures)), journal(self.out, chunk)
            file.claim()
            there = {row["index"] for row in file.read()}
            left = [number for number in numbers if number not in there]
            if not left:
                file.close()
                continue
            self._open[chunk] = (file, len(left))
            yield numbers, left

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows (``index`` and what the maker tells): all of a file's, or none of them.

        Raises LabError if the disk is full; what was there before stays.
        """
        for chunk, group in groupby(rows, key=lambda row: row["index"] // CHUNK):
            stamped = [self._stamped(row) for row in group]
            file, left = self._open[chunk]
            file.append(stamped)
            self._open[chunk] = (file, left - len(stamped))
            if left == len(stamped):
                self._open.pop(chunk)[0].close()

    def _stamped(self, row: Row) -> Row:
        return {"index": row["index"], "image": self.pictures[row["index"]], **row, **self.stamp}

    def close(self) -> None:
        """Let go of the files that are not whole."""
        while self._open:
            self._open.popitem()[1][0].close()

    def __enter__(self) -> "CaptionRun":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def digest(settings: Mapping[str, Any]) -> str:
    """The hash that rows carry of their run's settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def chunks(pictures: int) -> int:
    """How many files hold the rows of that many pictures."""
    return -(-pictures // CHUNK)


def span(chunk: int, pictures: int) -> range:
    """The numbers of a file's pictures."""
    return range(chunk * CHUNK, min((chunk + 1) * CHUNK, pictures))


def journal(out: str | Path, chunk: int) -> Journal:
    """The file that holds those pictures' rows."""
    return Journal(Path(out) / "rows" / f"{chunk:06d}.jsonl")


def rows(out: str | Path) -> Iterator[Row]:
    """All rows of a run so far, file by file."""
    for chunk in range(chunks(settings(out)["pictures"])):
        yield from journal(out, chunk).read()


def settings(out: str | Path) -> dict[str, Any]:
    """What run.json says. Raises LabError if there is none."""
    path = Path(out) / "run.json"
    if not path.is_file():
        raise LabError("holds no run", where=out, fix="give the folder that captions were put in")
    return json.loads(path.read_text(encoding="utf-8"))


def _emptied(out: Path) -> bool:
    """Delete a run's rows; False, and nothing is done, if another process is writing them."""
    files = [Journal(path) for path in (out / "rows").glob("*.jsonl")]
    try:
        for file in files:
            file.claim()
        for file in files:
            file.path.unlink()
    except LabError:
        return False
    finally:
        for file in files:
            file.close()
    return True
