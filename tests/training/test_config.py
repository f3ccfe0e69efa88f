import dataclasses
import json

import pytest
import torch

from sgv_lab.errors import LabError
from sgv_lab.training import config, trainer
from sgv_lab.training.segments import DEFAULT_VARIANT


def _rates(recipe, updates):
    """The learning rate of every update, by the schedule that training really takes."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], recipe.learning_rate)
    scheduler = trainer.learning_rates(optimizer, recipe, updates)
    rates = []
    for _ in range(updates + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.reference
@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("pretrain", "pretrain"),
        ("sft", "sft"),
        ("llava15_projector_pretrain_558k", "projector-only"),
        ("qwen_vl_sft_ds", "sft-qwen"),
    ],
)
def test_schedule_equals_the_official_one(reference, run, name):
    golden = json.loads((reference / "golden" / "lr_schedule.json").read_text())["runs"][run]
    recipe = config.base(name)
    assert recipe.learning_rate == golden["base_lr"]
    assert recipe.warmup_ratio == golden["warmup_ratio"]
    rates = _rates(recipe, golden["total_steps"])
    for step, rate in golden["lr_by_step"].items():
        assert rates[int(step)] == pytest.approx(rate, rel=1e-9, abs=1e-18), step
    assert rates.index(max(rates)) == golden["peak_step"]


def test_first_update_runs_at_zero_and_warm_up_is_rounded_up():
    rates = _rates(config.base("sft"), 50)
    assert rates[0] == 0
    assert rates.index(max(rates)) == 2  # ceil(0.03 * 50)
    assert max(rates) == 2e-5


def test_number_of_updates_of_the_paper():
    assert trainer.total_steps(665_298, config.base("sft")) == 5198
    assert trainer.total_steps(1_246_000, config.base("pretrain")) == 4868
    assert trainer.total_steps(558_128, config.base("projector-only")) == 2181


def test_gradients_are_clipped_where_the_authors_deepspeed_files_clip_them():
    clipped = {name: one.max_grad_norm for name, one in config.BASES.items() if one.max_grad_norm}
    assert clipped == {"sft-qwen": 1.0, "sft-qwen-lora": 1.0, "sft-qwen3": 1.0}
    assert config.base("sft", config.DRAWN_SFT).max_grad_norm == 1.0  # the drawn world's own


def test_images_are_cropped_in_pre_training_and_padded_in_fine_tuning():
    assert config.BASES["pretrain"].aspect == "square"
    assert config.BASES["sft"].aspect == "pad"


@pytest.mark.parametrize("name", config.BASES)
def test_every_recipe_makes_sense(name):
    assert config.base(name) == config.BASES[name]
    assert not config.base(name).differences()
    assert config.base(name).variant == DEFAULT_VARIANT


def test_overrides_are_parsed_from_text():
    recipe = config.base(
        "sft",
        {
            "learning_rate": "1e-4",
            "samples_per_step": "64",
            "vision_from": "12",
            "projector_learning_rate": "none",
            "gradient_checkpointing": "false",
            "template": "plain",
        },
    )
    assert (recipe.learning_rate, recipe.samples_per_step, recipe.vision_from) == (1e-4, 64, 12)
    assert recipe.projector_learning_rate is None
    assert recipe.gradient_checkpointing is False
    assert recipe.differences()["template"] == ("v1", "plain")
    assert recipe.differences().keys() == {
        "learning_rate",
        "samples_per_step",
        "vision_from",
        "gradient_checkpointing",
        "template",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rte": 1}, "learning_rate"),
        ({"name": "mine"}, "unknown setting 'name'"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast' is not of type float"),
        ({"samples_per_step": 1.5}, "samples_per_step"),
        ({"samples_per_step": True}, "samples_per_step"),
        ({"gradient_checkpointing": "maybe"}, "gradient_checkpointing"),
        ({"aspect": "crop"}, "'square', 'pad'"),
        ({"learning_rate": -1.0}, "above 0"),
        ({"learning_rate": "nan"}, "above 0"),
        ({"warmup_ratio": 1.0}, "warmup_ratio"),
        ({"vision_from": -2}, "vision_from"),
        ({"language_model": "frozen", "projector": False}, "nothing is trained"),
        ({"four_bit": True}, "four_bit"),
    ],
)
def test_bad_overrides_are_refused_by_name(changes, message):
    with pytest.raises(LabError, match=message):
        config.base("sft", changes)


def test_a_mistyped_recipe_names_the_nearest():
    with pytest.raises(LabError, match="'pretrain'"):
        config.base("pretrian")


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.base("sft").learning_rate = 1.0


def test_another_base_keeps_what_was_changed_and_every_value_says_where_it_comes_from():
    one = config.base("pretrain", {"learning_rate": 5e-4}, "plan")
    other = one.changed({"base": "projector-only", "max_steps": "7"}, "command line")
    assert (other.name, other.language_model, other.vision_from) == (
        "projector-only",
        "frozen",
        None,
    )
    rows = {name: (value, origin) for name, value, origin in other.rows()}
    assert rows["learning_rate"] == (5e-4, "plan") and rows["max_steps"] == (7, "command line")
    assert rows["template"] == ("plain", "base projector-only")
    assert "learning_rate" in other.table() and other.values().keys() == one.values().keys()


def test_the_pre_training_of_a_study_is_changed_by_its_own_names():
    study = dataclasses.replace(
        config.SFT, captions=config.Mix(), pretrain=dataclasses.replace(
            config.PRETRAIN, captions=config.Pool()))  # fmt: skip
    one = study.changed(
        {"share": 0.5, "pretrain.annotator": "blip", "pretrain.max_steps": 3}, "arm"
    )
    assert (one.captions.share, one.pretrain.captions.annotator) == (0.5, "blip")
    assert (one.pretrain.max_steps, one.max_steps) == (3, None)
    assert {name for name, _, origin in one.rows() if origin == "arm"} == {
        "share", "pretrain.annotator", "pretrain.max_steps"}  # fmt: skip
    assert one.alone().captions is None and one.alone().pretrain is None
    with pytest.raises(LabError, match="'annotator'"):
        study.changed({"pretrain.anotator": "blip"})
    with pytest.raises(LabError, match="trains nothing before"):
        config.SFT.changed({"pretrain.max_steps": 3})
