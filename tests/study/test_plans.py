"""Plans: nothing can be chosen after a look, and a mistake is named before anything runs."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import shipped
from sgv_lab.study import mix, plans, publishing
from sgv_lab.study.arms import baseline
from sgv_lab.world.scene import MINIATURE, scene

TEXT = """
title: one family
family: llava-1.5-7b
arms: [before, after, oracle]
seeds: 10
primary: [after, MME-P]
"""
KEYS = {"title": "t", "family": "llava-1.5-7b", "arms": ["before", "after"], "seeds": 2,
        "primary": ["after", "MME-P"]}  # fmt: skip


def test_seeds_and_questions_follow_from_the_text_alone():
    one, same = plans.parse(TEXT, "a"), plans.parse(TEXT, "b")
    other = plans.parse(TEXT.replace("one", "another"), "a")
    assert one.seeds == same.seeds and one.questions == same.questions
    assert len(set(one.seeds)) == 10
    assert one.seeds != other.seeds
    sets = {plans.parse(f"# {i}\n{TEXT}", "a").questions for i in range(60)}
    assert len(sets) > 20 and min(sets) >= 1


def test_runs_go_seed_by_seed():
    plan = plans.parse(TEXT, "a")
    assert [name for name, _ in plan.runs()[:4]] == ["before", "after", "oracle", "before"]
    assert {seed for _, seed in plan.runs()[:3]} == {plan.seeds[0]}


def test_the_baseline_is_the_miniatures_with_the_plans_changes():
    plan = plans.make("p", **KEYS, baseline={"share": 0.145, "recipe": {"learning_rate": "5e-4"}})
    captions = plan.baseline.captions
    assert captions.share == 0.145 and captions.samples == baseline().captions.samples
    expected = baseline().changed({"learning_rate": 5e-4, "share": 0.145})
    assert plan.baseline.training() == expected.training()
    assert plan.configs()["after"].captions.share == 0.145


def test_what_weighs_the_same_is_an_answer_in_miniature_and_a_token_at_full_size():
    found = [plans.make("p", **KEYS, **more).baseline.loss
             for more in ({}, {"profile": "paper"},
                          {"profile": "paper", "baseline": {"loss": "sample"}})]  # fmt: skip
    assert found == ["sample", "token", "sample"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["before", "aftr"]}, "Did you mean 'after'"),
        ({"arms": ["after", "oracle"]}, "'after' needs the arm 'before'"),
        ({"arms": ["before", "after", "after"]}, "stands twice"),
        ({"seeds": 0}, "no seed"),
        ({"primary": ["after", "MME"]}, "primary endpoint"),
        ({"primary": ["oracle", "MME-P"]}, "needs the arm 'oracle'"),
        ({"family": "llava"}, "unknown model family 'llava'"),
        ({"benchmarks": ["mme", "sed"]}, "Did you mean 'seed'"),
        ({"baseline": {"shar": 1}}, "Did you mean 'share'"),
        ({"baseline": {"recipe": {"lerning_rate": 1}}}, "Did you mean 'learning_rate'"),
        ({"baseline": {"tuning": "lroa"}}, "language_model = 'lroa' is none of"),
        ({"baseline": {"pretrain": {"captions": "all"}}}, "samples = 'all' is not of type int"),
        ({"baseline": {"pretrain": {"tunes": "tower"}}}, "projector, all"),
        ({"seed": 3}, "unknown key 'seed'"),
        (
            {
                "arms": ["blip@4", "none@4"],
                "primary": ["none@4", "MME-P"],
                "baseline": {"samples": 1000},
            },
            "would not train twice as long",
        ),
        (
            {
                "arms": ["blip@PT", "none@PT", "share@PT", "longer@PT"],
                "primary": ["share@PT", "MME-P"],
                "baseline": {"samples": 2000, "steps": 100},
            },
            "longer@PT would not train twice as long",
        ),
        ({"pilot": True}, "would look at what the study asks"),
    ],
)
def test_a_mistake_is_named(changes, message):
    with pytest.raises(LabError, match=message):
        plans.make("p", **{**KEYS, **changes})


def test_no_yaml_and_no_file():
    with pytest.raises(LabError, match="has no family, arms"):
        plans.parse("title: t", "p")
    with pytest.raises(LabError, match="no mapping"):
        plans.parse("- a", "p")
    with pytest.raises(LabError, match="no YAML"):
        plans.parse("a: [", "p")
    with pytest.raises(LabError, match="cannot read the plan"):
        plans.load("nowhere.yaml")


def test_every_committed_plan_can_be_read_and_pilots_share_nothing_with_studies():
    paths = sorted((publishing.folder() / "plans").glob("*.yaml"))
    assert len(paths) >= 4
    read = [plans.load(path) for path in paths]
    assert all(plan.minutes for plan in read)
    drawn = [seed for plan in read for seed in plan.seeds]
    assert len(set(drawn)) == len(drawn)
    states = publishing.status()["state"]
    assert {state.partition(",")[0] for state in states} <= {"not run", "part", "complete"}
    # the first studies' records do not say what weighed the same in their loss
    assert "complete, by an earlier design" in set(states)


def test_arms_at_equal_tokens_train_on_as_many_and_pay_for_fewer():
    plan = plans.load(publishing.folder() / "plans" / "study-tokens-llava-1.5-7b.yaml")
    tokenizer = checkpoints.load_processor(shipped(plan.family)).tokenizer
    scenes = [scene(i, "eval", "coco", MINIATURE) for i in range(200)]
    for name, design in plan.configs().items():
        shown, rows = design.captions, design.samples_per_step
        texts = [mix.caption_of(mix.captioned(one, shown)) for one in scenes]
        told = tokenizer(texts, add_special_tokens=False).input_ids
        assert rows * sum(map(len, told)) / len(told) == pytest.approx(1_600, rel=0.03), name
        paid = int(name.partition("@")[2].removesuffix("K"))
        assert design.max_steps * rows / shown.samples == pytest.approx(256 / paid, rel=0.01)
    curve = plans.load(publishing.folder() / "plans" / "study-figure6-llava-1.5-7b.yaml")
    designs = list(curve.configs().values())
    assert {(one.max_steps, one.samples_per_step) for one in designs} == {(512, 32)}
    assert designs[-1].captions.samples == 512 * 32  # seen once


@pytest.mark.parametrize("family", ["llava-7b", "llava-1.5-13b"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_family_without_a_base_is_refused_before_anything_runs(
    family, dry, tmp_path, monkeypatch
):
    monkeypatch.setattr("sgv_lab.models.shipped.ROOT", tmp_path / "none ships")
    plan = tmp_path / "plan.yaml"
    plan.write_text(TEXT.replace("llava-1.5-7b", family))
    given = ["study", str(plan), "--out", str(tmp_path / "out"), *["--dry-run"] * dry]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 1 and "no miniature of" in done.output
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_there_is_shown_by_a_dry_run(tmp_path):
    plans = Path(__file__).parents[2] / "figures" / "data" / "plans"
    given = ["study", str(plans / "sft-llava-1.5-7b.yaml"), "--dry-run"]
    assert CliRunner().invoke(main, given).exit_code == 0
    away = CliRunner().invoke(main, [*given, "--models-root", str(tmp_path)])
    assert away.exit_code == 1 and "no checkpoint of llava-1.5-7b" in away.output
    full = CliRunner().invoke(main, ["study", str(plans / "full-llava-7b.yaml"), "--dry-run"])
    assert full.exit_code == 0 and "not checked" in full.output
