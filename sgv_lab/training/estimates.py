"""Memory and floating-point operations of training, by formulas from the configuration.

Bytes; D width, F feed-forward width, L layers, V vocabulary, T positions of one batch.
"""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedConfig

from sgv_lab.training.config import RunConfig
from sgv_lab.training.trainable import Trainable


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch of a run."""

    positions: int  # in the language model, padding included
    supervised: int
    images: int


def step_memory(
    config: PreTrainedConfig,
    trainable: Trainable,
    recipe: RunConfig,
    batch: LargestBatch,
    weight_bytes: int,
    autocast: bool,
) -> dict[str, float]:
    """Bytes by part at the peak of one update on one device.

    ``weight_bytes`` per number of weights, gradients and AdamW's two moments (4: float32,
    2: bfloat16); ``autocast`` keeps a bfloat16 copy of every weight for the forward pass.
    """
    learning, total = trainable.total("effective"), trainable.total("total")
    parts = {
        "weights": total * weight_bytes * (0.25 if recipe.four_bit else 1.0),
        "autocast copies": 2.0 * total if autocast else 0.0,
        "gradients": float(learning * weight_bytes),
        "optimiser": float(2 * learning * weight_bytes),
    }
    size = 2 if autocast or weight_bytes == 2 else 4
    parts["activations"] = activations(config, recipe, batch, size)
    head = trainable.counts["output head"]["total"] / config.text_config.hidden_size  # V
    # logits, their float32 copy where they are not, log-softmax and gradient
    parts["logits"] = batch.supervised * head * (size + (4 if size == 2 else 0) + 8)
    return parts


def activations(
    config: PreTrainedConfig, recipe: RunConfig, batch: LargestBatch, size: int
) -> float:
    """Bytes that the blocks keep for the backward pass, ``size`` bytes a number.

    A language block keeps its two norms' inputs and outputs (6 D), q, k, v and the attention's
    output (4 D), gate, up, their activation and product (4 F); adapters with dropout keep, for
    every linear layer, what they dropped from, a mask, and their inner state. A vision block:
    7 D and 4 F. With gradient checkpointing a block keeps its input only, and one block at a time
    is unfolded. A frozen tower keeps nothing.
    """
    text, vision = config.text_config, config.vision_config
    numbers = 10 * text.hidden_size + 4 * text.intermediate_size
    block = batch.positions * numbers * size
    if recipe.language_model == "lora" and recipe.lora_dropout:
        block += batch.positions * (6 * text.hidden_size + text.intermediate_size) * (size + 1)
        block += batch.positions * 7 * recipe.lora_rank * size
    kept = batch.positions * text.hidden_size * size
    total = _stack(text.num_hidden_layers, block, kept, recipe.gradient_checkpointing)
    total += 2 * kept  # the last norm
    if recipe.vision_from is not None:
        patches, width = batch.images * _patches(vision), vision.hidden_size
        used = vision.num_hidden_layers - hasattr(config, "vision_feature_layer")
        tuned = used - max(recipe.vision_from, 0)
        block = patches * (7 * width + 4 * vision.intermediate_size) * size
        total += _stack(tuned, block, patches * width * size, recipe.gradient_checkpointing)
    return float(total)


def _patches(vision: PreTrainedConfig) -> int:
    """Patches of one picture; of Qwen3-VL's, the most that its processor makes."""
    most = getattr(vision, "num_position_embeddings", None)
    return most or (vision.image_size // vision.patch_size) ** 2 + 1


def _stack(layers: int, block: float, kept: float, checkpointing: bool) -> float:
    return layers * kept + block if checkpointing else layers * block


def useful_flops(
    config: PreTrainedConfig,
    trainable: Trainable,
    recipe: RunConfig,
    lengths: np.ndarray,
    supervised: int,
    images: int,
) -> float:
    """FLOPs of forward and backward for samples of ``lengths`` (N,) tokens.

    Per token and weight 2 forward, 2 for the gradient that passes through, 2 for the weight's
    own; causal attention 2 T D a layer forward and twice that backward; the output head for
    ``supervised`` positions only; nothing for what gradient checkpointing computes again.
    """
    text, vision = config.text_config, config.vision_config
    counts = trainable.counts
    adapters = counts.get("adapters", {"total": 0})["total"]
    passes = 6 if recipe.language_model == "full" else 4
    flops = float(lengths.sum()) * (passes * counts["language model"]["total"] + 6 * adapters)
    flops += supervised * passes * counts["output head"]["total"]
    squares = float((lengths.astype(float) ** 2).sum())
    flops += 6 * text.num_hidden_layers * text.hidden_size * squares
    patches = images * _patches(vision)
    merged = getattr(vision, "spatial_merge_size", 1) ** 2
    flops += patches / merged * 6 * counts["connector"]["total"]
    tower = counts["vision tower"]
    return flops + patches * (2 * tower["total"] + 4 * tower["effective"])
