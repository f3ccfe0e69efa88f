"""The data as a list of steps: step s is a pure function of (data, seed, s).

So the sampler's position is the step number, a resumed run opens no image twice, and arms of
a comparison can be given the same samples in every step whatever their captions' lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.utils.data import Dataset

from sgv_lab.training.collate import Collator, Sample
from sgv_lab.training.packing import Batching
from sgv_lab.training.segments import IGNORED


class SampleOrder:
    """An endless stream of indices: every epoch a new permutation of ``size``, from ``seed``.

    The place of an index that is ``left_out`` is taken by another. So arms that leave out different
    records show all others at the same steps, and as many of them.
    """

    def __init__(self, size: int, seed: int, left_out: Sequence[int] = ()) -> None:
        self.size = size

        def epoch(number: int) -> np.ndarray:
            rng = np.random.default_rng([seed, number])
            order = rng.permutation(size)
            while (gaps := np.isin(order, left_out)).any():
                order[gaps] = rng.integers(size, size=size)[gaps]  # a place's draws are every arm's
            return order

        self._epoch = lru_cache(maxsize=2)(epoch)  # a step may lie in two

    def slice(self, start: int, stop: int) -> list[int]:
        """Indices ``start`` to ``stop`` of the stream."""
        return [int(self._epoch(i // self.size)[i % self.size]) for i in range(start, stop)]


def padded(micro_batch: int, lengths: Sequence[int] | np.ndarray = ()) -> Batching:
    """Split a step into equal batches of at most ``micro_batch`` samples, one per row.

    ``lengths``: tokens of every record, image tokens counted: samples of about the same length then
    share a batch, which pads a third less.
    """

    def batches(indices: list[int], processes: int) -> list[list[int]]:
        count = -(-len(indices) // (micro_batch * processes)) * processes
        ordered = sorted(indices, key=lambda i: lengths[i]) if len(lengths) else indices
        return [part.tolist() for part in np.array_split(ordered, min(count, len(indices)))]

    return batches


@dataclass
class Steps(Dataset):
    """Step number -> this process's batches, each ready for the model.

    Every process gets the same number of batches, as sharded models need.
    """

    examples: Dataset[Sample]
    collate: Collator
    order: SampleOrder
    batching: Batching
    samples_per_step: int
    rank: int  # this process's number
    processes: int

    def __getitem__(self, step: int) -> list[dict[str, Any]]:
        first = step * self.samples_per_step
        drawn = self.order.slice(first, first + self.samples_per_step)
        batches = []
        for indices in self.batching(drawn, self.processes)[self.rank :: self.processes]:
            examples = [self.examples[i] for i in indices]
            filler = []
            if self.processes > 1 and not any(e["images"] for e in examples):
                # All processes must use the same tensors: a black image without a loss, as the
                # official code gives one to every text-only sample.
                filler = [self.collate.blank_sample()]
            batch = self.collate([*examples, *filler])
            batch["record_ids"] = [e["id"] for e in examples]
            batch["images"] = sum(len(e["images"]) for e in examples)
            batches.append(batch)
        return batches


def counts(batches: Sequence[dict[str, Any]], processes: PartialState) -> dict[str, int]:
    """What a step is shown, by all processes: tokens, positions, samples, images, ..."""
    found = {
        "tokens": sum(_tokens(batch) for batch in batches),
        "positions": sum(batch["labels"].numel() for batch in batches),
        "supervised_tokens": sum(int((batch["labels"] != IGNORED).sum()) for batch in batches),
        "samples": sum(len(batch["record_ids"]) for batch in batches),
        "images": sum(batch["images"] for batch in batches),
        "batches": len(batches),
    }
    if processes.num_processes > 1:
        summed = torch.tensor(list(found.values()), device=processes.device)
        dist.all_reduce(summed)
        found = dict(zip(found, summed.tolist(), strict=True))
    return found


def _tokens(batch: dict[str, Any]) -> int:
    """Positions that hold a token, not padding."""
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None else batch["labels"].numel()
