"""Samples into batches: image places widened, rows padded or packed, loss weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sgv_lab.errors import LabError
from sgv_lab.training.stream import IGNORED, IMAGE_ID

Sample = dict[str, Any]  # an item of RecordDataset


@dataclass(frozen=True)
class Collator:
    """Turns samples into one batch of tensors for a model's forward.

    Keys: ``input_ids``, ``labels``, ``position_ids`` (B, T) int64, ``attention_mask`` (B, T) int64,
    ``loss_weights`` (B, T) float32, ``pixel_values`` (N, 3, H, W), ``record_ids`` list[str].
    """

    pad_id: int
    image_token_id: int
    image_tokens: int
    image_size: int
    per_sample: bool = False

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch."""
        rows = [self._widened(sample) for sample in samples]
        pixels = [image for sample in samples for image in sample["images"]]
        width = max(len(ids) for ids, _, _ in rows)
        batch: dict[str, Any] = {
            "input_ids": torch.full((len(rows), width), self.pad_id),
            "labels": torch.full((len(rows), width), IGNORED),
            "attention_mask": torch.zeros((len(rows), width), dtype=torch.long),
            "loss_weights": torch.zeros((len(rows), width)),
        }
        for row, (ids, labels, weights) in enumerate(rows):
            batch["input_ids"][row, : len(ids)] = torch.tensor(ids)
            batch["labels"][row, : len(ids)] = torch.tensor(labels)
            batch["loss_weights"][row, : len(ids)] = torch.tensor(weights)
            batch["attention_mask"][row, : len(ids)] = 1
        batch["position_ids"] = torch.arange(width).expand(len(rows), -1).contiguous()
        if pixels:
            batch["pixel_values"] = torch.stack(pixels)
        batch["record_ids"] = [sample["id"] for sample in samples]
        return batch

    def _widened(self, sample: Sample) -> tuple[list[int], list[int], list[float]]:
        """Ids, labels and weights of a sample with ``image_tokens`` places for its image."""
        ids: list[int] = []
        labels: list[int] = []
        if self.image_token_id in sample["input_ids"]:
            raise LabError(
                "its text holds the image token", where=f"record {sample['id']!r}", fix="reword it"
            )
        for token, label in zip(sample["input_ids"], sample["labels"], strict=True):
            places = self.image_tokens if token == IMAGE_ID else 1
            ids += [self.image_token_id if token == IMAGE_ID else token] * places
            labels += [label] * places
        count = sum(label != IGNORED for label in labels)
        weight = 1 / count if self.per_sample else 1.0
        return ids, labels, [weight * (label != IGNORED) for label in labels]
