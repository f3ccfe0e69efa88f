"""``sgv-lab measure``: what a machine does, in the time there is.

Rows stand in order of value, and each is on the disk before the next begins. A row whose guess of
seconds exceeds the time left, or whose planned memory exceeds the device's, is skipped and says so;
one that takes longer is stopped; an error is a row.
"""

import importlib.util
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch.nn.functional import scaled_dot_product_attention

from sgv_lab.benchmarks.evaluate import answer
from sgv_lab.benchmarks.tasks import TASKS, Question
from sgv_lab.captioning import bulk, speed
from sgv_lab.files import Journal, atomic
from sgv_lab.options import Existing
from sgv_lab.provenance import installed
from sgv_lab.study import publishing
from sgv_lab.training import packing, throughput
from sgv_lab.training.config import FULL_SIZE, base

# Dense bfloat16, NVIDIA's data sheets.
VENDOR_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
L7, L13 = "llava-1.5-7b", "llava-1.5-13b"
SAMPLES, STEPS = {"paper": 32, "mini": 4}, 2  # of a step; steps timed
CAPTIONS = {"paper": 128, "mini": 8}  # of a large batch
# The authors' scripts under DeepSpeed: padded, all of a block computed again, float32 masters; 16
# samples a GPU in pre-training. Only their attention differs: see `rows`.
OFFICIAL = {"official": True, "precision": "bf16_32", "liger": False}
OFFICIAL_PRETRAIN = OFFICIAL | {"micro_batch": 16}
ROOM = 0.97  # of a device's memory; the rest is the driver's and the kernels'
_FASTER = 0.02  # of a guess at true size, for the miniature
RATES = ("tokens_per_second", "captions_per_second", "answers_per_second")
USUAL = ("official", "original", "questions an image: 1")  # what ratios are of: the first measured
_KEY = ("size", "recipe", "model", "row")


class TimeOverError(BaseException):
    """The time is over; as a Ctrl-C, nothing that handles errors stops it."""


@dataclass(frozen=True)
class Row:
    """One thing to measure: ``measure`` gives numbers, or a "status" why there are none."""

    recipe: str
    model: str
    row: str
    seconds: float  # a guess, on an H200
    measure: Callable[[], dict[str, Any]]


def rows(
    size: str, out: Path, studies: Sequence[Path], engine: str = "", room: float = 0.0
) -> list[Row]:
    """What is measured, in order of value.

    ``engine``: the address of a model server; ``room``: bytes of the device, 0: not known.
    Attention of the official rows is torch's SDPA with a mask of the padding, where the authors'
    was flash-attn's kernel, which computes nothing for padding: their own rows would be faster.
    """
    large = CAPTIONS[size]
    packs = {**OFFICIAL, "packing": True}
    lean = {**packs, "precision": "bf16_24"}
    kept = {**lean, "gradient_checkpointing": "selective"}
    lora = {"precision": "bf16", "packing": True, "gradient_checkpointing": "selective"}

    def train(recipe: str, key: str, row: str, seconds: float, way: Mapping[str, Any]) -> Row:
        return Row(recipe, key, row, seconds, partial(_training, key, size, recipe, way, room))

    def caption(row: str, seconds: float, count: int, decoding: bulk.Decoding) -> Row:
        timed = partial(speed.time_captions, L7, size, count, decoding)
        return Row("caption", L7, row, seconds, timed)

    found = [Row("check", "", "matrix products", 10, _ceiling)]
    if torch.cuda.is_available():
        found.append(Row("check", "", "packed attention", 10, _attention))
    found += [
        train("sft", L7, "official", 28, OFFICIAL),
        train("sft", L7, "ours", 24, FULL_SIZE),
        train("pretrain", L7, "official", 30, OFFICIAL_PRETRAIN),
        train("pretrain", L7, "ours", 24, FULL_SIZE),
        caption("original", 40, 4, bulk.ORIGINAL),  # the authors' script
        caption("greedy", 25, 4, bulk.Decoding()),
        caption(f"greedy, batch of {large}", 50, large, bulk.Decoding()),
        train("sft", L7, "official, 24-bit AdamW", 26, OFFICIAL | {"precision": "bf16_24"}),
        train("sft", L7, "official + packing", 24, packs),
        train("sft", L7, "+ 24-bit AdamW", 22, lean),
        train("sft", L7, "+ selective checkpointing", 20, kept),  # with Liger: ours
        train("sft-lora", L7, "official", 26, OFFICIAL | {"precision": "bf16"}),
        train("sft-lora", L7, "ours", 20, lora),
        train("sft-lora", L13, "ours", 30, lora),
        *(Row("evaluate", L7, f"questions an image: {n}", 25, partial(_answers, size, n))
          for n in (1, 4)),
        train("sft", L7, "ours, packs of 4096", 22, FULL_SIZE | {"tokens_per_batch": 4096}),
        train("sft", L7, "ours, nothing computed again", 22,
              FULL_SIZE | {"tokens_per_batch": 4096, "gradient_checkpointing": False}),
        caption(f"static cache, batch of {large}", 120, large, bulk.Decoding(static=True)),
        Row("caption", L7, "by an engine", 150 if not engine else 40,
            partial(_engine, size, engine)),
    ]  # fmt: skip
    asked = (Row("study", "", plan.stem, 60, partial(_study, plan, out)) for plan in studies)
    return [*found, *asked]


