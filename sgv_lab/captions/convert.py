"""Caption files to Parquet, once; afterwards every question is a query.

One row a caption: ``record`` (its number in the file), ``id``, ``image`` (relative to the data
root), ``prompt`` (the human turn), ``caption``, ``characters`` (code points) and ``words`` (runs
without white space, as ``str.split`` counts them). Records that cannot be used stand beside it
with the reason.
"""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from sgv_lab import store
from sgv_lab.captions.scan import Batch, Rejected, layout, scan
from sgv_lab.captions.sources import find, recognise, resolve
from sgv_lab.errors import LabError

ROWS = 16_384  # rows of a Parquet row group
_SLICE = 1_024  # rows counted at a time
_ROW = {
    "record": pl.Int64,
    "id": pl.String,
    "image": pl.String,
    "prompt": pl.String,
    "caption": pl.String,
}
_REJECTED = {"record": pl.Int64, "id": pl.String, "reason": pl.String, "fix": pl.String}
_SCHEMA = pa.schema(
    [("record", pa.int64())]
    + [(name, pa.large_string()) for name in ("id", "image", "prompt", "caption")]
    + [("characters", pa.int32()), ("words", pa.int32())]
)


class Turn(msgspec.Struct, gc=False):
    """One turn of a conversation."""

    value: str
    from_: str = msgspec.field(name="from")


class LlavaRecord(msgspec.Struct, gc=False):
    """A record of LLaVA's and ShareGPT4V's files."""

    conversations: list[Turn]
    id: str | int | None = None
    image: str | None = None


class CocoRecord(msgspec.Struct, gc=False):
    """Any object in the arrays of a COCO file: a picture, an annotation, a licence."""

    id: int | None = None
    image_id: int | None = None
    caption: str | None = None
    file_name: str | None = None
    coco_url: str = ""


Row = tuple[int, str | None, str | None, str | None, str]


@dataclass(frozen=True)
class Captions:
    """A converted file: where it came from, its rows, and what was rejected."""

    file: Path
    folder: Path

    def rows(self) -> pl.LazyFrame:
        """The captions; columns as in the module's text."""
        return pl.scan_parquet(self.folder / "captions.parquet")

    def rejected(self) -> pl.DataFrame:
        """The unusable records: record, id, reason, fix."""
        return pl.read_parquet(self.folder / "rejected.parquet")


def convert(file: str | Path) -> Captions:
    """The captions of an official file, converted to Parquet on first use.

    A record of several turns gives its first answer. Raises LabError if the file cannot be read,
    is empty or no JSON, or holds no usable record.
    """
    file = Path(file)
    layout(file)  # refuses what is no caption file before its contents are hashed
    folder = store.stage("captions", {}, [file], lambda out: _build(file, out))
    return Captions(file, folder)


def load(root: str | Path) -> dict[str, Captions | None]:
    """Every dataset of Table 1 whose file lies below a data folder, converted; None for the rest.

    Raises LabError as ``find`` and ``convert`` do.
    """
    return {name: convert(file) if file else None for name, file in find(root).items()}


def named(files: Iterable[str]) -> dict[str, Captions]:
    """Any caption files, converted, by the dataset their name tells or else by that name.

    Raises LabError as ``resolve`` and ``convert`` do, and for two files of one name.
    """
    found: dict[str, Captions] = {}
    for path in map(resolve, files):
        if (name := recognise(path)) in found:
            raise LabError(f"two files are called {name!r}", where=path, fix="rename one of them")
        found[name] = convert(path)
    return found


def captions_of(sources: Mapping[str, Captions | None], image: str) -> dict[str, list[str]]:
    """What each source says of an image, leaving out those that say nothing."""
    queries = {
        name: one.rows().filter(pl.col("image") == image).select("caption").collect()["caption"]
        for name, one in sources.items()
        if one is not None
    }
    return {name: found.to_list() for name, found in queries.items() if len(found)}


def _build(file: Path, out: Path) -> None:
    coco = layout(file) == "coco"
    rejected: list[Rejected] = []
    pictures: dict[int, str] = {}  # COCO only: 118K entries in its largest file

    def rows() -> Iterator[Row]:
        for batch in scan(file, CocoRecord if coco else LlavaRecord):
            yield from _coco_rows(batch, pictures) if coco else _llava_rows(batch)
            rejected.extend(batch.rejected)

    gc.disable()  # records hold no cycles; looking for some takes a tenth of the time
    try:
        kept = _write(rows(), out / "captions.parquet", file.name)
    finally:
        gc.enable()
    if not kept:
        reasons = Counter(one.reason for one in rejected).most_common(1)
        why = f" ({reasons[0][1]} records: {reasons[0][0]})" if reasons else ""
        fix = "give LLaVA-format records or COCO captions"
        raise LabError(f"holds no usable caption{why}", where=file, fix=fix)
    if coco:
        _name_pictures(out / "captions.parquet", pictures)
    table = pl.DataFrame([asdict(one) for one in rejected], _REJECTED)
    table.write_parquet(out / "rejected.parquet")


