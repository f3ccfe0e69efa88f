"""Pictures into pixel tensors, as the official training code makes them.

``pad``: the short sides are filled with the mean colour to a square before the resize (SFT).
``square``: the shortest edge is resized, the middle cut out (pre-training). Source:
share4v/train/train.py of ShareGPT4Omni/ShareGPT4V@b6f70e9; Qwen-VL: visual.py of Qwen-VL-Chat.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend

from sgv_lab.errors import LabError
from sgv_lab.files import below

ASPECTS = ("pad", "square")


@contextmanager
def _opened(root: str | Path, relative: str, record: str) -> Iterator[Image.Image]:
    where = f"record {record!r}, {relative}" if record else relative
    path = below(root, relative)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except FileNotFoundError as error:
        raise LabError("no such image", where=where, fix=f"put it below {root}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LabError(
            "the image is too large to decode safely", where=where, fix="shrink it"
        ) from (error)
    except Exception as error:  # what a decoder raises at corrupt bytes is anybody's guess
        raise LabError(
            f"cannot be read as an image ({error})", where=where, fix="replace the file"
        ) from error


def open_image(root: str | Path, relative: str, record: str = "") -> Image.Image:
    """The picture ``root / relative``, decoded, as RGB.

    Only ``convert("RGB")`` is applied, as in the official code: transparency is dropped, the EXIF
    orientation ignored. Raises LabError naming record and file for a path that leaves the root, and
    for a file that is missing, empty, corrupt, cut short, no picture, or larger than
    ``PIL.Image.MAX_IMAGE_PIXELS`` (a decompression bomb).
    """
    with _opened(root, relative, record) as image:
        return image.convert("RGB")


def native_tokens(
    root: str | Path, relative: str, record: str, processor: PilBackend, aspect: str
) -> int:
    """Tokens that a picture takes at its own shape, by its file's header: nothing is decoded.

    Raises LabError as `open_image`, and for a picture too narrow for ``processor``.
    """
    with _opened(root, relative, record) as image:
        width, height = image.size if aspect == "square" else [max(image.size)] * 2
        return processor.get_number_of_image_patches(height, width) // processor.merge_size**2


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
