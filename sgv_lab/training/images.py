"""Images into pixel tensors, as the official training code makes them.

``pad``: the short sides are filled with the mean colour to a square before the resize (SFT).
``square``: the shortest edge is resized, the middle cut out (pre-training). Source:
share4v/train/train.py of ShareGPT4Omni/ShareGPT4V@b6f70e9; Qwen-VL: visual.py of Qwen-VL-Chat.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend

from sgv_lab.errors import LabError
from sgv_lab.images import load_image, opened_image

ASPECTS = ("pad", "square")


def open_image(root: str | Path, relative: str, record: str = "") -> Image.Image:
    """The image ``root / relative``, decoded, as RGB (see `sgv_lab.images`).

    Raises LabError naming record and file for one that cannot be read.
    """
    with _naming(root, relative, record):
        return load_image(Path(root), relative)[1]


def native_tokens(
    root: str | Path, relative: str, record: str, processor: PilBackend, aspect: str
) -> int:
    """Tokens that an image takes at its own shape, by its file's header: nothing is decoded.

    Raises LabError as `open_image`.
    """
    with _naming(root, relative, record), opened_image(Path(root), relative) as image:
        size = image.size
    width, height = size if aspect == "square" else [max(size)] * 2
    return processor.get_number_of_image_patches(height, width) // processor.merge_size**2


@contextmanager
def _naming(root: str | Path, relative: str, record: str) -> Iterator[None]:
    try:
        yield
    except LabError as error:
        where = f"record {record!r}, {relative}" if record else relative
        fix = f"put a sound image below {root}, or leave the record out"
        raise LabError(str(error), where=where, fix=fix) from error


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """``image`` in the middle of a square of ``colour``; a picture that is square comes back."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def prepare(image: Image.Image, processor: PilBackend, aspect: str = "pad") -> torch.Tensor:
    """Pixels of one picture, normalised: (3, H, W) float32.

    From a processor that leaves pictures their own shape (Qwen3-VL): (h, w, D), h x w patches in
    the order in which the model takes them.

    ``processor``: a transformers image processor of the PIL kind (torchvision's resize differs by
    grey levels); its own sizes decide whether it crops (CLIP) or not (Qwen-VL). ``aspect``: "pad"
    or "square". Raises LabError for another aspect or kind of processor.
    """
    if aspect not in ASPECTS:
        raise LabError(f"no aspect {aspect!r}", fix=f"use {' or '.join(ASPECTS)}")
    if not isinstance(processor, PilBackend):
        raise LabError(
            f"{type(processor).__name__} does not resize with PIL",
            fix="load the image processor of the same name ending in Pil",
        )
    image = image.convert("RGB")
    if aspect == "pad":
        red, green, blue = (int(mean * 255) for mean in processor.image_mean)
        image = pad_to_square(image, (red, green, blue))
    # As an array: a palette picture keeps its "transparency" entry through convert("RGB"), and the
    # processor would act on it.
    pixels = np.asarray(image)
    batch = processor(pixels, input_data_format="channels_last", return_tensors="pt")
    if "image_grid_thw" in batch:
        _, height, width = batch["image_grid_thw"][0].tolist()
        return batch["pixel_values"].view(height, width, -1)
    return batch["pixel_values"][0]
