"""A training as an artefact of the store: ShareGPT4V-7B's two stages, and Share-Captioner's one.

Stage 1 shows detailed captions to a roughly aligned model, ViT blocks, projector and language model
all trained; stage 2 fine-tunes projector and language model on the mix with replaced captions
(section 4.2 and 4.3; ShareGPT4V scripts/sharegpt4v/slurm_{pretrain,finetune}_7b.sh). A stage that
was killed goes on where its last checkpoint stands; one that is done is found.
"""

import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from sgv_lab import store
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.training import plan as planning
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.trainer import Run, train

_TELLING = ("loss", "packing", "tokens_per_batch", "micro_batch", "drop_broken")  # change a result


def preflight(
    base: str | Path,
    records: str | Path,
    image_root: str | Path,
    chosen: Recipe,
    updates: int | None,
    rows: int = 8,
    **known: Any,
) -> planning.Plan:
    """What `stage` needs of the same arguments, and what stands in its way; trains nothing.

    ``rows``: of a batch; ``known``: what else `training.plan.plan` takes.
    """
    config = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)
    processor = checkpoints.load_processor(base, config)
    run = Run(max_steps=updates, micro_batch=rows, progress=False)
    return planning.plan(config, processor, records, image_root, chosen, store.root(), run=run,
                         weights=base, **known)  # fmt: skip


def stage(
    base: str | Path,
    records: str | Path,
    image_root: str | Path,
    chosen: Recipe,
    updates: int | None,
    seed: int,
    *,
    name: str = "",
    processes: int = 1,
    progress: bool = False,
    **run: Any,
) -> Path:
    """The checkpoint folder of ``base`` trained by ``chosen``, made once per arguments.

    ``records``: a file of LLaVA records; their pictures lie below ``image_root``; ``updates``: None
    takes the recipe's epochs; ``name``: the artefact's, if not the recipe's.
    ``processes``: above 1, as many of torchrun's, one a GPU (``fsdp`` shards over them); the
    weights, float32 in memory, are the same up to rounding, and so is the artefact. ``run``:
    ``drop_broken`` and the fields of `training.trainer.Run`.
    Pictures that lie in the store count by their key, others by their names alone: half a terabyte
    is not hashed. Raises LabError as `checkpoints.load` and `train` do, and when a process fails.
    """
    inputs = [Path(base), Path(records)]
    if Path(image_root).is_relative_to(store.root()):
        inputs.append(Path(image_root))
    said = {"recipe": asdict(chosen), "updates": updates, "seed": seed}
    said["how"] = {key: run[key] for key in _TELLING if key in run}
    said |= computer(run.get("device"))

    def build(out: Path) -> None:
        if processes > 1:
            given = (base, records, image_root, chosen, out / "model", updates, seed)
            _launch(command(*given, processes=processes, **run))
            return
        train(*checkpoints.load(base), records, image_root, chosen, out / "model", seed,
              max_steps=updates, progress=progress, **run)  # fmt: skip

    made = store.stage(name or chosen.name, said, inputs, build, resumes=True)
    return made / "model"


def computer(device: str | None = None) -> dict[str, Any]:
    """What a result depends on besides code and arguments: the device's name, and versions."""
    on_gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def command(
    base: str | Path,
    records: str | Path,
    image_root: str | Path,
    chosen: Recipe,
    out: str | Path,
    updates: int | None,
    seed: int,
    *,
    processes: int = 1,
    **run: Any,
) -> list[str]:
    """The arguments of ``sgv-lab train`` that do the same, under torchrun for several processes."""
    words = ["train", "--model", base, "--records", records, "--images", image_root]
    words += ["--recipe", chosen.name, "--out", out, "--seed", seed]
    for name, (_, new) in chosen.differences().items():
        words += ["--set", f"{name}={new}"]
    if updates is not None:
        words += ["--max-steps", updates]
    for name, value in run.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] * value if isinstance(value, bool) else [flag, value]
    start = ["sgv-lab"]
    if processes > 1:
        start = ["torchrun", "--standalone", f"--nproc-per-node={processes}", "-m", "sgv_lab"]
    return [*start, *map(str, words)]


def _launch(words: list[str]) -> None:
    """Train in processes of torchrun; what they say goes to where ours goes."""
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", *words[1:]], check=False)
    if done.returncode:
        raise LabError(
            f"a process ended with {done.returncode}",
            where=" ".join(words[:3]),
            fix="its message stands above; the same call goes on from the last checkpoint",
        )
