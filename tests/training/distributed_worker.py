"""Run by torchrun on two CPU processes: copied (DDP), packed, sharded (FSDP2), and resumed runs."""

import contextlib
import json
import os
import sys
from pathlib import Path

import tiny_llava
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from sgv_lab.training import checkpointing

RUNS = {  # name -> (recipe, its changes, fields of Run)
    # one sample a batch, so that some batches are text only
    "padded": ("pretrain", {}, {"micro_batch": 1, "save_every": 2}),
    "packed": ("sft-lora", {"lora_dropout": 0.0}, {"packing": True, "tokens_per_batch": 60}),
    "sharded": ("pretrain", {}, {"micro_batch": 1, "save_every": 2, "fsdp": True}),
    "tied": ("pretrain", {}, {"micro_batch": 1, "max_steps": 2, "fsdp": True}),
    "masters": (
        "pretrain",
        {"precision": "bf16_32", "gradient_checkpointing": "selective"},
        {"micro_batch": 1, "save_every": 2, "fsdp": True},
    ),
}


class Stopped(Exception):
    """What ends a run from within."""


def fit(name: str, out: Path, **given) -> Path:
    """The run called ``name``."""
    recipe, changes, run = RUNS[name]
    run = run | given
    lacks_weights = run.get("fsdp") and os.environ["RANK"] != "0"
    with torch.device("meta" if lacks_weights else "cpu"):
        model = tiny_llava.model(tied=name == "tied")
    given = {"recipe": tiny_llava.recipe(recipe, **changes), "model": model} | run
    return tiny_llava.fit(out / name, **given)


def look_at_shards(out: Path, name: str) -> None:
    """Write down what of a model is sharded when it is saved; stop there."""
    facts = {"unsharded": [], "share": 0.0}
    usual = checkpointing.TrainingState.save

    def save(self, step):
        tensors, whole = self.tensors, tiny_llava.model()
        facts["unsharded"] = [n for n, p in tensors.items() if not isinstance(p, DTensor)]
        sizes = dict(whole.named_parameters())
        local = sum(p.to_local().numel() for p in tensors.values())
        facts["share"] = local / sum(sizes[n].numel() for n in tensors)
        usual(self, step)
        if step == 4:
            raise Stopped

    checkpointing.TrainingState.save = save
    with contextlib.suppress(Stopped):
        fit(name, out)
    checkpointing.TrainingState.save = usual
    (out / f"facts-{dist.get_rank()}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name in ("padded", "packed", "tied"):
        fit(name, folder)
    for name in ("masters", "sharded"):
        look_at_shards(folder, name)
        dist.barrier()
        fit(name, folder)  # from the checkpoint after four steps
    dist.destroy_process_group()
