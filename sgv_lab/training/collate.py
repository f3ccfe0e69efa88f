"""Samples into batches: image places widened, rows padded or packed, weights for the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedConfig, Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from sgv_lab.errors import LabError
from sgv_lab.models.kinds import kind
from sgv_lab.training.stream import IGNORED, IMAGE_ID

Sample = dict[str, Any]  # an item of RecordDataset
Row = dict[str, torch.Tensor]


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
    image_tokens: int | None  # how many of them an image takes; None: as many as its shape asks
    image_size: int  # pixels, to refuse images prepared for another model
    per_sample: bool = False
    packed: bool = False
    place: tuple[int, ...] = (0, IMAGE_ID)  # ids of a blank image with what encloses it

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch. Raises LabError naming the record whose images don't fit."""
        rows = [self._row(sample) for sample in samples]
        batch = _packed(rows) if self.packed else self._padded(rows)
        if images := [image for sample in samples for image in sample["images"]]:
            batch |= self.pictures(images)
        batch["record_ids"] = [sample["id"] for sample in samples]
        return batch

    def tokens(self, image: torch.Tensor) -> int:
        """How many tokens an image from `images.prepare` takes."""
        return self.image_tokens

    def pictures(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model's forward takes for prepared ``images``, N of (3, H, W)."""
        return {"pixel_values": torch.stack(tuple(images))}

    def blank(self) -> torch.Tensor:
        """A black picture, as `images.prepare` would give it."""
        return torch.zeros(3, self.image_size, self.image_size)

    def widened(
        self, ids: Sequence[int], images: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``ids`` with every image place (-200) as long as its image, and the length of each id."""
        left = iter(images)
        times = torch.tensor([self.tokens(next(left)) if i == IMAGE_ID else 1 for i in ids])
        ids = torch.tensor(ids)
        return torch.where(ids == IMAGE_ID, self.image_token_id, ids).repeat_interleave(
            times
        ), times

    def _row(self, sample: Sample) -> Row:
        """The sample's tensors (T,), each image place widened."""
        self._check(sample)
        labels = torch.tensor(sample["labels"])
        labels[0] = IGNORED
        labels[torch.tensor(sample["input_ids"]) == IMAGE_ID] = IGNORED
        ids, times = self.widened(sample["input_ids"], sample["images"])
        labels = labels.repeat_interleave(times)
        weights = (labels != IGNORED).float()
        if self.per_sample:
            weights /= weights.sum().clamp(min=1)
        return {
            "input_ids": ids,
            "labels": labels,
            "loss_weights": weights,
            "position_ids": self._positions(ids, sample["images"]),
        }

    def _positions(self, ids: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Positions (T,) of one sample by itself."""
        return torch.arange(len(ids))

    def _check(self, sample: Sample) -> None:
        ids, images, where = sample["input_ids"], sample["images"], f"record {sample['id']!r}"
        places = ids.count(IMAGE_ID)
        if places and places != len(images):
            raise LabError(f"{len(images)} images for {places} places", where=where, fix="mend it")
        # Qwen's own vocabulary spells an image out, so there the token belongs to the record.
        if self.image_token_id in ids and (places or not images):
            raise LabError("its text holds the image token", where=where, fix="reword it")
        if wrong := [tuple(image.shape) for image in images if not self._fits(image)]:
            raise LabError(
                f"its image has shape {wrong[0]}, the model takes {self._shape()}",
                where=where,
                fix="use the image processor of the model's own checkpoint",
            )

    def _fits(self, image: torch.Tensor) -> bool:
        return tuple(image.shape) == self._shape()

    def _shape(self) -> tuple[int | str, ...]:
        return (3, self.image_size, self.image_size)

    def _padded(self, rows: list[Row]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        rows = [row | {"attention_mask": torch.ones_like(row["input_ids"])} for row in rows]
        fill = {"input_ids": self.pad_id, "labels": IGNORED, "loss_weights": 0, "attention_mask": 0}
        batch = {
            key: torch.stack([pad(r[key], (0, width - len(r[key])), value=fill[key]) for r in rows])
            for key in fill
        }
        positions = [_counted_on(row["position_ids"], width) for row in rows]
        return batch | {"position_ids": torch.stack(positions, dim=-2)}


def _counted_on(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Positions (..., T) that go on counting to ``width``, where padding stands."""
    more = torch.arange(1, width - positions.shape[-1] + 1)
    return torch.cat([positions, positions[..., -1:] + more], dim=-1)


def _packed(rows: list[Row]) -> dict[str, Any]:
    batch: dict[str, Any] = {
        key: torch.cat([row[key] for row in rows], dim=-1).unsqueeze(-2) for key in rows[0]
    }
    lengths = torch.tensor([0, *(len(row["input_ids"]) for row in rows)])
    ends, longest = lengths.cumsum(0).int(), int(lengths.max())
    for side in ("q", "k"):
        batch[f"cu_seq_lens_{side}"], batch[f"max_length_{side}"] = ends, longest
    return batch


class _Positions:
    """transformers' own arithmetic of Qwen3-VL's positions, without the model around it."""

    get_rope_index = Qwen3VLModel.get_rope_index
    get_vision_position_ids = Qwen3VLModel.get_vision_position_ids

    def __init__(self, config: Qwen3VLConfig) -> None:
        self.config = config


@dataclass(frozen=True, kw_only=True)
class NativeCollator(Collator):
    """For Qwen3-VL, which takes every picture at its own shape.

    An image is (h, w, D): h x w patches in the model's order, of which merge x merge become one
    token. ``pixel_values`` is (all patches, D) and ``image_grid_thw`` (N, 3) holds 1, h, w.
    ``position_ids`` are (4, B, T): the place in the row, by which transformers tells packed samples
    apart, then time, height and width, by which the rotary embedding turns.
    """

    config: Qwen3VLConfig

    def tokens(self, image: torch.Tensor) -> int:
        """How many tokens an image from `images.prepare` takes."""
        return image.shape[0] * image.shape[1] // self.config.vision_config.spatial_merge_size**2

    def pictures(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model's forward takes for prepared ``images``, N of (h, w, D)."""
        grids = torch.tensor([(1, *image.shape[:2]) for image in images])
        return {
            "pixel_values": torch.cat([image.flatten(0, 1) for image in images]),
            "image_grid_thw": grids,
        }

    def blank(self) -> torch.Tensor:
        """A grey picture (no real one is 0 everywhere) of the largest size that keeps positions."""
        vision = self.config.vision_config
        side = int(vision.num_position_embeddings**0.5)
        return torch.zeros(side, side, self._shape()[-1])

    def _positions(self, ids: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Positions (4, T) of one sample by itself."""
        row = torch.arange(len(ids))[None]
        if not images:
            return row.repeat(4, 1)
        turned, _ = _Positions(self.config).get_rope_index(
            ids[None],
            mm_token_type_ids=(ids == self.image_token_id)[None].int(),
            image_grid_thw=self.pictures(images)["image_grid_thw"],
        )
        return torch.cat([row, turned[:, 0]])

    def _fits(self, image: torch.Tensor) -> bool:
        merge = self.config.vision_config.spatial_merge_size
        height, width, depth = image.shape
        return depth == self._shape()[-1] and not height % merge and not width % merge

    def _shape(self) -> tuple[int | str, ...]:
        vision = self.config.vision_config
        depth = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        return ("height", "width", depth)


def collator(config: PreTrainedConfig, per_sample: bool = False, packed: bool = False) -> Collator:
    """The collator for models of this configuration; LabError for a kind of model not known."""
    kind(config.model_type)
    given = {
        "pad_id": config.text_config.pad_token_id or 0,
        "image_token_id": config.image_token_id,
        "per_sample": per_sample,
        "packed": packed,
    }
    vision = config.vision_config
    if config.model_type == "qwen3_vl":
        given["place"] = config.vision_start_token_id, IMAGE_ID, config.vision_end_token_id
        return NativeCollator(**given, image_tokens=None, image_size=0, config=config)
    if config.model_type == "qwen_vl":
        given["place"] = config.image_start_id, IMAGE_ID, config.image_end_id
        return Collator(**given, image_tokens=vision.num_queries, image_size=vision.image_size)
    return Collator(**given, image_tokens=config.image_seq_length, image_size=vision.image_size)
