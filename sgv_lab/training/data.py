"""Records as training samples: checked before work starts, read and encoded lazily.

Records are held as one Arrow table, compact and shared by worker processes. Text-only records carry
no image.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from sgv_lab.errors import LabError
from sgv_lab.training import layout, qwen_chat
from sgv_lab.training.conversation import check_names, encode
from sgv_lab.training.images import native_tokens, open_image, prepare
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.stream import IMAGE, IMAGE_ID, Encoded

log = logging.getLogger(__name__)
_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
_SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.string()), ("conversations", pa.list_(_TURN))]
)
_ROLES = {"human", "gpt", "user", "assistant"}


def form_problem(record: Any) -> str:
    """What is wrong with a record's form, or "": missing keys, other types, unknown roles."""
    if not isinstance(record, Mapping) or "id" not in record:
        return "is not an object with an id"
    turns = record.get("conversations")
    if not isinstance(turns, list | tuple) or not turns:
        return "has no conversations"
    for turn in turns:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            return "has a turn that is not {from, value} with text"
        if turn.get("from") not in _ROLES:
            return f"has the unknown role {turn.get('from')!r}"
    return ""


def problem(record: Any) -> str:
    """What is wrong with a record, or "". Files are not looked at.

    Beside its form: an image path that is absolute or holds "..", an image without exactly one
    question with <image>, and a question that asks about an <image> the record does not have.
    """
    return form_problem(record) or _image_problem(record.get("image"), record["conversations"])


def _image_problem(image: Any, turns: Sequence[Mapping[str, str]]) -> str:
    tagged = [turn for turn in turns if IMAGE in turn["value"]]
    if image is None:
        # The tag in the middle of a text may be the text's own (code, mark-up).
        texts = [turn["value"].strip() for turn in tagged]
        asked = any(text.startswith(IMAGE) or text.endswith(IMAGE) for text in texts)
        return "asks about <image> but has no image" if asked else ""
    if not isinstance(image, str) or not image:
        return f"has the image {image!r}, not a path"
    if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
        return f"has the image {image!r}, which leaves the image folder"
    if len(tagged) != 1:
        return f"has an image and {len(tagged)} turns with <image> instead of one"
    if tagged[0]["from"] not in ("human", "user"):
        return "has <image> in an answer"
    return ""


def read_records(path: Path) -> Iterable[Any]:
    """Records of a JSON array, JSON lines or Parquet file; LabError for anything else."""
    try:
        if path.suffix == ".parquet":
            batches = pq.ParquetFile(path).iter_batches()
            return (record for batch in batches for record in batch.to_pylist())
        with path.open(encoding="utf-8") as file:
            records = (
                [json.loads(line) for line in file] if path.suffix == ".jsonl" else json.load(file)
            )
    except (OSError, ValueError) as error:
        raise LabError(f"cannot be read ({error})", where=path, fix="download it again") from error
    if not isinstance(records, list):
        raise LabError("is not a JSON array of records", where=path, fix="give a list")
    return records


def _table(records: Iterable[Any], where: object) -> pa.Table:
    """The records as one checked Arrow table. Raises LabError naming the first bad ones."""
    bad: list[str] = []

    def checked() -> Iterable[dict[str, Any]]:
        for number, record in enumerate(records):
            if wrong := problem(record):
                name = record.get("id", number) if isinstance(record, Mapping) else number
                bad.append(f"record {name!r} {wrong}")
            else:
                yield {**record, "id": str(record["id"])}

    rows = iter(checked())
    batches = []
    try:
        while chunk := list(islice(rows, 10_000)):
            batches.append(pa.RecordBatch.from_pylist(chunk, schema=_SCHEMA))
    except UnicodeError as error:
        raise LabError("a record's text is not Unicode", where=where, fix="mend it") from error
    if bad:
        raise LabError(
            f"{len(bad)} bad record(s): {'; '.join(bad[:5])}", where=where, fix="mend or drop them"
        )
    if not batches:
        raise LabError("no records", where=where, fix="give at least one")
    return pa.Table.from_batches(batches)


