"""Caption files to Parquet, once; afterwards every question is a query.

One row a caption: ``record`` (its number in the file; COCO's, among the annotations), ``id``,
``image`` (relative to the data root), ``prompt`` (the human turn), ``caption``, ``characters``
(code points) and ``words`` (runs without white space, as ``str.split`` counts them: a Chinese
sentence is one). Records that cannot be used stand beside it with the reason.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from polars.io.plugins import register_io_source
from tqdm import tqdm

from sgv_lab import store
from sgv_lab.captions.records import ANSWERS, count_reasons
from sgv_lab.captions.scan import AGAIN, Broken, layout, opened, scan
from sgv_lab.captions.sources import find, recognise, resolve
from sgv_lab.errors import LabError
from sgv_lab.files import leaves_root

ROWS = 16_384  # captions of a row group
_TAKEN = 1_024  # captions taken at a time: what fits the processor's cache is fastest
_ROW = {"record": pl.Int64} | dict.fromkeys(("id", "image", "prompt", "caption"), pl.String)
_REJECTED = dict.fromkeys(("record", "id", "line", "reason", "fix"), pl.String)
_REJECTED |= {"record": pl.Int64, "line": pl.Int64}
Row = tuple[int, str | None, str | None, str | None, str]


class _Turn(msgspec.Struct, gc=False):
    value: str
    from_: str = msgspec.field(name="from")


class _LlavaRecord(msgspec.Struct, gc=False):
    conversations: list[_Turn]
    id: Any = None
    image: str | None = None


class _CocoImage(msgspec.Struct, gc=False):
    id: Any = None
    file_name: str = ""
    coco_url: str = ""


class _CocoAnnotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    caption: str | None = None


class _CocoFile(msgspec.Struct):
    annotations: list[_CocoAnnotation]  # 592K in the largest file, which is read at once
    images: list[_CocoImage] = []


@dataclass(frozen=True)
class Captions:
    """A converted file: where it came from, its rows, and what was rejected."""

    file: Path
    folder: Path

    def rows(self) -> pl.LazyFrame:
        """The captions; columns as in the module's text."""
        return pl.scan_parquet(self.folder / "captions.parquet", glob=False)

    def rejected(self) -> pl.DataFrame:
        """The unusable records: record, id, line (where known), reason, fix."""
        return pl.read_parquet(self.folder / "rejected.parquet", glob=False)


def convert(file: str | Path) -> Captions:
    """The captions of an official file, converted to Parquet on first use.

    A record of several turns gives its first answer. Raises LabError if the file cannot be read,
    is empty or no JSON, or holds no usable record.
    """
    file = Path(file)
    layout(file)  # refuses what is no caption file before its contents are hashed
    folder = store.artifact("captions", {}, [file], lambda out: _build(file, out))
    return Captions(file, folder)


def load(root: str | Path) -> dict[str, Captions | None]:
    """Every dataset of Table 1 whose file lies below a data folder, converted; None for the rest.

    Raises LabError as ``find`` and ``convert`` do.
    """
    return {name: convert(file) if file else None for name, file in find(root).items()}


def convert_all(files: Iterable[str]) -> dict[str, Captions]:
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
    found = {
        name: one.rows().filter(pl.col("image") == image).collect()["caption"].to_list()
        for name, one in sources.items()
        if one is not None
    }
    return {name: texts for name, texts in found.items() if texts}


