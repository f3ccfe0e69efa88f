"""Run by torchrun on two CPU processes: DDP runs, and updates with FSDP2."""

import json
import sys
from pathlib import Path

import tiny_llava
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sgv_lab.training.guards import GradientGuard
from sgv_lab.training.loss import supervised_loss, targets
from sgv_lab.training.trainable import set_trainable
from sgv_lab.training.updates import Order, Updates, padded

RUNS = {  # name -> (recipe, its changes, fields of Run)
    # one sample a batch, so that some batches are text only
    "padded": ("pretrain", {}, {"micro_batch": 1, "save_every": 2}),
    "packed": ("sft-lora", {"lora_dropout": 0.0}, {"packing": True, "tokens_per_batch": 60}),
}


def fit(name: str, out: Path) -> Path:
    """The run called ``name``."""
    recipe, changes, run = RUNS[name]
    return tiny_llava.fit(out / name, recipe=tiny_llava.recipe(recipe, **changes), **run)


def steps(model: torch.nn.Module, names: tuple[str, ...], rank: int, processes: int) -> list[float]:
    """Losses of three updates of plain SGD; the wrapped model averages gradients."""
    updates = Updates(
        tiny_llava.Samples(), tiny_llava.collator(), Order(40, 0), padded(1), 8, rank, processes
    )
    guard = GradientGuard(names)
    guard.has_image = True
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for number in range(3):
        batches = updates[number]
        supervised = torch.stack([(targets(b) != -100).sum() for b in batches]).sum()
        if processes > 1:
            dist.all_reduce(supervised)
        total = torch.zeros(())
        for batch in batches:
            share = supervised_loss(model, batch, supervised)
            (share * processes).backward()
            total += share.detach()
        guard.check(model)
        optimizer.step()
        optimizer.zero_grad()
        if processes > 1:
            dist.all_reduce(total)
        losses.append(total.item())
    return losses


def sharded(out: Path) -> None:
    """Shard by FSDP2, train, and write down losses, what was sharded, and the whole weights."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    model, trainable = set_trainable(tiny_llava.model().train(), tiny_llava.recipe())
    whole = sum(p.numel() for p in model.parameters())
    for layer in (*model.model.language_model.layers, *model.model.vision_tower.encoder.layers):
        fully_shard(layer)
    fully_shard(model)
    facts = {
        "unsharded": [n for n, p in model.named_parameters() if not isinstance(p, DTensor)],
        "share": sum(p.to_local().numel() for p in model.parameters()) / whole,
        "losses": steps(model, trainable.effective, rank, processes),
    }
    weights = {name: p.full_tensor() for name, p in model.named_parameters()}
    (out / f"facts-{rank}.json").write_text(json.dumps(facts))
    if rank == 0:
        torch.save(weights, out / "sharded.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in RUNS:
        fit(name, Path(sys.argv[1]))
    sharded(Path(sys.argv[1]))
    dist.destroy_process_group()