class RecordDataset(Dataset[dict[str, Any]]):
    """Training samples of LLaVA records, as ``recipe`` shows them.

    ``records``: a list, or a path to JSON, JSON lines or Parquet; ``processor``: the model's, whose
    tokenizer and image processor are used. An item is ``{"id": str, "input_ids": list[int] (image
    at -200), "labels": list[int], "images": list of what `images.prepare` gives}``.
    Raises LabError naming record and file, for records of a wrong form at once.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]] | str | Path,
        image_root: str | Path,
        processor: ProcessorMixin,
        recipe: Recipe,
    ) -> None:
        check_names(recipe.template, recipe.variant)
        from_file = isinstance(records, str | Path)
        rows = read_records(Path(records)) if from_file else records
        self._table = _table(rows, records if from_file else "records")
        self.image_root, self.recipe = Path(image_root), recipe
        self.tokenizer, self.image_processor = processor.tokenizer, processor.image_processor

    def __len__(self) -> int:
        return self._table.num_rows

    def record(self, index: int) -> dict[str, Any]:
        """The record as it was given, without an "image" key where there is none."""
        row = self._table.slice(index, 1).to_pylist()[0]
        return {key: value for key, value in row.items() if value is not None}

    def encode(self, record: Mapping[str, Any]) -> Encoded:
        """Ids and labels of a record, by the recipe."""
        how = self.recipe
        return encode(record, self.tokenizer, how.template, how.variant, how.max_length)

    def paths(self, record: Mapping[str, Any]) -> list[str]:
        """Paths of a record's images, relative to the image folder."""
        if "image" in record:
            return [record["image"]]
        return qwen_chat.paths(record) if self.recipe.template == "qwen" else []

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.record(index)
        encoded = self.encode(record)
        # An image whose place was cut off is not shown, as in the official code.
        seen = self.recipe.template == "qwen" or IMAGE_ID in encoded.input_ids
        paths = self.paths(record) if seen else []
        images = [open_image(self.image_root, path, record["id"]) for path in paths]
        return {
            "id": record["id"],
            "input_ids": encoded.input_ids,
            "labels": encoded.labels,
            "images": [
                prepare(image, self.image_processor, self.recipe.aspect) for image in images
            ],
        }


@dataclass(frozen=True)
class Survey:
    """What a pass over all records found; arrays (N,) in the records' order."""

    lengths: np.ndarray  # tokens after the cut, image tokens counted
    supervised: np.ndarray  # tokens with a loss
    truncated: np.ndarray  # bool: longer than max_length
    broken: dict[int, str]  # record number -> why it cannot be trained on
    missing: dict[str, str]  # record id -> the picture it lacks
    folders: dict[str, tuple[int, int]]  # picture folder -> (pictures asked for, missing)


@dataclass
class _Facts:
    """What a worker finds of one record."""

    id: str
    paths: list[str]
    absent: list[str]  # of the paths
    numbers: tuple[int, int, int] = (0, 0, 0)  # length, supervised, truncated
    problem: str = ""


class _Surveyed(Dataset[_Facts]):
    """Record number -> facts."""

    def __init__(self, dataset: RecordDataset, image_tokens: int | None) -> None:
        self.dataset, self.image_tokens = dataset, image_tokens

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Facts:
        data, record = self.dataset, self.dataset.record(index)
        paths = data.paths(record)
        absent = [path for path in paths if not (data.image_root / path).is_file()]
        found = _Facts(record["id"], paths, absent)
        try:
            encoded = data.encode(record)
            places = encoded.input_ids.count(IMAGE_ID)
            each = self.image_tokens or 0
            if places and not each:
                each = native_tokens(
                    data.image_root, paths[0], found.id, data.image_processor, data.recipe.aspect
                )
            length = len(encoded.input_ids) + places * (each - 1)
            found.numbers = length, encoded.supervised, encoded.truncated
        except LabError as error:
            found.problem = str(error)
        if absent and not found.problem:
            found.problem = f"record {found.id!r} lacks its picture {absent[0]}"
        return found


def survey(
    dataset: RecordDataset, image_tokens: int | None, workers: int = 0, progress: bool = True
) -> Survey:
    """Encode every record once and look for every picture, decoding none.

    ``image_tokens``: tokens an image takes in the model (None: as many as its own shape asks, which
    its file's header tells); ``workers``: processes. The totals are logged.
    """
    loader = DataLoader(
        _Surveyed(dataset, image_tokens), batch_size=256, num_workers=workers, collate_fn=list
    )
    with tqdm(total=len(dataset), unit="record", disable=not progress) as bar:
        facts: list[_Facts] = []
        for batch in loader:
            facts += batch
            bar.update(len(batch))
    lengths, supervised, truncated = np.array([one.numbers for one in facts]).T
    broken = {number: one.problem for number, one in enumerate(facts) if one.problem}
    log.info(
        "%d samples, %d tokens, %d supervised, %d cut at %d, %d cannot be trained on",
        *(len(facts), lengths.sum(), supervised.sum(), truncated.sum()),
        *(dataset.recipe.max_length, len(broken)),
    )
    asked = Counter(layout.folder(path) for one in facts for path in one.paths)
    absent = Counter(layout.folder(path) for one in facts for path in one.absent)
    folders = {folder: (count, absent[folder]) for folder, count in sorted(asked.items())}
    missing = {one.id: one.absent[0] for one in facts if one.absent}
    return Survey(lengths, supervised, truncated.astype(bool), broken, missing, folders)
