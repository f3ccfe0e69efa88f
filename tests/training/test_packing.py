import inspect
from contextlib import nullcontext
from functools import wraps
from typing import Any

import numpy as np
import pytest
import tiny_llava
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from sgv_lab.training import packing
from sgv_lab.training.packing import best_fit, packed, varlen
from sgv_lab.training.segments import IGNORED

SAMPLES = [tiny_llava.Samples()[i] for i in range(7)]


def _losses(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Cross-entropy of every supervised token, in order."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "loss_weights")}
    logits = model(**inputs, use_cache=False).logits
    wanted = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    return cross_entropy(logits[wanted != IGNORED], wanted[wanted != IGNORED], reduction="none")


def _per_sample(losses: torch.Tensor) -> list[torch.Tensor]:
    counts = [sum(label != IGNORED for label in s["labels"]) for s in SAMPLES]
    return [part.mean() for part in losses.split(counts)]


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _loop(q, k, v, cu_q, cu_k, max_q, max_k, scale, shared=False):
    """What torch's varlen kernel computes, sample by sample."""
    assert (cu_q == cu_k).all() and (shared or q.shape == k.shape)
    parts = []
    for first, last in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), strict=True):
        assert last - first <= max_q == max_k
        own = [x[first:last].transpose(0, 1) for x in (q, k, v)]
        out = scaled_dot_product_attention(*own, is_causal=True, scale=scale, enable_gqa=shared)
        parts.append(out.transpose(0, 1))
    return torch.cat(parts)


def _torch_2_11(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    assert window_size == (-1, 0)
    return _loop(q, k, v, cu_q, cu_k, max_q, max_k, scale)


def _torch_2_12(
    q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert window_size == (-1, 0) and enable_gqa == (q.shape != k.shape)
    return _loop(q, k, v, cu_q, cu_k, max_q, max_k, scale, enable_gqa)


KERNELS = [_torch_2_11, _torch_2_12]


@pytest.mark.parametrize("attention", ["sdpa", "eager", "varlen"])
def test_packed_equals_alone(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava.model()
    model.set_attn_implementation("sdpa")
    alone = [_losses(model, tiny_llava.collator()([s])).mean() for s in SAMPLES]
    expected = _gradients(model, torch.stack(alone).mean())
    padded = _per_sample(_losses(model, tiny_llava.collator()(SAMPLES)))
    monkeypatch.setattr(packing, "varlen_attn", _torch_2_12)
    if attention != "varlen":
        model.set_attn_implementation(attention)
    with varlen(model) if attention == "varlen" else nullcontext():
        row = _per_sample(_losses(model, tiny_llava.collator(packed=True)(SAMPLES)))
    for one, two, three in zip(alone, padded, row, strict=True):
        assert abs(one - two) < 1e-5 and abs(one - three) < 1e-5
    found = _gradients(model, torch.stack(row).mean())
    assert found.keys() == expected.keys()
    assert max(float((found[n] - expected[n]).abs().max()) for n in expected) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("own", [1, 2, 4])
def test_any_torchs_kernel_is_called_as_it_can_be(kernel, own, monkeypatch) -> None:
    """Four query heads with ``own`` heads of keys and values, whose gradients add up."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 9, 8, generator=draw) for heads in (4, own, own))
    heads = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    ends = torch.tensor([0, 4, 7, 9])
    monkeypatch.setattr(packing, "varlen_attn", kernel)
    given = {"scaling": 0.3, "cu_seq_lens_q": ends, "max_length_q": 4}
    found, _ = packing.varlen_attention(torch.nn.Module(), *heads, None, **given)
    documents = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    mask = (documents[:, None] == documents) & torch.ones(9, 9, dtype=torch.bool).tril()
    same = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    wanted = scaled_dot_product_attention(*same, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, wanted.transpose(1, 2))
    for output in (found, wanted):
        output.square().sum().backward()
    for one, two in zip(heads, same, strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_the_installed_kernel_takes_what_it_is_given(monkeypatch) -> None:
    """By its signature alone: it runs on a GPU only."""
    asked = inspect.signature(packing.varlen_attn)

    def kernel(*args, **kwargs):
        asked.bind(*args, **kwargs)
        return args[0]

    kernel.__signature__ = asked
    monkeypatch.setattr(packing, "varlen_attn", kernel)
    heads = [torch.ones(1, n, 9, 8) for n in (4, 2, 2)]
    given = {"cu_seq_lens_q": torch.tensor([0, 9]), "max_length_q": 9}
    packing.varlen_attention(torch.nn.Module(), *heads, None, **given)


def test_without_restarting_positions_samples_see_each_other() -> None:
    # The comparison above would notice: the same row as one long sample has other losses.
    model = tiny_llava.model()
    batch = tiny_llava.collator(packed=True)(SAMPLES)
    apart = _losses(model, batch)
    together = _losses(model, batch | {"position_ids": torch.arange(batch["labels"].numel())[None]})
    assert (apart - together).abs().max() > 1e-2


@pytest.mark.gpu
def test_varlen_kernel_equals_sdpa() -> None:
    model = tiny_llava.model().to("cuda", torch.bfloat16)
    batch = tiny_llava.collator(packed=True)(SAMPLES)
    batch = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    expected = _losses(model, batch).float()
    with varlen(model):
        assert (_losses(model, batch).float() - expected).abs().max() < 0.05


@pytest.mark.gpu
def test_a_packed_run_on_a_gpu_trains_by_the_varlen_kernel(tmp_path, monkeypatch) -> None:
    """Under bfloat16 autocast over float32 weights; the same losses as the padded run's."""
    used = []
    kernel = packing.varlen_attn

    @wraps(kernel)
    def counted(*args, **kwargs):
        used.append(1)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(packing, "varlen_attn", counted)
    given = {"device": "cuda", "max_steps": 4}
    row = tiny_llava.fit(tmp_path / "packed", packing=True, tokens_per_batch=64, **given)
    assert used
    padded = tiny_llava.fit(tmp_path / "padded", **given)
    for a, b in zip(tiny_llava.losses(row), tiny_llava.losses(padded), strict=True):
        assert abs(a - b) < 0.02


def _naive(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing by looking at every pack."""
    packs: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rooms = [capacity - sum(lengths[j] for j in pack) for pack in packs]
        fitting = [(room, at) for at, room in enumerate(rooms) if room >= lengths[i]]
        if fitting:
            packs[min(fitting)[1]].append(i)
        else:
            packs.append([i])
    return packs


@pytest.mark.parametrize("seed", range(5))
def test_best_fit(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths, capacity = draw.integers(1, 90, 300).tolist(), 100
    packs = best_fit(lengths, capacity)
    assert sorted(i for pack in packs for i in pack) == list(range(300))
    assert max(sum(lengths[i] for i in pack) for pack in packs) <= capacity
    assert len(packs) == len(_naive(lengths, capacity))


def test_best_fit_takes_the_fullest_pack() -> None:
    # 30 fits beside 60 and beside 55; behind 60 it leaves less.
    assert best_fit([30, 55, 60, 45], 100) == [[2, 0], [1, 3]]


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_an_update_is_packed_for_all_processes(processes: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 100)
    indices = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]
    batches = packed(lengths, 100)(indices, processes)
    assert sorted(i for batch in batches for i in batch) == sorted(indices)
    tokens = [sum(lengths[i] for i in batch) for batch in batches]
    assert len(batches) % processes == 0 and max(tokens) <= 100
    assert tokens == sorted(tokens, reverse=True)
