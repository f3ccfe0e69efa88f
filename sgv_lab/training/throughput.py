"""How fast a recipe trains and what memory it takes, at true size: throw-away runs of the trainer.

Weights are random and made on the device; the records are made up, with images as large and texts
as long as the real ones. Every step shows the same records, so that the loss has to fall. The
numbers come from the run's own metrics.jsonl.
"""

import gc
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.benchmark import Timer
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from sgv_lab.errors import LabError
from sgv_lab.models import families, mini
from sgv_lab.provenance import provenance
from sgv_lab.training import metrics
from sgv_lab.training.collate import collator
from sgv_lab.training.config import RunConfig, configured
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.estimates import LargestBatch, step_memory, useful_flops
from sgv_lab.training.packing import Batching, packed
from sgv_lab.training.precision import loading_dtype
from sgv_lab.training.step_data import padded
from sgv_lab.training.survey import Survey, survey
from sgv_lab.training.trainable import count_trainable
from sgv_lab.training.trainer import fit

WARM_UP = 1  # steps before the clock starts
COUNTED = ("tokens", "positions", "supervised_tokens", "samples")
WORDS = ("a", "picture", "of", "the", "red", "dog", "near", "two", "trees", "on", "green", "grass")
# Tokens of text per sample at paper size: mean and spread of a log-normal. Captions: 826 characters
# (ShareGPT4V-PT, Table 1) at 4.3 characters a token; fine-tuning: an assumption, to be replaced by
# a survey of the real 665K records.
TEXT_TOKENS = {"plain": (192.0, 0.35)} | dict.fromkeys(("v1", "qwen", "chat"), (280.0, 0.7))


def time_training(
    key: str, size: str, recipe: RunConfig, way: Mapping[str, Any], steps: int, room: float = 0.0
) -> dict[str, Any]:
    """What ``steps`` steps of ``recipe`` take of family ``key``: speed, memory, losses.

    ``way``: settings and fields of `Machine`; "official" True deals samples into batches in any
    order, as the official code does, where `train` puts samples of like length together. ``room``:
    bytes of the device; where more are planned nothing is trained, and the "status" says so.
    """
    given = {"progress": False, "max_steps": WARM_UP + steps, **way}
    official = given.pop("official", False)
    recipe, machine = configured(recipe, given, "measure")
    config, processor = untaught(key, size)
    counts, cuda = count_trainable(config, recipe), torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        records = _records(Path(folder), recipe, size == "paper")
        examples = RecordDataset(records, folder, processor, recipe)
        feed = collator(config, packed=recipe.packing, processor=processor)
        found = survey(examples, feed.image_tokens)
        split = padded(recipe.micro_batch, [] if official else found.lengths)
        batching = packed(found.lengths, recipe.tokens_per_batch) if recipe.packing else split
        largest = _largest(found, batching, recipe)
        planned = sum(step_memory(config, counts, recipe, largest, on_gpu=cuda).values())
        row = {"weights": recipe.precision, "planned_bytes": planned}
        if room and planned > room:
            return row | {
                "status": f"skipped: {planned / 1e9:.0f} GB planned, {room / 1e9:.0f} there"
            }
        model = random_model(config, loading_dtype(recipe))
        out = Path(folder, "run")
        fit(model, None, examples, feed, recipe, out, 0, machine, {}, batching, keep=False)
        rows = metrics.read(out / "metrics.jsonl")
    timed = pd.DataFrame(rows[WARM_UP:])
    seconds, per_second = timed["seconds"].mean(), timed.sum() / timed["seconds"].sum()
    shown = found.lengths, int(found.supervised.sum()), len(records)
    return row | {
        "seconds_per_step": seconds,
        **{f"{what}_per_second": per_second[what] for what in COUNTED},
        "useful_tflops": useful_flops(config, counts, recipe, *shown) / seconds / 1e12,
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def _largest(found: Survey, batching: Batching, recipe: RunConfig) -> LargestBatch:
    """The largest batch of a step."""
    batches = [np.array(batch) for batch in batching(list(range(len(found.lengths))), 1)]

    def positions(batch: np.ndarray) -> int:
        lengths = found.lengths[batch]
        return int(lengths.sum() if recipe.packing else lengths.max() * len(batch))

    largest = max(batches, key=positions)
    return LargestBatch(positions(largest), int(found.supervised[largest].sum()), len(largest))


def forget() -> None:
    """Give back the memory of models that nobody holds; they hold themselves in cycles."""
    gc.collect()
    torch.cuda.empty_cache()


def random_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A model with random weights, made on the GPU where there is one."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)


def untaught(key: str, size: str) -> tuple[PreTrainedConfig, ProcessorMixin]:
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
    tokens = draw.lognormal(np.log(mean) - spread**2 / 2, spread, recipe.samples_per_step)
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
        raise LabError("true sizes need a GPU", where="measure", fix="use --size mini")
    return "cuda" if gpu else "cpu"


def made_with() -> dict[str, Any]:
    """The columns that say what a row was measured with: device, versions, revision of the code."""
    origin = provenance()
    versions = {name: origin["packages"][name] for name in ("torch", "transformers")}
    known = {name: origin[name] for name in ("revision", "clean")}
    return {"device": origin["device"], **versions, **known}
