"""What a pass over all records finds: lengths, what cannot be trained on, which images lack."""

import contextlib
import hashlib
import json
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from sgv_lab import store
from sgv_lab.captions.records import Broken, counted
from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.images import opened_image
from sgv_lab.training import chat, layout
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.stream import IMAGE_ID
from sgv_lab.training.tokenizers import text_tokenizer

log = logging.getLogger(__name__)
MANY = 50_000  # records; as many or more are encoded by all cores


@dataclass(frozen=True)
class Survey:
    """What was found; arrays (N,) in the records' order, 0 for what is broken."""

    lengths: np.ndarray  # tokens after the cut, image tokens counted
    supervised: np.ndarray  # tokens with a loss
    truncated: np.ndarray  # bool: longer than max_length
    broken: dict[int, Broken]  # by record number
    missing: dict[str, str]  # record id -> the image it lacks
    folders: dict[str, tuple[int, int]]  # image folder -> (images asked for, missing)

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the records that can be trained on."""
        return np.setdiff1d(np.arange(len(self.lengths)), list(self.broken))

    def report(self, records: Any, refuse: bool, shown: bool) -> None:
        """Log why records are left out, where ``shown``. Raises LabError with it to ``refuse``."""
        why = list(self.broken.values())
        if refuse:
            raise LabError(
                f"{len(why)} of {len(self.lengths)} records cannot be trained on ({counted(why)}): "
                + "; ".join(map(str, why[:3])),
                where=records if isinstance(records, str | Path) else "records",
                fix="`sgv-lab plan` lists them; mend them, or say drop_broken to leave them out",
            )
        if shown:
            log.warning("%d left out: %s", len(why), counted(why))


@dataclass
class _Facts:
    """What a worker finds of one record."""

    id: str
    paths: list[str]
    numbers: tuple[int, int, int] = (0, 0, 0)  # length, supervised, truncated
    broken: Broken | None = None


class _Surveyed(Dataset[_Facts]):
    """Record number -> facts."""

    def __init__(self, dataset: RecordDataset, image_tokens: int | None) -> None:
        self.dataset, self.image_tokens = dataset, image_tokens

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Facts:
        data = self.dataset
        record = data.record(index)
        found = _Facts(record["id"], [] if index in data.malformed else data.paths(record))
        found.broken, encoded = data.examine(index)
        if encoded is None:
            return found
        places = encoded.input_ids.count(IMAGE_ID)
        each = self.image_tokens or 0
        if places and not each:
            with opened_image(data.image_root, found.paths[0]) as image:  # its header
                sides = image.size if data.recipe.aspect == "square" else [max(image.size)] * 2
            each = chat.image_tokens(data.processor, *sides)
        length = len(encoded.input_ids) + places * (each - 1)
        found.numbers = length, encoded.supervised, encoded.truncated
        return found


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
        _write(_surveyed(dataset, image_tokens, workers, progress), out)

    found = None
    if isinstance(dataset.source, str | Path):
        settings = _settings(dataset, image_tokens)
        with contextlib.suppress(OSError):  # a store that cannot be written to is done without
            found = _read(store.stage("survey", settings, [dataset.source], build))
    found = found or _surveyed(dataset, image_tokens, workers, progress)
    log.info(
        "%d samples, %d tokens, %d supervised, %d cut at %d, %d cannot be trained on",
        *(len(found.lengths), found.lengths.sum(), found.supervised.sum(), found.truncated.sum()),
        *(dataset.recipe.max_length, len(found.broken)),
    )
    return found


def _surveyed(
    dataset: RecordDataset, image_tokens: int | None, workers: int, progress: bool | None
) -> Survey:
    if not workers and len(dataset) >= MANY:
        workers = os.cpu_count() or 1
    loader = DataLoader(
        _Surveyed(dataset, image_tokens), batch_size=256, num_workers=workers, collate_fn=list
    )
    hidden = None if progress is None else not progress
    with tqdm(total=len(dataset), unit="record", disable=hidden, delay=2) as bar:
        facts: list[_Facts] = []
        for batch in loader:
            facts += batch
            bar.update(len(batch))
    lengths, supervised, truncated = np.array([one.numbers for one in facts]).T
    broken = {number: one.broken for number, one in enumerate(facts) if one.broken}
    lost = [(one, path) for one in facts for path in one.paths if _is_missing(one, path)]
    asked = Counter(layout.folder(path) for one in facts for path in one.paths)
    absent = Counter(layout.folder(path) for _, path in lost)
    folders = {folder: (count, absent[folder]) for folder, count in sorted(asked.items())}
    missing = {one.id: path for one, path in lost}
    return Survey(lengths, supervised, truncated.astype(bool), broken, missing, folders)


def _is_missing(one: _Facts, path: str) -> bool:
    return bool(one.broken) and one.broken.problem.startswith(f"image missing: {path} (")


def _settings(dataset: RecordDataset, image_tokens: int | None) -> dict[str, Any]:
    """All that decides a survey beside the records and the code."""
    recipe = dataset.recipe
    own_shape = {} if image_tokens else dataset.image_processor.to_dict()
    return {
        "recipe": [recipe.template, recipe.variant, recipe.max_length, recipe.aspect],
        "image_tokens": image_tokens,
        "image_processor": json.loads(json.dumps(own_shape, default=str)),
        "tokenizer": [text_tokenizer(dataset.tokenizer).digest(), version("tokenizers")],
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


def _write(found: Survey, out: Path) -> None:
    np.save(out / "numbers.npy", np.array([found.lengths, found.supervised, found.truncated]))
    broken = [asdict(one) for one in found.broken.values()]
    write_json(out / "found.json", {"broken": broken, "missing": found.missing,
                                    "folders": found.folders})  # fmt: skip


def _read(folder: Path) -> Survey:
    lengths, supervised, truncated = np.load(folder / "numbers.npy")
    known = json.loads((folder / "found.json").read_bytes())
    broken = {one["number"]: Broken(**one) for one in known["broken"]}
    folders = {folder: (asked, absent) for folder, (asked, absent) in known["folders"].items()}
    return Survey(lengths, supervised, truncated.astype(bool), broken, known["missing"], folders)
