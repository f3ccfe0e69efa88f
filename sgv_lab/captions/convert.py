"""Caption files to Parquet, once; afterwards every question is a query.

One row a caption: ``record`` (its number in the file; COCO's, among the annotations), ``id``,
``image`` (relative to the data root), ``prompt`` (the human turn), ``caption``, ``characters``
(code points) and ``words`` (runs without white space, as ``str.split`` counts them: a Chinese
sentence is one). Records that cannot be used stand beside it with the reason.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from polars.io.plugins import register_io_source
from tqdm import tqdm

from sgv_lab import store
from sgv_lab.captions.records import ANSWERS, count_reasons, id_text, record_problem
from sgv_lab.captions.scan import AGAIN, DEEP, HALF, HALF_PAIR, Broken, layout, opened, scan
from sgv_lab.captions.sources import SOURCES, find, recognise, resolve, source
from sgv_lab.errors import LabError
from sgv_lab.files import leaves_root

ROWS = 16_384  # captions of a row group
_TAKEN = 1_024  # captions taken at a time: what fits the processor's cache is fastest
_ROW = {"record": pl.Int64} | dict.fromkeys(("id", "image", "prompt", "caption"), pl.String)
_REJECTED = {"record": pl.Int64, "id": pl.String, "line": pl.Int64}
_REJECTED |= {"reason": pl.String, "fix": pl.String}
_EXAMPLE = (
    '{"id": "1", "image": "1.jpg", "conversations": '
    '[{"from": "human", "value": "<image>\\nDescribe it."}, {"from": "gpt", "value": "A dog."}]}'
)
Row = tuple[int, str | None, str | None, str | None, str]


class _Turn(msgspec.Struct, gc=False):
    value: str
    from_: str = msgspec.field(name="from")


class _LlavaRecord(msgspec.Struct, gc=False):
    conversations: list[_Turn]
    id: Any = None
    image: str | None = None


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


def convert(file: str | Path, images: str = "") -> Captions:
    """The captions of an official file, converted to Parquet on first use.

    A record of several turns gives its first answer. ``images``: the folder of images that are
    named without one. Raises LabError if the file cannot be read, is empty or no JSON, or holds no
    usable record.
    """
    file = Path(file)
    layout(file)  # refuses what is no caption file before its contents are hashed
    settings = {"images": images}
    folder = store.artifact("captions", settings, [file], lambda out: _build(file, images, out))
    return Captions(file, folder)


def load(root: str | Path, names: Collection[str] = SOURCES) -> dict[str, Captions | None]:
    """Those datasets of Table 1 whose files lie below a data folder, converted; None for the rest.

    Raises LabError as ``find`` and ``convert`` do.
    """
    return {
        name: convert(file, SOURCES[name].images) if file else None
        for name, file in find(root).items()
        if name in names
    }


def convert_all(files: Iterable[str]) -> dict[str, Captions]:
    """Any caption files, converted, by the dataset their name tells or else by that name.

    Raises LabError as ``resolve`` and ``convert`` do, and for two files of one name.
    """
    found: dict[str, Captions] = {}
    for path in map(resolve, files):
        if (name := recognise(path)) in found:
            raise LabError(f"two files are called {name!r}", where=path, fix="rename one of them")
        found[name] = convert(path, source(name).images)
    return found


def captions_of(sources: Mapping[str, Captions | None], image: str) -> dict[str, list[str]]:
    """What each source says of an image, leaving out those that say nothing."""
    found = {
        name: one.rows().filter(pl.col("image") == image).collect()["caption"].to_list()
        for name, one in sources.items()
        if one is not None
    }
    return {name: texts for name, texts in found.items() if texts}


def _build(file: Path, images: str, out: Path) -> None:
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
    placed = pl.col("image").str.replace("^[^/]+$", images + "${0}")
    table = register_io_source(frames, schema=schema).with_columns(placed, characters=characters)
    table.sink_parquet(out / "captions.parquet", compression="snappy", row_group_size=ROWS)
    if not Captions(file, out).rows().select(pl.len()).collect().item():
        why = f" ({count_reasons(broken)})" if broken else ""
        fix = f"give COCO captions, or records such as {_EXAMPLE}"
        raise LabError(f"holds no usable caption{why}", where=file, fix=fix)
    given = [astuple(one) for one in broken]
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
    for number, line, record in scan(file, _LlavaRecord):
        if isinstance(record, Broken):
            broken.append(record)
            continue
        turns = record.conversations if isinstance(record, _LlavaRecord) else []
        if len(turns) == 2 and turns[1].from_ == "gpt":  # all of the published captions
            answer = turns[1].value
        else:
            answer = next((turn.value for turn in turns if turn.from_ in ANSWERS), None)
        if answer is None or (record.image and leaves_root(record.image)):
            value = msgspec.to_builtins(record)
            given = value.get("id") if isinstance(value, dict) else None
            broken.append(Broken(number, id_text(given), line, record_problem(value)))
        else:
            yield number, id_text(record.id), record.image, turns[0].value, answer


def _coco_rows(file: Path, broken: list[Broken]) -> Iterator[Row]:
    """Read at once: the largest file holds 592K annotations.

    Bytes that are no UTF-8 become halves of surrogate pairs, which cost their caption alone.
    """
    try:
        with opened(file) as stream:
            text = stream.read().decode("utf-8-sig", "surrogateescape")
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        what = f"is no sound COCO file ({DEEP if isinstance(error, RecursionError) else error})"
        raise LabError(what, where=file, fix=AGAIN) from error
    paths: dict[str | None, str] = {}
    for number, name, one in _objects(found, "images"):
        path = _coco_path(one)
        if not path:
            broken.append(Broken(number, name, None, "an image without file_name"))
        elif leaves_root(path):
            wrong = f"has an image path that leaves the image folder: {path!r}"
            broken.append(Broken(number, name, None, wrong))
        elif HALF_PAIR.search(path):
            broken.append(Broken(number, name, None, f"has {HALF}"))
        else:
            paths[name] = path
    for number, name, one in _objects(found, "annotations"):
        image, caption = id_text(one.get("image_id")), one.get("caption")
        if image is None or caption is None:
            wrong = f"an annotation without {'image_id' if image is None else 'caption'}"
            broken.append(Broken(number, name, None, wrong))
        elif not isinstance(caption, str):
            wrong = f"has a caption that is not text: {caption!r:.60}"
            broken.append(Broken(number, name, None, wrong))
        elif HALF_PAIR.search(caption):
            broken.append(Broken(number, name, None, f"has {HALF}"))
        else:
            yield number, name, paths.get(image), None, caption


def _objects(file: Mapping[str, Any], key: str) -> Iterator[tuple[int, str | None, dict[str, Any]]]:
    """Number, id and object of a list of the file's, if it has one; {} for what is no object."""
    found = file.get(key)
    for number, one in enumerate(found if isinstance(found, list) else []):
        one = one if isinstance(one, dict) else {}
        yield number, id_text(one.get("id")), one


def _coco_path(image: Mapping[str, Any]) -> str:
    """The image's path, "" for none: http://images.cocodataset.org/val2017/x.jpg is
    coco/val2017/x.jpg; without such an address it is the file's name."""
    name, url = image.get("file_name"), image.get("coco_url")
    if not isinstance(name, str) or not name:
        return ""
    folder = url.split("/")[-2:-1] if isinstance(url, str) else []
    return "/".join(["coco", *folder, name]) if folder and "/" not in name else name
