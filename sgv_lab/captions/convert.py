"""Caption files to Parquet, once; afterwards every question is a query.

One row a caption: ``record`` (its number in the file), ``id``, ``image`` (relative to the data
root), ``prompt`` (the human turn), ``caption``, ``characters`` (code points) and ``words`` (runs
without white space, as ``str.split`` counts them: a Chinese sentence is one). Records that cannot
be used stand beside it with the reason.
"""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from sgv_lab import store
from sgv_lab.captions.formats import layout
from sgv_lab.captions.records import ANSWERS, leaves
from sgv_lab.captions.scan import Batch, Rejected, scan
from sgv_lab.captions.sources import find, recognise, resolve
from sgv_lab.errors import LabError

ROWS = 16_384  # rows of a Parquet row group
_WORD = r"[^\s\x1c-\x1f]+"  # what str.split() takes for one
_ROW = {
    "record": pl.Int64,
    "id": pl.String,
    "image": pl.String,
    "prompt": pl.String,
    "caption": pl.String,
}
_REJECTED = {"record": pl.Int64, "id": pl.String, "reason": pl.String, "fix": pl.String,
             "line": pl.Int64}  # fmt: skip
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
    id: Any = None
    image: str | None = None


Id = int | str | float | None


class CocoRecord(msgspec.Struct, gc=False):
    """Any object in the arrays of a COCO file: a picture, an annotation, a licence."""

    id: Id = None
    image_id: Id = None
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
        return pl.scan_parquet(self.folder / "captions.parquet", glob=False)

    def rejected(self) -> pl.DataFrame:
        """The unusable records: record, id, reason, fix."""
        return pl.read_parquet(self.folder / "rejected.parquet", glob=False)


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
    pictures: dict[str, str] = {}  # COCO only: 118K entries in its largest file

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
            answer = next((turn.value for turn in turns if turn.from_ in ANSWERS), None)
        if answer is None:
            fix = 'add a turn {"from": "gpt", "value": ...} or leave the record out'
            batch.rejected.append(Rejected(number, name, "no turn from gpt", fix))
        elif record.image and leaves(record.image):
            reason = f"the image path {record.image!r} leaves its root"
            fix = "use a path below the data root"
            batch.rejected.append(Rejected(number, name, reason, fix))
        else:
            yield number, name, record.image, turns[0].value, answer


def _coco_rows(batch: Batch[CocoRecord], pictures: dict[str, str]) -> Iterator[Row]:
    """Annotations, their picture still as its id; the pictures' paths go to ``pictures``."""
    for number, record in batch.records:
        name = str(record.id)
        if record.file_name is not None and record.id is not None:
            # http://images.cocodataset.org/val2017/x.jpg -> coco/val2017/x.jpg
            path = record.file_name
            if "/" not in path:
                path = "/".join(["coco", *record.coco_url.split("/")[-2:-1], path])
            if leaves(path):
                reason = f"the image path {path!r} leaves its root"
                batch.rejected.append(Rejected(number, name, reason, "correct file_name"))
            else:
                pictures[name] = path
        elif record.caption is not None and record.image_id is not None:
            yield number, name, str(record.image_id), None, record.caption
        elif record.image_id is not None:
            fix = "give a captions_*.json file"
            batch.rejected.append(Rejected(number, name, "an annotation without caption", fix))
        elif record.caption is not None:
            reason = "an annotation without image_id"
            batch.rejected.append(Rejected(number, name, reason, "add its image_id"))


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
    """Write rows as a table, their characters and words counted."""
    series = zip(_ROW.items(), zip(*rows, strict=True), strict=True)
    frame = pl.DataFrame([pl.Series(name, column, kind) for (name, kind), column in series])
    said = pl.col("caption").str
    frame = frame.with_columns(characters=said.len_chars(), words=said.count_matches(_WORD))
    writer.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(_SCHEMA))


def _name_pictures(path: Path, pictures: dict[str, str]) -> None:
    """Put the pictures' paths in place of COCO's image ids."""
    names = pl.LazyFrame({"image": list(pictures), "path": list(pictures.values())})
    rows = pl.scan_parquet(path, glob=False).join(
        names, on="image", how="left", maintain_order="left"
    )
    rows.with_columns(image="path").drop("path").collect().write_parquet(path)
