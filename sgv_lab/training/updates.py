"""The data as a list of updates: update u is a pure function of (data, seed, u).

So the sampler's position is the step number, a resumed run opens no picture twice, and arms of
a comparison can be given the same samples in every update whatever their captions' lengths.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedConfig

from sgv_lab.errors import LabError
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


def collator(config: PreTrainedConfig, per_sample: bool = False, packed: bool = False) -> Collator:
    """The collator for models of the LLaVA family and Qwen-VL; LabError for others."""
    if config.model_type == "qwen_vl":
        image_tokens = config.vision_config.num_queries
    elif config.model_type.startswith("llava"):
        image_tokens = config.image_seq_length
    else:
        raise LabError(f"don't know how to feed a {config.model_type!r} model", fix="use another")
    return Collator(
        pad_id=config.text_config.pad_token_id or 0,
        image_token_id=config.image_token_id,
        image_tokens=image_tokens,
        image_size=config.vision_config.image_size,
        per_sample=per_sample,
        packed=packed,
    )


def around_image(config: PreTrainedConfig) -> tuple[list[int], list[int]]:
    """The ids that go in front of an image and behind it: any one token, or Qwen-VL's own two."""
    if config.model_type == "qwen_vl":
        return [config.image_start_id], [config.image_end_id]
    return [0], []


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
        around: tuple[list[int], list[int]] = ([0], []),
    ) -> None:
        """``around``: the ids in front of an image and behind it, for a sample without text."""
        self.examples, self.collate, self.order, self.batching = examples, collate, order, batching
        self.samples_per_update, self.rank, self.processes = samples_per_update, rank, processes
        self.around = around

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
        black = torch.zeros(3, self.collate.image_size, self.collate.image_size)
        ids = [*self.around[0], IMAGE_ID, *self.around[1]]
        return [{"id": "", "input_ids": ids, "labels": [IGNORED] * len(ids), "images": [black]}]
