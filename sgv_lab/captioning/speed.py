"""How fast captions are written and questions answered, by the functions that do both.

Weights are random and made on the device, images drawn, of a usual size. No caption ends by itself:
all of a batch are as long as its longest would be on average, with lengths spread as
ShareGPT4V-PT's, so that a larger batch wastes more.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab.captioning import bulk
from sgv_lab.captioning.image_lists import list_images
from sgv_lab.training import throughput
from sgv_lab.world.export import write_images
from sgv_lab.world.scene import scene

TOKENS = {"paper": 192.0, "mini": 24.0}  # of a caption; ShareGPT4V-PT: 826 characters, 4.3 a token
SPREAD = 0.35  # of their logarithm


def time_captions(
    key: str, size: str, batch_size: int, decoding: bulk.Decoding
) -> dict[str, float]:
    """Captions a second of one batch, after a batch that nobody timed."""
    model, processor = untaught(key, size)
    decoding = replace(decoding, max_new_tokens=longest(TOKENS[size], batch_size))
    with tempfile.TemporaryDirectory() as folder:
        images = list_images(draw_images(Path(folder, "images"), batch_size))
        for run in ("first", "timed"):
            began = time.monotonic()
            how = {"batch_size": batch_size, "decoding": decoding}
            bulk.caption(model, processor, images, Path(folder, run), **how)
    seconds = time.monotonic() - began
    return {"captions_per_second": batch_size / seconds, "seconds_per_batch": seconds}


def untaught(key: str, size: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model that ends no answer, and its processor. LabError at paper size without a GPU."""
    device = throughput.usable_device(size)
    config, processor = throughput.untaught(key, size)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = throughput.random_model(config, dtype).eval()
    model.generation_config.eos_token_id = config.get_text_config().vocab_size  # no token
    return model, processor


def draw_images(folder: Path, count: int) -> Path:
    """The folder, with ``count`` drawn images 480 pixels wide, 0.jpg and so on."""
    write_images(folder, {f"{n}.jpg": scene(n % 32) for n in range(count)}, 480)
    return folder


def longest(mean: float, batch_size: int) -> int:
    """Tokens of a batch's longest caption, on average over batches."""
    draw = np.random.default_rng(0).lognormal
    sizes = draw(np.log(mean) - SPREAD**2 / 2, SPREAD, (1_000, batch_size))
    return round(sizes.max(1).mean())
