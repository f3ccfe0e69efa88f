"""How fast a recipe trains and what memory it takes, at true size: throw-away runs of `train`.

Weights are random and made on the device; the records are made up, with images as large and texts
as long as the real ones. Every step shows the same records, so that the loss has to fall. A row's
numbers come from the run's own metrics.jsonl. MFU = useful FLOPs per second (by
`estimates.useful_flops`) / the ceiling, which is the fastest large matrix product measured on the
same device just before.
"""

import gc
import operator
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.benchmark import Timer
from transformers import AutoModelForImageTextToText, PreTrainedConfig, ProcessorMixin

from sgv_lab.errors import LabError
from sgv_lab.files import atomic
from sgv_lab.models import families, mini
from sgv_lab.provenance import provenance
from sgv_lab.training import metrics
from sgv_lab.training.collate import collator
from sgv_lab.training.config import RunConfig, configured
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.estimates import useful_flops
from sgv_lab.training.plan import plan
from sgv_lab.training.survey import survey
from sgv_lab.training.trainable import count_trainable
from sgv_lab.training.trainer import train

WARM_UP = 2  # steps before the clock starts
COUNTED = ("tokens", "positions", "supervised_tokens", "samples")
WORDS = ("a", "picture", "of", "the", "red", "dog", "near", "two", "trees", "on", "green", "grass")
# Tokens of text per sample at paper size: mean and spread of a log-normal. Captions: 826 characters
# (ShareGPT4V-PT, Table 1) at 4.3 characters a token; fine-tuning: an assumption, to be replaced by
# a survey of the real 665K records.
TEXT_TOKENS = {"plain": (192.0, 0.35)} | dict.fromkeys(("v1", "qwen", "chat"), (280.0, 0.7))


def ways(gpu: bool) -> dict[str, dict[str, Any]]:
    """Row -> what `train` is given; each has all changes of the one before and one more."""
    half = {"+ bf16 weights": {"dtype": "bfloat16"}} if gpu else {}
    more = {"padded": {}, "+ packing": {"packing": True}, **half}
    more["+ no checkpointing"] = {"gradient_checkpointing": False}
    return dict(zip(more, accumulate(more.values(), operator.or_), strict=True))


