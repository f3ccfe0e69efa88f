"""How fast a recipe trains, against the official way in the same run: one change a row.

Random weights, made on the device; samples of real lengths. MFU = useful FLOPs per second (by
`estimates.useful_flops`) / the ceiling, which is the fastest large matrix product measured on the
same device just before.
"""

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab.errors import LabError
from sgv_lab.files import atomic
from sgv_lab.models import families, mini
from sgv_lab.provenance import provenance
from sgv_lab.training import packing
from sgv_lab.training.collate import collator
from sgv_lab.training.estimates import useful_flops
from sgv_lab.training.loss import supervised_loss, targets
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.sampler import grouped_by_modality
from sgv_lab.training.segments import IGNORED
from sgv_lab.training.trainable import Trainable, set_trainable
from sgv_lab.training.updates import padded

WARM_UP = 2  # updates before the clock starts
PACK = 16384  # tokens of a packed batch at paper size
# Tokens of text per sample at paper size: mean and spread of a log-normal. Captions: 826 characters
# (ShareGPT4V-PT, Table 1) at 4.3 characters a token; fine-tuning: an assumption, to be replaced by
# a survey of the real 665K records.
TEXT_TOKENS = {"plain": (192.0, 0.35)} | dict.fromkeys(("v1", "qwen", "chat"), (280.0, 0.7))


@dataclass(frozen=True)
class Levers:
    """One row's way of training. The defaults are the official ones."""

    name: str = "official"
    whole_head: bool = True  # logits for every position, not for supervised ones only
    packed: bool = False
    fused: bool = False  # one AdamW kernel for all tensors
    checkpoint_every: int = 1  # layers; 0: no gradient checkpointing
    dtype: str = "float32"  # of weights, gradients and moments; on a GPU under bf16 autocast
    varlen: bool = False  # torch's variable-length attention (GPU only)


def levers(gpu: bool) -> list[Levers]:
    """The rows: each has all changes of the one before and one more."""
    rows = [Levers()]

    def add(name: str, **change: Any) -> None:
        rows.append(replace(rows[-1], name=f"+ {name}", **change))

    add("supervised head", whole_head=False)
    add("fused AdamW", fused=True)
    add("packing", packed=True)
    if gpu:
        add("bf16 weights", dtype="bfloat16")
        add("varlen attention", varlen=True)
    add("checkpoint every 2nd layer", checkpoint_every=2)
    add("no checkpointing", checkpoint_every=0)
    return rows


class Lengths:
    """Random samples with lengths as in the recipe's data; the same for every row."""

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe,
        paper: bool,
        count: int,
        processor: ProcessorMixin | None = None,
    ) -> None:
        mean, spread = TEXT_TOKENS[recipe.template] if paper else (24.0, 0.5)
        draw = np.random.default_rng(0)
        sizes = draw.lognormal(np.log(mean) - spread**2 / 2, spread, count)
        self.text = np.clip(sizes, 8, recipe.max_length - 700 if paper else 64).astype(int)
        self.collate = collator(model.config, processor=processor)
        self.blank = self.collate.blank()
        self.places = self.collate([self.blank])["labels"].shape[1]
        self.supervised = 1.0 if recipe.template == "plain" else 0.7  # the rest are questions

    def __len__(self) -> int:
        return len(self.text)

    def length(self, index: int) -> int:
        """Positions in the language model."""
        return int(self.text[index]) + self.places

    def __getitem__(self, index: int) -> dict[str, Any]:
        size = int(self.text[index])
        words = np.random.default_rng(index).integers(3, 200, size).tolist()
        asked = size - int(size * self.supervised)
        labels = self.blank["labels"] + [IGNORED] * asked + words[asked:]
        sample = {"id": str(index), "input_ids": self.blank["input_ids"] + words, "labels": labels}
        if "aligned" in self.blank:
            known = self.blank["aligned"].items()
            return self.blank | sample | {"aligned": {k: pad(v, (0, size)) for k, v in known}}
        draw = torch.Generator().manual_seed(index)
        return sample | {"images": [torch.randn(self.blank["images"][0].shape, generator=draw)]}


def processor_of(key: str, size: str) -> ProcessorMixin:
    """A processor that makes images as the family's own does, around a tokenizer of few words."""
    texts = ["Nothing is said."]
    return families.processor(
        key, size, mini.train_tokenizer(texts, make=families.family(key).tokenizer)
    )


def measure(key: str, size: str, recipe: Recipe, steps: int) -> list[dict[str, Any]]:
    """A row per change, official first; a row that runs out of memory says so.

    Raises LabError at paper size without a GPU.
    """
    device = usable_device(size)
    gpu, ceiling, origin = device == "cuda", matmul_ceiling(device), provenance()
    rows = []
    for lever in levers(gpu):
        row = {
            "model": key,
            "size": size,
            "recipe": recipe.name,
            "row": lever.name,
            **dict.fromkeys(("weights", "gradients", "optimiser"), lever.dtype),
            "autocast": "bfloat16" if gpu and lever.dtype == "float32" else "none",
            "ceiling_tflops": ceiling / 1e12,
        }
        try:
            row |= {"status": "ok"} | _time(key, size, recipe, lever, steps, device, ceiling)
        except torch.OutOfMemoryError:
            row |= {"status": "out of memory"}
        if gpu:
            gc.collect()  # models hold themselves in cycles
            torch.cuda.empty_cache()
        row |= {"device": origin["device"]}
        row |= {name: origin["packages"][name] for name in ("torch", "transformers")}
        rows.append(row | {name: origin[name] for name in ("revision", "clean")})
    return rows


