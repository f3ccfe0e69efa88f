"""The training loss, from supervised positions only and independent of how an update is split."""

from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy, pad

from sgv_lab.training.segments import IGNORED

Weighting = Literal["token", "sample"]


def targets(batch: dict[str, Any]) -> torch.Tensor:
    """(B, T) what each position is asked for: the label of the next one, -100 for nothing.

    The first label of a sample is never supervised, so nothing is asked across packed samples.
    """
    return pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)


def supervised_loss(
    model: torch.nn.Module, batch: dict[str, Any], denominator: torch.Tensor | float
) -> torch.Tensor:
    """This batch's share of an update's loss, a float32 scalar.

    Only positions with a target pass through the output head. Cross-entropies are weighted by
    ``loss_weights`` (B, T), summed, and divided by ``denominator``: weights of 1 and the number
    of supervised tokens of the whole update (over all its batches and processes) give the mean
    over tokens; weights of 1 / (a sample's supervised tokens) and the number of samples give the
    mean over samples, so that longer captions change nothing else. Either way the shares add up
    to the same loss however the update is split.

    The official code (SG share4v/train/train.py on transformers 4.31) takes the mean over tokens
    within each device's batch and then the mean of those means, so there a token's weight
    depends on which samples it shares a device with.
    """
    asked_for = targets(batch)
    asked = asked_for != IGNORED
    weights = pad(batch["loss_weights"][:, 1:], (0, 1))[asked]
    others = ("labels", "loss_weights", "record_ids", "images")
    inputs = {key: value for key, value in batch.items() if key not in others}
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(next(model.parameters()).dtype)
    logits = model(**inputs, logits_to_keep=asked, use_cache=False).logits  # (N, V)
    losses = cross_entropy(logits.float(), asked_for[asked], reduction="none")  # (N,)
    return (losses * weights).sum() / denominator
