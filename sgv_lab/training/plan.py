"""Before a run: is everything there, does it fit, how long will it take, what will it cost?"""

import html
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig, ProcessorMixin

from sgv_lab.captions.records import counted
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.models.shards import opened, read_json
from sgv_lab.training import layout, packing, trainable
from sgv_lab.training.collate import collator
from sgv_lab.training.config import Machine, RunConfig
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.estimates import Batch, step_memory
from sgv_lab.training.survey import survey
from sgv_lab.training.trainer import total_updates

_MACHINE = Machine(progress=False)
SHOWN = 5  # broken records listed in the text form; the JSON form has all


@dataclass(frozen=True)
class Plan:
    """What a run needs and what stands in its way. Bytes, hours; None where not known."""

    recipe: str
    changed: dict[str, tuple[Any, Any]]  # setting -> (in the original recipe, here)
    records: int
    pictures: dict[str, tuple[int, int]]  # folder -> (asked for, missing)
    missing: dict[str, str]  # record id -> picture
    broken: list[str]  # all records that cannot be trained on, and why
    reasons: str  # why, counted
    dropped: bool  # they are left out
    too_long: str  # for a pack; "" where all samples fit
    cut: int  # records longer than max_length
    tokens: int  # of one epoch, image tokens counted, without the broken records
    supervised: int
    updates: int
    samples_per_update: int
    weights: dict[str, str]  # file -> "whole", "missing" or "incomplete"; empty: not looked at
    parameters: dict[str, dict[str, int]]
    memory: dict[str, float]  # part -> bytes, at the peak
    device_bytes: int | None
    disk_needed: float
    disk_free: float
    hours: float | None
    cost: float | None

    @property
    def obstacles(self) -> list[str]:
        """Why the run would be refused or fail; empty if it can start."""
        found = []
        if self.broken and not self.dropped:
            found.append(f"{len(self.broken)} of {self.records} records cannot be trained on")
        elif len(self.broken) == self.records:
            found.append("no record is left to train on")
        if self.too_long:
            found.append(self.too_long)
        if self._bad:
            found.append("weights: " + ", ".join(f"{n} {w}" for n, w in self._bad.items()))
        if self.disk_needed > self.disk_free:
            found.append(f"disk: {_gb(self.disk_needed)} needed, {_gb(self.disk_free)} free")
        if self.device_bytes and sum(self.memory.values()) > self.device_bytes:
            needed = sum(self.memory.values())
            found.append(f"memory: {_gb(needed)} needed, {_gb(self.device_bytes)} there")
        return found

    @property
    def _bad(self) -> dict[str, str]:
        return {name: state for name, state in self.weights.items() if state != "whole"}

    @property
    def sources(self) -> dict[str, layout.Place]:
        """Folder of the official layout that lacks pictures -> where to get them, and terms."""
        known = {one.folder: one for one in layout.PLACES}
        return {f: known[f] for f, (_, absent) in self.pictures.items() if absent and f in known}

    def rows(self) -> list[tuple[str, str]]:
        """The report as (what, value) pairs."""
        learning = sum(row["effective"] for row in self.parameters.values())
        total = sum(row["total"] for row in self.parameters.values())
        what = "broken, left out" if self.dropped and self.broken else "broken"
        rows = [
            ("recipe", self.recipe),
            *((f"  {k}, original {a}", str(b)) for k, (a, b) in self.changed.items()),
            ("records", f"{self.records:,} ({len(self.broken):,} {what}, {self.cut:,} cut)"),
            *(
                (f"  {folder}", f"{asked:,} pictures, {absent:,} missing")
                for folder, (asked, absent) in self.pictures.items()
            ),
            *(
                row
                for folder, one in self.sources.items()
                for row in ((f"  {folder}: get it at", one.where), ("    terms", one.terms))
            ),
            *([("  broken", self.reasons)] if self.broken else []),
            *((" ", why) for why in self.broken[:SHOWN]),
            ("tokens in an epoch", f"{self.tokens:,} ({self.supervised:,} supervised)"),
            ("updates", f"{self.updates:,} of {self.samples_per_update} samples"),
            ("parameters", f"{total:,} ({learning:,} learning)"),
            *((f"  {part}", _gb(size)) for part, size in self.memory.items()),
            ("memory at the peak", _gb(sum(self.memory.values()))),
            ("disk", f"{_gb(self.disk_needed)} needed, {_gb(self.disk_free)} free"),
            ("time", "unknown: give tokens per second" if self.hours is None else _hours(self)),
        ]
        if self.weights:
            state = f"{len(self._bad)} bad" if self._bad else "whole"
            rows.append(("weights", f"{len(self.weights)} files, {state}"))
        return [
            *rows,
            ("ready", "yes" if not self.obstacles else "no: " + "; ".join(self.obstacles)),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{what:<34} {value}" for what, value in self.rows())

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><td style='text-align:left;white-space:pre'>{html.escape(what)}</td>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for what, value in self.rows()
        )
        return f"<table>{''.join(cells)}</table>"

    def to_json(self) -> str:
        """All of it, for programs."""
        sources = {folder: asdict(one) for folder, one in self.sources.items()}
        told = {"obstacles": self.obstacles, "sources": sources}
        return json.dumps(asdict(self) | told, indent=1)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _hours(plan: Plan) -> str:
    return f"{plan.hours:,.2f} hours" + (f", cost {plan.cost:,.2f}" if plan.cost else "")


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
    weight_bytes: int = 4,
    autocast: bool = True,
    device_bytes: int | None = None,
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
    devices: int = 1,
    drop_broken: bool = False,
) -> Plan:
    """Look through everything a run of ``recipe`` needs; trains nothing, loads no weights.

    ``records`` and ``image_root`` as for `trainer.train`; ``weights``: the checkpoint folder, to
    look its files through; ``device_bytes``: memory of one device; ``tokens_per_second`` of one
    device (measured by ``sgv-lab throughput``) and ``price_per_hour`` of one give time and cost.
    Memory is for one device with the whole model (formulas in `estimates`, not measured). With
    ``drop_broken`` broken records are counted but left out instead of standing in the way.
    Raises LabError for records that cannot be read, and for another model's processor.
    """
    checkpoints.refuse_tokenizer(config, processor, "processor")
    examples = RecordDataset(records, image_root, processor, recipe)
    found = survey(examples, collator(config).image_tokens, run.workers, run.progress)
    good = found.kept
    lengths, supervised = (_some(one[good]) for one in (found.lengths, found.supervised))
    counts, largest = _counts(config, recipe), _largest(lengths, supervised, recipe)
    steps = recipe.max_steps or total_updates(len(good), recipe)
    hours = _duration(lengths, steps * recipe.samples_per_update, tokens_per_second, devices)
    return Plan(
        recipe=recipe.name,
        changed=recipe.differences(),
        records=len(examples),
        pictures=found.folders,
        missing=found.missing,
        broken=list(map(str, found.broken.values())),
        reasons=counted(found.broken.values()),
        dropped=drop_broken,
        too_long=packing.unpackable(lengths, recipe.tokens_per_batch) if recipe.packing else "",
        cut=int(found.truncated.sum()),
        tokens=int(lengths.sum()),
        supervised=int(supervised.sum()),
        updates=steps,
        samples_per_update=recipe.samples_per_update,
        weights=weight_states(Path(weights)) if weights else {},
        parameters=counts.counts,
        memory=step_memory(config, counts, recipe, largest, weight_bytes, autocast),
        device_bytes=device_bytes,
        disk_needed=_disk(counts) * weight_bytes,
        disk_free=_free(Path(out)),
        hours=hours,
        cost=None if None in (hours, price_per_hour) else hours * price_per_hour * devices,
    )


