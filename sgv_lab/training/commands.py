"""The commands ``sgv-lab train``, ``plan`` and ``throughput``."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from sgv_lab.errors import LabError
from sgv_lab.files import write_jsonl
from sgv_lab.models import checkpoints
from sgv_lab.options import refuse_ignored
from sgv_lab.training import metrics, trainer, true_size
from sgv_lab.training import plan as planning
from sgv_lab.training import throughput as speed
from sgv_lab.training.config import BASES, Machine, RunConfig, base, configured

FOLDER = click.Path(path_type=Path)
THERE = click.Path(path_type=Path, exists=True, file_okay=False)
COUNT = click.IntRange(1)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``train`` and ``plan`` have in common."""
    options = [
        click.option("--model", type=FOLDER, required=True, help="Checkpoint folder."),
        click.option("--records", type=FOLDER, required=True, help="JSON, JSON lines or Parquet."),
        click.option("--images", type=THERE, required=True, help="Folder of the pictures."),
        click.option("--recipe", "name", required=True, help=", ".join(BASES)),
        click.option("--set", "changes", multiple=True, help="NAME=VALUE: change the recipe."),
        click.option("--out", type=FOLDER, required=True, help="Folder of the run."),
        click.option("--max-steps", type=COUNT, help="Updates; default: the recipe's epochs."),
        click.option(
            "--packing", is_flag=True, default=None, help="Pack samples instead of padding."
        ),
        click.option("--tokens-per-batch", type=COUNT, help="Of a pack.  [default: 8192]"),
        click.option("--micro-batch", type=COUNT, help="Rows of a padded batch.  [default: 8]"),
        click.option(
            "--workers", type=click.IntRange(0), default=0, help="Processes that load pictures."
        ),
        click.option("--dtype", type=click.Choice(list(DTYPES)), default="fp32", help="Weights."),
        click.option("--drop-broken", is_flag=True, help="Leave broken records out, counted."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _check_batches(packing: bool) -> None:
    if packing:
        refuse_ignored("--packing", "micro_batch")
    else:
        refuse_ignored("training without --packing", "tokens_per_batch")


def _configured(
    name: str, changes: tuple[str, ...], run: dict[str, Any]
) -> tuple[RunConfig, Machine]:
    """The recipe with what the command line changes, and how to carry it out."""
    pairs = [change.partition("=") for change in changes]
    if bad := [key for key, equals, _ in pairs if not equals]:
        raise LabError(f"--set {bad[0]}", fix="write --set NAME=VALUE")
    config = base(name, {key: value for key, _, value in pairs}, "command line")
    given = {key: value for key, value in run.items() if value is not None}
    return configured(config, given, "command line")


def _load_four_bit(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A checkpoint with its linear layers in 4 bits, for QLoRA."""
    if importlib.util.find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        raise LabError("four_bit needs a GPU and bitsandbytes", fix="pip install -e .[qlora]")
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForImageTextToText.from_pretrained(
        folder, quantization_config=quantised, dtype=dtype, local_files_only=True, device_map=0
    )
    return model, checkpoints.load_processor(folder)


@click.command()
@_shared
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--loss", type=click.Choice(["token", "sample"]), help="[default: token]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--fsdp", is_flag=True, help="Shard over torchrun's GPUs.")
@click.option("--save-every", type=int, help="Updates between checkpoints.")
@click.option("--price", type=float, default=0.0, help="Of one GPU-hour, to tell the cost.")
def train(
    model: Path,
    records: Path,
    images: Path,
    name: str,
    changes: tuple[str, ...],
    out: Path,
    seed: int,
    dtype: str,
    drop_broken: bool,
    **run: Any,
) -> None:
    """Train a checkpoint by a recipe. Give the same command again to resume.

    Several GPUs: `torchrun --nproc-per-node N --no-python sgv-lab train … [--fsdp]`.
    """
    _check_batches(run["packing"])
    config, machine = _configured(name, changes, run)
    load = _load_four_bit if config.four_bit else checkpoints.load
    network, processor = load(model, dtype=DTYPES[dtype])
    done = trainer.train(
        network, processor, records, images, config, out, seed,
        drop_broken=drop_broken, **vars(machine),
    )  # fmt: skip
    click.echo(done)


@click.command()
@_shared
@click.option("--gpu-memory", type=float, help="Memory of one GPU in GB.")
@click.option("--tokens-per-second", type=float, help="Of one GPU, as measured by throughput.")
@click.option("--price", type=float, help="Of one GPU-hour.")
@click.option("--gpus", type=int, default=1)
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def plan(
    model: Path,
    records: Path,
    images: Path,
    name: str,
    changes: tuple[str, ...],
    out: Path,
    dtype: str,
    drop_broken: bool,
    gpu_memory: float | None,
    tokens_per_second: float | None,
    price: float | None,
    gpus: int,
    as_json: bool,
    **run: Any,
) -> None:
    """Say what a run needs and what is missing; exit 1 if it could not start."""
    _check_batches(run["packing"])
    config, machine = _configured(name, changes, {**run, "progress": not as_json})
    report = planning.plan(
        checkpoints.configuration(model),
        checkpoints.load_processor(model),
        records,
        images,
        config,
        out,
        run=machine,
        weights=model,
        weight_bytes=DTYPES[dtype].itemsize,
        autocast=dtype == "fp32",
        device_bytes=int(gpu_memory * 1e9) if gpu_memory else None,
        tokens_per_second=tokens_per_second,
        price_per_hour=price,
        devices=gpus,
        drop_broken=drop_broken,
    )
    click.echo(report.to_json() if as_json else f"{report}\n\n{config.table()}")
    if report.obstacles:
        raise click.exceptions.Exit(1)


@click.group()
def throughput() -> None:
    """Measure speed with random weights."""


@throughput.command("train")
@click.option("--model", required=True, help="A family, such as llava-1.5-7b.")
@click.option("--recipe", "name", default="sft", show_default=True)
@click.option("--steps", type=int, default=5, show_default=True, help="Updates timed per row.")
@click.option("--size", type=click.Choice(["paper", "mini"]), default="paper", show_default=True)
@click.option("--samples-per-update", type=int, help="Default: the recipe's.")
@click.option("--out", type=FOLDER, help="CSV file to add the rows to.  [default: none]")
def throughput_train(
    model: str, name: str, steps: int, size: str, samples_per_update: int | None, out: Path | None
) -> None:
    """Time a recipe against the official one in the same run, one change a row."""
    changes = {"samples_per_update": samples_per_update} if samples_per_update else {}
    rows = speed.measure(model, size, base(name, changes), steps)
    for row in rows:
        click.echo(speed.line(row))
    if out:
        speed.append(out, rows)


@throughput.command("repeat")
@click.option("--model", required=True, help="A family, such as llava-1.5-7b.")
@click.option("--recipe", "name", default="pretrain", show_default=True)
@click.option("--steps", type=int, default=5, show_default=True, help="Updates on one batch.")
@click.option("--rows", type=int, default=4, show_default=True, help="Samples of the batch.")
@click.option("--size", type=click.Choice(["paper", "mini"]), default="paper", show_default=True)
@click.option("--weights", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--out", type=FOLDER, help="File to add a JSON line to.  [default: none]")
def throughput_repeat(
    model: str, name: str, steps: int, rows: int, size: str, weights: str, out: Path | None
) -> None:
    """Train on one batch again and again: the loss has to fall, memory to be as planned."""
    found = true_size.repeated(model, size, base(name), steps, rows, weights)
    click.echo("loss " + " ".join(f"{loss:.3f}" for loss in found["losses"]))
    peak = found["peak_bytes"]
    told = "not known on a CPU" if peak is None else f"{peak / 1e9:.2f} GB"
    click.echo(f"memory {told}, planned {found['planned_bytes'] / 1e9:.2f} GB")
    if out:
        before = metrics.read(out) if out.is_file() else []
        write_jsonl(out, [*before, found])
