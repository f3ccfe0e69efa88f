"""In what precision a run holds its weights, and the AdamW that updates them.

`RunConfig.precision`; bytes are those of one weight that learns, with gradient and AdamW's state:

    fp32      16  float32 throughout
    bf16      18  the same under bfloat16 autocast, whose copies last from forward to backward; what
                  does not learn is held in bfloat16; on a GPU alone, elsewhere as fp32
    bf16_32   16  bfloat16 weights and gradients, float32 masters and moments: DeepSpeed's way, and
                  so that of the authors' scripts
    bf16_24    7  bfloat16 weights and gradients; 8 bits a weight that it lacks, and 8-bit moments
                  (flashoptim, which needs a GPU; elsewhere as bf16_32)

Without a master a step of 2e-5 would be lost: bfloat16 has 8 bits of mantissa.
"""

import importlib
from collections.abc import Iterable
from typing import Any

import torch
from transformers.trainer_pt_utils import get_parameter_names

from sgv_lab.models.architectures import PROJECTORS
from sgv_lab.training.config import RunConfig

NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
_AT_ONCE = 8  # tensors whose gradients are in float32 at the same time


def loading_dtype(recipe: RunConfig) -> torch.dtype:
    """What a checkpoint's weights are read as."""
    return torch.bfloat16 if recipe.precision.startswith("bf16_") else torch.float32


def set_precision(model: torch.nn.Module, recipe: RunConfig, half: bool) -> None:
    """Hold the weights as the recipe says; ``half``: those that do not learn in bfloat16.

    Parameters alone: positions of the rotary embedding, a buffer, would be rounded away.
    """
    whole = recipe.precision.startswith("bf16_")
    for parameter in model.parameters():
        if parameter.is_floating_point() and (whole or (half and not parameter.requires_grad)):
            parameter.data = parameter.data.to(torch.bfloat16)


def adamw(model: torch.nn.Module, recipe: RunConfig) -> torch.optim.Optimizer:
    """AdamW without decay of norms and biases; the projector may have a rate of its own."""
    decays = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    groups[recipe.learning_rate, recipe.weight_decay] = []  # the first one's rate is logged
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = recipe.projector_learning_rate and any(part in name for part in PROJECTORS)
            rate = recipe.projector_learning_rate if own else recipe.learning_rate
            decay = recipe.weight_decay if name in decays else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    given = [
        {"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()
    ]
    betas = (recipe.adam_beta1, recipe.adam_beta2)
    if recipe.precision == "bf16_24" and next(model.parameters()).device.type == "cuda":
        filled = [group for group in given if group["params"]]
        flashoptim = importlib.import_module("flashoptim")  # need not be installed
        return flashoptim.FlashAdamW(filled, betas=betas, master_weight_bits=24)
    kind = MasterAdamW if recipe.precision.startswith("bf16_") else torch.optim.AdamW
    return kind(given, betas=betas, fused=True)


class MasterAdamW(torch.optim.AdamW):
    """torch's AdamW on float32 copies of bfloat16 parameters, which it rounds back."""

    def __init__(self, groups: Iterable[dict[str, Any]], **how: Any) -> None:
        groups = list(groups)
        self.weights = [p for group in groups for p in group["params"]]
        self.masters = [p.detach().float().requires_grad_() for p in self.weights]
        copies = iter(self.masters)
        super().__init__(
            [g | {"params": [next(copies) for _ in g["params"]]} for g in groups], **how
        )

    def step(self, closure: None = None) -> None:
        """Update masters and weights; a few at a time, whose gradients are taken from them."""
        pairs = list(zip(self.weights, self.masters, strict=True))
        for some in (pairs[i : i + _AT_ONCE] for i in range(0, len(pairs), _AT_ONCE)):
            for weight, master in some:
                if weight.grad is not None:
                    master.grad, weight.grad = weight.grad.float(), None
            super().step(closure)  # which leaves out what has no gradient
            with torch.no_grad():
                for weight, master in some:
                    weight.copy_(master)
                    master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the weights' gradients away."""
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """torch's, with the masters."""
        return super().state_dict() | {"masters": [master.detach() for master in self.masters]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; masters that are sharded are given as this process's part of them."""
        rest = dict(state_dict)
        with torch.no_grad():
            for own, kept in zip(self.masters, rest.pop("masters"), strict=True):
                getattr(own, "to_local", lambda own=own: own)().copy_(kept)
        super().load_state_dict(rest)
