"""Weights in bfloat16 with masters, and what is computed again: the same training as in float32."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_llava
import torch

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import shipped
from sgv_lab.training import kernels, precision, processes
from sgv_lab.training.config import FULL_SIZE, Machine, base
from sgv_lab.training.trainable import set_trainable
from sgv_lab.training.trainer import supervised_loss, train
from sgv_lab.world.export import write_images
from sgv_lab.world.records import instruct_mix, scene_of
from sgv_lab.world.scene import MINIATURE

STEPS = 200


def _run(out, **more):
    recipe = tiny_llava.recipe("sft", learning_rate=1e-3, **more)
    return tiny_llava.fit(out, recipe=recipe, max_steps=STEPS, save_every=10_000)


def test_200_steps_in_bfloat16_with_masters_are_those_in_float32(tmp_path):
    """Closer than another seed's steps by far, at every stage of the curve."""
    whole = np.array(tiny_llava.losses(_run(tmp_path / "fp32", precision="fp32")))
    half = np.array(tiny_llava.losses(_run(tmp_path / "half", precision="bf16_32")))
    assert whole[-20:].mean() < 0.5 * whole[:5].mean()  # something was learned
    assert np.abs(half - whole).max() < 0.05 * whole[0]
    parts = np.array_split(half - whole, 10)
    assert max(abs(part.mean()) for part in parts) < 0.01 * whole[0]


@pytest.mark.slow
def test_the_shipped_base_learns_the_full_size_way_as_it_does_padded_in_float32(tmp_path):
    """200 steps on the drawn world's mix, the same images: packs, selective checkpointing, bfloat16
    with masters (what 24-bit ones are on a CPU) against rows, nothing computed again, float32.

    Means of 20 steps are within 2 % of one another, single steps within 10 %.
    """
    mix = instruct_mix(4 * STEPS // 2, difficulty=MINIATURE)
    images = {one["image"]: scene_of(one["image"], MINIATURE) for one in mix if "image" in one}
    write_images(tmp_path, images, 64)
    ways = {"slow": {"precision": "fp32", "gradient_checkpointing": False, "micro_batch": 4},
            "fast": FULL_SIZE | {"tokens_per_batch": 1024}}  # fmt: skip
    shared = {"samples_per_step": 4, "learning_rate": 2e-4, "max_grad_norm": 1.0}
    curves = {}
    for name, way in ways.items():
        recipe, loaded = base("sft", shared | way), checkpoints.load(shipped("llava-1.5-7b"))
        out = train(*loaded, mix, tmp_path, recipe, tmp_path / name, 0, max_steps=STEPS,
                    save_every=STEPS, device="cpu", progress=False)  # fmt: skip
        curves[name] = np.array(tiny_llava.losses(out)).reshape(10, -1)
    slow, fast = curves["slow"], curves["fast"]
    assert slow[-2:].mean() < 0.95 * slow[:2].mean()  # something was learned
    assert np.abs(fast.mean(1) / slow.mean(1) - 1).max() < 0.02
    assert np.abs(fast / slow - 1).max() < 0.1


def test_a_small_step_is_kept_by_the_master_alone():
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = precision.MasterAdamW([{"params": [weight]}], lr=2e-5, weight_decay=0.0)
    plain = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    lost = torch.optim.AdamW([plain], lr=2e-5, weight_decay=0.0)
    for _ in range(400):
        weight.grad, plain.grad = torch.ones_like(weight), torch.ones_like(plain)
        optimizer.step()
        lost.step()
    assert optimizer.masters[0].tolist() == pytest.approx([1 - 400 * 2e-5] * 4, abs=2e-5)
    assert (weight < 1).all() and (plain == 1).all()


def test_masters_equal_adamw_on_the_same_gradients():
    draw = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(5, generator=draw).bfloat16()) for _ in range(20)]
    copies = [torch.nn.Parameter(w.detach().float()) for w in weights]
    how = {"lr": 1e-2, "betas": (0.9, 0.95)}
    groups = [[weights[:12], weights[12:]], [copies[:12], copies[12:]]]
    ours, theirs = (
        kind([{"params": p, "weight_decay": d} for p, d in zip(g, (0.1, 0.0), strict=True)], **how)
        for kind, g in zip((precision.MasterAdamW, torch.optim.AdamW), groups, strict=True)
    )
    for _ in range(5):
        for weight, copy in zip(weights, copies, strict=True):
            weight.grad = torch.randn(5, generator=draw).bfloat16()
            copy.grad = weight.grad.float()
        ours.step()
        theirs.step()
        ours.zero_grad()
    for weight, master, copy in zip(weights, ours.masters, copies, strict=True):
        torch.testing.assert_close(master.detach(), copy.detach())
        assert torch.equal(weight, copy.bfloat16())


