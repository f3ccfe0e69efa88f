"""What a pass over all records finds: lengths, what cannot be trained on, which images lack.

Every image is decoded, since what lies behind a sound header would otherwise end a training days
later.
"""

import contextlib
import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec
import numpy as np
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from sgv_lab import store
from sgv_lab.captions.records import Broken, count_reasons
from sgv_lab.errors import LabError
from sgv_lab.files import in_threads
from sgv_lab.images import image_problem, images_kinds, opened_image
from sgv_lab.training import chat
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.segments import IMAGE_ID, text_tokenizer

MANY = 50_000  # records; as many or more are encoded by all cores
MAX_DROPPED = 0.05  # of the records; where more cannot be trained on, something else is wrong


class _State(NamedTuple):
    """An image's file when it was looked at."""

    size: int
    date: int
    linked: bool  # it, or a folder above it within the image folder, is a link


_Wrong = tuple[dict[int, Broken], dict[str, dict[str, int]]]  # of a `Survey`
_looked: dict[tuple[Path, str], tuple[_State | None, dict[str, str]]] = {}  # arms share images


@cache
def image_folders() -> dict[str, dict[str, str]]:
    """The folders of ShareGPT4V's docs/Data.md, relative to the data root, from the table beside.

    Each with ``where`` its images come from, and the owners' ``terms`` in short.
    """
    with Path(__file__).with_name("image_folders.csv").open(encoding="utf-8") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def folder(path: str) -> str:
    """The folder under which an image is counted: the layout's (LCS has 660 below), or its own.

    >>> folder("llava/llava_pretrain/images/00012/7.jpg")
    'llava/llava_pretrain/images'
    """
    own, *above = (parent.as_posix() for parent in PurePosixPath(path).parents)
    return next((one for one in (own, *above) if one in image_folders()), own)


