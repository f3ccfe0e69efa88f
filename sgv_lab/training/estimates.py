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


BYTES = {  # precision -> of one weight, its gradient, and AdamW's state: see `precision`
    "fp32": (4, 4, 8.0),
    "bf16": (4, 4, 8.0),
    "bf16_32": (2, 2, 12.0),
    "bf16_24": (2, 2, 3.125),  # flashoptim's: 1 of the master, 2 of the moments, and their scales
}
_FOUR_BIT = 0.7  # bytes a frozen weight, scales and what is not quantised included


def weight_bytes(recipe: RunConfig, on_gpu: bool) -> int:
    """Bytes of one weight of a run's final checkpoint; merged adapters have their base's."""
    adapted = recipe.language_model == "lora" and recipe.precision == "bf16" and on_gpu
    return 2 if adapted else BYTES[recipe.precision][0]


def step_memory(
    config: PreTrainedConfig,
    trainable: Trainable,
    recipe: RunConfig,
    batch: LargestBatch,
    *,
    on_gpu: bool = True,
    shards: int = 1,
) -> dict[str, float]:
    """Bytes by part at the peak of one step on one device.

    ``on_gpu``: without one, precision "bf16" is float32, and 24-bit masters have 32 bits.
    ``shards``: devices that share weights, gradients and AdamW's state (FSDP2).
    """
    kind = recipe.precision
    if not on_gpu:
        kind = {"bf16": "fp32", "bf16_24": "bf16_32"}.get(kind, kind)
    weight, gradient, state = BYTES[kind]
    # shards are cast as they are gathered, what does not learn too
    frozen = weight if kind == "fp32" or shards > 1 else 2
    learning, total = trainable.total("effective"), trainable.total("total")
    still = (total - learning) * (_FOUR_BIT if recipe.four_bit else frozen)
    parts = {
        "weights": (learning * weight + still) / shards,
        "autocast copies": 2.0 * learning if kind == "bf16" and shards == 1 else 0.0,
        "gradients": learning * gradient / shards,
        "optimiser": learning * state / shards,
    }
    if shards > 1:
        parts["gathered"] = _gathered(config, trainable, kind)
    size = 4 if kind == "fp32" else 2
    parts["activations"] = activations(config, recipe, batch, size)
    head = trainable.counts["output head"]["total"] / config.text_config.hidden_size  # V
    # logits, their float32 copy where they are not, log-softmax and gradient
    parts["logits"] = batch.supervised * head * (size + (4 if size == 2 else 0) + 8)
    return parts


def _gathered(config: PreTrainedConfig, trainable: Trainable, kind: str) -> float:
    """Bytes of what FSDP2 holds whole: two blocks, one's gradients, and all that is in no block.

    In the precision of the forward pass; gradients are summed in float32.
    """
    size = 4 if kind == "fp32" else 2
    counts = {name: row["total"] for name, row in trainable.counts.items()}
    block = counts["language model"] / config.text_config.num_hidden_layers
    outside = counts["embeddings"] + counts["output head"] + counts["projector"]
    return 2 * block * size + (block + outside) * (size + 4)


def activations(
    config: PreTrainedConfig, recipe: RunConfig, batch: LargestBatch, size: int
) -> float:
    """Bytes that the blocks keep for the backward pass, ``size`` bytes a number.

    A language block that learns keeps its two norms' inputs and outputs (6 D; 8 in half precision,
    where they compute in float32), q, k, v and the attention's output (4 D), gate, up, their
    activation and product (4 F); a frozen one no input of a linear layer (4 D and F less). Adapters
    with dropout keep, for every linear layer, what they dropped from, a mask, and their inner
    state. A vision block: 7 D and 4 F. With gradient checkpointing a block
    keeps its input only, or with the selective kind also what its matrix products and attention
    gave (7 D and 2 F; a vision block 7 D and F; adapters, as wide as their layers: 5 D, 2 F and
    inner states), and one block at a time is unfolded. A frozen tower keeps nothing.
    """
    text, vision = config.text_config, config.vision_config
    wide, deep = text.hidden_size, text.intermediate_size
    norms, frozen = 6 if size == 4 else 8, recipe.language_model != "full"
    block = batch.positions * ((norms + 4 - 4 * frozen) * wide + (4 - frozen) * deep) * size
    if recipe.language_model == "lora" and recipe.lora_dropout:
        block += batch.positions * (6 * wide + deep) * (size + 1)
        block += batch.positions * 7 * recipe.lora_rank * size
    kept = batch.positions * wide * size
    dear = batch.positions * (7 * wide + 2 * deep) * size
    if recipe.language_model == "lora":
        dear += batch.positions * (5 * wide + 2 * deep + 7 * recipe.lora_rank) * size
    total = _stack(text.num_hidden_layers, block, kept, dear, recipe)
    total += 2 * kept  # the last norm
    if recipe.vision_from is not None:
        patches, width = batch.images * _patches(vision), vision.hidden_size
        used = vision.num_hidden_layers - hasattr(config, "vision_feature_layer")
        tuned = used - max(recipe.vision_from, 0)
        block = patches * (7 * width + 4 * vision.intermediate_size) * size
        dear = patches * (7 * width + vision.intermediate_size) * size
        total += _stack(tuned, block, patches * width * size, dear, recipe)
    return float(total)


def _stack(layers: int, block: float, kept: float, dear: float, recipe: RunConfig) -> float:
    """Bytes of ``layers`` blocks that keep ``block``, ``kept`` (checkpointed) or ``dear``."""
    if recipe.gradient_checkpointing == "selective":
        return layers * dear + block
    return layers * kept + block if recipe.gradient_checkpointing else layers * block


def _patches(vision: PreTrainedConfig) -> int:
    """Patches of one image; of Qwen3-VL's, the most that its processor makes."""
    most = getattr(vision, "num_position_embeddings", None)
    return most or (vision.image_size // vision.patch_size) ** 2 + 1


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
    flops += patches / merged * 6 * counts["projector"]["total"]
    tower = counts["vision tower"]
    return flops + patches * (2 * tower["total"] + 4 * tower["effective"])
