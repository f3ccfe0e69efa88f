"""``sgv-lab throughput caption``: how fast captions are written, one change a row.

Bulk captioning itself is timed, with random weights made on the device and drawn images of a usual
size. No caption ends by itself: all of a batch are as long as its longest would be on average, with
lengths spread as ShareGPT4V-PT's, so that a larger batch wastes more.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sgv_lab.captioning import bulk
from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.models import families, mini
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.throughput import append, made_with, usable_device
from sgv_lab.world.export import write_images
from sgv_lab.world.scene import scene

TOKENS = {"paper": 192.0, "mini": 24.0}  # of a caption; ShareGPT4V-PT: 826 characters, 4.3 a token
SPREAD = 0.35  # of their logarithm


def throughput(
    *,
    model: str = "llava-1.5-7b",  # A family.
    size: Literal["paper", "mini"] = "paper",
    batches: int = 2,  # Timed per row.
    batch_size: int = 128,
    out: Path | None = None,  # CSV file to add the rows to.  [default: none]
) -> Iterator[str]:
    """Time captioning against the original's way in the same run: captions/s, and the ratio."""
    loaded = _untaught(model, size)
    ways = {"original": (4, bulk.ORIGINAL), "+ greedy": (4, bulk.Decoding())}
    ways[f"+ batch of {batch_size}"] = (batch_size, bulk.Decoding())
    if torch.cuda.is_available():
        ways["+ static cache, compiled"] = (batch_size, bulk.Decoding(static=True))
    shared, rows = made_with(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        count = batches * max(batch_size, 4)
        write_images(Path(folder), {f"{n}.jpg": scene(n % 32) for n in range(count)}, 480)
        images = list_images(folder)
        for name, (count, decoding) in ways.items():
            decoding = replace(decoding, max_new_tokens=longest(TOKENS[size], count))
            captions, seconds = _measure(*loaded, images, decoding, count, batches)
            row = {"recipe": "caption", "model": model, "size": size, "row": name, "status": "ok"}
            row |= {"batch_size": count, "decoding": str(asdict(decoding))}
            row |= {"captions_per_second": captions / seconds} | shared
            row["ratio"] = row["captions_per_second"] / (rows or [row])[0]["captions_per_second"]
            rows.append(row)
            yield f"{name:<28} {row['captions_per_second']:9.2f} captions/s {row['ratio']:7.1f} x"
    if out:
        append(out, rows)


def _untaught(key: str, size: str) -> tuple[Any, Any]:
    """(model, processor), around a tokenizer that can be made here. LabError without a GPU."""
    device = usable_device(size)
    ids = {"image_token_index": mini.IMAGE_ID, "text_config": {"pad_token_id": mini.PAD_ID}}
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = families.build(key, size, 0, device=device, dtype=dtype, **ids)
    model.generation_config.eos_token_id = model.config.get_text_config().vocab_size  # no token
    tokenizer = mini.train_tokenizer([SYSTEM, CAPTIONER])
    return model, families.processor(key, size, tokenizer, **ids)


def longest(mean: float, batch_size: int) -> int:
    """Tokens of a batch's longest caption, on average over batches."""
    draw = np.random.default_rng(0).lognormal
    sizes = draw(np.log(mean) - SPREAD**2 / 2, SPREAD, (1_000, batch_size))
    return round(sizes.max(1).mean())


def _measure(
    model: Any,
    processor: Any,
    images: ImageList,
    decoding: bulk.Decoding,
    batch_size: int,
    batches: int,
) -> tuple[int, float]:
    """Captions, and the seconds they took, after a first batch."""
    for count in (1, batches):
        some, began = ImageList(images.root, images.names[: count * batch_size]), time.time()
        with tempfile.TemporaryDirectory() as out:
            bulk.caption(model, processor, some, out, batch_size=batch_size, decoding=decoding)
    return len(some), time.time() - began
