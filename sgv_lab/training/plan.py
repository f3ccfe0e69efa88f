"""Before a run: is everything there, does it fit, how long will it take, what will it cost?"""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, ProcessorMixin

from sgv_lab.captions.records import count_reasons
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.training import packing
from sgv_lab.training.checkpointing import changed_settings
from sgv_lab.training.collate import collator
from sgv_lab.training.config import Machine, RunConfig
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.estimates import BYTES, LargestBatch, step_memory, weight_bytes
from sgv_lab.training.processes import not_sharded, refusals
from sgv_lab.training.survey import MAX_DROPPED, Survey, image_folders, refusal, survey
from sgv_lab.training.trainable import Trainable, count_trainable
from sgv_lab.training.trainer import total_steps

_MACHINE = Machine(progress=False)
Memory = Callable[[RunConfig, int], dict[str, float]]  # (recipe, devices) -> part -> bytes of each
NOTHING_FITS = "no setting known here fits"
# FLOPs of a step by gradient checkpointing: selective computes no matrix product again
_WORK = {False: 1.0, "selective": 1.0, True: 4 / 3}
SHOWN = 5  # broken records listed in the text form; the JSON form has all


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run needs and what stands in its way. Bytes, hours; None where not known."""

    recipe: str
    changed: dict[str, tuple[Any, Any]]  # setting -> (in the original recipe, here)
    records: int
    images: dict[str, dict[str, int]]  # folder -> {"images": ..., "missing": ..., ...}
    broken: list[str]  # all records that cannot be trained on, and why
    reasons: str  # why, counted
    dropped: bool  # they are left out ...
    max_dropped: float  # ... if they are at most this share of the records
    too_long: str  # for a pack; "" where all samples fit
    refused: list[str]  # what `train` would not even begin for, on this machine
    cut: int  # records longer than max_length
    tokens: int  # of one epoch, image tokens counted, without the broken records
    supervised: int
    steps: int
    samples_per_step: int
    weights: str | None  # what is wrong with the checkpoint, "" if nothing; None: not looked at
    place: str  # why the run cannot be written to its folder, "" if it can
    parameters: dict[str, dict[str, int]]
    memory: dict[str, float]  # part -> bytes, at the peak, of one device
    device_bytes: int | None
    cheapest: str  # settings that fit, with the least work; "" if none does or no memory was given
    disk_needed: float
    disk_free: float
    hours: float | None
    cost: float | None

    @property
    def obstacles(self) -> list[str]:
        """Why the run would be refused or fail; empty if it can start."""
        broken = refusal(self.broken, self.records, self.dropped, self.max_dropped)
        known = (broken, self.too_long, *self.refused, self.weights, self.place)
        found = [why for why in known if why]
        if self.disk_needed > self.disk_free:
            found.append(f"disk: {_gb(self.disk_needed)} needed, {_gb(self.disk_free)} free")
        needed = sum(self.memory.values())
        if self.device_bytes and needed > self.device_bytes:
            what = f"memory: {_gb(needed)} needed, {_gb(self.device_bytes)} there"
            found.append(f"{what}; {self.cheapest or NOTHING_FITS}")
        return found

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """Folder of the official layout that lacks images -> where to get them, and terms."""
        lacking = [name for name, count in self.images.items() if count["missing"]]
        return {name: image_folders()[name] for name in lacking if name in image_folders()}

    def __str__(self) -> str:
        learning = sum(row["effective"] for row in self.parameters.values())
        total = sum(row["total"] for row in self.parameters.values())
        what = "broken, left out" if self.dropped and self.broken else "broken"
        counts = f"{self.records:,} ({len(self.broken):,} {what}, {self.cut:,} cut)"
        rows = [
            ("recipe", self.recipe),
            *((f"  {k}, original {a}", b) for k, (a, b) in self.changed.items()),
            ("records", counts),
            *((f"  {folder}", counted(count)) for folder, count in self.images.items()),
        ]
        for folder, one in self.sources.items():
            rows += [(f"  {folder}: get it at", one["where"]), ("    terms", one["terms"])]
        if self.broken:
            rows += [("  broken", self.reasons), *((" ", why) for why in self.broken[:SHOWN])]
        rows += [
            ("tokens in an epoch", f"{self.tokens:,} ({self.supervised:,} supervised)"),
            ("steps", f"{self.steps:,} of {self.samples_per_step} samples"),
            ("parameters", f"{total:,} ({learning:,} learning)"),
            *((f"  {part}", _gb(size)) for part, size in self.memory.items()),
            ("memory at the peak", _gb(sum(self.memory.values()))),
            *([("cheapest on this GPU", self.cheapest or NOTHING_FITS)] * bool(self.device_bytes)),
            ("disk", f"{_gb(self.disk_needed)} needed, {_gb(self.disk_free)} free"),
        ]
        hours = "unknown: give tokens per second"
        if self.hours is not None:
            hours = f"{self.hours:,.2f} hours" + (f", cost {self.cost:,.2f}" if self.cost else "")
        rows.append(("time", hours))
        if self.weights is not None:
            rows.append(("weights", self.weights or "whole"))
        rows.append(("ready", "no: " + "; ".join(self.obstacles) if self.obstacles else "yes"))
        return "\n".join(f"{name:<34} {value}" for name, value in rows)

    __repr__ = __str__  # as notebooks show it

    def to_json(self) -> str:
        """All of it, for programs."""
        more = {"obstacles": self.obstacles, "sources": self.sources}
        return json.dumps(asdict(self) | more, indent=1)


def counted(images: dict[str, int]) -> str:
    """Counts of a folder's images in words.

    >>> counted({"images": 1200, "missing": 3, "corrupt": 1})
    '1,200 images, 3 missing, 1 corrupt'
    """
    return ", ".join(f"{number:,} {what}" for what, number in images.items())


def needed(found: Plan, at_once: int = 1) -> str:
    """What a training needs, in one line; ``at_once``: of how many of them on one machine."""
    images = sum(count["images"] for count in found.images.values())
    counts, memory = f"{found.records:,} records, {images:,} images", sum(found.memory.values())
    times = f" × {at_once} runs at once" if at_once > 1 else ""
    sizes = f"{_gb(memory)} of memory, {_gb(found.disk_needed)} of disk"
    return f"{counts}, {sizes}{times}"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def plan(
    config: PreTrainedConfig,
    processor: ProcessorMixin,
    records: Any,
    image_root: str | Path,
    recipe: RunConfig,
    out: str | Path,
    *,
    run: Machine = _MACHINE,
    weights: str | Path | None = None,
    on_gpu: bool = True,
    device_bytes: int | None = None,
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
    devices: int = 1,
    drop_broken: bool = False,
    max_dropped: float = MAX_DROPPED,
) -> Plan:
    """Look through everything a run of ``recipe`` needs; trains nothing, loads no weights.

    ``records`` and ``image_root`` as for `trainer.train`; ``weights``: the checkpoint folder, to
    look its files through; ``device_bytes``: memory of one device; ``tokens_per_second`` of one
    device (measured by ``sgv-lab measure``) and ``price_per_hour`` of one give time and cost.
    Memory is for one device (formulas in `estimates`, not measured), which holds the whole model,
    or with ``run.fsdp`` its part of it; the cheapest settings are those of 1 to ``devices``. With
    ``drop_broken`` broken records are counted but left out instead of standing in the way, up to
    ``max_dropped``, a share of all.
    """
    checkpoints.refuse_tokenizer(config, processor, "processor")
    examples = RecordDataset(records, image_root, processor, recipe)
    feed = collator(config, packed=recipe.packing, processor=processor)
    found = survey(examples, feed.image_tokens, run.workers or 0, run.progress)
    lengths, supervised = found.lengths[found.kept], found.supervised[found.kept]
    counts = count_trainable(config, recipe)
    memory = partial(_memory, config, counts, lengths, supervised, on_gpu)
    there = next(p for p in (Path(out), *Path(out).absolute().parents) if p.exists())
    steps = total_steps(len(found.lengths), recipe)
    tokens = float(lengths.sum() / max(len(lengths), 1) * steps * recipe.samples_per_step)
    hours = tokens / tokens_per_second / devices / 3600 if tokens_per_second else None
    return Plan(
        recipe=recipe.name,
        changed=recipe.differences(),
        **_counts(found),
        dropped=drop_broken,
        max_dropped=max_dropped,
        too_long=packing.unpackable(lengths, recipe.tokens_per_batch) if recipe.packing else "",
        refused=list(map(str, refusals(recipe, run, devices))),
        steps=steps,
        samples_per_step=recipe.samples_per_step,
        weights=_wrong_weights(weights) if weights else None,
        place=_wrong_place(Path(out), examples, recipe, steps, found),
        parameters=counts.counts,
        memory=memory(recipe, devices if run.fsdp else 1),
        device_bytes=device_bytes,
        cheapest=_cheapest(recipe, memory, device_bytes, devices, lengths.max(initial=0)),
        disk_needed=_disk(counts, recipe, on_gpu),
        disk_free=shutil.disk_usage(there).free,
        hours=hours,
        cost=hours * price_per_hour * devices if hours and price_per_hour else None,
    )


def _counts(found: Survey) -> dict[str, Any]:
    """What was found in the records, by the names of `Plan`; tokens are those of whole ones."""
    return {
        "records": len(found.lengths),
        "images": found.folders,
        "broken": list(map(str, found.broken.values())),
        "reasons": count_reasons(found.broken.values()),
        "cut": int(found.truncated.sum()),
        "tokens": int(found.lengths[found.kept].sum()),
        "supervised": int(found.supervised[found.kept].sum()),
    }


def _wrong_weights(folder: str | Path) -> str:
    """What keeps a checkpoint from being loaded, or ""; no weight is read."""
    try:
        with checkpoints.without_bars():
            checkpoints.load(folder, device="meta")
    except LabError as error:
        return str(error)
    return ""


def _wrong_place(
    out: Path, examples: RecordDataset, recipe: RunConfig, steps: int, found: Survey
) -> str:
    """Why ``out`` cannot take this run, as far as its seed and weights do not decide it, or ""."""
    if out.exists() and not out.is_dir():
        return f"{out} is no folder"
    known = {"recipe": recipe.training(), "steps": steps, "data": examples.digest()}
    known["left_out"] = found.digest()
    if changed := changed_settings(out, known, known):
        return f"{out} holds a run with other settings ({', '.join(changed)})"
    return ""


def _memory(
    config: PreTrainedConfig,
    counts: Trainable,
    lengths: np.ndarray,
    supervised: np.ndarray,
    on_gpu: bool,
    recipe: RunConfig,
    shards: int,
) -> dict[str, float]:
    """What a recipe for these data takes on each of ``shards`` devices that share the model."""
    largest = _largest(lengths, supervised, recipe)
    return step_memory(config, counts, recipe, largest, on_gpu=on_gpu, shards=shards)


def _cheapest(
    recipe: RunConfig, memory: Memory, room: int | None, devices: int, longest: int
) -> str:
    """The settings, in words, that fit ``room`` bytes with the least work; "" if none does.

    Work is a step's FLOPs, those that are computed again included, times the GPUs that share the
    model. Of equal ones it is the recipe's own precision, for another one rounds otherwise; then
    the one that computes less again, then the longer pack. ``longest``: tokens of a sample.
    """
    if not room:
        return ""
    kinds = dict.fromkeys((recipe.precision, "bf16_24", "bf16_32"))
    ways = itertools.product(range(1, devices + 1), kinds, _WORK, (8192, 4096))
    for shards, kind, again, size in sorted(ways, key=lambda way: way[0] * _WORK[way[2]]):
        changes = {"precision": kind, "packing": True, "tokens_per_batch": size}
        changed = recipe.changed(changes | {"gradient_checkpointing": again})
        if size < longest or (shards > 1 and any(not_sharded(changed))):
            continue
        needed = sum(memory(changed, shards).values())
        if needed <= room:
            words = f"--packing --tokens-per-batch {size} --set precision={kind}"
            words += f" --set gradient_checkpointing={again}" + " --fsdp" * (shards > 1)
            return f"{_gb(needed)} on {shards} GPU{'s' * (shards > 1)}: {words}"
    return ""


def _disk(counts: Trainable, recipe: RunConfig, on_gpu: bool) -> float:
    """Bytes on disk at the most: the final weights, and two checkpoints with AdamW's state.

    One checkpoint is kept, and for a moment the next beside it.
    """
    total, learning = counts.total("total"), counts.total("effective")
    weight, _, state = BYTES[recipe.precision]
    return total * weight_bytes(recipe, on_gpu) + 2 * learning * (weight + state)


def _largest(lengths: np.ndarray, supervised: np.ndarray, recipe: RunConfig) -> LargestBatch:
    """The largest batch that can come up: the longest samples together, or one full pack."""
    if recipe.packing:
        size = recipe.tokens_per_batch
        some = lengths[:: max(1, len(lengths) // 1000)]  # as many as tell how full packs get
        packs = packing.best_fit(some[some <= size], size)
        share = supervised.sum() / max(lengths.sum(), 1)
        return LargestBatch(size, int(share * size), max(map(len, packs), default=0))
    longest = np.argsort(-lengths)[: recipe.micro_batch]
    width = int(lengths.max(initial=0))
    return LargestBatch(width * len(longest), int(supervised[longest].sum()), len(longest))