def measure(
    *,
    out: Path,  # Folder of rows.jsonl and throughput.csv.
    seconds: float = 480.0,  # How long it may take.
    size: Literal["paper", "mini"] = "paper",
    engine: str = "",  # URL: A model server that captions, too.  [default: vLLM, if installed]
    study: tuple[Existing, ...] = (),  # PLAN.yaml: A study for the rest of the time.
) -> Iterator[str]:
    """Measure training, captioning and answering, until the time is over, a row at a time.

    The most telling rows come first. Give the same command again to go on: what was measured is not
    measured again, what failed or was skipped is tried again. Weights are random and true to size;
    `--size mini` rehearses it on any machine. Time that is left goes to miniature studies, by
    default to the committed ones without records (with `--size mini` to none); their runs are kept.
    """
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    began, device = time.monotonic(), throughput.usable_device(size)
    out.mkdir(parents=True, exist_ok=True)
    journal, made = Journal(out / "rows.jsonl"), throughput.made_with()
    room = ROOM * torch.cuda.get_device_properties(0).total_memory if device == "cuda" else 0.0
    kept = {tuple(row[name] for name in _KEY): row for row in journal.read()}
    yield ", ".join(f"{name} {value}" for name, value in made.items())
    plans = study or (unrecorded() if size == "paper" else ())
    for one in rows(size, out, plans, engine, room):
        key = (size, one.recipe, one.model, one.row)
        if key not in kept or kept[key]["status"] != "ok":
            left = seconds - (time.monotonic() - began)
            kept[key] = dict(zip(_KEY, key, strict=True)) | _measured(one, left, size) | made
            journal.append([kept[key]])
            with atomic(out / "throughput.csv") as temporary:
                table(kept).to_csv(temporary, index=False)
        yield line(kept[key])


def _measured(one: Row, left: float, size: str) -> dict[str, Any]:
    """A row's numbers, or a "status" that says why there are none; models are forgotten."""
    if left < one.seconds * (1 if size == "paper" else _FASTER):
        return {"status": f"skipped: {max(left, 0):.0f} s left"}
    began = time.monotonic()
    try:
        with _at_most(left):
            found = {"status": "ok"} | one.measure()
    except TimeOverError:
        found = {"status": "stopped: the time is over"}
    except torch.OutOfMemoryError as error:
        found = {"status": f"out of memory: {str(error)[:120]}"}
    except Exception as error:  # the next row may well be measured
        found = {"status": f"{type(error).__name__}: {error}"[:300]}
    throughput.forget()
    return found | {"took": round(time.monotonic() - began, 1)}


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeOverError in what takes longer."""

    def over(*_: Any) -> None:
        raise TimeOverError

    usual = signal.signal(signal.SIGALRM, over)
    other = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *other)
        signal.signal(signal.SIGALRM, usual)


def unrecorded() -> list[Path]:
    """The committed plans of miniature studies that have no records, where the checkout has any."""
    files = sorted((publishing.folder() / "plans").glob("study-*.yaml"))
    return [file for file in files if not publishing.load_study(file.stem)[1]]


def _training(key: str, size: str, recipe: str, way: dict[str, Any], room: float) -> dict[str, Any]:
    chosen = base(recipe, {"samples_per_step": SAMPLES[size]})
    if size == "mini" and chosen.vision_from:
        chosen = chosen.changed({"vision_from": 1})  # of its three blocks
    return throughput.time_training(key, size, chosen, way, STEPS, room)


def _ceiling() -> dict[str, Any]:
    """The fastest large matrix product; what is installed that makes training faster."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {name: installed(name) for name in ("flashoptim", "liger-kernel", "peft")}
    return found | {"useful_tflops": throughput.matmul_ceiling(device) / 1e12}


