"""ShareGPT4V-7B beside LLaVA-1.5's recipe: what both are shown, what it takes, what they answer.

ShareGPT4V-7B: Share-Captioner's captions, half of the ViT, projector and language model trained;
then the mix with GPT4-Vision's captions of all sources. LLaVA-1.5: BLIP's captions, the projector
alone trained; then the mix with blind GPT-4's. In miniature both train as many steps on as many
samples. At full size LLaVA-1.5's pre-training is in the base, and is not done again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from sgv_lab.study import cached_training, effects, official, plans, pretraining_data, runner
from sgv_lab.study.arms import BOTH, PROJECTOR, ready
from sgv_lab.study.run_arm import STAGES, Job
from sgv_lab.training import metrics
from sgv_lab.training.config import FULL_SIZE, base

LLAVA, OURS = "LLaVA-1.5 recipe", "ShareGPT4V-7B"
_CHANGES = {LLAVA: PROJECTOR, OURS: BOTH}  # to the mix with blind captions
Found = Mapping[tuple[str, int], tuple[Mapping[str, float], pd.DataFrame]]
"""(model, seed) -> its scores and points by image, as `run_arm.evaluate_cached` gives them."""


def jobs(
    size: Any, profile: str, models_root: str | Path = "", data_root: str | Path = ""
) -> dict[tuple[str, int], Job]:
    """(model, seed) -> what is trained and asked; seeds and questions follow from the sizes.

    ``size``: settings of notebook 05; ``models_root``, ``data_root`` as `runner.jobs` takes them.
    """
    plan = plans.make(
        "sharegpt4v-7b",
        title="a demonstration: too few seeds to conclude anything",
        family="llava-1.5-7b",
        arms=["before"],
        seeds=size.seeds,
        primary=["before", "MME-P"],
        benchmarks=list(size.benchmarks),
        images=size.drawn_images,
        profile=profile,
        baseline={"tuning": "full", "loss": "token", **size.baseline},  # as both were trained
    )
    found = {}
    faster = {f"pretrain.{key}": value for key, value in size.projector.items()}
    for job in runner.jobs(plan, models_root, data_root):
        for name, change in _CHANGES.items():
            design = plan.baseline.changed(change, name)
            if name == LLAVA:  # a projector learns faster than a whole model
                design = design.changed(faster, f"profile {profile}")
            found[name, job.seed] = replace(job, arm=name, config=ready(design, plan.blocks))
    return found


def torchrun_commands(gpus: int) -> str:
    """Both stages at full size on ``gpus`` GPUs, as commands, a line each."""
    files = {"pretrain": pretraining_data.FILES["share"], "sft": official.FILES["released"]}
    lines, start, how = [], "BASE", {"fsdp": True, "drop_broken": True}
    for name, file in files.items():
        config = base(name, FULL_SIZE | {"precision": "bf16_32"})  # 24 bits are not sharded
        given = (start, f"data/sharegpt4v/{file}", "data", config, f"runs/{name}")
        lines.append(" ".join(cached_training.command(*given, 0, processes=gpus, **how)))
        start = f"runs/{name}"
    return "\n".join(lines)


def training_costs(models: Sequence[Path], price: float = 0.0) -> pd.DataFrame:
    """Stage -> steps, samples, tokens, speed, memory, hours, cost, from what training wrote."""
    table = losses(models).groupby("stage", sort=False)[["samples", "tokens"]].sum()
    manifests = [json.loads((folder / "manifest.json").read_bytes()) for folder in models]
    told = pd.DataFrame(manifests, index=table.index)
    table.insert(0, "steps", told["steps"])
    table["tokens per second"] = table["tokens"] / told["seconds"]
    table["peak GB"] = told["peak_bytes"] / 1e9
    table["hours"] = told["seconds"] / 3600
    table["cost"] = table["hours"] * price * told["processes"]
    return table.rename_axis(None)


def losses(models: Sequence[Path]) -> pd.DataFrame:
    """A row a step of each stage, as training wrote it: stage, step, loss (a supervised token)."""
    tables = [
        pd.DataFrame(metrics.read(folder / "metrics.jsonl")).assign(stage=name)
        for name, folder in zip(STAGES[-len(models) :], models, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def compared(found: Found) -> pd.DataFrame:
    """Score -> both models' means, what ShareGPT4V-7B gains, and the rest of `effects.paired`."""
    points = pd.concat(
        [one.assign(arm=name, seed=seed) for (name, seed), (_, one) in found.items()]
    )
    rows, runs = {}, scores_by_run(found)
    for score in (name for name in effects.TESTED if name in runs.columns):
        table = runs[score].unstack(0)
        gained = effects.paired(table, score, OURS, LLAVA, points)
        rows[score] = {**table[[LLAVA, OURS]].mean(), "gain": gained.pop("effect"), **gained}
    return pd.DataFrame.from_dict(rows, orient="index")


def scores_by_run(found: Found) -> pd.DataFrame:
    """(model, seed) by scores."""
    return pd.DataFrame({key: one for key, (one, _) in found.items()}).T
