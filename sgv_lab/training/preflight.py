"""What can be known before any training: are records, pictures and weights whole?"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
            folder = Path(path).parent.as_posix()
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
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    bad, total = {}, 0
    for name in names:
        path = folder / name
        if not path.is_file():
            bad[name] = "missing"
            continue
        total += path.stat().st_size
        if path.stat().st_size != _announced(path):
            bad[name] = "incomplete"
    return Weights(len(names), total, bad)


def _announced(path: Path) -> int:
    """How long a safetensors file says it is: 8 bytes, a JSON header, the tensors' bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return -1
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)
