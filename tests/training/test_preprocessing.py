import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import official
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from sgv_lab.models.qwen_vl import image_processor
from sgv_lab.training.preprocessing import (
    as_trained,
    norm,
    normalised,
    open_image,
    pad_to_square,
    prepare,
)

SMALL = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
MEAN = np.array(SMALL.image_mean, np.float32)[:, None, None]
STD = np.array(SMALL.image_std, np.float32)[:, None, None]


def levels(pixels: np.ndarray) -> np.ndarray:
    """Normalised (3, H, W) back to grey levels."""
    return (pixels * STD + MEAN) * 255


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["clip336_square", "clip336_pad", "qwen448"])
def test_equals_the_official_code(reference: Path, kind: str) -> None:
    file = official.read(reference, "image_preprocessing")
    size = {"shortest_edge": 336}
    clip = CLIPImageProcessorPil(size=size, crop_size={"height": 336, "width": 336})
    processor = image_processor(448) if kind == "qwen448" else clip
    for entry in file["images"]:
        stored = entry["outputs"][kind]
        root = reference if (reference / entry["path"]).is_file() else reference / "golden"
        image = open_image(root, entry["path"])
        decoded = np.asarray(image)
        assert hashlib.sha256(decoded.tobytes()).hexdigest() == entry["decoded_rgb_sha256"]
        pixels = prepare(image, processor, "pad" if kind.endswith("pad") else "square").numpy()
        assert list(pixels.shape) == stored["shape"] and pixels.dtype == np.float32
        grey = np.rint(levels(pixels)).astype(np.uint8)
        assert hashlib.sha256(grey.tobytes()).hexdigest() == stored["sha256_uint8"], entry["name"]
        rounded = (np.round(pixels, 3) + 0.0).astype("<f4")
        digest = hashlib.sha256(rounded.tobytes()).hexdigest()
        assert digest == stored["sha256_rounded_1e3"], entry["name"]
    assert len(file["images"]) == 12


@pytest.mark.parametrize("size", [(40, 21), (21, 40), (30, 30), (1, 3), (3, 1)])
def test_pad_puts_the_image_in_the_middle(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    square = np.asarray(pad_to_square(Image.fromarray(noise), (122, 116, 104)))
    side = max(size)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    expected = np.full((side, side, 3), (122, 116, 104), np.uint8)
    expected[top : top + size[1], left : left + size[0]] = noise
    assert (square == expected).all()


def test_square_cuts_the_middle_out_and_pad_keeps_the_borders() -> None:
    stripes = Image.new("RGB", (84, 28), "red")
    stripes.paste((0, 255, 0), (28, 0, 56, 28))
    square = levels(prepare(stripes, SMALL, "square").numpy())
    assert square.shape == (3, 28, 28)
    assert np.abs(square - np.array([0, 255, 0])[:, None, None]).max() < 1e-3
    pad = levels(prepare(stripes, SMALL, "pad").numpy())
    assert np.abs(pad[:, 0, 14] - [122, 116, 104]).max() < 1e-3  # mean colour above
    assert np.abs(pad[:, 14, 1] - [255, 0, 0]).max() < 30  # the left border is still there


def test_transparency_is_dropped_not_acted_on() -> None:
    palette = Image.new("P", (28, 28), 0)
    palette.putpalette([10, 200, 30, 0, 0, 0])
    palette.info["transparency"] = 0
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=0)
    pixels = levels(prepare(Image.open(buffer), SMALL, "square").numpy())
    assert np.abs(pixels - np.array([10, 200, 30])[:, None, None]).max() < 1e-3


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("size", [(64, 48), (31, 90), (30, 30)])
def test_a_saved_processor_makes_what_the_run_was_shown(size: tuple[int, int], aspect: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image, saved = Image.fromarray(noise), SimpleNamespace(image_processor=SMALL)
    for before in ("square", "pad", aspect):  # of the bases it may have gone through
        saved = as_trained(saved, before)
    expected = prepare(image, SMALL, aspect).numpy()
    made = saved.image_processor(image, return_tensors="np")["pixel_values"][0]
    assert (made == expected).all()
    assert (prepare(image, saved.image_processor, aspect).numpy() == expected).all()


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("size", [(64, 48), (30, 90), (336, 336)])
def test_raw_images_are_normalised_later_to_the_same_bits(aspect, size) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    processor, image = CLIPImageProcessorPil(), Image.fromarray(noise)
    wanted = prepare(image, processor, aspect)
    raw = prepare(image, processor, aspect, raw=True)
    assert raw.dtype == torch.uint8 and raw.nbytes * 4 == wanted.nbytes
    known = torch.tensor(norm(processor), dtype=torch.float64)
    assert torch.equal(normalised(raw[None], known)[0], wanted)
