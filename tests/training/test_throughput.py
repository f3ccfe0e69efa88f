import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from sgv_lab.captioning import speed
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import families
from sgv_lab.training import estimates, recipes, throughput, true_size
from sgv_lab.training.estimates import useful_flops
from sgv_lab.training.loss import supervised_loss
from sgv_lab.training.trainable import set_trainable

KEY = "llava-1.5-7b"
MEASURED = {"losses": [1.0], "peak_bytes": None, "planned_bytes": 1}


def test_the_miniature_is_timed_row_by_row(tmp_path):
    out = tmp_path / "throughput.csv"
    given = ["throughput", "train", "--model", KEY, "--size", "mini", "--steps", "1"]
    for _ in range(2):
        done = CliRunner().invoke(main, [*given, "--samples-per-update", "4", "--out", str(out)])
        assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    rows = [lever.name for lever in throughput.levers(gpu=torch.cuda.is_available())]
    assert table["row"].tolist() == rows * 2
    assert rows[0] == "official"
    assert (table["status"] == "ok").all()
    assert (table["mfu"] > 0).all()
    packed = table[table["row"] == "+ packing"]
    np.testing.assert_allclose(packed["positions_per_second"], packed["tokens_per_second"])
    padded = table[table["row"] == "official"]
    assert (padded["positions_per_second"] > padded["tokens_per_second"]).all()


def test_what_is_measured_is_kept_only_where_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(throughput, "measure", lambda *_: [])
    monkeypatch.setattr(speed, "_measure", lambda *_: (1.0, 1))
    monkeypatch.setattr(true_size, "repeated", lambda *_: MEASURED)
    for what in (["train", "--model", KEY], ["caption"], ["repeat", "--model", KEY]):
        done = CliRunner().invoke(main, ["throughput", *what, "--size", "mini"])
        assert done.exit_code == 0, done.output
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_their_own_shape_are_timed_too():
    recipe = recipes.recipe("sft-qwen3", {"samples_per_update": 2})
    lever = throughput.Levers(packed=True, whole_head=False)
    row = throughput._time("qwen3-vl-8b", "mini", recipe, lever, 1, "cpu", 1e12)
    assert row["tokens_per_second"] == row["positions_per_second"] > 0
    assert row["useful_tflops"] > 0


def test_every_row_changes_one_thing():
    rows = throughput.levers(gpu=True)
    for before, after in itertools.pairwise(rows):
        changed = [k for k in vars(before) if k != "name" and vars(before)[k] != vars(after)[k]]
        assert len(changed) == 1, after.name


def test_a_row_out_of_memory_is_kept(monkeypatch):
    def full(key, size, recipe, lever, *rest):
        if lever.name == "+ packing":
            raise torch.OutOfMemoryError
        return {"tokens_per_second": 1.0, "samples_per_second": 1.0, "mfu": 0.1, "peak_bytes": None}

    monkeypatch.setattr(throughput, "_time", full)
    rows = throughput.measure(KEY, "mini", recipes.recipe("sft"), 1)
    assert [r["row"] for r in rows if r["status"] == "out of memory"] == ["+ packing"]
    assert "out of memory" in throughput.line(rows[3])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_true_size_without_a_gpu_is_refused():
    with pytest.raises(LabError, match="true sizes need a GPU"):
        throughput.measure(KEY, "paper", recipes.recipe("sft"), 1)


@pytest.mark.parametrize("key", [KEY, "qwen3-vl-8b"])
def test_flops_equal_those_torch_counts(key):
    """Second method: torch's own counter over a forward and backward pass."""
    recipe = recipes.recipe("pretrain", {"vision_from": -1, "gradient_checkpointing": False})
    model = families.build(key, "mini", 0).train()
    model.set_attn_implementation("eager")  # whole score matrices: twice the causal half
    model, trainable = set_trainable(model, recipe)
    processor = throughput.processor_of(key, "mini")
    samples = throughput.Lengths(model, recipe, paper=True, count=1, processor=processor)
    samples.text[:], samples.supervised = 400, 1.0
    batch = samples.collate([samples[0]] * 2)
    lengths = batch["attention_mask"].sum(1).numpy()
    inputs = {k: v for k, v in batch.items() if k not in ("loss_weights", "record_ids")}
    with FlopCounterMode(display=False) as counter:
        model(**inputs, use_cache=False).loss.backward()
    positions = int(lengths.sum())
    ours = useful_flops(model.config, trainable, recipe, lengths, positions, 2)
    text = model.config.text_config
    causal = 6 * text.num_hidden_layers * text.hidden_size * float((lengths**2).sum())
    assert ours + causal == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize(("key", "name"), [(KEY, "sft"), (KEY, "pretrain")])
def test_true_size_fits_and_its_memory_is_as_planned(key, name):
    """Full-parameter 7B in bfloat16 on one device; peak memory within a fifth of the plan."""
    recipe = recipes.recipe(name, {"samples_per_update": 16})
    rows = throughput.measure(key, "paper", recipe, steps=2)
    done = {row["row"]: row for row in rows if row["status"] == "ok"}
    assert all(np.isfinite(row["mfu"]) for row in done.values())
    lever = next(one for one in throughput.levers(gpu=True) if one.name == "+ bf16 weights")
    model = families.build(key, "paper", 0, device="meta")
    samples = throughput.Lengths(model, recipe, paper=True, count=4 * recipe.samples_per_update)
    updates = throughput._updates(samples, recipe, lever, "paper")
    batches = [batch for update in updates for batch in update]
    largest = max(batches, key=lambda batch: batch["labels"].numel())
    positions, asked = largest["labels"].numel(), int((largest["labels"] != -100).sum())
    batch = estimates.Batch(positions, asked, len(largest["pixel_values"]))
    _, counts = set_trainable(model, recipe)
    planned = estimates.step_memory(model.config, counts, recipe, batch, 2, autocast=False)
    assert done[lever.name]["peak_bytes"] == pytest.approx(sum(planned.values()), rel=0.2)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("key", "name"), [("llava-1.5-13b", "sft-lora"), ("qwen-vl-chat", "sft-qwen-lora")]
)
def test_adapters_on_the_larger_models_fit(key, name):
    rows = throughput.measure(
        key, "paper", recipes.recipe(name, {"samples_per_update": 16}), steps=2
    )
    assert any(row["status"] == "ok" and row["mfu"] > 0 for row in rows)


@pytest.mark.gpu
def test_loss_falls_on_a_repeated_batch_at_true_size():
    model = families.build(KEY, "paper", 0, device="cuda", dtype=torch.bfloat16).train()
    recipe = recipes.recipe("sft")
    model, _ = set_trainable(model, recipe)
    model.activation_checkpointing_enable({"use_reentrant": False})
    samples = throughput.Lengths(model, recipe, paper=True, count=4)
    batch = samples.collate([samples[i] for i in range(4)])
    batch = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    losses = []
    for _ in range(5):
        loss = supervised_loss(model, batch, float((batch["labels"] != -100).sum()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]
