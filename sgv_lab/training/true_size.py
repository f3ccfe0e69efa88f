"""Does a recipe's update work at full size, and does it take the memory that the plan says?

Random weights, made on the device, trained on one batch again and again: the loss has to be finite
and to fall, and the peak of memory stands beside `estimates.step_memory`, part by part.
"""

from dataclasses import replace
from typing import Any

import torch

from sgv_lab.errors import LabError
from sgv_lab.models import families
from sgv_lab.provenance import provenance
from sgv_lab.training.estimates import Batch, step_memory
from sgv_lab.training.loss import supervised_loss, targets
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.stream import IGNORED
from sgv_lab.training.throughput import Lengths
from sgv_lab.training.trainable import set_trainable
from sgv_lab.training.trainer import CHECKPOINTING


def repeated(
    key: str, size: str, recipe: Recipe, updates: int = 5, rows: int = 4, dtype: str = "float32"
) -> dict[str, Any]:
    """Train family ``key`` for ``updates`` on one batch of ``rows`` samples; what was measured.

    ``size``: "paper" or "mini"; ``dtype``: of weights, gradients and moments, float32 under bf16
    autocast on a GPU. Keys: losses (a supervised token), planned (part -> bytes), planned_bytes,
    peak_bytes (of the GPU; None on a CPU), positions, and where it ran. Raises LabError at paper
    size without a GPU.
    """
    gpu = torch.cuda.is_available()
    if size == "paper" and not gpu:
        raise LabError("true sizes need a GPU", where="throughput", fix="use --size mini")
    device, kind = "cuda" if gpu else "cpu", getattr(torch, dtype)
    autocast = gpu and kind == torch.float32
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    model, trainable = set_trainable(
        families.build(key, size, 0, device=device, dtype=kind), recipe
    )
    model.train()
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTING)
        model.disable_input_require_grads()
    batch, supervised = _batch(model, recipe, size == "paper", rows, device)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        fused=gpu,
    )
    losses = []
    for _ in range(updates):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = supervised_loss(model, batch, supervised)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    largest = Batch(batch["labels"].numel(), supervised, rows)
    planned = step_memory(model.config, trainable, recipe, largest, kind.itemsize, autocast)
    return {
        "model": key,
        "size": size,
        "recipe": recipe.name,
        "weights": dtype,
        "rows": rows,
        "positions": batch["labels"].numel(),
        "losses": losses,
        "planned": planned,
        "planned_bytes": sum(planned.values()),
        "peak_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "provenance": provenance(),
    }


def _batch(
    model: torch.nn.Module, recipe: Recipe, paper: bool, rows: int, device: str
) -> tuple[dict[str, Any], int]:
    """One padded batch with lengths as in the recipe's data, and its supervised tokens."""
    samples = Lengths(model, recipe, paper, rows)
    draw = torch.Generator().manual_seed(0)
    shown = [
        {**samples[i], "images": [torch.randn(samples.blank.shape, generator=draw)]}
        for i in range(rows)
    ]
    batch = replace(samples.collate, packed=False)(shown)
    batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    return batch, int((targets(batch) != IGNORED).sum())