@dataclass
class Survey:
    """What was found; arrays (N,) in the records' order, 0 for what is broken."""

    lengths: np.ndarray  # tokens after the cut, image tokens counted
    supervised: np.ndarray  # tokens with a loss
    truncated: np.ndarray  # longer than max_length
    broken: dict[int, Broken]  # by record number
    # image folder -> {"images": ..., "missing": ...; where there are any: "corrupt", "linked", ...}
    folders: dict[str, dict[str, int]]

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the records that can be trained on."""
        return np.setdiff1d(np.arange(len(self.lengths)), list(self.broken))

    def digest(self) -> str:
        """A hash of which records are left out."""
        return hashlib.sha256(json.dumps(sorted(self.broken)).encode()).hexdigest()[:20]

    def refuse(self, records: Any, drop_broken: bool, max_dropped: float) -> None:
        """Raise LabError where records are broken that `refusal` does not let be left out."""
        broken = list(self.broken.values())
        if wrong := refusal(broken, len(self.lengths), drop_broken, max_dropped):
            raise LabError(
                f"{wrong} ({count_reasons(broken)}): " + "; ".join(map(str, broken[:3])),
                where=records if isinstance(records, str | Path) else "records",
                fix="`sgv-lab plan` lists them; mend them, or "
                + ("allow more by --max-dropped" if drop_broken else "add --drop-broken"),
            )


def refusal(broken: Sequence[Any], records: int, drop_broken: bool, max_dropped: float) -> str:
    """Why a training with these broken records does not start, in words; "" if it may."""
    if not broken:
        return ""
    what = f"{len(broken):,} of {records:,} records cannot be trained on"
    if not drop_broken:
        return what
    if len(broken) == records:
        return "no record is left to train on"
    return "" if len(broken) <= max_dropped * records else f"{what}, more than {max_dropped:.1%}"


def _encode(
    dataset: RecordDataset, image_tokens: int | None, bad: Mapping[str, str], numbers: list[int]
) -> tuple[np.ndarray, dict[int, Broken]]:
    """Of some records: lengths, supervised, truncated (3, N), and what is wrong with them.

    ``bad``: images that cannot be used, and why.
    """
    counts, wrong = np.zeros((3, len(numbers)), np.int32), {}
    for place, number in enumerate(numbers):
        broken, encoded = dataset.examine(number, bad)
        if broken:
            wrong[number] = broken
        if encoded:
            places = encoded.input_ids.count(IMAGE_ID)
            each = (image_tokens or _image_tokens(dataset, number)) if places else 0
            length = len(encoded.input_ids) + places * (each - 1)
            counts[:, place] = length, encoded.supervised, encoded.truncated
    return counts, wrong


def _image_tokens(dataset: RecordDataset, number: int) -> int:
    """How many tokens a record's image takes at its own shape, which its file's header tells."""
    (path,) = dataset.paths(dataset.record(number))
    with opened_image(dataset.image_root, path) as image:
        width, height = image.size
    if dataset.recipe.aspect == "pad":
        width = height = max(width, height)
    return chat.image_tokens(dataset.processor, width, height)


def survey(
    dataset: RecordDataset,
    image_tokens: int | None,
    workers: int = 0,
    progress: bool | None = True,
) -> Survey:
    """Encode every record once, and decode every image.

    ``image_tokens``: tokens an image takes in the model (None: as many as its own shape asks, which
    its file's header tells); ``workers``: processes; ``progress``: None shows it in a terminal
    only. Of a file of records this is done once and kept in the store, until the file, the size or
    date of an image, the tokenizer, the recipe or the code changes.
    """
    states = _states(dataset)

    def build(out: Path) -> None:
        made = _survey(dataset, image_tokens, states, workers, progress)
        np.save(out / "counts.npy", [made.lengths, made.supervised, made.truncated])
        (out / "wrong.json").write_bytes(msgspec.json.encode((made.broken, made.folders)))

    found = None
    if isinstance(dataset.source, str | Path):
        settings = _settings(dataset, image_tokens, states)
        with contextlib.suppress(OSError):  # a store that cannot be written to is done without
            kept = store.artifact("survey", settings, [dataset.source], build)
            wrong = msgspec.json.decode((kept / "wrong.json").read_bytes(), type=_Wrong)
            found = Survey(*np.load(kept / "counts.npy"), *wrong)
    found = found or _survey(dataset, image_tokens, states, workers, progress)
    found.truncated = found.truncated.astype(bool)
    return found


def _survey(
    dataset: RecordDataset,
    image_tokens: int | None,
    states: Mapping[str, _State | None],
    workers: int,
    progress: bool | None,
) -> Survey:
    kinds = _image_kinds(dataset.image_root, states, progress)
    bad = {path: wrong for path, one in kinds.items() if (wrong := image_problem(one))}
    if not workers and len(dataset) >= MANY:
        workers = os.cpu_count() or 1
    look, numbers = partial(_encode, dataset, image_tokens, bad), range(len(dataset))
    loader = DataLoader(numbers, batch_size=256, num_workers=workers, collate_fn=look)
    counts, wrong = zip(*_bar(loader, len(loader), "256 records", progress), strict=True)
    broken = {number: one for part in wrong for number, one in part.items()}
    folders: dict[str, dict[str, int]] = {}
    for path, state in sorted(states.items()):
        count = folders.setdefault(folder(path), Counter(images=0, missing=0))
        linked = ["linked"] if state and state.linked else []
        count.update(["images", *kinds.get(path, ()), *linked])
    return Survey(*np.concatenate(counts, axis=1), broken, {k: dict(v) for k, v in folders.items()})


def _image_kinds(
    root: Path | None, states: Mapping[str, _State | None], progress: bool | None
) -> dict[str, dict[str, str]]:
    """Image -> what `images.image_kinds` says of it."""
    if root is None:
        return {}
    new = [path for path, now in states.items() if _looked.get((root, path), ("",))[0] != now]
    looked = _bar(images_kinds(root, new), len(new), "image", progress)
    for path, kinds in zip(new, looked, strict=True):
        _looked[root, path] = states[path], kinds
    return {path: _looked[root, path][1] for path in states}


def _bar(found: Iterable[Any], total: int, unit: str, progress: bool | None) -> Iterable[Any]:
    hidden = None if progress is None else not progress
    return tqdm(found, total=total, unit=unit, disable=hidden, delay=2)


def _settings(
    dataset: RecordDataset, image_tokens: int | None, states: Mapping[str, _State | None]
) -> dict[str, Any]:
    """All that decides a survey beside the records and the code."""
    recipe, own_shape, files = dataset.recipe, {}, hashlib.sha256()
    for path, state in states.items():
        files.update(f"{path}\0{state and state[:2]}\n".encode(errors="replace"))
    if not image_tokens:
        own_shape = dataset.processor.to_dict() | {"template": dataset.processor.chat_template}
    return {
        "recipe": [recipe.template, recipe.variant, recipe.max_length, recipe.aspect],
        "image_tokens": image_tokens,
        "processor": json.loads(json.dumps(own_shape, default=str)),
        "tokenizer": [text_tokenizer(dataset.processor.tokenizer).digest(), version("tokenizers")],
        "files": files.hexdigest(),
    }


def _states(dataset: RecordDataset) -> dict[str, _State | None]:
    """Image -> its file as it is now: what arrives or changes later is looked at again."""
    root = Path(dataset.image_root or "")

    @cache
    def linked(parent: Path) -> bool:
        return any((root / one).is_symlink() for one in (parent, *parent.parents))

    def state(path: str) -> _State | None:
        try:
            known = (root / path).stat()
        except (OSError, ValueError):
            return None
        through = (root / path).is_symlink() or linked(Path(path).parent)
        return _State(known.st_size, known.st_mtime_ns, through)

    paths = dataset.all_paths()
    return dict(zip(paths, in_threads(state, paths, spare=4_096), strict=True))
