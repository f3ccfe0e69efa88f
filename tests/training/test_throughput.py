import pytest
import tiny_llava
import torch
from torch.nn.functional import pad
from torch.utils.flop_counter import FlopCounterMode

from sgv_lab.errors import LabError
from sgv_lab.models import families
from sgv_lab.training import throughput
from sgv_lab.training.collate import collator
from sgv_lab.training.config import FULL_SIZE, base
from sgv_lab.training.estimates import useful_flops
from sgv_lab.training.trainable import set_trainable

KEY = "llava-1.5-7b"


MORE = {"learning_rate": 1e-3, "samples_per_step": 4}


@pytest.mark.parametrize("name", ["pretrain", "sft"])
def test_the_loss_falls_and_starts_alike_whatever_the_way(name):
    recipe = base(name, MORE | ({"vision_from": 1} if name == "pretrain" else {}))
    ways = {"official": {"official": True, "precision": "fp32"}, "sorted": {}, "ours": FULL_SIZE}
    rows = {
        key: throughput.time_training(KEY, "mini", recipe, way, steps=3)
        for key, way in ways.items()
    }
    assert all(row["last_loss"] < row["first_loss"] for row in rows.values())
    first = [row["first_loss"] for row in rows.values()]
    assert first == pytest.approx([first[0]] * 3, abs=0.02)
    assert first[:2] == pytest.approx([first[0]] * 2, abs=1e-4)  # the last one is in bfloat16
    packed, official = rows["ours"], rows["official"]
    assert packed["positions_per_second"] == pytest.approx(packed["tokens_per_second"])
    assert official["positions_per_second"] > official["tokens_per_second"]


@pytest.mark.parametrize("family", ["qwen-vl-chat", "qwen3-vl-8b"])
def test_other_families_are_timed_too(family):
    name = {"qwen-vl-chat": "sft-qwen", "qwen3-vl-8b": "sft-qwen3"}[family]
    recipe = base(name, {"samples_per_step": 2})
    row = throughput.time_training(family, "mini", recipe, {}, 1)
    assert row["positions_per_second"] >= row["tokens_per_second"] > 0
    assert row["useful_tflops"] > 0


def test_what_does_not_fit_by_plan_is_not_tried():
    row = throughput.time_training(KEY, "mini", base("sft", MORE), {}, 1, room=1e6)
    assert "GB planned" in row["status"] and "tokens_per_second" not in row


def test_a_throw_away_run_saves_nothing_but_its_metrics(tmp_path):
    out = tiny_llava.fit(tmp_path, keep=False)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "metrics.jsonl", "run.json",
    ]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_true_size_without_a_gpu_is_refused():
    with pytest.raises(LabError, match="true sizes need a GPU"):
        throughput.usable_device("paper")


@pytest.mark.parametrize("key", [KEY, "qwen3-vl-8b"])
def test_flops_equal_those_torch_counts(key):
    """Second method: torch's own counter over a forward and backward pass."""
    recipe = base("pretrain", {"vision_from": -1, "gradient_checkpointing": False})
    model = families.build(key, "mini", 0).train()
    model.set_attn_implementation("eager")  # whole score matrices: twice the causal half
    model, trainable = set_trainable(model, recipe)
    collate, size = collator(model.config, processor=throughput.untaught(key, "mini")[1]), 400
    sample = collate.blank_sample()
    sample |= {name: [*sample[name], *[300] * size] for name in ("input_ids", "labels")}
    if "aligned" in sample:
        sample["aligned"] = {name: pad(ids, (0, size)) for name, ids in sample["aligned"].items()}
    batch = collate([sample] * 2)
    lengths = batch["attention_mask"].sum(1).numpy()
    inputs = {k: v for k, v in batch.items() if k != "loss_weights"}
    with FlopCounterMode(display=False) as counter:
        model(**inputs, use_cache=False).loss.backward()
    positions = int(lengths.sum())
    ours = useful_flops(model.config, trainable, recipe, lengths, positions, 2)
    text = model.config.text_config
    causal = 6 * text.num_hidden_layers * text.hidden_size * float((lengths**2).sum())
    assert ours + causal == pytest.approx(counter.get_total_flops(), rel=0.05)
