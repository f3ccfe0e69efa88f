"""Samples into batches: image places widened, rows padded or packed, weights for the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from sgv_lab.errors import LabError
from sgv_lab.training.stream import IGNORED, IMAGE_ID

Sample = dict[str, Any]  # an item of RecordDataset


@dataclass(frozen=True)
class Collator:
    """Turns samples into one batch for a model's forward: tensors, and ``record_ids``.

    Padded (B samples, one a row): ``input_ids``, ``labels``, ``position_ids``, ``attention_mask``
    (B, T) int64, ``loss_weights`` (B, T) float32, ``pixel_values`` (N, 3, H, W) float32.
    Packed (``packed=True``): all samples in one row (1, T) without padding and without attention
    mask; how they are kept apart is drawn in `sgv_lab.training.packing`. There are also
    ``cu_seq_lens_q``, ``cu_seq_lens_k`` (samples + 1,) int32 and ``max_length_q``, ``max_length_k``
    for kernels that take them. The model must be called with ``use_cache=False``, as in any
    training: a cache would hide the positions from transformers.

    Only real images are in ``pixel_values``; a batch of text alone has no such key. The official
    code sends a black picture through the tower for each text-only sample, which changes no
    gradient of the others; where several processes need the same graph, the trainer adds it.

    ``loss_weights`` are 1 for a supervised token, or with ``per_sample`` 1 / (the sample's
    supervised tokens), so that every sample weighs the same however long its answer. The first
    token of a sample is never predicted, so its label is dropped (ChatML supervises it).
    """

    pad_id: int
    image_token_id: int  # what the model replaces by image features
    image_tokens: int  # how many of them an image takes
    image_size: int  # pixels, to refuse images prepared for another model
    per_sample: bool = False
    packed: bool = False

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch. Raises LabError naming the record whose images don't fit."""
        rows = [self._row(sample) for sample in samples]
        batch = self._pack(rows) if self.packed else self._pad(rows)
        pixels = [image for sample in samples for image in sample["images"]]
        if pixels:
            batch["pixel_values"] = torch.stack(pixels)
        batch["record_ids"] = [sample["id"] for sample in samples]
        return batch

    def _row(self, sample: Sample) -> dict[str, torch.Tensor]:
        """The sample's tensors (T,), each image place widened to ``image_tokens``."""
        self._check(sample)
        ids, labels = torch.tensor(sample["input_ids"]), torch.tensor(sample["labels"])
        labels[0] = IGNORED
        place = ids == IMAGE_ID
        times = torch.where(place, self.image_tokens, 1)
        ids = torch.where(place, self.image_token_id, ids).repeat_interleave(times)
        labels = torch.where(place, IGNORED, labels).repeat_interleave(times)
        weights = (labels != IGNORED).float()
        if self.per_sample:
            weights /= weights.sum().clamp(min=1)
        return {
            "input_ids": ids,
            "labels": labels,
            "loss_weights": weights,
            "position_ids": torch.arange(len(ids)),
        }

    def _check(self, sample: Sample) -> None:
        ids, images, where = sample["input_ids"], sample["images"], f"record {sample['id']!r}"
        places = ids.count(IMAGE_ID)
        if places and places != len(images):
            raise LabError(f"{len(images)} images for {places} places", where=where, fix="mend it")
        # Qwen's own vocabulary spells an image out, so there the token belongs to the record.
        if self.image_token_id in ids and (places or not images):
            raise LabError("its text holds the image token", where=where, fix="reword it")
        size = (3, self.image_size, self.image_size)
        if wrong := [tuple(image.shape) for image in images if image.shape != size]:
            raise LabError(
                f"its image has shape {wrong[0]}, the model takes {size}",
                where=where,
                fix="use the image processor of the model's own checkpoint",
            )

    def _pad(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        fill = {"input_ids": self.pad_id, "labels": IGNORED, "loss_weights": 0.0}
        batch: dict[str, Any] = {
            key: pad_sequence([row[key] for row in rows], batch_first=True, padding_value=value)
            for key, value in fill.items()
        }
        filled = [torch.ones_like(row["input_ids"]) for row in rows]
        batch["attention_mask"] = pad_sequence(filled, batch_first=True)
        width = batch["input_ids"].shape[1]
        batch["position_ids"] = torch.arange(width).repeat(len(rows), 1)
        return batch

    def _pack(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        batch: dict[str, Any] = {key: torch.cat([r[key] for r in rows])[None] for key in rows[0]}
        lengths = torch.tensor([0, *(len(row["input_ids"]) for row in rows)])
        ends, longest = lengths.cumsum(0).int(), int(lengths.max())
        for side in ("q", "k"):
            batch[f"cu_seq_lens_{side}"], batch[f"max_length_{side}"] = ends, longest
        return batch
