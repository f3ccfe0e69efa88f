"""What a pass over all records finds: lengths, what cannot be trained on, which images lack."""

import contextlib
import csv
import hashlib
import json
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from sgv_lab import store
from sgv_lab.captions.records import Broken, count_reasons
from sgv_lab.errors import LabError
from sgv_lab.images import opened_image
from sgv_lab.training import chat
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.segments import IMAGE_ID, text_tokenizer

log = logging.getLogger(__name__)
MANY = 50_000  # records; as many or more are encoded by all cores


@dataclass(frozen=True)
class ImageFolder:
    """A folder of ShareGPT4V's layout, relative to the data root."""

    folder: str
    where: str  # its images come from
    terms: str  # the owners', in short; read them there


@cache
def image_folders() -> dict[str, ImageFolder]:
    """The folders of ShareGPT4V's docs/Data.md, from the table beside this module."""
    with Path(__file__).with_name("image_folders.csv").open(encoding="utf-8") as file:
        return {row["folder"]: ImageFolder(**row) for row in csv.DictReader(file)}


def folder(path: str) -> str:
    """The folder under which an image is counted: the layout's (LCS has 660 below), or its own.

    >>> folder("llava/llava_pretrain/images/00012/7.jpg")
    'llava/llava_pretrain/images'
    """
    own, *above = (parent.as_posix() for parent in PurePosixPath(path).parents)
    return next((one for one in (own, *above) if one in image_folders()), own)


@dataclass
class RecordReport:
    """What one record is found to be."""

    id: str
    paths: list[str]
    length: int = 0  # tokens after the cut, image tokens counted
    supervised: int = 0  # tokens with a loss
    truncated: bool = False  # longer than max_length
    broken: Broken | None = None

    @property
    def missing(self) -> list[str]:
        """The image that is not there, if that is what is wrong."""
        wrong = self.broken.problem if self.broken else ""
        return [path for path in self.paths if wrong.startswith(f"image missing: {path} (")]


class Survey:
    """What was found; arrays (N,) in the records' order, 0 for what is broken."""

    def __init__(self, reports: list[RecordReport]) -> None:
        self.lengths = np.array([one.length for one in reports])
        self.supervised = np.array([one.supervised for one in reports])
        self.truncated = np.array([one.truncated for one in reports])
        # by record number
        self.broken = {number: one.broken for number, one in enumerate(reports) if one.broken}
        self.kept = np.setdiff1d(np.arange(len(reports)), list(self.broken))
        # record id -> the image it lacks
        self.missing = {one.id: path for one in reports for path in one.missing}
        absent = Counter(folder(path) for one in reports for path in one.missing)
        asked = Counter(folder(path) for one in reports for path in one.paths)
        # image folder -> (images asked for, missing)
        self.folders = {name: (count, absent[name]) for name, count in sorted(asked.items())}

    def report(self, records: Any, refuse: bool, shown: bool) -> None:
        """Log why records are left out, where ``shown``. Raises LabError with it to ``refuse``."""
        why = list(self.broken.values())
        if refuse:
            raise LabError(
                f"{len(why)} of {len(self.lengths)} records cannot be trained on "
                f"({count_reasons(why)}): " + "; ".join(map(str, why[:3])),
                where=records if isinstance(records, str | Path) else "records",
                fix="`sgv-lab plan` lists them; mend them, or say drop_broken to leave them out",
            )
        if shown:
            log.warning("%d left out: %s", len(why), count_reasons(why))


def _reports_of(
    dataset: RecordDataset, image_tokens: int | None, numbers: list[int]
) -> list[RecordReport]:
    """What some records are found to be."""
    found = []
    for number in numbers:
        record = dataset.record(number)
        paths = [] if number in dataset.malformed else dataset.paths(record)
        one = RecordReport(record["id"], paths)
        one.broken, encoded = dataset.examine(number)
        if encoded:
            places = encoded.input_ids.count(IMAGE_ID)
            each = (image_tokens or _image_tokens(dataset, paths[0])) if places else 0
            one.length = len(encoded.input_ids) + places * (each - 1)
            one.supervised, one.truncated = encoded.supervised, encoded.truncated
        found.append(one)
    return found


def _image_tokens(dataset: RecordDataset, path: str) -> int:
    """How many tokens an image takes at its own shape, which its file's header tells."""
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
    """Encode every record once and look at every image file, decoding none.

    ``image_tokens``: tokens an image takes in the model (None: as many as its own shape asks, which
    its file's header tells); ``workers``: processes; ``progress``: None shows it in a terminal
    only. The totals are logged. Of a file of records this is done once and kept in the store, until
    the file, the size or date of an image, the tokenizer, the recipe or the code changes.
    """

    def build(out: Path) -> None:
        made = _reports(dataset, image_tokens, workers, progress)
        (out / "reports.json").write_bytes(msgspec.json.encode(made))

    reports: list[RecordReport] = []
    if isinstance(dataset.source, str | Path):
        settings = _settings(dataset, image_tokens)
        with contextlib.suppress(OSError):  # a store that cannot be written to is done without
            made = store.artifact("survey", settings, [dataset.source], build) / "reports.json"
            reports = msgspec.json.decode(made.read_bytes(), type=list[RecordReport])
    found = Survey(reports or _reports(dataset, image_tokens, workers, progress))
    log.info(
        "%d samples, %d tokens, %d supervised, %d cut at %d, %d cannot be trained on",
        *(len(found.lengths), found.lengths.sum(), found.supervised.sum(), found.truncated.sum()),
        *(dataset.recipe.max_length, len(found.broken)),
    )
    return found


def _reports(
    dataset: RecordDataset, image_tokens: int | None, workers: int, progress: bool | None
) -> list[RecordReport]:
    if not workers and len(dataset) >= MANY:
        workers = os.cpu_count() or 1
    look = partial(_reports_of, dataset, image_tokens)
    numbers = range(len(dataset))
    loader = DataLoader(numbers, batch_size=256, num_workers=workers, collate_fn=look)
    hidden = None if progress is None else not progress
    found: list[RecordReport] = []
    with tqdm(total=len(dataset), unit="record", disable=hidden, delay=2) as bar:
        for batch in loader:
            found += batch
            bar.update(len(batch))
    return found


def _settings(dataset: RecordDataset, image_tokens: int | None) -> dict[str, Any]:
    """All that decides a survey beside the records and the code."""
    recipe, own_shape = dataset.recipe, {}
    if not image_tokens:
        own_shape = dataset.processor.to_dict() | {"template": dataset.processor.chat_template}
    return {
        "recipe": [recipe.template, recipe.variant, recipe.max_length, recipe.aspect],
        "image_tokens": image_tokens,
        "processor": json.loads(json.dumps(own_shape, default=str)),
        "tokenizer": [text_tokenizer(dataset.processor.tokenizer).digest(), version("tokenizers")],
        "files": _states(dataset),
    }


def _states(dataset: RecordDataset) -> str:
    """A hash of the size and date of every image file: what arrives later is looked at again."""

    def state(path: str) -> str:
        try:
            known = (Path(dataset.image_root or "") / path).stat()
        except (OSError, ValueError):
            return f"{path}\0"
        return f"{path}\0{known.st_size} {known.st_mtime_ns}\n"

    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # a stat over a network waits
        for text in pool.map(state, dataset.all_paths()):
            digest.update(text.encode())
    return digest.hexdigest()
