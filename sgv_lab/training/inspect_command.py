"""``sgv-lab inspect``: records as a model would see them."""

import json
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from sgv_lab.models import checkpoints
from sgv_lab.training.conversation import TEMPLATES
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.recipes import recipe
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


@click.command()
@click.argument("records", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(TEMPLATES), default="v1", show_default=True)
@click.option(
    "--tokenizer",
    "tokenizer_path",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="tokenizer.model, qwen.tiktoken, tokenizer.json, or a folder with one of them; "
    "for chat a checkpoint's folder",
)
@click.option(
    "--variant",
    type=click.Choice(list(VARIANTS)),
    default=DEFAULT_VARIANT,
    show_default=True,
    help="whose token ids behind </s>; the paper's own are sg4v_tf4.31_legacy_false",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder of the images: look at their files, too",
)
@click.option("--json", "as_json", is_flag=True, help="a list of {id, input_ids, labels}")
def inspect(
    records: Path,
    template: str,
    tokenizer_path: Path,
    variant: str,
    images: Path | None,
    as_json: bool,
) -> None:
    """Show RECORDS (JSON, JSON lines or Parquet) as a model would see them.

    Supervised tokens stand in green or, where there are no colours, between [[ and ]]. A record
    that `train` would refuse is shown with the reason.
    """
    if template == "chat":
        processor = checkpoints.load_processor(tokenizer_path)
        tokenizer = text_tokenizer(processor)
    else:
        tokenizer = load_tokenizer(tokenizer_path)
        processor = SimpleNamespace(tokenizer=tokenizer)
    how = recipe("sft", {"template": template, "variant": variant})
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
            shown = _header(encoded) + "\n" + marked(encoded, tokenizer)
        rows.append(row)
        if not as_json:
            click.echo(click.style(str(row["id"]), bold=True) + "  " + shown + "\n")
    if as_json:
        click.echo(json.dumps(rows))
    else:
        summary = ", ".join(f"{count} {what}" for what, count in totals.items())
        click.echo(f"{len(rows)} records: {summary}")


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
