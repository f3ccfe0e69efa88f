"""``sgv-lab inspect``: records as a model would see them."""

import json
from collections.abc import Iterator
from itertools import groupby
from types import SimpleNamespace
from typing import Any, Literal

import click

from sgv_lab.models import checkpoints
from sgv_lab.options import Existing, Folder
from sgv_lab.training.config import base
from sgv_lab.training.conversation import TEMPLATES
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.segments import (
    DEFAULT_VARIANT,
    IGNORED,
    IMAGE,
    IMAGE_ID,
    VARIANTS,
    Encoded,
    TextTokenizer,
    load_tokenizer,
    text_tokenizer,
)


def inspect(
    records: Existing,
    *,
    template: Literal[TEMPLATES] = "v1",
    tokenizer: Existing,  # tokenizer.model, qwen.tiktoken, tokenizer.json, or a folder with one.
    variant: Literal[tuple(VARIANTS)] = DEFAULT_VARIANT,  # Whose token ids behind </s>.
    images: Folder | None = None,  # Folder of the images: look at their files, too.
    json_: bool = False,  # A list of {id, input_ids, labels}.
) -> Iterator[str]:
    """Show RECORDS (JSON, JSON lines or Parquet) as a model would see them.

    Supervised tokens stand in green or, where there are no colours, between [[ and ]]. A record
    that `train` would refuse is shown with the reason.
    """
    if template == "chat":
        processor = checkpoints.load_processor(tokenizer)
        words = text_tokenizer(processor)
    else:
        words = load_tokenizer(tokenizer)
        processor = SimpleNamespace(tokenizer=words)
    how = base("sft", {"template": template, "variant": variant})
    data = RecordDataset(records, images, processor, how)
    rows: list[dict[str, Any]] = []
    totals = dict.fromkeys(("tokens", "supervised", "truncated", "refused"), 0)
    for number in range(len(data)):
        row: dict[str, Any] = {"id": data.record(number)["id"]}
        broken, encoded = data.examine(number)
        if encoded is None:
            totals["refused"] += 1
            row["error"] = str(broken)
            shown = click.style(f"refused: {broken}", fg="red")
        else:
            totals["tokens"] += len(encoded.input_ids)
            totals["supervised"] += encoded.supervised
            totals["truncated"] += encoded.truncated
            row |= {"input_ids": encoded.input_ids, "labels": encoded.labels}
            shown = _header(encoded) + "\n" + marked(encoded, words)
        rows.append(row)
        if not json_:
            yield click.style(str(row["id"]), bold=True) + "  " + shown + "\n"
    if json_:
        yield json.dumps(rows)
    else:
        summary = ", ".join(f"{count} {what}" for what, count in totals.items())
        yield f"{len(rows)} records: {summary}"


def _header(encoded: Encoded) -> str:
    cut = f", cut from {encoded.untruncated}" if encoded.truncated else ""
    return f"{len(encoded.input_ids)} tokens, {encoded.supervised} supervised{cut}"


def marked(encoded: Encoded, tokenizer: TextTokenizer) -> str:
    """The tokens as text, supervised ones in green between [[ and ]]."""
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    shown = ""
    for supervised, run in groupby(pairs, lambda pair: pair[1] != IGNORED):
        text = _text([token for token, _ in run], tokenizer)
        shown += click.style(f"[[{text}]]", fg="green") if supervised else text
    return shown


def _text(ids: list[int], tokenizer: TextTokenizer) -> str:
    """Ids as text: special tokens by name, Qwen's image spans as <img>PATH</img>."""
    names = {number: name for name, number in tokenizer.special.items()} | {IMAGE_ID: IMAGE}
    shown, inside = "", False
    for named, run in groupby(ids, names.__contains__):
        tokens = list(run)
        if named:
            shown += "".join(names[token] for token in tokens if names[token] != "<imgpad>")
            inside = tokens[-1] == tokenizer.special.get("<img>")
        else:
            shown += bytes(tokens).decode(errors="replace") if inside else tokenizer.text(tokens)
    return shown
