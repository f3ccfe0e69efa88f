"""``sgv-lab train``, ``plan`` and ``throughput train`` and ``repeat``."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.options import Count, Folder, NotNegative, pairs, refuse_ignored
from sgv_lab.training import plan as planning
from sgv_lab.training import throughput as speed
from sgv_lab.training import trainer
from sgv_lab.training.config import Machine, RunConfig, base, configured

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Size = Literal["paper", "mini"]


@dataclass(kw_only=True)
class Training:
    """What ``train`` and ``plan`` have in common."""

    model: Path  # Checkpoint folder.
    records: Path  # JSON, JSON lines or Parquet.
    images: Folder  # Folder of the pictures.
    recipe: str  # pretrain, sft, sft-lora, …: a misspelt name lists them all.
    set_: tuple[str, ...] = ()  # NAME=VALUE: Change the recipe.
    out: Path  # Folder of the run.
    max_steps: Count | None = None  # Default: the recipe's epochs.
    packing: bool = False  # Pack samples instead of padding.
    tokens_per_batch: Count | None = None  # Of a pack.  [default: 8192]
    micro_batch: Count | None = None  # Rows of a padded batch.  [default: 8]
    workers: NotNegative = 0  # Processes that load pictures.
    dtype: Literal["fp32", "bf16"] = "fp32"  # Weights.
    drop_broken: bool = False  # Leave broken records out, counted.

    def configured(self, **more: Any) -> tuple[RunConfig, Machine]:
        """The recipe with what the command line changes, and how to carry it out."""
        if self.packing:
            refuse_ignored("--packing", "micro_batch")
        else:
            refuse_ignored("training without --packing", "tokens_per_batch")
        names = ("max_steps", "packing", "tokens_per_batch", "micro_batch", "workers")
        given = {name: getattr(self, name) for name in names} | more
        given = {name: value for name, value in given.items() if value not in (None, False)}
        config = base(self.recipe, pairs("--set", self.set_), "command line")
        return configured(config, given, "command line")


def train(
    *,
    given: Training,
    seed: int = 0,
    loss: Literal["token", "sample"] | None = None,  # What weighs the same.  [default: token]
    device: Literal["auto", "cpu", "cuda"] = "auto",
    fsdp: bool = False,  # Shard over torchrun's GPUs.
    save_every: int | None = None,  # Steps between checkpoints.
    price: float = 0.0,  # Of one GPU-hour, to tell the cost.
) -> Path:
    """Train a checkpoint by a recipe. Give the same command again to resume.

    Several GPUs: `torchrun --nproc-per-node N --no-python sgv-lab train … [--fsdp]`.
    """
    how = {"loss": loss, "device": device, "fsdp": fsdp, "save_every": save_every, "price": price}
    config, machine = given.configured(**how)
    load = _load_four_bit if config.four_bit else checkpoints.load
    loaded = load(given.model, dtype=DTYPES[given.dtype])
    data = (given.records, given.images, config, given.out, seed)
    return trainer.train(*loaded, *data, drop_broken=given.drop_broken, **vars(machine))


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


def plan(
    *,
    given: Training,
    gpu_memory: float | None = None,  # Memory of one GPU in GB.
    tokens_per_second: float | None = None,  # Of one GPU, as measured by throughput.
    price: float | None = None,  # Of one GPU-hour.
    gpus: int = 1,
    json_: bool = False,  # Everything, for programs.
) -> Iterator[Any]:
    """Say what a run needs and what is missing; exit 1 if it could not start."""
    config, machine = given.configured()
    report = planning.plan(
        checkpoints.configuration(given.model),
        checkpoints.load_processor(given.model),
        given.records,
        given.images,
        config,
        given.out,
        run=replace(machine, progress=not json_),
        weights=given.model,
        weight_bytes=DTYPES[given.dtype].itemsize,
        autocast=given.dtype == "fp32",
        device_bytes=int(gpu_memory * 1e9) if gpu_memory else None,
        tokens_per_second=tokens_per_second,
        price_per_hour=price,
        devices=gpus,
        drop_broken=given.drop_broken,
    )
    yield report.to_json() if json_ else f"{report}\n\n{config.table()}"
    if report.obstacles:
        sys.exit(1)


def throughput_train(
    *,
    model: str,  # A family, such as llava-1.5-7b.
    recipe: str = "sft",
    steps: int = 5,  # Steps timed per row.
    size: Size = "paper",
    samples_per_update: int | None = None,  # Default: the recipe's.
    workers: NotNegative = 0,  # Processes that load images.
    out: Path | None = None,  # CSV file to add the rows to.  [default: none]
) -> Iterator[str]:
    """Time `train` with random weights on made-up records, one change a row."""
    changes = {"samples_per_update": samples_per_update} if samples_per_update else {}
    for row in speed.measure(model, size, base(recipe, changes), steps, workers):
        yield speed.line(row)
        if out:  # at once: the next way may need more memory than there is
            speed.append(out, [row])
