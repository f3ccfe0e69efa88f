"""Checks that stop a run which would otherwise go on without learning what it should."""

from collections.abc import Iterable, Sequence

import torch
from torch.distributed.tensor import DTensor

from sgv_lab.errors import LabError

WATCHED_UPDATES = 3  # warming up from 0, LoRA's A matrices first get a gradient in the third


def refuse_non_finite(value: torch.Tensor, what: str, step: int, ids: Iterable[str]) -> None:
    """Raise LabError if ``value`` has a NaN or infinity, naming the batch's record ``ids``."""
    if not torch.isfinite(value).all():
        raise LabError(
            f"the {what} is {value.sum().item()} in update {step}; "
            f"records of the batch: {', '.join(ids)}",
            fix="look at these records or lower the learning rate; the last checkpoint is intact",
        )


class GradientGuard:
    """Stops a run in which a tensor that should learn gets no gradient.

    After the first update with a picture every tensor of ``names`` must have a gradient, and
    within the first three a non-zero one. This catches parts that are silently cut off, such as
    a partly frozen vision tower under reentrant gradient checkpointing: its blocks get no
    gradient at all, while the loss keeps falling because the rest learns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.pending = set(names)
        self.seen = 0  # updates with a picture

    def check(self, model: torch.nn.Module, has_image: bool) -> None:
        """Look at the gradients of an update. Raises LabError naming what gets none."""
        if not self.pending or not has_image:
            return
        self.seen += 1
        # Looked up each time: sharding replaces the parameter objects.
        watched = {n: p for n, p in model.named_parameters() if n in self.pending}
        absent = [name for name, p in watched.items() if p.grad is None]
        if absent:
            self._stop("has no gradient after the first update with a picture", absent)
        largest = torch.stack([_largest(p.grad) for p in watched.values()]).cpu()
        self.pending = {n for n, x in zip(watched, largest, strict=True) if x == 0}
        if self.pending and self.seen >= WATCHED_UPDATES:
            what = f"had only zero gradients in the first {WATCHED_UPDATES} updates with a picture"
            self._stop(what, sorted(self.pending))

    def _stop(self, what: str, names: list[str]) -> None:
        more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
        raise LabError(
            f"{names[0]}{more} {what}",
            fix="it would never be trained: use non-reentrant gradient checkpointing, look for "
            "a detached part, or freeze it by the recipe",
        )


def _largest(gradient: torch.Tensor) -> torch.Tensor:
    """The largest absolute value, a scalar (NaN stays NaN); of all shards if it is sharded."""
    largest = torch.linalg.vector_norm(gradient, ord=float("inf"))
    return (largest.full_tensor() if isinstance(largest, DTensor) else largest).float()
