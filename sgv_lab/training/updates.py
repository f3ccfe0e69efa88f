"""The data as a list of updates: update u is a pure function of (data, seed, u).

So the sampler's position is the step number, a resumed run opens no picture twice, and arms of
a comparison can be given the same samples in every update whatever their captions' lengths.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset

from sgv_lab.training.collate import Collator
from sgv_lab.training.guards import refuse_unsupervised
from sgv_lab.training.packing import Batching
from sgv_lab.training.stream import IGNORED, IMAGE_ID


class Examples(Protocol):
    """What is trained on: a dict per record, with its ``id`` and ``labels`` at least."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Order:
    """An endless stream of indices: every epoch a new permutation of ``size``, from ``seed``."""

    def __init__(
        self, size: int, seed: int, epoch: Callable[[int], Sequence[int]] | None = None
    ) -> None:
        """``epoch``: another way to order an epoch, number -> indices (length grouping)."""
        self.size, self.seed, self.epoch = size, seed, epoch
        self._drawn: dict[int, np.ndarray] = {}  # the epochs in use, at most two

    def _epoch(self, number: int) -> np.ndarray:
        if number not in self._drawn:
            if self.epoch:
                order = np.asarray(self.epoch(number))
            else:
                order = np.random.default_rng([self.seed, number]).permutation(self.size)
            self._drawn = {k: v for k, v in self._drawn.items() if k == number - 1} | {
                number: order
            }
        return self._drawn[number]

    def slice(self, start: int, stop: int) -> list[int]:
        """Indices ``start`` to ``stop`` of the stream."""
        return [int(self._epoch(i // self.size)[i % self.size]) for i in range(start, stop)]


def padded(micro_batch: int) -> Batching:
    """Split an update into equal batches of at most ``micro_batch`` samples, one per row."""

    def batches(indices: list[int], processes: int) -> list[list[int]]:
        count = -(-len(indices) // (micro_batch * processes)) * processes
        return [part.tolist() for part in np.array_split(indices, min(count, len(indices)))]

    return batches


class Updates(Dataset):
    """Update number -> this process's batches, each ready for the model.

    Every process gets the same number of batches, as sharded models need. Raises LabError naming
    a record without a supervised token.
    """

    def __init__(
        self,
        examples: Examples,
        collate: Collator,
        order: Order,
        batching: Batching,
        samples_per_update: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.examples, self.collate, self.order, self.batching = examples, collate, order, batching
        self.samples_per_update, self.rank, self.processes = samples_per_update, rank, processes

    def plan(self, update: int) -> list[list[int]]:
        """The indices of all batches of an update, over all processes."""
        first = update * self.samples_per_update
        indices = self.order.slice(first, first + self.samples_per_update)
        return self.batching(indices, self.processes)

    def __getitem__(self, update: int) -> list[dict[str, Any]]:
        batches = []
        for indices in self.plan(update)[self.rank :: self.processes]:
            examples = [self.examples[i] for i in indices]
            supervised = [sum(x != IGNORED for x in e["labels"][1:]) for e in examples]
            refuse_unsupervised([e["id"] for e in examples], supervised)
            batch = self.collate([*examples, *self._filler(examples)])
            batch["record_ids"] = [e["id"] for e in examples]
            batches.append(batch)
        return batches

    def _filler(self, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A black picture without a loss, where several processes must use the same tensors.

        The official code gives one to every text-only sample for that reason.
        """
        if self.processes == 1 or any(e["images"] for e in examples):
            return []
        before, after = self.collate.around
        ids, black = [*before, IMAGE_ID, *after], self.collate.blank()
        return [{"id": "", "input_ids": ids, "labels": [IGNORED] * len(ids), "images": [black]}]
