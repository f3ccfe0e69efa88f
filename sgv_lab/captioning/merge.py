"""A whole run as a data set: ShareGPT4V's JSON, Parquet and a card."""

import hashlib
import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sgv_lab.captioning import writer
from sgv_lab.captioning.writer import Row
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, atomic, full_disk
from sgv_lab.world.records import DESCRIBE

_STRINGS = ("id", "image", "caption", "sha256", "model", "revision", "settings")
_SCHEMA = pa.schema([*((name, pa.large_string()) for name in _STRINGS), ("seed", pa.int64())])


def merge(out: str | Path, folder: str | Path | None = None, name: str = "captions") -> Path:
    """Write ``name``.json, ``name``.parquet and README.md of the run ``out`` to ``folder`` (or it).

    Records are in the images' order and as the official ones: the human turn is one of LLaVA's
    generic prompts, not what the model was asked [ShareGPT4V#9]. Images that got a reason instead
    of a caption are counted in the card. Raises LabError unless each image has one row, of this
    run; then nothing is written.
    """
    out, folder = Path(out), Path(folder or out)
    run = writer.settings(out)
    reasons: Counter[str] = Counter()
    captions, characters = 0, 0
    with (
        full_disk(folder),
        atomic(folder / f"{name}.json") as as_json,
        atomic(folder / f"{name}.parquet") as as_parquet,
        as_json.open("w", encoding="utf-8") as file,
        pq.ParquetWriter(as_parquet, _SCHEMA) as table,
    ):
        file.write("[")
        for numbers, journal in writer.files(out, run):
            rows = []
            for row in _whole(numbers, journal, run):
                if row["caption"] is None:
                    reasons[row["reason"].partition(":")[0]] += 1
                    continue
                image = PurePosixPath(row["image"])
                row["id"] = image.stem if run["ids"] == "stem" else str(image.with_suffix(""))
                text = json.dumps(record(row), ensure_ascii=False)
                file.write(f"{',' if captions else ''}\n{text}")
                rows.append(row)
                captions, characters = captions + 1, characters + len(row["caption"])
            columns = {c: [row[c] for row in rows] for c in _SCHEMA.names}
            table.write_table(pa.table(columns, _SCHEMA))
        file.write("\n]\n")
    with full_disk(folder), atomic(folder / "README.md") as card:
        card.write_text(_card(name, run, captions, characters, reasons), encoding="utf-8")
    return folder / f"{name}.json"


def record(row: Row) -> dict[str, Any]:
    """A row as a record of ShareGPT4V; its prompt depends on the image's name alone."""
    drawn = hashlib.sha256(row["image"].encode()).digest()[0]
    turns = [
        {"from": "human", "value": f"<image>\n{DESCRIBE[drawn % len(DESCRIBE)]}"},
        {"from": "gpt", "value": row["caption"]},
    ]
    return {"id": row["id"], "image": row["image"], "conversations": turns}


def _whole(numbers: range, file: Journal, run: dict[str, Any]) -> list[Row]:
    """A file's rows in the images' order. LabError unless there is one for each, of this run."""
    rows = sorted(file.read(), key=lambda row: row["index"])
    found = [row["index"] for row in rows]
    if left := sorted(set(numbers).difference(found)):
        problem = f"{len(left)} images without a row, the first {left[0]}"
        raise LabError(problem, where=file.path, fix="run the same captioning again")
    settings = {row["settings"] for row in rows}
    if found != list(numbers) or settings != {writer.digest(run["settings"])}:
        problem = "holds an image twice, or rows of another run"
        raise LabError(problem, where=file.path, fix="delete it; its captions are made again")
    return rows


def _card(
    name: str, run: dict[str, Any], captions: int, characters: int, reasons: Counter[str]
) -> str:
    """The data set's README: what it is, who wrote it and how, what was left out."""
    left_out = "\n".join(f"- {n} {reason}" for reason, n in reasons.most_common()) or "- none"
    mean = f"{characters / captions:.1f}" if captions else "no"
    return f"""---
task_categories: [image-to-text]
language: [en]
license: other
configs: [{{config_name: default, data_files: {name}.parquet}}]
---
# {name}

{captions} captions of {run["images"]} images, {mean} characters on average, written by the
model `{run["settings"]["model"]}`. No images are included: `image` is a path below their folder.
The terms of the model that wrote the captions and of the images' owners apply.

`{name}.json` holds ShareGPT4V's records; the human turns are generic, not what the model was asked.
`{name}.parquet` holds a row a caption, with the SHA-256 of the image's file.

## How they were made

What the endpoint refused in a request is under "learned": sent by another name, or (null) left out.

```json
{json.dumps(run, indent=1)}
```

## Images left out

{left_out}
"""


def table(out: str | Path) -> pd.DataFrame:
    """The rows of a run so far, in the images' order: index, image, caption, reason, ..."""
    return pd.DataFrame(writer.rows(out)).sort_values("index", ignore_index=True)


def outcome(out: str | Path) -> pd.DataFrame:
    """How many images of a run ended how: captioned, or the kind of reason why not."""
    ended = [row.get("reason", "captioned").partition(":")[0] for row in writer.rows(out)]
    counted = pd.Series(ended).value_counts().rename_axis("outcome").to_frame("images")
    return counted.assign(share=counted["images"] / len(ended))


def discarded(out: str | Path) -> pd.DataFrame:
    """The answers a collection did not take: image, which answer, reason, text, how it ended."""
    rows = [
        (row["image"], number, one["reason"], one["text"], row["caption"] is not None)
        for row in writer.rows(out)
        for number, one in enumerate(row.get("discarded", []), 1)
    ]
    columns = ["image", "answer", "reason", "text", "captioned later"]
    return pd.DataFrame(rows, columns=columns).sort_values(["image", "answer"], ignore_index=True)