def measure(
    key: str, size: str, recipe: RunConfig, steps: int, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """A row per way of training family ``key``, as soon as it is measured over ``steps`` steps.

    A way that runs out of memory gives a row that says so. ``size``: "paper", which needs a GPU
    (LabError), or "mini"; ``workers``: processes that load images, as `train` takes them.
    """
    device = usable_device(size)
    ceiling, made = matmul_ceiling(device), made_with()
    with tempfile.TemporaryDirectory() as folder:
        records = _records(Path(folder), recipe, size == "paper")
        for name, way in ways(device == "cuda").items():
            row = {"model": key, "size": size, "recipe": recipe.name, "row": name}
            row |= {"weights": way.get("dtype", "float32"), "ceiling_tflops": ceiling / 1e12}
            try:
                run = {"max_steps": WARM_UP + steps, "workers": workers, **way}
                row |= {"status": "ok"} | _train(key, size, recipe, records, Path(folder), run)
                row["mfu"] = row["useful_tflops"] * 1e12 / ceiling
            except torch.OutOfMemoryError:
                row["status"] = "out of memory"
            gc.collect()  # models hold themselves in cycles
            torch.cuda.empty_cache()
            yield row | made


def _train(
    key: str,
    size: str,
    recipe: RunConfig,
    records: list[dict[str, Any]],
    folder: Path,
    way: dict[str, Any],
) -> dict[str, Any]:
    """Train a fresh model on ``records`` as ``way`` says; what the steps after WARM_UP took."""
    dtype = getattr(torch, way.pop("dtype", "float32"))
    config, processor = _untaught(key, size)
    on_gpu = torch.cuda.is_available()
    autocast = on_gpu and dtype == torch.float32
    recipe, machine = configured(recipe, {**way, "progress": False}, "throughput")
    data = (processor, records, folder, recipe)
    needs = plan(config, *data, folder, run=machine, weight_bytes=dtype.itemsize, autocast=autocast)
    with tempfile.TemporaryDirectory() as out:
        torch.manual_seed(0)
        with torch.device("cuda" if on_gpu else "cpu"):
            model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
        train(model, *data, out, seed=0, keep=False, **vars(machine))
        rows = metrics.read(Path(out) / "metrics.jsonl")
    timed = pd.DataFrame(rows[WARM_UP:])
    seconds, per_second = timed["seconds"].mean(), timed.sum() / timed["seconds"].sum()
    found = survey(RecordDataset(records, folder, processor, recipe), collator(config).image_tokens)
    shown = found.lengths, int(found.supervised.sum()), len(records)
    flops = useful_flops(config, count_trainable(config, recipe), recipe, *shown)
    return {
        "seconds_per_update": seconds,
        **{f"{what}_per_second": per_second[what] for what in COUNTED},
        "useful_tflops": flops / seconds / 1e12,
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "planned_bytes": sum(needs.memory.values()),
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def _untaught(key: str, size: str) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """A family's configuration and processor, around a tokenizer of few words.

    The ids of special tokens are the miniature's, whose tokenizer can be made here.
    """
    config, small = families.config(key, size), families.config(key, "mini")
    for ours, theirs in ((config, small), (config.text_config, small.text_config)):
        for name, value in theirs.to_dict().items():
            if name.endswith(("token_id", "token_index", "start_id")):
                setattr(ours, name, value)
    texts = [SYSTEM, " ".join(WORDS)] * 9
    tokenizer = mini.train_tokenizer(texts, make=families.family(key).tokenizer)
    return config, families.processor(key, size, tokenizer)


def _records(folder: Path, recipe: RunConfig, paper: bool) -> list[dict[str, Any]]:
    """One step's records, their images below ``folder``, texts as long as the recipe's data."""
    draw = np.random.default_rng(0)
    mean, spread = TEXT_TOKENS[recipe.template] if paper else (24.0, 0.5)
    tokens = draw.lognormal(np.log(mean) - spread**2 / 2, spread, recipe.samples_per_update)
    records = []
    for number, count in enumerate(np.clip(tokens, 8, recipe.max_length // 2).astype(int)):
        noise = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        noise.resize((640, 480)).save(folder / f"{number}.jpg")
        words = draw.choice(WORDS, count)
        asked = 1 if recipe.template == "plain" else -(-3 * count // 10)  # the rest is supervised
        turns = [("human", f"<image>\n{' '.join(words[:asked])}"), ("gpt", " ".join(words[asked:]))]
        turns = [{"from": who, "value": text} for who, text in turns]
        records.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    return records


def matmul_ceiling(device: str) -> float:
    """FLOP/s of the fastest of ten large matrix products (bfloat16 on a GPU, float32 on a CPU)."""
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
    return 2 * side**3 / min(timer.timeit(1).mean for _ in range(10))


def usable_device(size: str) -> str:
    """Where models of ``size`` are measured; LabError at paper size without a GPU."""
    gpu = torch.cuda.is_available()
    if size == "paper" and not gpu:
        raise LabError("true sizes need a GPU", where="throughput", fix="use --size mini")
    return "cuda" if gpu else "cpu"


def made_with() -> dict[str, Any]:
    """The columns that say what a row was measured with: device, versions, revision of the code."""
    origin = provenance()
    versions = {name: origin["packages"][name] for name in ("torch", "transformers")}
    known = {name: origin[name] for name in ("revision", "clean")}
    return {"device": origin["device"], **versions, **known}


def line(row: dict[str, Any]) -> str:
    """One row as a line of text."""
    if row["status"] != "ok":
        return f"{row['row']:<20} {row['status']}"
    peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.1f} of "
    return (
        f"{row['row']:<20} {row['tokens_per_second']:10,.0f} tokens/s "
        f"{row['samples_per_second']:8.2f} samples/s  MFU {row['mfu']:6.1%}  "
        f"memory {peak}{row['planned_bytes'] / 1e9:.1f} GB planned  "
        f"loss {row['first_loss']:.2f} to {row['last_loss']:.2f}"
    )


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a CSV file, in place of nothing that was there."""
    before = [pd.read_csv(path)] if path.exists() else []
    with atomic(path) as temporary:
        pd.concat([*before, pd.DataFrame(rows)]).to_csv(temporary, index=False)
