"""What makes a step faster and changes its result by rounding alone.

Selective checkpointing keeps what is dear to compute, matrix products and attention, and computes
the rest again; full checkpointing computes all of a block again, a third more work.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.attention.varlen
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from sgv_lab.training.config import RunConfig
from sgv_lab.training.packing import varlen

_KINDS = ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
KEPT = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}
KEPT |= {getattr(torch.ops.aten, f"_scaled_dot_product_{kind}").default for kind in _KINDS}
KEPT |= {torch.ops.torch_attn._varlen_attn.default}
_LIGER = {"rope": True, "rms_norm": True, "swiglu": True}
_LIGER |= {"cross_entropy": False, "fused_linear_cross_entropy": False}  # see supervised_loss


def checkpoint(model: PreTrainedModel, recipe: RunConfig) -> None:
    """Let the blocks of ``model`` compute again in the backward pass what the recipe says."""
    if not recipe.gradient_checkpointing:
        return
    how: dict[str, Any] = {"use_reentrant": False}  # the other kind freezes a partly frozen tower
    if recipe.gradient_checkpointing == "selective":
        how["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    model.activation_checkpointing_enable(how)
    # For the other kind alone: it sends the backward pass through all of a frozen tower.
    model.disable_input_require_grads()


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    dear = operation in KEPT
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE


@contextlib.contextmanager
def fast(model: PreTrainedModel, recipe: RunConfig, cuda: bool, liger: bool) -> Iterator[None]:
    """The kernels that only a GPU has: packed attention; Liger's norm, rope and SwiGLU.

    ``liger``: use it where it is installed and knows the language model. What it changes for all
    models of a kind is taken back.
    """
    with contextlib.ExitStack() as stack:
        if cuda and recipe.packing and recipe.precision != "fp32":
            # A mask of all samples against all others would cost memory that it does not need.
            stack.enter_context(varlen(model))
        if cuda and liger and importlib.util.find_spec("liger_kernel"):
            stack.enter_context(_liger(model))
        yield


@contextlib.contextmanager
def _liger(model: PreTrainedModel) -> Iterator[None]:
    from transformers.integrations.liger import apply_liger_kernel

    text = getattr(model, "base_model", model).get_decoder()
    module = sys.modules[type(text).__module__]
    before = dict(vars(module))
    apply_liger_kernel(text, _LIGER)
    try:
        yield
    finally:
        vars(module).update(before)