def _llava_rows(batch: Batch[LlavaRecord]) -> Iterator[Row]:
    for number, record in batch.records:
        name = None if record.id is None else str(record.id)
        turns = record.conversations
        if len(turns) == 2 and turns[1].from_ == "gpt":  # all of the published captions
            answer = turns[1].value
        else:
            answer = next((turn.value for turn in turns if turn.from_ == "gpt"), None)
        if answer is None:
            fix = 'add a turn {"from": "gpt", "value": ...} or leave the record out'
            batch.rejected.append(Rejected(number, name, "no turn from gpt", fix))
        elif record.image and _leaves(record.image):
            reason = f"the image path {record.image!r} leaves its root"
            fix = "use a path below the data root"
            batch.rejected.append(Rejected(number, name, reason, fix))
        else:
            yield number, name, record.image, turns[0].value, answer


def _coco_rows(batch: Batch[CocoRecord], pictures: dict[int, str]) -> Iterator[Row]:
    """Annotations, their picture still as its id; the pictures' paths go to ``pictures``."""
    for number, record in batch.records:
        name = str(record.id)
        if record.file_name is not None and record.id is not None:
            # http://images.cocodataset.org/val2017/x.jpg -> coco/val2017/x.jpg
            path = record.file_name
            if "/" not in path:
                path = "/".join(["coco", *record.coco_url.split("/")[-2:-1], path])
            if _leaves(path):
                reason = f"the image path {path!r} leaves its root"
                batch.rejected.append(Rejected(number, name, reason, "correct file_name"))
            else:
                pictures[record.id] = path
        elif record.caption is not None and record.image_id is not None:
            yield number, name, str(record.image_id), None, record.caption
        elif record.image_id is not None:
            fix = "give a captions_*.json file"
            batch.rejected.append(Rejected(number, name, "an annotation without caption", fix))
        elif record.caption is not None:
            reason = "an annotation without image_id"
            batch.rejected.append(Rejected(number, name, reason, "add its image_id"))


def _leaves(image: str) -> bool:
    """Whether a path is absolute or climbs out of its root, on any system."""
    if ".." not in image and image[0] not in "/\\" and image[1:2] != ":":
        return False
    parts = image.replace("\\", "/").split("/")
    return ".." in parts or not parts[0] or image[1:2] == ":"


def _write(rows: Iterator[Row], path: Path, name: str) -> int:
    """Write the rows group by group, in a second thread while the next ones are read."""
    count, pending = 0, None
    with (
        pq.ParquetWriter(path, _SCHEMA, compression="snappy", use_dictionary=["prompt"]) as writer,
        ThreadPoolExecutor(1) as thread,
        tqdm(desc=name, unit=" captions", unit_scale=True, disable=None) as bar,
    ):
        while group := list(islice(rows, ROWS)):
            if pending:
                pending.result()
            pending = thread.submit(_write_group, writer, group)
            bar.update(len(group))
            count += len(group)
        if pending:
            pending.result()
    return count


def _write_group(writer: pq.ParquetWriter, rows: list[Row]) -> None:
    """Write rows in slices that stay in the processor's cache while they are counted."""
    tables = [_table(rows[i : i + _SLICE]) for i in range(0, len(rows), _SLICE)]
    writer.write_table(pa.concat_tables(tables))


def _table(rows: list[Row]) -> pa.Table:
    """Rows as a table, their characters and words counted."""
    series = zip(_ROW.items(), zip(*rows, strict=True), strict=True)
    frame = pl.DataFrame([pl.Series(name, column, kind) for (name, kind), column in series])
    frame = frame.with_columns(characters=pl.col("caption").str.len_chars().cast(pl.Int32))
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    words = count_words(table["caption"].combine_chunks())
    return table.append_column("words", pa.array(words)).cast(_SCHEMA)


def count_words(texts: pa.LargeStringArray) -> np.ndarray:
    """Words of each text (N,), int32: as ``str.split()`` counts where white space is ASCII."""
    ends = np.frombuffer(texts.buffers()[1], np.int64)[: len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[: ends[-1]]
    solid = data > ord(" ")
    begins = solid.copy()
    np.greater(solid[1:], solid[:-1], out=begins[1:])  # a word begins after white space
    first = ends[:-1][np.diff(ends) > 0]
    begins[first] = solid[first]  # or with its text
    words = np.zeros(len(texts), np.int32)
    if len(first):
        words[np.diff(ends) > 0] = np.add.reduceat(begins, first, dtype=np.int32)
    return words


def _name_pictures(path: Path, pictures: dict[int, str]) -> None:
    """Put the pictures' paths in place of COCO's image ids."""
    names = pl.LazyFrame({"image": list(map(str, pictures)), "path": list(pictures.values())})
    rows = pl.scan_parquet(path).join(names, on="image", how="left", maintain_order="left")
    rows.with_columns(image="path").drop("path").collect().write_parquet(path)