def _some(values: np.ndarray) -> np.ndarray:
    """The values; a zero in place of none, as a set of broken records is still worth a report."""
    return values if len(values) else np.zeros(1, dtype=int)


def _duration(
    lengths: np.ndarray, samples: int, tokens_per_second: float | None, devices: int
) -> float | None:
    """Hours that so many samples take; None where no speed is known."""
    if not tokens_per_second:
        return None
    return float(lengths.mean()) * samples / tokens_per_second / devices / 3600


def weight_states(folder: Path) -> dict[str, str]:
    """Each weight file of a checkpoint folder -> "whole", "missing" or "incomplete".

    By names and headers; nothing is loaded.
    """
    index = folder / "model.safetensors.index.json"
    names = read_json(index)["weight_map"].values() if index.is_file() else ["model.safetensors"]
    states = {}
    for name in sorted(set(names)):
        try:
            with opened(folder / name):
                states[name] = "whole"  # its header is read, and its length compared with it
        except LabError:
            states[name] = "incomplete"
        except FileNotFoundError:
            states[name] = "missing"
    return states


def _disk(counts: trainable.Trainable) -> int:
    """Numbers on disk at the most: the final weights, and two checkpoints with their moments.

    One checkpoint is kept, and for a moment the next beside it.
    """
    total, learning = counts.total("total"), counts.total("effective")
    return total + 2 * (total + 2 * learning)


def _free(folder: Path) -> int:
    """Free bytes where ``folder`` is or would be."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def _counts(config: PreTrainedConfig, recipe: RunConfig) -> trainable.Trainable:
    """What is trained, counted without allocating anything."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
        return trainable.set_trainable(model, recipe)[1]


def _largest(lengths: np.ndarray, supervised: np.ndarray, recipe: RunConfig) -> Batch:
    """The largest batch that can come up: the longest samples together, or one full pack."""
    if recipe.packing:
        fits = lengths[lengths <= recipe.tokens_per_batch]
        some = fits[:: max(1, len(fits) // 1000)]  # as many as tell how full packs get
        packs = packing.best_fit(some, recipe.tokens_per_batch) or [[]]
        share = supervised.sum() / max(lengths.sum(), 1)
        images = int(max(map(len, packs)))
        return Batch(recipe.tokens_per_batch, int(share * recipe.tokens_per_batch), images)
    order = np.argsort(-lengths)[: recipe.micro_batch]
    rows = min(recipe.micro_batch, len(lengths))
    return Batch(int(lengths.max()) * rows, int(supervised[order].sum()), rows)
