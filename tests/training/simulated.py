"""Peak memory of a step at true size, without a GPU: fake tensors, whose live storages are counted.

A second way to the numbers of `estimates.step_memory`: the project's own model, recipe, precision
and checkpointing; no kernel's workspace and no fragmentation is in it.
"""

import weakref
from contextlib import ExitStack, nullcontext
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.llama import modeling_llama
from transformers.models.llava import modeling_llava

from sgv_lab.models import families
from sgv_lab.training import kernels, packing
from sgv_lab.training.config import RunConfig
from sgv_lab.training.estimates import LargestBatch
from sgv_lab.training.precision import loading_dtype
from sgv_lab.training.trainable import Trainable, set_trainable

STATE = {"fp32": 8.0, "bf16": 8.0, "bf16_32": 12.0, "bf16_24": 3.125}  # bytes a weight


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that live, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def peak(key: str, recipe: RunConfig, samples: int, length: int) -> tuple[int, Trainable, dict]:
    """Bytes at the peak of the second step of two batches; what learns; the largest batch.

    ``samples`` of ``length`` tokens each, an image in each, are in a batch: a pack, or rows.
    """
    patch, autocast = mock.patch.object, torch.is_autocast_enabled
    with ExitStack() as stack:
        for one in (
            patch(modeling_llama, "create_causal_mask", lambda *a, **k: None),
            patch(
                modeling_llava.LlavaModel,
                "get_placeholder_mask",
                lambda self, ids, inputs_embeds, image_features: (ids == 5).unsqueeze(-1),
            ),
            patch(torch.nn.Module, "_apply", _replace),
            # as on a GPU, where autocast is that device's
            patch(torch, "is_autocast_enabled", lambda *_: autocast("cpu")),
            patch(torch, "get_autocast_dtype", lambda *_: torch.bfloat16),
            patch(torch.nn.Dropout, "forward", dropout),
            FakeTensorMode(allow_non_fake_inputs=True),
        ):
            stack.enter_context(one)
        live = stack.enter_context(Live())
        return _steps(key, recipe, samples, length, live)


def dropout(module: torch.nn.Dropout, x: torch.Tensor) -> torch.Tensor:
    """A dropout in training as GPUs compute it, which keeps a mask of bytes."""
    return torch.native_dropout(x, module.p, True)[0] if module.p else x


def _replace(module: torch.nn.Module, change, recurse=True) -> torch.nn.Module:
    """What `torch.nn.Module.to` does, by new parameters: fake ones know no swapping."""
    for child in module.children():
        _replace(child, change)
    for name, own in module._parameters.items():
        if own is not None:
            with torch.no_grad():
                module._parameters[name] = torch.nn.Parameter(change(own), own.requires_grad)
    for name, own in module._buffers.items():
        module._buffers[name] = None if own is None else change(own)
    return module


def _hold(model: torch.nn.Module, recipe: RunConfig, half: bool) -> None:
    """What `precision.set_precision` does, by new parameters."""

    def held(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter) or (half and tensor.requires_grad):
            return tensor
        return tensor.to(torch.bfloat16)

    if half or recipe.precision.startswith("bf16_"):
        _replace(model, held)


def _steps(key: str, recipe: RunConfig, samples: int, length: int, live: Live):
    config = families.config(key, "paper")
    model = families.build(key, "paper", 0, dtype=loading_dtype(recipe))
    model, trainable = set_trainable(model, recipe)
    half = recipe.precision == "bf16"
    _hold(model, recipe, half)
    kernels.checkpoint(model, recipe)
    model.train()
    total = samples * length
    text = length - config.image_seq_length
    asked = int(text * (1.0 if recipe.template == "plain" else 0.7)) * samples
    pixels = torch.float32 if half else next(model.parameters()).dtype
    batch = {
        "input_ids": torch.full((1, total) if recipe.packing else (samples, length), 5),
        "pixel_values": torch.zeros(samples, 3, 336, 336).to(pixels),
    }
    if recipe.packing:
        batch["position_ids"] = torch.arange(length).repeat(samples)[None]
        batch["cu_seq_lens_q"] = torch.zeros(samples + 1, dtype=torch.int32)
        batch["max_length_q"] = length
    places = torch.zeros(asked, dtype=torch.long)
    learning = [p for p in model.parameters() if p.requires_grad]
    state: list[torch.Tensor] = []
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    with packing.varlen(bare) if recipe.packing else nullcontext():
        for _ in range(2):  # AdamW's state is there from the second step on
            for _ in range(2):  # batches, so that gradients are there while one is computed
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    hidden = bare.model(**batch, use_cache=False).last_hidden_state
                    logits = bare.lm_head(hidden.flatten(0, 1)[places])
                    loss = cross_entropy(logits.float(), places, reduction="none").sum()
                del hidden, logits
                loss.backward()
                del loss
            live.peak = live.now if not state else live.peak
            if not state:
                size = STATE[recipe.precision]
                state = [torch.empty(int(p.numel() * size), dtype=torch.uint8) for p in learning]
            for parameter in learning:
                parameter.grad = None
    return live.peak, trainable, LargestBatch(total, asked, samples)
