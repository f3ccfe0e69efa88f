"""Samples into batches: image places widened, rows padded or packed, weights for the loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForImageTextToText,
    BatchFeature,
    PreTrainedConfig,
    ProcessorMixin,
)

from sgv_lab.errors import LabError
from sgv_lab.models.architectures import template
from sgv_lab.training import chat
from sgv_lab.training.conversation import prompt_ids
from sgv_lab.training.preprocessing import norm, prepare, shaped
from sgv_lab.training.segments import IGNORED, IMAGE_ID, Turn

Sample = dict[str, Any]  # an item of RecordDataset
Row = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Collator:
    """Turns samples into one batch of tensors for a model's forward.

    Padded (B samples, one a row): ``input_ids``, ``labels``, ``position_ids``, ``attention_mask``
    (B, T) int64, ``loss_weights`` (B, T) float32, ``pixel_values`` (N, 3, H, W) float32.
    Packed (``packed=True``): all samples in one row (1, T) without padding and attention mask, kept
    apart as drawn in `sgv_lab.training.packing`; ``cu_seq_lens_q`` and ``_k`` (samples + 1,) int32
    and ``max_length_q`` and ``_k`` are for kernels that take them.

    Only real images are in ``pixel_values``; a batch of text alone has no such key (the official
    code sends a black image through the tower for each text-only sample).

    ``loss_weights`` are 1 for a supervised token, or with ``per_sample`` 1 / (the sample's
    supervised tokens). The first token of a sample is never predicted, so its label is dropped
    (ChatML supervises it).
    """

    pad_id: int
    image_token_id: int  # what the model replaces by image features
    image_tokens: int | None  # how many of them an image takes; None: as many as its shape asks
    image_size: int = 0  # pixels, to refuse images prepared for another model
    per_sample: bool = False
    packed: bool = False
    place: tuple[int, ...] = (0, IMAGE_ID)  # ids of a blank image with what encloses it
    norm: Sequence[Sequence[float]] = ()  # see `preprocessing.norm`

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch. Raises LabError naming the record whose images don't fit."""
        rows = [self._row(sample) for sample in samples]
        batch = self._packed(rows) if self.packed else self._padded(rows)
        if images := [image for sample in samples for image in sample["images"]]:
            batch |= self.pixels(images)
        return batch

    def blank_sample(self) -> Sample:
        """A black image with what encloses it, of which nothing is learned."""
        black = torch.zeros(3, self.image_size, self.image_size)
        labels = [IGNORED] * len(self.place)
        return {"id": "", "input_ids": list(self.place), "labels": labels, "images": [black]}

    def expand_image_tokens(self, ids: Sequence[int], *more: Sequence[int]) -> list[torch.Tensor]:
        """``ids`` (T,) with every image place (-200) as long as an image is, and more like them."""
        ids = torch.tensor(ids)
        times = torch.where(ids == IMAGE_ID, self.image_tokens or 1, 1)
        ids = torch.where(ids == IMAGE_ID, self.image_token_id, ids)
        return [row.repeat_interleave(times) for row in (ids, *map(torch.tensor, more))]

    def pixels(self, images: Sequence[Any]) -> dict[str, torch.Tensor]:
        """What the model's forward takes for the images of samples, N of (3, H, W).

        Raw ones come with ``pixel_norm`` (3, 3), to be normalised where the model is: a quarter
        of the bytes goes there.
        """
        stacked = {"pixel_values": torch.stack(tuple(images))}
        if images[0].dtype == torch.uint8:
            stacked["pixel_norm"] = torch.tensor(self.norm, dtype=torch.float64)
        return stacked

    def _row(self, sample: Sample) -> Row:
        """The sample's tensors (T,), each image place widened."""
        self._check(sample)
        ids, labels = self.expand_image_tokens(sample["input_ids"], sample["labels"])
        labels[labels == IMAGE_ID] = IGNORED
        return {"position_ids": torch.arange(len(ids)), **self._weighted(ids, labels)}

    def _weighted(self, ids: torch.Tensor, labels: torch.Tensor) -> Row:
        labels[0] = IGNORED
        weights = (labels != IGNORED).float()
        if self.per_sample:
            weights /= weights.sum().clamp(min=1)
        return {"input_ids": ids, "labels": labels, "loss_weights": weights}

    def _check(self, sample: Sample) -> None:
        ids, images, where = sample["input_ids"], sample["images"], f"record {sample['id']!r}"
        places = ids.count(IMAGE_ID)
        # Qwen's own vocabulary spells an image out, so there the token belongs to the record.
        if self.image_token_id in ids and (places or not images):
            raise LabError("its text holds the image token", where=where, fix="reword it")
        fits = (3, self.image_size, self.image_size)
        if wrong := [tuple(image.shape) for image in images if image.shape != fits]:
            raise LabError(
                f"its image has shape {wrong[0]}, the model takes {fits}",
                where=where,
                fix="use the image processor of the model's own checkpoint",
            )

    def _padded(self, rows: list[Row]) -> dict[str, Any]:
        for row in rows:
            row["attention_mask"] = torch.ones_like(row["input_ids"])
        fill = {"labels": IGNORED, "input_ids": self.pad_id}  # elsewhere 0
        batch = {
            key: pad_sequence([row[key] for row in rows], True, fill.get(key, 0)) for key in rows[0]
        }
        if "position_ids" in batch:  # which go on counting where padding stands
            batch["position_ids"] = torch.arange(batch["labels"].shape[1]).repeat(len(rows), 1)
        return batch

    def _packed(self, rows: list[Row]) -> dict[str, Any]:
        batch: dict[str, Any] = {
            key: torch.cat([row[key] for row in rows], dim=-1).unsqueeze(-2) for key in rows[0]
        }
        lengths = torch.tensor([0, *(len(row["input_ids"]) for row in rows)])
        ends, longest = lengths.cumsum(0).int(), int(lengths.max())
        for side in ("q", "k"):
            batch[f"cu_seq_lens_{side}"], batch[f"max_length_{side}"] = ends, longest
        return batch