def matmul_ceiling(device: str) -> float:
    """FLOP/s of the fastest of ten large matrix products (bfloat16 on a GPU, float32 on a CPU)."""
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(_seconds(lambda: a @ b, device) for _ in range(10))
    return 2 * side**3 / best


def usable_device(size: str) -> str:
    """Where models of ``size`` are measured; LabError at paper size without a GPU."""
    gpu = torch.cuda.is_available()
    if size == "paper" and not gpu:
        raise LabError("true sizes need a GPU", where="throughput", fix="use --size mini")
    return "cuda" if gpu else "cpu"


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak(device: str) -> int | None:
    """The most memory held on the device in bytes; a CPU does not tell."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def asked(batches: list[dict[str, Any]]) -> int:
    """Supervised tokens in ``batches``."""
    return sum(int((targets(batch) != IGNORED).sum()) for batch in batches)


def ready(
    key: str, size: str, recipe: Recipe, lever: Levers, device: str
) -> tuple[torch.nn.Module, Trainable, torch.optim.Optimizer]:
    """Random weights on the device, what of them is trained, and their optimiser."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    dtype = getattr(torch, lever.dtype)
    built = families.build(key, size, 0, device=device, dtype=dtype)
    model, trainable = set_trainable(built, recipe)
    model.train()
    if lever.checkpoint_every:
        model.activation_checkpointing_enable(
            {"use_reentrant": False}, every_n_layers=lever.checkpoint_every
        )
        model.disable_input_require_grads()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        fused=lever.fused,
        foreach=not lever.fused,
    )
    return model, trainable, optimizer


def _time(
    key: str, size: str, recipe: Recipe, lever: Levers, steps: int, device: str, ceiling: float
) -> dict[str, Any]:
    """Train ``WARM_UP + steps`` updates and time the last ``steps``."""
    model, trainable, optimizer = ready(key, size, recipe, lever, device)
    count = (WARM_UP + steps) * recipe.samples_per_update
    samples = Lengths(model, recipe, size == "paper", count, processor_of(key, size))
    updates = _updates(samples, recipe, lever, size)

    def train(some: list[list[dict[str, Any]]]) -> None:
        for update in some:
            step(model, optimizer, update, lever, device)

    with packing.varlen(model) if lever.varlen else contextlib.nullcontext():
        train(updates[:WARM_UP])
        seconds = _seconds(lambda: train(updates[WARM_UP:]), device)
    batches = [batch for update in updates[WARM_UP:] for batch in update]
    ids = [int(name) for batch in batches for name in batch["record_ids"]]
    lengths, supervised = np.array([samples.length(i) for i in ids]), asked(batches)
    flops = useful_flops(model.config, trainable, recipe, lengths, supervised, len(ids))
    return {
        "seconds_per_update": seconds / steps,
        "tokens_per_second": lengths.sum() / seconds,
        "positions_per_second": sum(b["labels"].numel() for b in batches) / seconds,
        "supervised_tokens_per_second": supervised / seconds,
        "samples_per_second": len(ids) / seconds,
        "useful_tflops": flops / seconds / 1e12,
        "mfu": flops / seconds / ceiling,
        "peak_bytes": peak(device),
    }


def _updates(
    samples: Lengths, recipe: Recipe, lever: Levers, size: str
) -> list[list[dict[str, Any]]]:
    """The batches of every update: padded and grouped as official (8 or 16 rows), or packed."""
    rows = min(16 if recipe.template == "plain" else 8, recipe.samples_per_update)
    order = list(range(len(samples)))
    if recipe.template != "plain":
        batches = max(1, recipe.samples_per_update // rows)
        order = grouped_by_modality(samples.text.tolist(), rows, batches, seed=0)
    split = padded(rows)
    if lever.packed:
        lengths = [samples.length(i) for i in range(len(samples))]
        split = packing.packed(lengths, max(PACK if size == "paper" else 512, *lengths))
    collate = replace(samples.collate, packed=lever.packed)
    n = recipe.samples_per_update
    return [
        [collate([samples[i] for i in batch]) for batch in split(order[first : first + n], 1)]
        for first in range(0, len(order), n)
    ]


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    update: list[dict[str, Any]],
    lever: Levers,
    device: str,
) -> torch.Tensor:
    """One update and its loss; the official way is the model's own loss on all logits."""
    supervised, total = asked(update), 0.0
    for batch in update:
        batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        autocast = device == "cuda" and lever.dtype == "float32"
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            if lever.whole_head:
                inputs = {k: v for k, v in batch.items() if k not in ("loss_weights", "record_ids")}
                loss = model(**inputs, use_cache=False, num_items_in_batch=supervised).loss
            else:
                loss = supervised_loss(model, batch, supervised)
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


def line(row: dict[str, Any]) -> str:
    """One row as a line of text."""
    if row["status"] != "ok":
        return f"{row['row']:<30} {row['status']}"
    peak = "" if row["peak_bytes"] is None else f"  {row['peak_bytes'] / 1e9:6.1f} GB"
    return (
        f"{row['row']:<30} {row['tokens_per_second']:10,.0f} tokens/s "
        f"{row['samples_per_second']:8.2f} samples/s  MFU {row['mfu']:6.1%}{peak}"
    )


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a CSV file, in place of nothing that was there."""
    before = [pd.read_csv(path)] if path.exists() else []
    with atomic(path) as temporary:
        pd.concat([*before, pd.DataFrame(rows)]).to_csv(temporary, index=False)
