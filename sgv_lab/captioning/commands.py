"""The commands ``sgv-lab collect`` and ``sgv-lab caption``."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sgv_lab.captioning.pictures import Pictures, find
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.errors import LabError
from sgv_lab.options import refuse_ignored

FOLDER = click.Path(path_type=Path)


def _pictures(images: Path | None, root: Path | None) -> Pictures:
    if images is None:
        raise LabError("--images is missing", fix="give a folder or a list of pictures")
    return find(images, root)


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``collect`` and ``caption`` have in common."""
    options = [
        click.option("--images", type=FOLDER, help="Folder, or list: JSON(L), text, Parquet."),
        click.option(
            "--root", type=FOLDER, help="Folder that names start from, as in the official layout."
        ),
        click.option("--out", type=FOLDER, required=True, help="Folder of the run."),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--max-tokens", type=int, default=1024, show_default=True),
        click.option("--connections", type=int, default=8, show_default=True),
        click.option("--per-minute", type=float, default=0.0, help="Most requests a minute."),
        click.option("--timeout", type=float, default=120.0, help="Seconds without a sign."),
        click.option(
            "--request",
            default="{}",
            help='JSON: more fields of a request; null leaves one out: {"max_tokens": null}.',
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _terms(given: dict[str, Any]) -> Any:
    from sgv_lab.captioning.collect import Terms

    try:
        extra = dict(json.loads(given.pop("request")))
    except (TypeError, ValueError) as error:
        raise LabError("--request is no JSON object", fix='write {"top_p": 0.9}') from error
    return Terms(**given, extra=extra)


@click.command()
@_shared
@click.option("--url", required=True, help="Of an OpenAI-compatible endpoint, up to /v1.")
@click.option("--model", required=True, help="As the endpoint calls it.")
@click.option("--temperature", type=float, default=1.0, show_default=True)
@click.option("--price-in", type=float, default=0.0, help="Of a million tokens.")
@click.option("--price-out", type=float, default=0.0, help="Of a million tokens.")
@click.option("--budget", type=float, default=0.0, help="Most to spend in all; 0: no limit.")
def collect(
    url: str,
    model: str,
    images: Path | None,
    root: Path | None,
    out: Path,
    seed: int,
    **terms: Any,
) -> None:
    """Collect captions from an endpoint with the prompts for each source.

    The key is read from OPENAI_API_KEY. Give the same command again to go on; merge with
    `sgv-lab caption --merge --out OUT`.
    """
    from sgv_lab.captioning import collect as module

    pictures = _pictures(images, root)
    click.echo(module.collect(url, model, pictures, out, _terms(terms), seed=seed))


@click.command()
@_shared
@click.option("--model", help="Checkpoint folder, or address of an endpoint.")
@click.option("--name", help="What an endpoint calls the model; default: its first.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: greedy.")
@click.option("--static", is_flag=True, help="Key-value cache of fixed size, compiled on a GPU.")
@click.option("--prompt", default=CAPTIONER, show_default=True)
@click.option("--shard", help="i/n: this process's part, from 0/n. Default: torchrun's, or all.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--merge", "merging", is_flag=True, help="Make OUT a data set: JSON, Parquet, card.")
def caption(
    model: str | None,
    name: str | None,
    prompt: str,
    images: Path | None,
    root: Path | None,
    out: Path,
    seed: int,
    shard: str | None,
    merging: bool,
    static: bool,
    batch_size: int,
    **terms: Any,
) -> None:
    """Caption pictures by a model: a checkpoint in bfloat16 on a GPU where there is one.

    Give the same command again to go on. Spread it with `--shard i/n`, or
    `torchrun --nproc-per-node N --no-python sgv-lab caption …`; then `--merge`.
    """
    if merging:
        others = (p.name for p in click.get_current_context().command.params)
        refuse_ignored("--merge", *(name for name in others if name not in ("merging", "out")))
        from sgv_lab.captioning.merge import merge

        return click.echo(merge(out))
    if model is None:
        raise LabError("--model is missing", fix="give a checkpoint folder or an address")
    given: dict[str, Any] = {"seed": seed, "shard": _shard(shard)}
    pictures = _pictures(images, root)
    if "://" in model or (not Path(model).exists() and re.match(r"[\w.-]+:\d+(/|$)", model)):
        from sgv_lab.captioning import collect as module

        refuse_ignored("an endpoint", "batch_size", "static")
        name = name or module.Client(model, "").first_model()
        given["ask"] = lambda image: prompt
        return click.echo(module.collect(model, name, pictures, out, _terms(terms), **given))
    refuse_ignored("a checkpoint", "name", "connections", "per_minute", "timeout", "request")
    given |= {"prompt": prompt, "batch_size": batch_size, "name": Path(model).name}
    decoding = {"max_new_tokens": terms["max_tokens"], "static": static}
    if terms["temperature"]:
        decoding |= {"do_sample": True, "temperature": terms["temperature"]}
    return click.echo(_with_checkpoint(model, pictures, out, decoding, **given))


def _with_checkpoint(
    model: str, pictures: Pictures, out: Path, decoding: dict[str, Any], **given: Any
) -> Path:
    import torch

    from sgv_lab.captioning import bulk
    from sgv_lab.models import checkpoints

    device, dtype = "cpu", torch.float32
    if torch.cuda.is_available():
        device, dtype = f"cuda:{os.environ.get('LOCAL_RANK', 0)}", torch.bfloat16
    loaded = checkpoints.load(model, device=device, dtype=dtype)
    return bulk.caption(*loaded, pictures, out, decoding=bulk.Decoding(**decoding), **given)


def _shard(text: str | None) -> tuple[int, int]:
    text = text or f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit()):
        raise LabError(f"--shard {text}", fix="write it as 0/4")
    return int(part), int(parts)