def _build(file: Path, out: Path) -> None:
    broken: list[Broken] = []
    rows = (_coco_rows if layout(file) == "coco" else _llava_rows)(file, broken)

    schema = {**_ROW, "words": pl.UInt32}

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        with tqdm(desc=file.name, unit=" captions", unit_scale=True, disable=None) as bar:
            while some := list(islice(rows, _TAKEN)):
                columns = dict(zip(_ROW, zip(*some, strict=True), strict=True))
                columns["words"] = _word_counts(columns["caption"])
                yield pl.DataFrame(columns, schema=schema)
                bar.update(len(some))

    characters = pl.col("caption").str.len_chars()
    table = register_io_source(frames, schema=schema).with_columns(characters=characters)
    table.sink_parquet(out / "captions.parquet", compression="snappy", row_group_size=ROWS)
    if not Captions(file, out).rows().select(pl.len()).collect().item():
        why = f" ({count_reasons(broken)})" if broken else ""
        fix = "give LLaVA-format records or COCO captions"
        raise LabError(f"holds no usable caption{why}", where=file, fix=fix)
    given = [(one.number, one.id, one.line, one.problem, one.fix) for one in broken]
    pl.DataFrame(given, _REJECTED, orient="row").write_parquet(out / "rejected.parquet")


def _word_counts(captions: Sequence[str]) -> np.ndarray:
    """The words of each caption, as ``str.split`` counts them.

    Over the bytes of all at once: a quarter of the time of a regular expression.
    """
    plain = [one if one.isascii() else "" for one in captions]
    text = np.frombuffer("\n".join(["", *plain, ""]).encode(), np.uint8)
    # ASCII's white space: 9 to 13, 28 to 31 and 32; what lies below wraps around and is large
    space = (text == 32) | (text - np.uint8(9) < 5) | (text - np.uint8(28) < 4)
    starts = space[:-1] & ~space[1:]
    firsts = np.cumsum([0, *(len(one) + 1 for one in plain[:-1])])
    counts = np.add.reduceat(starts.view(np.uint8), firsts, dtype=np.uint32)
    for i, one in enumerate(captions):
        if not one.isascii():  # other alphabets have white space of their own
            counts[i] = len(one.split())
    return counts


def _llava_rows(file: Path, broken: list[Broken]) -> Iterator[Row]:
    for batch in scan(file, _LlavaRecord):
        broken.extend(batch.broken)
        for number, line, record in batch.records:
            name = None if record.id is None else str(record.id)
            turns = record.conversations
            if len(turns) == 2 and turns[1].from_ == "gpt":  # all of the published captions
                answer = turns[1].value
            else:
                answer = next((turn.value for turn in turns if turn.from_ in ANSWERS), None)
            if answer is None:
                fix = 'add a turn {"from": "gpt", "value": ...} or leave the record out'
                broken.append(Broken(number, name, line, "no turn from gpt", fix))
            elif record.image and leaves_root(record.image):
                broken.append(_leaves(number, name, line, record.image))
            else:
                yield number, name, record.image, turns[0].value, answer


def _leaves(number: int, name: str | None, line: int | None, image: str) -> Broken:
    problem = f"the image path {image!r} leaves its root"
    return Broken(number, name, line, problem, "use a path below the data root")


def _coco_rows(file: Path, broken: list[Broken]) -> Iterator[Row]:
    try:
        with opened(file) as stream:
            found = msgspec.json.decode(stream.read().removeprefix(b"\xef\xbb\xbf"), type=_CocoFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LabError(f"is no sound COCO file ({error})", where=file, fix=AGAIN) from error
    paths: dict[str, str] = {}
    for number, image in enumerate(found.images):
        path = image.file_name
        if "/" not in path:  # http://images.cocodataset.org/val2017/x.jpg -> coco/val2017/x.jpg
            path = "/".join(["coco", *image.coco_url.split("/")[-2:-1], path])
        if leaves_root(path):
            broken.append(_leaves(number, str(image.id), None, path))
        else:
            paths[str(image.id)] = path
    for number, one in enumerate(found.annotations):
        if one.caption is not None and one.image_id is not None:
            yield number, str(one.id), paths.get(str(one.image_id)), None, one.caption
        else:
            what = f"an annotation without {'image_id' if one.image_id is None else 'caption'}"
            fix = "complete it, or give a captions_*.json file"
            broken.append(Broken(number, str(one.id), None, what, fix))
