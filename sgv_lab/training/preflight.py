"""What can be known before any training: are records, pictures and weights whole?"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgv_lab.errors import LabError
from sgv_lab.models.shards import opened, read_json
from sgv_lab.training import layout
from sgv_lab.training.data import RecordDataset, Survey, survey
from sgv_lab.training.recipes import Recipe


@dataclass(frozen=True)
class Check:
    """A set of records, looked through. ``broken``: record number -> why it can't be trained on."""

    survey: Survey
    broken: dict[int, str]
    missing: dict[str, str]  # record id -> the picture it lacks
    folders: dict[str, tuple[int, int]]  # picture folder -> (pictures asked for, missing)


def dataset(records: Any, image_root: str | Path, processor: Any, recipe: Recipe) -> RecordDataset:
    """The records as ``recipe`` shows them. Raises LabError for records of a wrong form."""
    return RecordDataset(
        records,
        image_root,
        processor.tokenizer,
        processor.image_processor,
        template=recipe.template,
        aspect=recipe.aspect,
        variant=recipe.variant,
        max_length=recipe.max_length,
    )


def check(
    examples: RecordDataset, image_tokens: int | None, workers: int = 0, progress: bool = False
) -> Check:
    """Encode every record once and look for every picture, decoding none."""
    found = survey(examples, image_tokens, workers, progress)
    broken, missing = dict(found.problems), {}
    asked: Counter[str] = Counter()
    absent: Counter[str] = Counter()
    for number in range(len(examples)):
        for path in examples.image_paths(number):
            folder = layout.folder(path)
            asked[folder] += 1
            if not (examples.image_root / path).is_file():
                name = examples.record(number)["id"]
                missing[name] = path
                absent[folder] += 1
                broken.setdefault(number, f"record {name!r} lacks its picture {path}")
    folders = {folder: (count, absent[folder]) for folder, count in sorted(asked.items())}
    return Check(found, broken, missing, folders)


@dataclass(frozen=True)
class Weights:
    """The weight files of a checkpoint folder. ``bad``: file -> "missing" or "incomplete"."""

    files: int
    bytes: int
    bad: dict[str, str] = field(default_factory=dict)


def weights(folder: Path) -> Weights:
    """Which weight files are there and whole, by their headers; nothing is loaded."""
    index = folder / "model.safetensors.index.json"
    names = read_json(index)["weight_map"].values() if index.is_file() else ["model.safetensors"]
    bad, total = {}, 0
    for name in sorted(set(names)):
        if not (folder / name).is_file():
            bad[name] = "missing"
            continue
        total += (folder / name).stat().st_size
        try:
            with opened(folder / name):
                pass  # its header is read, and its length compared with it
        except LabError:
            bad[name] = "incomplete"
    return Weights(len(set(names)), total, bad)
