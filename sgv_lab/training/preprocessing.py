"""Images as the official training code prepares them for the vision tower.

``pad``: the short sides are filled with the mean colour to a square before the resize (SFT).
``square``: the shortest edge is resized, the middle cut out (pre-training). Source:
share4v/train/train.py of ShareGPT4Omni/ShareGPT4V@b6f70e9; Qwen-VL: visual.py of Qwen-VL-Chat.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import LlavaImageProcessorPil, ProcessorMixin
from transformers.image_processing_backends import PilBackend

from sgv_lab.errors import LabError
from sgv_lab.images import load_image


def open_image(root: str | Path, relative: str, record: str = "") -> Image.Image:
    """The image ``root / relative``, decoded, as RGB (see `sgv_lab.images`).

    Raises LabError naming record and file for one that cannot be read.
    """
    try:
        return load_image(Path(root), relative)[1]
    except LabError as error:
        where = f"record {record!r}, {relative}" if record else relative
        fix = f"put a sound image below {root}, or leave the record out"
        raise LabError(str(error), where=where, fix=fix) from error


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """``image`` in RGB in the middle of a square of ``colour``."""
    across, down = (max(image.size) - size for size in image.size)
    left, above = across // 2, down // 2
    return ImageOps.expand(image, (left, above, across - left, down - above), colour)


def shaped(image: Image.Image, processor: PilBackend, aspect: str) -> Image.Image:
    """``image`` in RGB, by ``aspect`` "pad" within a square of the processor's mean colour."""
    # By way of an array: a palette image keeps its "transparency" entry through convert("RGB"),
    # and the processor would act on it.
    image = Image.fromarray(np.asarray(image.convert("RGB")))
    if aspect == "square":
        return image
    red, green, blue = (int(mean * 255) for mean in processor.image_mean)
    return pad_to_square(image, (red, green, blue))


def prepare(
    image: Image.Image, processor: PilBackend, aspect: str = "pad", raw: bool = False
) -> torch.Tensor:
    """Pixels of one image, normalised: (3, H, W) float32; ``raw``: uint8, for `normalised`.

    ``processor``: a transformers image processor of the PIL kind (torchvision's resize differs by
    grey levels); its own sizes decide whether it crops (CLIP) or not (Qwen-VL).
    """
    pixels = np.asarray(shaped(image, processor, aspect))
    how = {"input_data_format": "channels_last", "do_pad": False}  # it was padded here, if at all
    if raw:
        how |= {"do_rescale": False, "do_normalize": False}
    batch = processor(pixels, return_tensors="pt", **how)
    return batch["pixel_values"][0]


def as_trained(processor: ProcessorMixin, aspect: str) -> ProcessorMixin:
    """A processor that shapes images by itself as ``aspect`` says, to be saved beside a model.

    CLIP's cannot pad: LLaVA's takes its place. Others come back as they are.
    """
    images = processor.image_processor
    if aspect == "square" and not isinstance(images, LlavaImageProcessorPil):
        return processor
    processor = copy.copy(processor)
    padding = images.to_dict() | {"do_pad": aspect == "pad"}
    processor.image_processor = LlavaImageProcessorPil(**padding)
    return processor


def norm(processor: PilBackend) -> list[list[float]]:
    """Scale, mean and deviation of each colour: what `normalised` takes, as a (3, 3) tensor."""
    return [[processor.rescale_factor] * 3, processor.image_mean, processor.image_std]


def normalised(pixels: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Raw pixels (N, 3, H, W) as `prepare` normalises them, to the bit, where they lie."""
    scale, mean, deviation = norm[:, :, None, None]
    return ((pixels * scale).float() - mean.float()) / deviation.float()