def _attention() -> dict[str, Any]:
    """How far packed attention is from sample after sample in float32, forward and backward."""
    lengths, width = (700, 64, 333), 128
    heads = [torch.randn(1, 32, sum(lengths), width, device="cuda") for _ in range(3)]
    ours = [head.bfloat16().requires_grad_() for head in heads]
    theirs = [head.bfloat16().float().requires_grad_() for head in heads]
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device="cuda")
    given = {"cu_seq_lens_q": ends, "max_length_q": max(lengths), "scaling": width**-0.5}
    out, _ = packing.varlen_attention(torch.nn.Module(), *ours, None, **given)
    parts = zip(*(head.split(lengths, dim=2) for head in theirs), strict=True)
    alone = [scaled_dot_product_attention(*part, is_causal=True) for part in parts]
    want = torch.cat(alone, 2).transpose(1, 2)
    mix = torch.randn_like(want)
    pairs = zip(
        (out, *torch.autograd.grad((out * mix).sum(), ours)),
        (want, *torch.autograd.grad((want * mix).sum(), theirs)),
        strict=True,
    )
    error = max(float((a.float() - b).norm() / b.norm()) for a, b in pairs)
    return {"relative_error": error, "status": "ok" if error < 0.02 else f"wrong: {error:.3f}"}


def _answers(size: str, shared: int) -> dict[str, Any]:
    """Short answers a second, ``shared`` questions about each image, after a first round."""
    model, processor = speed.untaught(L7, size)
    count = 4 * CAPTIONS[size]
    asked = [
        Question(str(n), f"Is there a dog beside tree {n}?", f"{n // shared}.jpg", max_new_tokens=2)
        for n in range(count)
    ]
    task = replace(TASKS["mme"], margin=())
    with tempfile.TemporaryDirectory() as folder:
        root = speed.draw_images(Path(folder), count // shared)
        for some in (asked[: count // 4], asked):
            began = time.monotonic()
            for _ in answer(model, processor, some, task, root, 64, progress=False):
                pass
    return {"answers_per_second": count / (time.monotonic() - began)}


def _engine(size: str, engine: str) -> dict[str, Any]:
    """Captions a second by a model server: the one at ``engine``, or vLLM where it is installed."""
    count = 4 * CAPTIONS[size]
    if engine:
        return speed.time_endpoint(engine, size, count)
    if not importlib.util.find_spec("vllm"):
        return {"status": "skipped: no engine is installed"}
    with tempfile.TemporaryDirectory() as folder, speed.vllm_server(L7, size, Path(folder)) as url:
        return speed.time_endpoint(url, size, count)


def _study(plan: Path, out: Path) -> dict[str, Any]:
    """Run a study, as many runs at once as there are cores, until it or the time is over."""
    folder, log = out / plan.stem, out / f"{plan.stem}.txt"
    command = [sys.executable, "-m", "sgv_lab", "study", str(plan), "--out", str(folder)]
    with speed.child([*command, "--workers", str(os.cpu_count() or 1)], log) as child:
        try:
            ended = child.wait()
            status = "ok" if not ended else f"ended with {ended}: {log.name}"
        except TimeOverError:  # what was done is kept
            status = "stopped: the time is over"
    return {"runs": len(Journal(folder / "records.jsonl").read()), "status": status}


def table(kept: Mapping[tuple[str, ...], Mapping[str, Any]]) -> pd.DataFrame:
    """Rows, with shares of both ceilings, and how much faster than the usual way they are."""
    found = pd.DataFrame(list(kept.values()))
    for name in (*RATES, "useful_tflops"):
        found[name] = found[name] if name in found else float("nan")
    products, reached = found["row"] == "matrix products", found["useful_tflops"]
    found["mfu"] = (reached / reached[products].max()).mask(products)
    device = str(found["device"].iloc[0])
    peaks = (peak for name, peak in VENDOR_TFLOPS.items() if name in device)
    found["mfu_vendor"] = reached / next(peaks, float("nan"))
    rate = found[list(RATES)].bfill(axis=1).iloc[:, 0]
    usual = rate.where(found["row"].str.startswith(USUAL))
    first = usual.groupby([found["recipe"], found["model"]]).transform("first")
    return found.assign(ratio=rate / first)


def line(row: Mapping[str, Any]) -> str:
    """One row as a line of text."""
    name = f"{row['recipe']:<9}{row['model']:<14}{row['row']:<34}"
    if row["status"] != "ok":
        return name + row["status"] + (f", {row['runs']} runs done" if row.get("runs") else "")
    units = {rate: (1, rate.replace("_per_second", "/s")) for rate in RATES}
    units |= {"useful_tflops": (1, "TFLOP/s"), "runs": (1, "runs")}
    units |= {"peak_bytes": (1e9, "GB"), "planned_bytes": (1e9, "GB planned")}
    told = {key: row[key] for key in units if row.get(key) is not None}
    return name + ", ".join(f"{told[key] / units[key][0]:,.2f} {units[key][1]}" for key in told)
