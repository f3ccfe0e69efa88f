"""Several image-text samples in one row, kept apart: no padding is computed.

Three samples of 4, 3 and 2 tokens (I: image tokens, counted like any other) in one row:

    input_ids     I I a b | I c d | e f         attention      a query attends to ...
    position_ids  0 1 2 3 | 0 1 2 | 0 1                  I I a b I c d e f
    document      0 0 0 0 | 1 1 1 | 2 2              I   #
                                                     I   # #
    cu_seq_lens   0         4       7     9          a   # # #
                                                     b   # # # #
    Positions restart with every sample, so the      I   . . . . #
    rotary embedding is what it would be alone.      c   . . . . # #
    The label at a sample's first token is -100:     d   . . . . # # #
    no token of one sample is asked for by the       e   . . . . . . . #
    last position of another.                        f   . . . . . . . # #

With ``sdpa`` and ``eager`` attention transformers builds this mask from the positions, provided no
attention mask and no cache is given. ``varlen`` puts a kernel in its place that never computes
the dots and needs no mask (CUDA only).
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from sgv_lab.errors import LabError

Batching = Callable[[list[int], int], list[list[int]]]  # (indices, processes) -> batches


def best_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Positions in ``lengths`` grouped into packs of at most ``capacity`` tokens.

    Longest first, each into the fullest pack that still has room (best-fit decreasing: at most
    11/9 of the fewest packs possible). No length is above ``capacity``.
    """
    packs: list[list[int]] = []
    free: list[int] = []  # tokens of each pack
    for position in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[position])
        roomy = [pack for pack, room in enumerate(free) if room >= length]
        if not roomy:
            roomy = [len(packs)]
            packs.append([])
            free.append(capacity)
        fullest = min(roomy, key=free.__getitem__)
        packs[fullest].append(position)
        free[fullest] -= length
    return packs


def unpackable(lengths: np.ndarray, capacity: int) -> str:
    """Why packs of ``capacity`` tokens cannot hold every sample, or ""."""
    count = int((lengths > capacity).sum())
    what = "sample is" if count == 1 else "samples are"
    longest = f"than a pack of {capacity:,} tokens, the longest {lengths.max(initial=0):,}"
    return f"{count:,} {what} longer {longest}" if count else ""


def packed(lengths: np.ndarray, capacity: int) -> Batching:
    """Split a step's samples into packs: each batch is one row for ``Collator(packed=True)``.

    ``lengths``: tokens of every record of the data, image tokens counted (`survey`). Longest packs
    first: what does not fit into memory fails at once, and processes work on packs of similar
    length. The number of packs is a multiple of ``processes``, at most as many as samples.
    """
    if wrong := unpackable(lengths, capacity):
        raise LabError(wrong, where="packing", fix="give tokens_per_batch at least that length")

    def batches(indices: list[int], processes: int) -> list[list[int]]:
        packs = [
            [indices[i] for i in pack] for pack in best_fit([lengths[i] for i in indices], capacity)
        ]

        def tokens(pack: list[int]) -> int:
            return sum(int(lengths[i]) for i in pack)

        while len(packs) % processes:
            largest = max((pack for pack in packs if len(pack) > 1), key=tokens)
            packs.remove(largest)
            packs += [largest[::2], largest[1::2]]
        return sorted(packs, key=tokens, reverse=True)

    return batches


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample of a packed row: (1, H, T, D) -> (1, T, H, D)."""
    # The rotary embedding gives float32 back under autocast, which does not know this kernel.
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    heads = [tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value)]  # (T, H, D)
    how, shared = {"window_size": (-1, 0)}, query.shape[1] // key.shape[1]  # nothing on the right
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        how["enable_gqa"] = shared > 1
    elif shared > 1:  # before torch 2.12 each query head needs a key head of its own
        heads[1:] = [tensor.repeat_interleave(shared, dim=1) for tensor in heads[1:]]
    ends, longest = [cu_seq_lens_q] * 2, [max_length_q] * 2  # of queries, and of keys
    out = varlen_attn(*heads, *ends, *longest, scale=scaling, **how)
    return out[None], None


@contextmanager
def varlen(model: PreTrainedModel) -> Iterator[None]:
    """Let the language part of ``model`` attend by torch's varlen kernel (packed rows only).

    The vision part keeps its attention. Needs a CUDA device and half precision (or autocast to it)
    when it runs.
    """
    before = model.config.text_config._attn_implementation
    AttentionInterface.register("varlen", varlen_attention)
    AttentionMaskInterface.register("varlen", lambda *args, **kwargs: None)
    model.set_attn_implementation({"text_config": "varlen"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": before})
