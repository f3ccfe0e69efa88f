import json
import re

import pytest
import tiny_llava
import torch

from sgv_lab.errors import LabError
from sgv_lab.models import families
from sgv_lab.training.config import base
from sgv_lab.training.trainable import set_trainable

RENAMED = [  # original LLaVA names -> transformers' names
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.layers.", "model.language_model.layers."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.norm.", "model.language_model.norm."),
]
RUNS = [
    ("pretrain_tune_vit_from_layer_12", "pretrain", {}),
    ("pretrain_tune_vit_from_layer_24", "pretrain", {"vision_from": 24}),
    ("pretrain_tune_vit_from_layer_-1", "pretrain", {"vision_from": -1}),
    ("sft", "sft", {}),
]


def _names(golden):
    """The golden short form {"a.{}.b": "0..2"} as a set of today's names."""
    names = set()
    for pattern, span in golden.items():
        new = pattern
        for old, today in RENAMED:
            new = new.replace(old, today) if pattern.startswith(old) else new
        if span == "single":
            names.add(new)
        else:
            first, last = map(int, span.split(".."))
            names |= {new.replace("{}", str(i)) for i in range(first, last + 1)}
    return names


@pytest.mark.reference
@pytest.mark.parametrize(("run", "name", "changes"), RUNS)
def test_names_equal_the_official_ones(reference, run, name, changes):
    file = reference / "golden" / "trainable_parameters.json"
    golden = json.loads(file.read_text())["tiny_name_lists"][run]
    model = tiny_llava.model(vision_layers=24, text_layers=3)
    model, report = set_trainable(model, base(name, changes))
    assert set(report.nominal) == _names(golden["trainable"])
    without = _names(golden["trainable_but_grad_is_None"])
    assert set(report.nominal) - set(report.effective) == without
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(report.effective)


@pytest.mark.reference
@pytest.mark.parametrize(("run", "name", "changes"), RUNS)
def test_counts_at_true_size_equal_the_official_ones(reference, run, name, changes):
    file = reference / "golden" / "trainable_parameters.json"
    golden = json.loads(file.read_text())["true_size_counts"]["7b"][run]
    model = families.build(
        "llava-1.5-7b",
        "paper",
        0,
        device="meta",
        text_config={"vocab_size": 32000, "pad_token_id": 0},
    )
    _, report = set_trainable(model, base(name, changes))
    assert report.total("total") == golden["total"]
    assert report.total("nominal") == golden["trainable"]
    assert report.total("effective") == golden["effective_trainable"]
    groups = {
        "embeddings": "embed_tokens",
        "language model": "llm_other",
        "vision tower": "vision_tower",
        "projector": "mm_projector",
        "output head": "lm_head",
    }
    for module, group in groups.items():
        assert report.counts[module]["nominal"] == golden["trainable_by_group"].get(group, 0)


@pytest.mark.reference
def test_qwen_vls_counts_equal_the_official_ones(reference):
    file = reference / "golden" / "trainable_parameters.json"
    golden = json.loads(file.read_text())["qwen_vl_chat"]
    model = families.build("qwen-vl-chat", "paper", 0, device="meta")
    _, report = set_trainable(model, base("sft-qwen"))
    assert report.total("total") == golden["total"]
    assert report.total("effective") == golden["sft_fix_vit_true"]["trainable"]


@pytest.mark.parametrize("vision_from", [-1, 0, 1, 2, 3])
def test_the_effective_set_is_what_gets_a_gradient(vision_from):
    model = tiny_llava.model()
    _, report = set_trainable(model, tiny_llava.recipe(vision_from=vision_from))
    model.requires_grad_(True)
    batch = tiny_llava.collator()([tiny_llava.Samples()[i] for i in (1, 2)])
    batch = {k: v for k, v in batch.items() if k != "loss_weights"}
    model(**batch).loss.backward()
    learning = {n for n, p in model.named_parameters() if p.grad is not None}
    assert set(report.effective) == set(report.nominal) & learning
    assert set(report.nominal) - learning or vision_from == 3


def test_tuning_from_block_0_keeps_embeddings_and_outer_norms_frozen():
    model = tiny_llava.model()
    _, report = set_trainable(model, tiny_llava.recipe(vision_from=0))
    frozen = {n for n, _ in model.named_parameters()} - set(report.nominal)
    assert {n.removeprefix("model.vision_tower.").split(".")[0] for n in frozen} == {
        "embeddings",
        "pre_layrnorm",
        "post_layernorm",
    }


def test_a_projector_of_one_layer_learns_in_that_one():
    """The second is the identity, so that transformers' own class holds LLaVA v1's projector."""
    model = families.build("llava-7b", "mini", 0)
    _, report = set_trainable(model, base("projector-only"))
    projector = model.model.multi_modal_projector
    assert {n.removeprefix("model.multi_modal_projector.") for n in report.nominal} == {
        "linear_1.weight",
        "linear_1.bias",
    }
    features = torch.randn(2, 16, 128)
    assert torch.equal(projector(features), projector.linear_1(features))


def test_lora_sits_on_the_language_models_linear_layers_only():
    model, report = set_trainable(tiny_llava.model(), tiny_llava.recipe("sft-lora"))
    adapted = {n.split(".lora_")[0] for n in report.effective if ".lora_" in n}
    layers = {"q", "k", "v", "o", "gate", "up", "down"}
    assert len(adapted) == 2 * len(layers)
    assert all(re.search(r"language_model\.layers\.\d\.(self_attn|mlp)\.", n) for n in adapted)
    rest = [n for n in report.effective if ".lora_" not in n]
    assert len(rest) == 4
    assert all(".multi_modal_projector.linear_" in n for n in rest)
    # rank 4: r * (in + out) for q, k, v, o (32 x 32) and gate, up, down (32 x 64), two layers
    assert report.counts["adapters"]["effective"] == 2 * 4 * (4 * 64 + 3 * 96)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(report.effective)


def test_frozen_parts_stay_as_they_were_and_the_rest_moves(tmp_path):
    start = {k: v.clone() for k, v in tiny_llava.model().state_dict().items()}
    model = tiny_llava.model()
    tiny_llava.fit(tmp_path, model=model, max_steps=3)
    _, report = set_trainable(tiny_llava.model(), tiny_llava.recipe())
    for name, after in model.state_dict().items():
        assert torch.equal(start[name], after) == (name not in report.effective), name


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(LabError, match="the tower has 3 blocks"):
        set_trainable(tiny_llava.model(), tiny_llava.recipe(vision_from=4))