def test_a_killed_run_with_masters_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    recipe = tiny_llava.recipe("sft", precision="bf16_32")
    whole = tiny_llava.fit(tmp_path / "whole", recipe=recipe, save_every=2)
    step, calls = precision.MasterAdamW.step, []

    def stops(self):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(precision.MasterAdamW, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        tiny_llava.fit(tmp_path / "cut", recipe=recipe, save_every=2)
    monkeypatch.setattr(precision.MasterAdamW, "step", step)
    cut = tiny_llava.fit(tmp_path / "cut", recipe=recipe, save_every=2)
    assert tiny_llava.losses(cut) == tiny_llava.losses(whole)
    for name, tensor in tiny_llava.weights(whole).items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, tiny_llava.weights(cut)[name])


def _gradients(how, name="pretrain", packed=False):
    recipe = tiny_llava.recipe(name, gradient_checkpointing=how)
    torch.manual_seed(0)
    model, _ = set_trainable(tiny_llava.model().train(), recipe)
    kernels.checkpoint(model, recipe)
    samples = [tiny_llava.Samples()[i] for i in range(6)]
    computed = []
    for block in model.modules():
        if type(block).__name__ == "LlamaMLP":
            block.register_forward_pre_hook(lambda *_: computed.append(1))
    torch.manual_seed(1)  # of the adapters' dropout
    supervised_loss(model, tiny_llava.collator(packed=packed)(samples), 6.0).backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found, len(computed)


@pytest.mark.parametrize("name", ["pretrain", "sft-lora"])
@pytest.mark.parametrize("packed", [False, True])
def test_selective_and_full_checkpointing_give_the_same_gradients(name, packed):
    wanted, once = _gradients(False, name, packed)
    for how in (True, "selective"):
        found, times = _gradients(how, name, packed)
        assert times == 2 * once  # blocks were gone through again
        assert found.keys() == wanted.keys()
        for key, gradient in wanted.items():
            torch.testing.assert_close(found[key], gradient, msg=key)


@pytest.mark.parametrize("how", [True, "selective"])
def test_selective_checkpointing_computes_no_matrix_product_again(how):
    from torch.utils.flop_counter import FlopCounterMode

    def flops(how):
        with FlopCounterMode(display=False) as counter:
            _gradients(how)
        return counter.get_total_flops()

    assert (flops(how) == flops(False)) == (how == "selective")


def test_what_does_not_learn_is_held_in_half_precision_where_told():
    recipe = tiny_llava.recipe("sft-lora", precision="bf16")
    model, trainable = set_trainable(tiny_llava.model(), recipe)
    precision.set_precision(model, recipe, half=True)
    kinds = {n: p.dtype for n, p in model.named_parameters()}
    learning = set(trainable.effective)
    assert {kinds[n] for n in learning} == {torch.float32}
    assert {kinds[n] for n in kinds.keys() - learning} == {torch.bfloat16}
    batch = tiny_llava.collator()([tiny_llava.Samples()[i] for i in range(4)])
    with torch.autocast("cpu", torch.bfloat16):
        half = supervised_loss(model, batch, 4.0)
    half.backward()
    precision.set_precision(model.float(), recipe, half=False)
    assert half.item() == pytest.approx(supervised_loss(model, batch, 4.0).item(), rel=0.02)


def test_rotary_positions_are_not_rounded_with_the_weights():
    model = tiny_llava.model()
    precision.set_precision(model, tiny_llava.recipe("sft", precision="bf16_24"), half=False)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for n, b in model.named_buffers() if "inv_freq" in n} == {torch.float32}


def test_24_bit_masters_without_their_library_are_refused_before_work(monkeypatch):
    recipe, there = base("sft", {"precision": "bf16_24"}), Machine()
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(LabError, match="need flashoptim"):
        processes.start(recipe, there)
    assert not list(processes.refusals(recipe, Machine(device="cpu"), 1))
    assert not list(processes.refusals(base("sft"), there, 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not list(processes.refusals(recipe, there, 1))


def test_what_liger_changes_for_all_models_is_taken_back(monkeypatch):
    from transformers.integrations import liger
    from transformers.models.llama import modeling_llama

    asked, before = [], modeling_llama.apply_rotary_pos_emb

    def patch(model, how):
        asked.append((type(model).__name__, how))
        modeling_llama.apply_rotary_pos_emb = None

    monkeypatch.setattr(liger, "apply_liger_kernel", patch)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: SimpleNamespace())
    recipe = base("sft")
    with kernels.fast(tiny_llava.model(), recipe, cuda=True, liger=True):
        assert modeling_llama.apply_rotary_pos_emb is None
    assert modeling_llama.apply_rotary_pos_emb is before
    with kernels.fast(tiny_llava.model(), recipe, cuda=False, liger=True):
        pass
    assert [name for name, _ in asked] == ["LlamaModel"]
    assert not asked[0][1]["fused_linear_cross_entropy"]
