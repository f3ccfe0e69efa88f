"""Records as training samples: checked before work starts, read and encoded lazily.

Records are held as one Arrow table, compact and shared by worker processes. Text-only records carry
no image.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import Dataset
from transformers import ProcessorMixin

from sgv_lab.captions.records import Broken, file_problem, read_records
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import sha256
from sgv_lab.images import image_kinds, image_problem
from sgv_lab.training import chat, qwen_vl_chat
from sgv_lab.training.config import RunConfig
from sgv_lab.training.conversation import encode
from sgv_lab.training.preprocessing import open_image, prepare, shaped
from sgv_lab.training.segments import IMAGE_ID, VARIANTS, Encoded

_TURN = pa.struct({"from": pa.string(), "value": pa.string()})
_SCHEMA = pa.schema(
    {
        **{"id": pa.string(), "image": pa.string(), "conversations": pa.list_(_TURN)},
        "line": pa.int32(),  # of the file, where known
    }
)


class RecordDataset(Dataset[dict[str, Any]]):
    """Training samples of LLaVA records, as ``recipe`` shows them.

    ``records``: a list, or a file that `captions.records` reads; ``processor``: the model's, whose
    tokenizer and image processor are used. An item is ``{"id": str, "input_ids": list[int] (image
    at -200), "labels": list[int], "images": list of raw ones of `preprocessing.prepare`}``, for the
    template "chat" what `chat.sample` gives.
    Records whose form is broken keep their places; ``malformed`` says what is wrong with them.
    Raises LabError for a file that cannot be read, and for no records.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]] | str | Path,
        image_root: str | Path | None,
        processor: ProcessorMixin,
        recipe: RunConfig,
    ) -> None:
        if recipe.variant not in VARIANTS:
            raise unknown("variant", recipe.variant, VARIANTS)
        self.malformed: dict[int, Broken] = {}
        self._table = pa.Table.from_batches(self._batches(records), _SCHEMA)
        if not len(self):
            where = records if isinstance(records, str | Path) else "records"
            raise LabError("no records", where=where, fix="give at least one")
        self.source, self.recipe = records, recipe
        self.image_root = None if image_root is None else Path(image_root)
        self.processor = processor

    def _batches(
        self, records: Sequence[Mapping[str, Any]] | str | Path
    ) -> Iterator[pa.RecordBatch]:
        """The records; an empty row in the place of each whose form is broken."""
        found = read_records(records)
        while chunk := list(islice(found, 10_000)):
            self.malformed |= {wrong.number: wrong for _, _, wrong in chunk if wrong}
            rows = [{**record, "line": line} for record, line, _ in chunk]
            yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)

    def __len__(self) -> int:
        return self._table.num_rows

    def digest(self) -> str:
        """A hash of the records as they were given."""
        if isinstance(self.source, str | Path):
            return sha256(self.source)
        return hashlib.sha256(json.dumps(self.source, sort_keys=True).encode()).hexdigest()

    def record(self, index: int) -> dict[str, Any]:
        """The record as it was given, without an "image" key where there is none."""
        row = self._table.slice(index, 1).drop_columns("line").to_pylist()[0]
        return {key: value for key, value in row.items() if value is not None}

    def encode(self, record: Mapping[str, Any]) -> Encoded:
        """Ids and labels of a record, by the recipe."""
        how = self.recipe
        given = self.processor if how.template == "chat" else self.processor.tokenizer
        return encode(record, given, how.template, how.variant, how.max_length)

    def paths(self, record: Mapping[str, Any]) -> list[str]:
        """Paths of a record's images, relative to the image folder."""
        if "image" in record:
            return [record["image"]]
        return qwen_vl_chat.paths(record) if self.recipe.template == "qwen" else []

    def all_paths(self) -> list[str]:
        """Paths of all records' images, each once."""
        if self.recipe.template == "qwen":  # where they may stand in the text
            good = (self.record(i) for i in range(len(self)) if i not in self.malformed)
            return list(dict.fromkeys(path for record in good for path in self.paths(record)))
        return pc.unique(self._table["image"]).drop_null().to_pylist()

    def examine(
        self, index: int, bad: Mapping[str, str | None] | None = None
    ) -> tuple[Broken | None, Encoded | None]:
        """What keeps a record from being trained on; its ids and labels if nothing does.

        Its form, its image files where there is an image folder (``bad``: those that cannot be
        used, if they were looked at already), and its turns by the template.
        """
        if index in self.malformed:
            return self.malformed[index], None
        record, encoded = self.record(index), None
        paths = self.paths(record)
        if bad is None:
            looked = {path: image_kinds(self.image_root, path) for path in paths if self.image_root}
            bad = {path: image_problem(kinds) for path, kinds in looked.items()}
        wrong = file_problem(paths, bad)
        if not wrong:
            try:
                encoded = self.encode(record)
            except LabError as error:
                wrong = error.what
        line = self._table["line"][index].as_py()
        return (Broken(index, record["id"], line, wrong) if wrong else None), encoded

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.malformed:
            raise LabError(str(self.malformed[index]), fix="mend it, or drop it")
        record = self.record(index)
        encoded, how = self.encode(record), self.recipe
        # An image whose place was cut off is not shown, as in the official code.
        seen = IMAGE_ID in encoded.input_ids or how.template in ("qwen", "chat")
        paths = self.paths(record) if seen else []
        images = [open_image(self.image_root, path, record["id"]) for path in paths]
        shape = self.processor.image_processor, how.aspect
        if how.template == "chat":
            images = [shaped(image, *shape) for image in images]
            return chat.sample(record, self.processor, encoded, images)
        return {
            "id": record["id"],
            "input_ids": encoded.input_ids,
            "labels": encoded.labels,
            "images": [prepare(image, *shape, raw=True) for image in images],
        }
