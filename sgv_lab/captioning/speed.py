"""How fast captions are written, against the original's way in the same run: one change a row.

Bulk captioning itself is timed, with random weights made on the device and drawn images as JPEG
files of a usual size. No caption ends by itself: all of a batch are as long as its longest would be
on average, with lengths spread as ShareGPT4V-PT's, so that a larger batch wastes more.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgv_lab.captioning import bulk
from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.models import families, mini
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.throughput import append, made_with, usable_device
from sgv_lab.world.render import render
from sgv_lab.world.scene import scene

PICTURE = 480  # pixels of a side
TOKENS = {"paper": 192.0, "mini": 24.0}  # of a caption; ShareGPT4V-PT: 826 characters, 4.3 a token
SPREAD = 0.35  # of their logarithm

Way = tuple[str, int, bulk.Decoding]
"""One row's way of captioning: its name, the batch size, how it decodes."""


def ways(batch_size: int, gpu: bool) -> list[Way]:
    """The rows: each has all changes of the one before and one more."""
    rows: list[Way] = [("original", 4, bulk.ORIGINAL), ("+ greedy", 4, bulk.Decoding())]
    rows.append((f"+ batch of {batch_size}", batch_size, bulk.Decoding()))
    if gpu:
        rows.append(("+ static cache, compiled", batch_size, bulk.Decoding(static=True)))
    return rows


def report(key: str, size: str, batches: int, batch_size: int, out: Path | None) -> Iterator[str]:
    """Measure every way over ``batches`` batches, a line each; rows are added to ``out``, if any.

    Raises LabError at paper size without a GPU.
    """
    device = usable_device(size)
    gpu = device == "cuda"
    # a tokenizer that can be made here stands in for the real one
    ids = {"image_token_index": mini.IMAGE_ID, "text_config": {"pad_token_id": mini.PAD_ID}}
    dtype = torch.bfloat16 if gpu else torch.float32
    model = families.build(key, size, 0, device=device, dtype=dtype, **ids)
    model.generation_config.eos_token_id = model.config.get_text_config().vocab_size  # no token
    processor = families.processor(key, size, mini.train_tokenizer([SYSTEM, CAPTIONER]), **ids)
    made = made_with()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = _pictures(Path(folder), batches * max(batch_size, 4))
        for name, count, decoding in ways(batch_size, gpu):
            decoding = replace(decoding, max_new_tokens=longest(TOKENS[size], count))
            captions, seconds = _measure(model, processor, pictures, decoding, count, batches)
            row = {"recipe": "caption", "model": key, "size": size, "row": name, "status": "ok"}
            row |= {"batch_size": count, "decoding": str(asdict(decoding))}
            row |= {"captions_per_second": captions / seconds} | made
            row["ratio"] = row["captions_per_second"] / (rows or [row])[0]["captions_per_second"]
            rows.append(row)
            yield f"{name:<28} {row['captions_per_second']:9.2f} captions/s {row['ratio']:7.1f} x"
    if out:
        append(out, rows)


def longest(mean: float, batch_size: int) -> int:
    """Tokens of a batch's longest caption, on average over batches."""
    draw = np.random.default_rng(0).lognormal
    sizes = draw(np.log(mean) - SPREAD**2 / 2, SPREAD, (1_000, batch_size))
    return round(sizes.max(1).mean())


def _pictures(folder: Path, count: int) -> ImageList:
    for number in range(min(count, 32)):
        shown = render(scene(number), 128).resize((PICTURE, PICTURE))
        for copy in range(number, count, 32):
            shown.save(folder / f"{copy:04d}.jpg")
    return list_images(folder)


def _measure(
    model: Any,
    processor: Any,
    pictures: ImageList,
    decoding: bulk.Decoding,
    batch_size: int,
    batches: int,
) -> tuple[int, float]:
    """Captions, and the seconds they took, after a first batch."""
    given = {"batch_size": batch_size, "decoding": decoding}
    some = [ImageList(pictures.root, pictures.names[: n * batch_size]) for n in (1, batches)]
    with tempfile.TemporaryDirectory() as folder:
        bulk.caption(model, processor, some[0], f"{folder}/first", **given)
        began = time.perf_counter()
        bulk.caption(model, processor, some[1], f"{folder}/timed", **given)
    return len(some[1]), time.perf_counter() - began
