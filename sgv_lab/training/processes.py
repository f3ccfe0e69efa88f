"""The processes that train together: this one among torchrun's, its device, copies and shards."""

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only
from transformers import AutoModelForImageTextToText, PreTrainedModel

from sgv_lab.errors import LabError
from sgv_lab.training.config import Machine, RunConfig


def not_sharded(recipe: RunConfig) -> Iterator[LabError]:
    """Why a recipe cannot be shared over GPUs; nothing where it can."""
    if recipe.language_model == "lora":
        yield LabError("adapters are not sharded", where="fsdp", fix="leave fsdp out: they fit")
    if recipe.precision == "bf16_24":
        fix = "set precision=bf16_32: shared, its masters take little"
        yield LabError("24-bit masters are not sharded", where="fsdp", fix=fix)


def refusals(recipe: RunConfig, run: Machine, processes: int) -> Iterator[LabError]:
    """Why this machine would not train a recipe with as many ``processes``; nothing where it can.

    A plan tells them all, a training raises the first.
    """
    cuda = torch.cuda.is_available()
    if run.device == "cuda" and not cuda:
        yield LabError("no GPU is there", where="device=cuda", fix="use device=cpu")
    if run.fsdp:
        yield from not_sharded(recipe)
    if run.fsdp and processes < 2:
        yield LabError("one process has nobody to share with", where="fsdp", fix="use torchrun")
    on_gpu = cuda and run.device != "cpu"
    if on_gpu and recipe.precision == "bf16_24" and not importlib.util.find_spec("flashoptim"):
        fix = "pip install -e .[fast], or set precision=bf16_32, which takes 9 bytes a weight more"
        yield LabError("24-bit weights need flashoptim", where="precision=bf16_24", fix=fix)
    if recipe.samples_per_step < processes:
        yield LabError(
            f"{recipe.samples_per_step} samples for {processes} processes",
            fix="use fewer processes or a larger samples_per_step",
        )


def start(recipe: RunConfig, run: Machine) -> PartialState:
    """This process among those of torchrun, and its device. LabError for what cannot be run."""
    for refusal in refusals(recipe, run, int(os.environ.get("WORLD_SIZE", 1))):
        raise refusal
    cpu = run.device == "cpu" or not torch.cuda.is_available()
    if PartialState._shared_state and (PartialState().device.type == "cpu") != cpu:
        PartialState._reset_state()  # an earlier run of this process was on the other device
    return PartialState(cpu=cpu)


def distributed(
    model: PreTrainedModel, run: Machine, processes: PartialState, half: bool
) -> torch.nn.Module:
    """The model as its processes train it: alone, copied (DDP), or sharded block by block.

    Shards are cut from the first process's weights, which lie in host memory. The others need
    none (`checkpoints.load_empty`), and no device ever holds the whole model.
    """
    if run.fsdp:
        first = processes.is_main_process
        weights = model.state_dict() if first else {}
        policy = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32)
        lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
        for block in (block for blocks in lists for block in blocks):
            fully_shard(block, mp_policy=policy)  # moves it to the device, unless it is on meta
        fully_shard(model, mp_policy=policy)
        if not first:
            model.to_empty(device=processes.device)
            model.tie_weights()
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(model, weights, options=options)
        for buffer in model.buffers():  # of which a state dict lacks some
            dist.broadcast(buffer, src=0)
        return model
    model.to(processes.device)
    return DistributedDataParallel(model) if processes.num_processes > 1 else model


def local(tree: Any) -> Any:
    """The tree with every sharded tensor as this process's part of it."""
    return tree_map_only(DTensor, lambda tensor: tensor.to_local(), tree)


def reshard(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's ``saved`` state, its moments shards again where the parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, state in saved["state"].items():
        p = parameters[number]
        if isinstance(p, DTensor):
            place = {"device_mesh": p.device_mesh, "placements": p.placements, "run_check": False}
            for name in ("exp_avg", "exp_avg_sq"):
                part = state[name].to(p.device)
                state[name] = DTensor.from_local(part, **place, shape=p.shape, stride=p.stride())
    return saved


def gathered(model: PreTrainedModel, processes: PartialState) -> PreTrainedModel:
    """The whole model in the first process; the same where it was never sharded."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.config, dtype=model.dtype)
    whole.generation_config = model.generation_config
    if processes.is_main_process:  # who alone was given them
        whole.load_state_dict(weights, assign=True)
        whole.tie_weights()
    return whole
