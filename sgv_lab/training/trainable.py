"""Which tensors are trained, which of them can get a gradient at all, and how many numbers that is.

Setting ``requires_grad`` does not make a tensor learn. With features taken from layer -2 the last
vision block, and always the layer norm behind it, lies outside the graph: marked trainable by the
official code, never updated. So both sets are counted: the *nominal* one as the official flags
mark it, and the *effective* one, which gets ``requires_grad`` here. The weights come out the same
(AdamW skips tensors without a gradient), and every trainable tensor is used, as distributed
wrappers need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.tensor import DTensor
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from sgv_lab.errors import LabError
from sgv_lab.models.architectures import LANGUAGE_MODELS, part, passes_on, vision_block
from sgv_lab.training.config import RunConfig

WATCHED_STEPS = 3  # warming up from 0, LoRA's A matrices first get a gradient in the third


@dataclass(frozen=True)
class Trainable:
    """Names of the trained tensors. ``effective`` is the part of ``nominal`` that can learn."""

    nominal: tuple[str, ...]
    effective: tuple[str, ...]
    counts: dict[str, dict[str, int]]  # module -> {"total", "nominal", "effective"} parameters

    def total(self, column: str) -> int:
        """The number of parameters in ``column`` ("total", "nominal" or "effective")."""
        return sum(row[column] for row in self.counts.values())


def set_trainable(model: PreTrainedModel, recipe: RunConfig) -> tuple[torch.nn.Module, Trainable]:
    """Mark what ``recipe`` trains, and return the model with its ``Trainable``.

    The language model includes the embeddings and the output head (SG share4v/train/train.py
    turns gradients on for the whole model first). ``vision_from=k`` leaves the embeddings and
    both outer layer norms of the tower frozen, for k = 0 too; -1 frees the whole tower. For LoRA
    the model comes back wrapped by peft, with adapters on every linear layer of the language
    model's blocks (LL find_all_linear_names: no head, no projector, no tower).

    Raises LabError if the recipe asks for blocks that the tower does not have.
    """
    layers = 1 + max(vision_block(name) for name, _ in model.named_parameters())
    if recipe.vision_from is not None and recipe.vision_from > layers:
        raise LabError(
            f"vision_from={recipe.vision_from}, but the tower has {layers} blocks",
            where=f"recipe {recipe.name}",
            fix=f"use 0 to {layers}, or -1 for the whole tower",
        )
    names = (name for name, _ in model.named_parameters() if not passes_on(model.config, name))
    nominal = [name for name in names if _trained(name, recipe)]
    if recipe.language_model == "lora":
        model, full = _add_lora(model, recipe), set(nominal)
        nominal = [n for n, p in model.named_parameters() if p.requires_grad or _plain(n) in full]
    effective = [n for n in nominal if _in_graph(_plain(n), model.config, layers)]
    learning = set(effective)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)
    return model, Trainable(tuple(nominal), tuple(effective), _counts(model, set(nominal)))


def count_trainable(config: PreTrainedConfig, recipe: RunConfig) -> Trainable:
    """What ``recipe`` trains of a model of this configuration, without allocating anything."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
        return set_trainable(model, recipe)[1]


def _plain(name: str) -> str:
    """A parameter's name without peft's wrapping."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _trained(name: str, recipe: RunConfig) -> bool:
    """Whether the recipe's flags mark this tensor of the original model as trainable."""
    module, first = part(name), recipe.vision_from
    if module == "projector":
        return recipe.projector
    if module == "vision tower":
        return first is not None and (first == -1 or vision_block(name) >= first)
    return recipe.language_model == "full"


def _in_graph(name: str, config: PreTrainedConfig, layers: int) -> bool:
    """Whether a loss depends on the tensor: not behind the last vision block whose output is used.

    ``layers``: how many blocks the tower has.
    """
    taken = getattr(config, "vision_feature_layer", None)  # only the LLaVA family has it
    if taken is None or part(name) != "vision tower":
        return True
    # hidden_states has layers + 1 entries; entry i is the output of block i - 1.
    used = max(i % (layers + 1) for i in ([taken] if isinstance(taken, int) else taken)) - 1
    return ".post_layernorm." not in name and vision_block(name) <= used


def _add_lora(model: PreTrainedModel, recipe: RunConfig) -> torch.nn.Module:
    """Wrap ``model`` with adapters on the language model's linear layers."""
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(LANGUAGE_MODELS)
    ]
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _counts(model: torch.nn.Module, nominal: set[str]) -> dict[str, dict[str, int]]:
    """Parameters by module; those that learn are marked in ``model`` already."""
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        module = "adapters" if ".lora_" in name else part(_plain(name))
        row = counts.setdefault(module, {"total": 0, "nominal": 0, "effective": 0})
        row["total"] += parameter.numel()
        row["nominal"] += parameter.numel() if name in nominal else 0
        row["effective"] += parameter.numel() if parameter.requires_grad else 0
    return counts


class GradientGuard:
    """Stops a run in which a tensor that should learn gets no gradient.

    After the first step with an image every tensor of ``names`` must have a gradient, and
    within the first three a non-zero one. This catches parts that are silently cut off, such as
    a partly frozen vision tower under reentrant gradient checkpointing: its blocks get no
    gradient at all, while the loss keeps falling because the rest learns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.pending = set(names)
        self.seen = 0  # steps with an image

    def check(self, model: torch.nn.Module, has_image: bool) -> None:
        """Look at the gradients of a step. Raises LabError naming what gets none."""
        if not self.pending or not has_image:
            return
        self.seen += 1
        # Looked up each time: sharding replaces the parameter objects.
        watched = {n: p for n, p in model.named_parameters() if n in self.pending}
        absent = [name for name, p in watched.items() if p.grad is None]
        if absent:
            self._stop("has no gradient after the first step with an image", absent)
        largest = torch.stack([_largest(p.grad) for p in watched.values()]).cpu()
        self.pending = {n for n, x in zip(watched, largest, strict=True) if x == 0}
        if self.pending and self.seen >= WATCHED_STEPS:
            what = f"had only zero gradients in the first {WATCHED_STEPS} steps with an image"
            self._stop(what, sorted(self.pending))

    def _stop(self, what: str, names: list[str]) -> None:
        more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
        raise LabError(
            f"{names[0]}{more} {what}",
            fix="it would never be trained: use non-reentrant gradient checkpointing, look for "
            "a detached part, or freeze it by the recipe",
        )


def _largest(gradient: torch.Tensor) -> torch.Tensor:
    """The largest absolute value, a scalar (NaN stays NaN); of all shards if it is sharded."""
    largest = torch.linalg.vector_norm(gradient, ord=float("inf"))
    return (largest.full_tensor() if isinstance(largest, DTensor) else largest).float()
