"""A training as an artefact of the store: each stage of an arm, ShareGPT4V-7B's, Share-Captioner's.

One that was killed goes on where its last checkpoint stands; one that is done is found.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sgv_lab import store
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.provenance import installed
from sgv_lab.training import plan as planning
from sgv_lab.training.collate import collator
from sgv_lab.training.config import RunConfig
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.precision import loading_dtype
from sgv_lab.training.survey import MAX_DROPPED, survey
from sgv_lab.training.trainer import train

_FLAGS = ("max_steps", "packing", "tokens_per_batch", "micro_batch", "loss")  # of `sgv-lab train`


def preflight(
    base: Path, records: Path, image_root: Path, config: RunConfig, **known: Any
) -> planning.Plan:
    """What `train_cached` needs, and what is missing; ``known``: what else `plan.plan` takes."""
    on_gpu = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else None
    known = {"weights": base, "device_bytes": memory, **known}
    model = checkpoints.configuration(base)
    processor = checkpoints.load_processor(base, model)
    return planning.plan(model, processor, records, image_root, config, store.root(), **known)


def left_out(base: Path, records: Path, image_root: Path, config: RunConfig) -> str:
    """A hash of the records that cannot be trained on today: their images may arrive later."""
    model = checkpoints.configuration(base)
    processor = checkpoints.load_processor(base, model)
    data = RecordDataset(records, image_root, processor, config)
    feed = collator(model, packed=config.packing, processor=processor)
    return survey(data, feed.image_tokens, progress=None).digest()


def train_cached(
    base: Path,
    records: Path,
    image_root: Path,
    config: RunConfig,
    seed: int,
    *,
    name: str = "",
    processes: int = 1,
    progress: bool = False,
    drop_broken: bool = False,
    max_dropped: float = MAX_DROPPED,
    **machine: Any,
) -> Path:
    """The checkpoint folder of ``base`` trained as ``config`` says, made once per arguments.

    ``records``: a file of LLaVA records, whose images lie below ``image_root``; ``name``: the
    artefact's, if not that of the config's base. ``processes``: above 1, as many of torchrun's, one
    a GPU (``fsdp`` shards over them); the artefact is the same. ``machine``: fields of `Machine`.
    Images in the store count by their key, others by name alone: half a terabyte is not hashed.
    With ``drop_broken`` what is left out counts, too. Raises LabError also when a process fails.
    """
    inputs = [base, records]
    if image_root.is_relative_to(store.root()):
        inputs.append(image_root)
    config = config.alone()
    settings = {"config": config.values(), "seed": seed, "drop_broken": drop_broken}
    if drop_broken:
        settings["left_out"] = left_out(base, records, image_root, config)

    def build(out: Path) -> None:
        given, how = (base, records, image_root, config), dict(machine)
        if drop_broken:
            how |= {"drop_broken": True, "max_dropped": max_dropped}
        if processes > 1:  # what they say goes to where ours goes
            words = command(*given, out / "model", seed, processes=processes, **how)
            torchrun = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
            if code := subprocess.run(torchrun, check=False).returncode:
                fix = "its message stands above; run again"
                raise LabError(f"a process ended with {code}", where=" ".join(words[:3]), fix=fix)
            return
        loaded = checkpoints.load(base, dtype=loading_dtype(config))
        train(*loaded, *given[1:], out / "model", seed, progress=progress, **how)

    settings |= computer(machine.get("device"))
    return store.artifact(name or config.name, settings, inputs, build, resumes=True) / "model"


def computer(device: str | None = None) -> dict[str, Any]:
    """What a result depends on besides code and arguments: the device's name, and versions."""
    on_gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "versions": {name: installed(name) for name in ("torch", "transformers", "peft")},
    }


def command(
    base: str | Path,
    records: str | Path,
    image_root: str | Path,
    config: RunConfig,
    out: str | Path,
    seed: int,
    *,
    processes: int = 1,
    **how: Any,
) -> list[str]:
    """The arguments of ``sgv-lab train`` that do the same, under torchrun for several processes."""
    words = ["train", "--model", base, "--records", records, "--images", image_root]
    words += ["--recipe", config.name, "--out", out, "--seed", seed]
    changed = {name: new for name, (_, new) in config.differences().items()}
    flags = {name: changed.pop(name) for name in _FLAGS if name in changed}
    for name, value in changed.items():
        words += ["--set", f"{name}={value}"]
    for name, value in {**flags, **how}.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] * value if isinstance(value, bool) else [flag, value]
    start = ["sgv-lab"]
    if processes > 1:
        start = ["torchrun", "--standalone", f"--nproc-per-node={processes}", "-m", "sgv_lab"]
    return [*start, *map(str, words)]
