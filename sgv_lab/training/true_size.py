"""Does a recipe's update work at full size, and does it take the memory that the plan says?

Random weights, made on the device, trained on one batch again and again: the loss has to be finite
and to fall, and the peak of memory stands beside `estimates.step_memory`, part by part.
"""

from typing import Any

import torch

from sgv_lab.provenance import provenance
from sgv_lab.training import throughput
from sgv_lab.training.estimates import Batch, step_memory
from sgv_lab.training.recipes import Recipe


def repeated(
    key: str, size: str, recipe: Recipe, updates: int = 5, rows: int = 4, dtype: str = "float32"
) -> dict[str, Any]:
    """Train family ``key`` for ``updates`` on one batch of ``rows`` samples; what was measured.

    ``size``: "paper" or "mini"; ``dtype``: of weights, gradients and moments, float32 under bf16
    autocast on a GPU. Keys: losses (a supervised token), planned (part -> bytes), planned_bytes,
    peak_bytes (of the GPU; None on a CPU), positions, and where it ran. Raises LabError at paper
    size without a GPU.
    """
    device = throughput.usable_device(size)
    every = int(recipe.gradient_checkpointing)
    lever = throughput.Levers(whole_head=False, fused=True, checkpoint_every=every, dtype=dtype)
    model, trainable, optimizer = throughput.ready(key, size, recipe, lever, device)
    samples = throughput.Lengths(
        model, recipe, size == "paper", rows, throughput.processor_of(key, size)
    )
    batch = samples.collate([samples[i] for i in range(rows)])
    losses = [
        throughput.step(model, optimizer, [batch], lever, device).item() for _ in range(updates)
    ]
    largest = Batch(batch["labels"].numel(), throughput.asked([batch]), rows)
    autocast = device == "cuda" and dtype == "float32"
    width = getattr(torch, dtype).itemsize
    planned = step_memory(model.config, trainable, recipe, largest, width, autocast)
    return {
        "model": key,
        "size": size,
        "recipe": recipe.name,
        "weights": dtype,
        "rows": rows,
        "positions": largest.positions,
        "losses": losses,
        "planned": planned,
        "planned_bytes": sum(planned.values()),
        "peak_bytes": throughput.peak(device),
        "provenance": provenance(),
    }
