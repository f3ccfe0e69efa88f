"""How fast captions are written, against the original's way in the same run: one change a row.

Random weights, made on the device, and drawn pictures as JPEG files of a usual size. Caption
lengths are drawn as ShareGPT4V-PT's are spread (`throughput.TEXT_TOKENS`), and a batch decodes as
long as its longest: a larger batch wastes more.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab.captioning import bulk
from sgv_lab.captioning.pictures import Pictures, ahead, find
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.errors import LabError
from sgv_lab.models import families, mini
from sgv_lab.provenance import provenance
from sgv_lab.training.commands import FOLDER, throughput
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.throughput import TEXT_TOKENS, append
from sgv_lab.world.render import render
from sgv_lab.world.scene import scene

WARM_UP = 1  # batches before the clock starts
PICTURE = 480  # pixels of a side
MINI_TOKENS = 24.0  # of a caption at size "mini"


@dataclass(frozen=True)
class Way:
    """One row's way of captioning. The defaults are the original's."""

    name: str = "original"
    decoding: bulk.Decoding = bulk.ORIGINAL
    batch_size: int = 4
    loaders: int = 0  # 0: pictures are read between batches


def ways(batch_size: int, gpu: bool) -> list[Way]:
    """The rows: each has all changes of the one before and one more."""
    greedy = Way("+ greedy", bulk.Decoding())
    large = replace(greedy, name=f"+ batch of {batch_size}", batch_size=batch_size)
    rows = [Way(), greedy, large, replace(large, name="+ pictures loaded ahead", loaders=4)]
    if gpu:
        static = replace(rows[-1].decoding, static=True)
        rows.append(replace(rows[-1], name="+ static cache, compiled", decoding=static))
    return rows


def report(key: str, size: str, batches: int, batch_size: int, out: Path | None) -> Iterator[str]:
    """Measure every way over ``batches`` batches, a line each; rows are added to ``out``, if any.

    Raises LabError at paper size without a GPU.
    """
    gpu = torch.cuda.is_available()
    if size == "paper" and not gpu:
        raise LabError("true sizes need a GPU", where="throughput", fix="use --size mini")
    device = "cuda" if gpu else "cpu"
    # a tokenizer that can be made here stands in for the real one
    ids = {"image_token_index": mini.IMAGE_ID, "text_config": {"pad_token_id": mini.PAD_ID}}
    dtype = torch.bfloat16 if gpu else torch.float32
    model = families.build(key, size, 0, device=device, dtype=dtype, **ids)
    # no token: captions end at the length drawn for them
    model.generation_config.eos_token_id = model.config.get_text_config().vocab_size
    processor = families.processor(key, size, mini.train_tokenizer([SYSTEM, CAPTIONER]), **ids)
    ceiling = bandwidth(device)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = _pictures(Path(folder), batch_size)
        for way in ways(batch_size, gpu):
            shape = (WARM_UP + batches, way.batch_size)
            mean, spread = TEXT_TOKENS["plain"] if size == "paper" else (MINI_TOKENS, 0.35)
            draw = np.random.default_rng(0).lognormal
            sizes = draw(np.log(mean) - spread**2 / 2, spread, shape)
            seconds, width = _measure(model, processor, pictures, way, sizes)
            row = _row(model, way, sizes[WARM_UP:], seconds, width, ceiling)
            rows.append(row | {"model": key, "size": size})
            rows[-1]["ratio"] = rows[-1]["captions_per_second"] / rows[0]["captions_per_second"]
            yield _line(rows[-1])
    if out:
        append(out, rows)


def bandwidth(device: str) -> float:
    """Bytes per second that the device's memory moves, read and written: best of ten copies."""
    count = 1 << (30 if device == "cuda" else 27)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        began = _now(device)
        target.copy_(source)
        best = min(best, _now(device) - began)
    return 2 * count / best


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _pictures(folder: Path, count: int) -> Pictures:
    for number in range(min(count, 32)):
        shown = render(scene(number), 128).resize((PICTURE, PICTURE))
        for copy in range(number, count, 32):
            shown.save(folder / f"{copy:04d}.jpg")
    return find(folder)


def _measure(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pictures: Pictures,
    way: Way,
    sizes: np.ndarray,
) -> tuple[float, int]:
    """Seconds to decode all batches after the first WARM_UP, and the prompts' positions.

    ``sizes``: tokens of each caption (batches, way.batch_size).
    """
    aspect = bulk.usual_aspect(model)
    load = partial(bulk.load, model.config, processor, pictures, CAPTIONER, aspect)
    asked = [bulk.Batch(range(way.batch_size), set()) for _ in sizes]
    loaded = ahead(load, asked, way.loaders) if way.loaders else map(load, asked)
    began, width = 0.0, 0
    for number, (batch, lengths) in enumerate(zip(loaded, sizes, strict=True)):
        if number == WARM_UP:
            began = _now(model.device.type)
        decoding = replace(way.decoding, max_new_tokens=int(lengths.max()))
        width = batch.inputs["input_ids"].shape[1]
        bulk.decode(model, processor, batch.inputs, decoding)
    return _now(model.device.type) - began, width


def _row(
    model: PreTrainedModel, way: Way, sizes: np.ndarray, seconds: float, width: int, ceiling: float
) -> dict[str, Any]:
    """What a way reaches; a step reads the weights and the keys and values held so far."""
    steps = sizes.astype(int).max(1).sum()
    text = model.config.get_text_config()
    head = text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head * model.dtype.itemsize
    held = way.batch_size * way.decoding.num_beams * (width + steps / len(sizes) / 2)
    weights = sum(p.numel() for name, p in model.named_parameters() if "language_model" in name)
    step = weights * model.dtype.itemsize + held * per_token
    origin = provenance()
    return {
        "recipe": "caption",
        "row": way.name,
        "status": "ok",
        "batch_size": way.batch_size,
        "decoding": str(asdict(way.decoding)),
        "captions_per_second": sizes.size / seconds,
        "caption_tokens_per_second": sizes.sum() / seconds,
        "bandwidth_ceiling": ceiling,
        "bandwidth_fraction": steps * step / seconds / ceiling,
        "device": origin["device"],
        "revision": origin["revision"],
        "clean": origin["clean"],
        **{name: origin["packages"][name] for name in ("torch", "transformers")},
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['row']:<28} {row['captions_per_second']:9.2f} captions/s {row['ratio']:7.1f} x  "
        f"{row['bandwidth_fraction']:6.1%} of {row['bandwidth_ceiling'] / 1e9:,.0f} GB/s"
    )


@throughput.command("caption")
@click.option("--model", default="llava-1.5-7b", show_default=True, help="A family.")
@click.option("--size", type=click.Choice(["paper", "mini"]), default="paper", show_default=True)
@click.option("--batches", type=int, default=2, show_default=True, help="Timed per row.")
@click.option("--batch-size", type=int, default=128, show_default=True)
@click.option("--out", type=FOLDER, help="CSV file to add the rows to.  [default: none]")
def throughput_caption(
    model: str, size: str, batches: int, batch_size: int, out: Path | None
) -> None:
    """Time captioning against the original's way in the same run: captions/s, and the ratio."""
    for line in report(model, size, batches, batch_size, out):
        click.echo(line)