@dataclass(frozen=True, kw_only=True)
class ChatCollator(Collator):
    """For models that are fed by their own processor: its samples come as long as they are.

    Padded, such a model counts positions itself. Packed, they are given: (1, T), or (4, 1, T) where
    a rotary embedding turns by time, height and width, too; the place in the row comes first.
    """

    processor: ProcessorMixin | None = None  # to make a blank image with
    rotary: Callable[..., Any] | None = None  # the model's own arithmetic of those positions

    def blank_sample(self) -> Sample:
        """A black image with what encloses it, of which nothing is learned."""
        return chat.blank(self.processor)

    def pixels(self, images: Sequence[Any]) -> dict[str, torch.Tensor]:
        """What the model's forward takes for the images of samples, as the processor made them."""
        return {key: _joined([image[key] for image in images]) for key in images[0]}

    def _row(self, sample: Sample) -> Row:
        ids, labels = torch.tensor(sample["input_ids"]), torch.tensor(sample["labels"])
        row = self._weighted(ids, labels) | sample["aligned"]
        if self.packed:
            row["position_ids"] = self._positions(row, sample["images"])
        return row

    def _positions(self, row: Row, images: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        place = torch.arange(len(row["input_ids"]))
        if not self.rotary:
            return place
        if not images:
            return place.repeat(4, 1)
        types = row["mm_token_type_ids"][None]
        grid = images[0]["image_grid_thw"]
        turned, _ = self.rotary(row["input_ids"][None], types, image_grid_thw=grid)
        return torch.cat([place[None], turned[:, 0]])


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors one behind the other, with zeros where a further dimension of one is smaller."""
    most = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    edges = [[(0, size - own) for own, size in zip(one.shape, most, strict=True)][:0:-1]
             for one in tensors]  # fmt: skip
    return torch.cat([pad(one, sum(by, ())) for one, by in zip(tensors, edges, strict=True)])


def collator(
    config: PreTrainedConfig,
    per_sample: bool = False,
    packed: bool = False,
    processor: ProcessorMixin | None = None,
) -> Collator:
    """The collator for models of this configuration; LabError for a kind of model not known.

    ``processor``: the model's; needed for raw images, and where several processes train it.
    """
    taught, vision = template(config), config.vision_config
    given: dict[str, Any] = {
        "pad_id": config.get_text_config().pad_token_id or 0,
        "image_token_id": config.image_token_id,
        "per_sample": per_sample,
        "packed": packed,
    }
    if taught == "chat":
        _check_processor(config, processor, packed)
        rotary = _rotary(config) if packed else None
        return ChatCollator(**given, image_tokens=None, processor=processor, rotary=rotary)
    given["norm"] = norm(processor.image_processor) if processor else ()
    if taught == "qwen":
        given["place"] = config.image_start_id, IMAGE_ID, config.image_end_id
        return Collator(**given, image_tokens=vision.num_queries, image_size=vision.image_size)
    return Collator(**given, image_tokens=config.image_seq_length, image_size=vision.image_size)


def _check_processor(
    config: PreTrainedConfig, processor: ProcessorMixin | None, packed: bool
) -> None:
    if packed and processor and "token_type_ids" in processor.model_input_names:
        raise LabError(
            f"samples of a {config.model_type!r} model cannot be packed: its image tokens attend to"
            " each other both ways",
            where="packing",
            fix="train on padded batches",
        )
    for name in ("patch_size", "temporal_patch_size", "merge_size"):
        made = getattr(getattr(processor, "image_processor", None), name, None)
        taken = getattr(config.vision_config, name.replace("merge", "spatial_merge"), made)
        if made not in (None, taken):
            raise LabError(
                f"its processor makes images with {name} {made}, the model takes {taken}",
                fix="use the image processor of the model's own checkpoint",
            )


def _rotary(config: PreTrainedConfig) -> Callable[..., Any] | None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return getattr(model.model, "get_rope_index", None)


def prompts(
    config: PreTrainedConfig,
    processor: ProcessorMixin,
    conversations: Sequence[Sequence[Turn]],
    images: Sequence[Image.Image | None],
    aspect: str,
) -> BatchFeature:
    """What ``generate`` takes to answer conversations that end in a question: (B, T), padded left.

    ``images``: one a conversation, or None. Ids as in training; a checkpoint's own chat template
    may put the tokens another way.
    """
    taught, feed = template(config), collator(config)
    shown = [image for image in images if image is not None]
    if taught == "chat":
        shown = [shaped(image, processor.image_processor, aspect) for image in shown]
        return chat.ask(conversations, processor, shown)
    rows = []
    for turns, image in zip(conversations, images, strict=True):
        rows += feed.expand_image_tokens(prompt_ids(turns, processor, taught, image is not None))
    pixels = [prepare(image, processor.image_processor, aspect) for image in shown]
    given = padded_left(rows, processor.tokenizer.pad_token_id)
    return BatchFeature(given | (feed.pixels(pixels) if pixels else {}))


def padded_left(
    rows: Sequence[torch.Tensor], pad_id: int, whole: int = 0
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` (B, T) of ``rows`` (T,), padded behind ``whole`` ids."""
    front, rest = torch.stack([row[:whole] for row in rows]), [row[whole:] for row in rows]
    ids = pad_sequence(rest, True, pad_id, "left")
    mask = pad_sequence([torch.ones_like(row) for row in rest], True, 0, "left")
    mask = torch.cat([torch.ones_like(front), mask], 1)
    return {"input_ids": torch.cat([front, ids], 1), "attention_mask": mask}
