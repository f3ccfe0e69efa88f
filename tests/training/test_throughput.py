import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import tiny_llava
import torch
from click.testing import CliRunner
from torch.nn.functional import pad
from torch.utils.flop_counter import FlopCounterMode

from sgv_lab.captioning import speed
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import families
from sgv_lab.training import throughput
from sgv_lab.training.collate import collator
from sgv_lab.training.config import Machine, RunConfig, base
from sgv_lab.training.estimates import useful_flops
from sgv_lab.training.trainable import set_trainable

KEY = "llava-1.5-7b"


def test_the_miniature_is_timed_row_by_row(tmp_path):
    out = tmp_path / "throughput.csv"
    given = ["throughput", "train", "--model", KEY, "--size", "mini", "--steps", "1"]
    for _ in range(2):
        done = CliRunner().invoke(main, [*given, "--samples-per-update", "4", "--out", str(out)])
        assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    rows = list(throughput.ways(gpu=torch.cuda.is_available()))
    assert table["row"].tolist() == rows * 2
    assert (table["status"] == "ok").all()
    assert (table["mfu"] > 0).all() and (table["planned_bytes"] > 0).all()
    packed = table[table["row"] == "+ packing"]
    np.testing.assert_allclose(packed["positions_per_second"], packed["tokens_per_second"])
    padded = table[table["row"] == "padded"]
    assert (padded["positions_per_second"] > padded["tokens_per_second"]).all()


@pytest.mark.parametrize("name", ["pretrain", "sft"])
def test_the_loss_falls_and_starts_alike_whatever_the_way(name):
    changes = {"learning_rate": 1e-3, "samples_per_update": 4}
    changes |= {"vision_from": 1} if name == "pretrain" else {}
    rows = list(throughput.measure(KEY, "mini", base(name, changes), steps=3))
    assert all(row["last_loss"] < row["first_loss"] for row in rows)
    first = [row["first_loss"] for row in rows]
    assert first == pytest.approx([first[0]] * len(first), abs=1e-3)
    assert {row["peak_bytes"] for row in rows} == {None} or torch.cuda.is_available()


def test_what_is_measured_is_kept_only_where_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(throughput, "measure", lambda *_: [])
    monkeypatch.setattr(speed, "_measure", lambda *_: (1.0, 1))
    for what in (["train", "--model", KEY], ["caption"]):
        done = CliRunner().invoke(main, ["throughput", *what, "--size", "mini"])
        assert done.exit_code == 0, done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["qwen-vl-chat", "qwen3-vl-8b"])
def test_other_families_are_timed_too(family):
    name = {"qwen-vl-chat": "sft-qwen", "qwen3-vl-8b": "sft-qwen3"}[family]
    row = next(throughput.measure(family, "mini", base(name, {"samples_per_update": 2}), 1))
    assert row["positions_per_second"] >= row["tokens_per_second"] > 0
    assert row["useful_tflops"] > 0


def test_every_row_changes_one_thing_that_training_has():
    rows = throughput.ways(gpu=True)
    for before, after in itertools.pairwise(rows.values()):
        assert len(after.items() - before.items()) == 1 and before.keys() <= after.keys()
    known = {f.name for kind in (RunConfig, Machine) for f in dataclasses.fields(kind)}
    assert {name for row in rows.values() for name in row} <= known | {"dtype"}


def test_a_row_out_of_memory_is_on_disk_before_the_next(tmp_path, monkeypatch):
    out, seen = tmp_path / "rows.csv", []

    def full(*_, **__):
        seen.append(len(pd.read_csv(out)) if out.exists() else 0)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(throughput, "train", full)
    given = ["throughput", "train", "--model", KEY, "--size", "mini", "--out", str(out)]
    done = CliRunner().invoke(main, [*given, "--samples-per-update", "2"])
    assert done.exit_code == 0, done.output
    assert seen == list(range(len(throughput.ways(torch.cuda.is_available()))))
    assert (pd.read_csv(out)["status"] == "out of memory").all()
    assert "out of memory" in done.output


def test_a_throw_away_run_saves_nothing_but_its_metrics(tmp_path):
    out = tiny_llava.fit(tmp_path, keep=False)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "metrics.jsonl", "run.json",
    ]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_true_size_without_a_gpu_is_refused():
    with pytest.raises(LabError, match="true sizes need a GPU"):
        next(throughput.measure(KEY, "paper", base("sft"), 1))


@pytest.mark.parametrize("key", [KEY, "qwen3-vl-8b"])
def test_flops_equal_those_torch_counts(key):
    """Second method: torch's own counter over a forward and backward pass."""
    recipe = base("pretrain", {"vision_from": -1, "gradient_checkpointing": False})
    model = families.build(key, "mini", 0).train()
    model.set_attn_implementation("eager")  # whole score matrices: twice the causal half
    model, trainable = set_trainable(model, recipe)
    collate, size = collator(model.config, processor=throughput._untaught(key, "mini")[1]), 400
    sample = collate.blank_sample()
    sample |= {name: [*sample[name], *[300] * size] for name in ("input_ids", "labels")}
    if "aligned" in sample:
        sample["aligned"] = {name: pad(ids, (0, size)) for name, ids in sample["aligned"].items()}
    batch = collate([sample] * 2)
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
@pytest.mark.parametrize(
    ("key", "name"),
    [
        (KEY, "sft"),
        (KEY, "pretrain"),
        ("llava-1.5-13b", "sft-lora"),
        ("qwen-vl-chat", "sft-qwen-lora"),
    ],
)
def test_true_size_learns_in_the_memory_planned(key, name):
    """Full-parameter 7B and larger models' adapters: what fits learns; memory is as planned."""
    recipe = base(name, {"samples_per_update": 32})
    rows = [r for r in throughput.measure(key, "paper", recipe, steps=3) if r["status"] == "ok"]
    assert rows
    for row in rows:
        assert 0 < row["mfu"] < 1
        assert row["last_loss"] < row["first_loss"]
        assert row["peak_bytes"] < 1.2 * row["planned_bytes"]
