"""``sgv-lab train``, ``plan`` and ``inspect``."""

import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import click
import torch
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.options import Count, Existing, Folder, NotNegative, pairs, refuse_ignored
from sgv_lab.training import plan as planning
from sgv_lab.training import trainer
from sgv_lab.training.config import Machine, RunConfig, base, configured
from sgv_lab.training.conversation import TEMPLATES
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.precision import loading_dtype
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
from sgv_lab.training.survey import MAX_DROPPED

_LOCAL = [".*", "*.jsonl", "checkpoints/*"]  # not pushed: locks, steps, what resumes


@dataclass(kw_only=True)
class Training:
    """What ``train`` and ``plan`` have in common."""

    model: Path  # Checkpoint folder.
    records: Path  # JSON, JSON lines or Parquet.
    images: Folder  # Folder of the images.
    recipe: str  # pretrain, sft, sft-lora, …: a misspelt name lists them all.
    set_: tuple[str, ...] = ()  # NAME=VALUE: Change the recipe.
    out: Path  # Folder of the run.
    max_steps: Count | None = None  # Default: the recipe's epochs.
    packing: bool = False  # Pack samples instead of padding.
    tokens_per_batch: Count | None = None  # Of a pack.  [default: 8192]
    micro_batch: Count | None = None  # Rows of a padded batch.  [default: 8]
    workers: NotNegative | None = None  # Load images.  [default: 4 beside a GPU, else 0]
    drop_broken: bool = False  # Leave broken records out, counted,
    max_dropped: float = MAX_DROPPED  # SHARE: up to this share of all.

    def configured(self, **more: Any) -> tuple[RunConfig, Machine]:
        """The recipe with what the command line changes, and how to carry it out."""
        if self.packing:
            refuse_ignored("--packing", "micro_batch")
        else:
            refuse_ignored("training without --packing", "tokens_per_batch")
        if not self.drop_broken:
            refuse_ignored("training without --drop-broken", "max_dropped")
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
    report_to: str = "",  # Trackers, too: tensorboard, trackio, wandb (by commas).
) -> Path:
    """Train a checkpoint by a recipe. Give the same command again to resume.

    Several GPUs: `torchrun --nproc-per-node N --no-python sgv-lab train … [--fsdp]`.
    """
    config, machine = given.configured(
        loss=loss, device=device, fsdp=fsdp, save_every=save_every, price=price, report_to=report_to
    )
    load = _load_four_bit if config.four_bit else checkpoints.load
    if fsdp and int(os.environ.get("RANK", 0)):
        load = checkpoints.load_empty  # the first process reads the weights and gives each its part
    loaded = load(given.model, dtype=loading_dtype(config))
    data = (given.records, given.images, config, given.out, seed)
    broken = {"drop_broken": given.drop_broken, "max_dropped": given.max_dropped}
    return trainer.train(*loaded, *data, **broken, **vars(machine))


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
    tokens_per_second: float | None = None,  # Of one GPU, as measured by measure.
    price: float | None = None,  # Of one GPU-hour.
    gpus: Count = 1,
    fsdp: bool = False,  # Shard over the GPUs.
    json_: bool = False,  # Everything, for programs.
) -> Iterator[Any]:
    """Say what a run needs and what is missing; exit 1 if it could not start."""
    config, machine = given.configured(fsdp=fsdp)
    report = planning.plan(
        checkpoints.configuration(given.model),
        checkpoints.load_processor(given.model),
        given.records,
        given.images,
        config,
        given.out,
        run=replace(machine, progress=not json_),
        weights=given.model,
        device_bytes=int(gpu_memory * 1e9) if gpu_memory else None,
        tokens_per_second=tokens_per_second,
        price_per_hour=price,
        devices=gpus,
        drop_broken=given.drop_broken,
        max_dropped=given.max_dropped,
    )
    yield report.to_json() if json_ else f"{report}\n\n{config.table()}"
    if report.obstacles:
        sys.exit(1)


def push(
    run: Folder,
    name: str,
    *,
    public: bool = False,  # For everybody, if the terms of base and data allow that.
) -> Iterator[str]:
    """Publish a trained RUN on the hub as NAME (OWNER/NAME): weights, processor, manifest, card.

    The size is told first. Who you are is known from `hf auth login` or HF_TOKEN. The repository is
    private; one that is there already stays as visible as it is.
    """
    for needed in ("manifest.json", "README.md"):
        if not (run / needed).is_file():
            fix = "give the folder of a finished `sgv-lab train`"
            raise LabError(f"holds no {needed}", where=run, fix=fix)
    paths = [path for path in run.rglob("*") if path.is_file()]
    names = filter_repo_objects([str(path.relative_to(run)) for path in paths],
                                ignore_patterns=_LOCAL)  # fmt: skip
    sizes = [(run / one).stat().st_size for one in names]
    yield f"{len(sizes)} files, {sum(sizes) / 1e9:.3f} GB, to {name}"
    api = HfApi()
    try:
        api.create_repo(name, private=not public, exist_ok=True)
        yield str(api.upload_folder(repo_id=name, folder_path=run, ignore_patterns=_LOCAL))
    except Exception as error:  # of the hub, the system, and the client below, which changes
        fix = "check OWNER/NAME, the connection and `hf auth whoami`, and run the same again"
        raise LabError(f"cannot be published ({error})", where=name, fix=fix) from error


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
    totals = Counter(tokens=0, supervised=0, truncated=0, refused=0)
    for number in range(len(data)):
        row: dict[str, Any] = {"id": data.record(number)["id"]}
        broken, encoded = data.examine(number)
        if encoded is None:
            totals["refused"] += 1
            row["error"] = str(broken)
            shown = click.style(f"refused: {broken}", fg="red")
        else:
            tokens, supervised = len(encoded.input_ids), encoded.supervised
            totals.update(tokens=tokens, supervised=supervised, truncated=encoded.truncated)
            row |= {"input_ids": encoded.input_ids, "labels": encoded.labels}
            cut = f", cut from {encoded.untruncated}" if encoded.truncated else ""
            shown = f"{tokens} tokens, {supervised} supervised{cut}\n"
            shown += marked(encoded, words)
        rows.append(row)
        if not json_:
            yield click.style(str(row["id"]), bold=True) + "  " + shown + "\n"
    summary = ", ".join(f"{count} {what}" for what, count in totals.items())
    yield json.dumps(rows) if json_ else f"{len(rows)} records: {summary}"


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
