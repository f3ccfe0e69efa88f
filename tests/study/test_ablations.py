"""Two-stage arms: what differs and what does not, one pre-training shared by all, the curve."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sgv_lab import profiles
from sgv_lab.errors import LabError
from sgv_lab.figures import study as drawn_study
from sgv_lab.figures import worth
from sgv_lab.files import write_json
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.study import (
    ablations,
    conclusions,
    effects,
    plans,
    pretraining_data,
    publishing,
    run_arm,
    runner,
    share_captioner,
)
from sgv_lab.study.arms import ARMS, arm, cell_of
from sgv_lab.study.runner import Record
from sgv_lab.training.config import Pool, base
from sgv_lab.world.records import instruct_mix
from sgv_lab.world.scene import MINIATURE

FAMILY = "llava-1.5-7b"
OURS = [f"{name}-{FAMILY}" for name in ("table4", "table5", "table6", "figure6")]
NUMBERS = np.array([16, 64, 256, 1024, 4096])
TINY = {
    "title": "tiny",
    "family": FAMILY,
    "arms": ["before", "sft", "pt-blip", "pt", "both"],
    "seeds": 1,
    "primary": ["both", "MME-P"],
    "benchmarks": ["mme"],
    "images": 1,
    "baseline": {
        "samples": 24, "steps": 1, "share": 0.145, "recipe": {"samples_per_step": 8},
        "pretrain": {
            "by": "blip", "tunes": "projector", "captions": 6, "pool": 8, "steps": 1,
            "captioner": "smoke", "recipe": {"samples_per_step": 4},
        },
    },
}  # fmt: skip
PLAN = plans.make("tiny", **TINY)


def committed(name):
    return plans.load(publishing.folder() / "plans" / f"{name}.yaml")


def captioned(_, images, **__):
    """In place of Share-Captioner: says the name of each image but one."""
    names = sorted(p.relative_to(images).as_posix() for p in Path(images).rglob("train-*"))
    turns = [[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": f"it is {name}"}]
             for name in names]  # fmt: skip
    rows = [{"image": n, "conversations": t} for n, t in zip(names, turns, strict=True)]
    file = Path(images).parent.parent / "share.json"
    write_json(file, rows[:-1])
    return file


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(share_captioner, "materials", lambda *_: ())
    monkeypatch.setattr(share_captioner, "trained", lambda *_: None)
    monkeypatch.setattr(share_captioner, "captioned", captioned)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = [t["value"] for r in instruct_mix(40, difficulty=MINIATURE) for t in r["conversations"]]
    processor = families.processor(FAMILY, "mini", mini.train_tokenizer(texts))
    processor.tokenizer.add_bos_token = True
    checkpoints.save(families.build(FAMILY, "mini", 0), processor, folder / FAMILY)
    return folder


@pytest.mark.parametrize("name", [*OURS, *(f"full-{name}" for name in OURS)])
def test_arms_of_a_plan_differ_in_what_the_registry_says_and_train_equally(name):
    plan = committed(name)
    start = {name: (value, origin) for name, value, origin in plan.baseline.rows()}
    for key, design in plan.configs().items():
        one = {name: (value, origin) for name, value, origin in design.rows()}
        changed = {name for name, (_, origin) in one.items() if origin == f"arm {key}"}
        said = {name for name in arm(key).changes if design.pretrain or "." not in name}
        assert changed - {"pretrain.vision_from"} == said - {"pretrain.base"}
        for name in ("max_steps", "samples_per_step", "learning_rate", "samples", "share"):
            assert one[name] == start[name]
        if not design.pretrain:
            assert plan.profile == "paper"
            continue
        for name in ("max_steps", "samples_per_step", "pool"):
            assert one[f"pretrain.{name}"] == start[f"pretrain.{name}"]
        shown = design.pretrain.captions
        if plan.profile == "mini":
            assert shown.annotator and design.pretrain.max_steps  # as many steps in both
            assert shown.samples <= shown.pool
    assert plan.seeds and plan.minutes and arm(plan.primary[0]).compared_with[0] in plan.arms


def test_the_plans_ask_what_the_paper_asks_and_its_missing_control():
    assert {"before", "sft", "pt", "both", "pt-blip"} <= set(committed(OURS[0]).arms)
    cells = {cell_of(name, "llava-1.5-7b")[:2] for name in ARMS}
    for name in OURS:
        for key in committed(f"full-{name}").arms:
            assert arm(key).row is not None, key
    rows = {row for place, row in cells if place == "table6"}
    assert rows == {"24", "18", "12", "6", "0"}
    assert {"0", "100000", "1200000"} <= {row for place, row in cells if place == "figure6"}
    on_blip = arm("pt-blip")
    assert "pt" in on_blip.compared_with and on_blip.changes["pretrain.annotator"] == "blip"
    mini_, paper_ = (set(profiles.section("07_ablations", size).arms) for size in ("mini", "paper"))
    assert mini_ | paper_ <= set(ARMS)


def test_blocks_by_share():
    def first_block(share, blocks):
        return base("pretrain", {"vision_share": share}).for_tower(blocks).vision_from

    found = {share: first_block(share / 100, 24) for share in (0, 25, 50, 75, 100)}
    assert found == {0: None, 25: 18, 50: 12, 75: 6, 100: 0}
    assert [first_block(share, 3) for share in (0.5, 1.0, -1.0)] == [1, 0, -1]


def test_what_a_notebook_shows_does_not_decide_an_arms_data(no_training, monkeypatch):
    sizes = []
    monkeypatch.setattr(share_captioner, "materials", lambda *given: sizes.append(given[-1]) or ())
    stage = Pool("share", samples=2, pool=3)  # as studies have it: captioner "mini"
    pretraining_data.materials(stage, Path("base"), 32, 5)
    monkeypatch.setitem(profiles.SECTIONS, "03_share_captioner", {"collected": (1, 1, 1)})
    pretraining_data.materials(replace(stage, pool=4), Path("base"), 32, 5)
    assert sizes == [2_000, 2_000]


def test_the_images_are_the_same_whoever_captions_and_smaller_sets_lie_within(no_training):
    stage = Pool(collection="lcs", samples=6, pool=9)
    read = {}
    for by in ("blip", "share", "oracle"):
        file, images = pretraining_data.materials(replace(stage, annotator=by), Path("base"), 32, 5)
        read[by] = json.loads(file.read_text())
        assert all((images / record["image"]).is_file() for record in read[by])
    shown = {by: [record["image"] for record in records] for by, records in read.items()}
    assert shown["blip"] == shown["oracle"] and len(set(shown["blip"])) == 6
    able = [name for name in shown["blip"] if name in shown["share"]]
    assert len(able) == 5 and shown["share"][:5] == able  # one could not be captioned: the next
    assert all(name.startswith(pretraining_data.LCS) for name in shown["blip"])
    said = {by: [r["conversations"][1]["value"] for r in rs] for by, rs in read.items()}
    assert said["share"] == [f"it is {name}" for name in shown["share"]]
    assert not set(said["blip"]) & set(said["oracle"])
    some = replace(stage, annotator="blip", samples=3)
    fewer, _ = pretraining_data.materials(some, Path("base"), 32, 5)
    assert json.loads(fewer.read_text()) == read["blip"][:3]
    other, _ = pretraining_data.materials(some, Path("base"), 32, 6)
    assert json.loads(other.read_text()) != read["blip"][:3]
    most, _ = pretraining_data.materials(
        replace(stage, annotator="share", samples=9), Path("base"), 32, 5
    )
    assert len(json.loads(most.read_text())) == 8  # one could not be captioned
    with pytest.raises(LabError, match="no annotator 'blib'"):
        pretraining_data.materials(replace(stage, annotator="blib"), Path("base"), 32, 5)


def test_share_captioner_learns_for_those_alone_who_show_its_captions(monkeypatch):
    monkeypatch.setattr(share_captioner, "materials", None)
    stage = Pool("gpt4_vision", collection="coco", samples=5, pool=0)

    def shown(seed, **changes):
        file, images = pretraining_data.materials(replace(stage, **changes), Path("base"), 32, seed)
        records = json.loads(file.read_text())
        assert all((images / record["image"]).is_file() for record in records)
        names = [record["image"] for record in records]
        assert len(set(names)) == 5 and all(name.startswith("coco/") for name in names)
        return names, [record["conversations"][1]["value"] for record in records]

    names, texts = shown(5)
    assert shown(6)[0] != names  # without a pool every seed has images of its own
    again, other = shown(5, edit="shuffled")
    assert again == names and sorted(other) == sorted(texts)
    assert all(a != b for a, b in zip(texts, other, strict=True))
    for changes in ({"draw": 1}, {"wording": 1}, {"filler": 0.5}, {"annotator": "oracle"}):
        same, told = shown(5, **changes)
        assert same == names and told != texts
    with pytest.raises(LabError, match="says what it says"):
        shown(5, annotator="share", filler=0.5)


def test_official_captions_of_the_images_both_files_have(tmp_path):
    root = tmp_path / "data"
    names = [f"{i:05d}.jpg" for i in range(8)]
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "words"}]
    dense = [
        {"id": n, "image": pretraining_data.LCS + n, "conversations": turns} for n in names[:6]
    ]
    dense.append({"id": "sam", "image": "sam/images/sa_1.jpg", "conversations": turns})
    short = [{"id": n, "image": n, "conversations": turns} for n in names[2:]]
    ask = Pool("share", collection="lcs", samples=0)
    with pytest.raises(LabError, match="lacks share-captioner"):
        pretraining_data.materials(ask, Path("base"), 32, 0, root)
    for by, records in (("share", dense), ("blip", short)):
        write_json(root / "sharegpt4v" / pretraining_data.FILES[by], records)
    found = {}
    for by in ("share", "blip"):
        file, images = pretraining_data.materials(
            replace(ask, annotator=by), Path("base"), 32, 0, root
        )
        found[by] = [record["image"] for record in json.loads(file.read_text())]
        assert images == root
    assert found["share"] == found["blip"]
    assert sorted(found["share"]) == [pretraining_data.LCS + n for n in names[2:6]]
    whole, _ = pretraining_data.materials(replace(ask, collection=""), Path("base"), 32, 0, root)
    assert len(json.loads(whole.read_text())) == 7
    with pytest.raises(LabError, match="no official file has blip captions"):
        pretraining_data.materials(
            replace(ask, annotator="blip", collection=""), Path("base"), 32, 0, root
        )


def test_pre_training_once_a_seed_for_all_arms_and_a_run_found_again(
    models, no_training, tmp_path, monkeypatch
):
    store = tmp_path / "store"
    wanted = ("before", "pt", "both")
    jobs = {job.arm: job for job in runner.jobs(PLAN, models) if job.arm in wanted}
    real = run_arm.evaluate
    monkeypatch.setattr(run_arm, "evaluate", None)  # dies after both trainings
    with pytest.raises(TypeError):
        run_arm.execute(jobs["pt"])
    made = list((store / "pretrain").glob("*/model/manifest.json"))
    assert len(made) == 1 and not list((store / "arms").glob("*/manifest.json"))
    stamp = made[0].stat().st_mtime_ns
    monkeypatch.setattr(run_arm, "evaluate", real)
    found = {name: run_arm.execute(job) for name, job in jobs.items()}
    assert made[0].stat().st_mtime_ns == stamp  # found, not trained again
    counts = {n: len(list((store / n).glob("*/manifest.json")))
              for n in ("pretrain", "projector-only", "arms")}  # fmt: skip
    assert counts == {"pretrain": 1, "projector-only": 1, "arms": 3}
    assert found["pt"]["pretrain"] == found["both"]["pretrain"]
    assert found["pt"]["pretrain"]["first_block"] == 1
    assert found["before"]["pretrain"]["first_block"] is None
    assert {one["pretrain"]["captions"] for one in found.values()} == {6}
    assert len({one["key"] for one in found.values()}) == 3
    monkeypatch.setattr(run_arm, "_result", None)
    assert run_arm.execute(jobs["both"]) == found["both"]
    alias = replace(jobs["both"], arm="tower@50%", config=arm("tower@50%").config(PLAN.baseline))
    assert run_arm.execute(alias)["key"] == found["both"]["key"]
    record = runner._record(PLAN, jobs["both"], found["both"])
    assert (
        record.pretrain["steps"] == 1
        and record.config["pretrain"]["captions"]["annotator"] == "share"
    )
    assert Record(**json.loads(json.dumps(asdict(record)))).pretrain == record.pretrain
    told = ablations.first_captions(jobs.values())
    assert told["image"].nunique() == 1 and told.loc["pt", "caption"].startswith("it is")


def test_a_plan_of_no_pre_training_is_addressed_by_its_fine_tuning(
    models, no_training, monkeypatch
):
    plain = plans.make("plain", **{**TINY, "arms": ["before", "after"], "primary": ["after",
                       "MME-P"], "baseline": {"samples": 24, "steps": 1}})  # fmt: skip
    settings = []
    monkeypatch.setattr(run_arm.store, "artifact", _spy(run_arm.store.artifact, settings))
    monkeypatch.setattr(run_arm, "_result", lambda *a: (a[-1] / "result.json").write_text("{}"))
    run_arm.execute(runner.jobs(plain, models)[0])
    (address,) = (said for name, said in settings if name == "arms")
    assert set(address) == {"config", "seed", "base", "images", "questions", "left_out",
                            "device", "versions"}  # fmt: skip
    assert len(address["config"]) == 1


def _spy(stage, settings):
    def spied(name, said, *rest, **more):
        settings.append((name, said))
        return stage(name, said, *rest, **more)

    return spied


def simulated(gain, half, noise=4.0, seeds=6, seed=0):
    rng = np.random.default_rng(seed)
    scores = ablations.saturating(NUMBERS, 600, gain, np.log(half)) + rng.normal(0, 30, (seeds, 1))
    return pd.DataFrame(scores + rng.normal(0, noise, (seeds, len(NUMBERS))), columns=NUMBERS)


def test_a_saturating_curve_of_known_parameters_is_found_with_its_uncertainty():
    covered = []
    for seed in range(20):
        curve = ablations.saturation(simulated(60, 150, seed=seed))
        assert not curve.why
        covered.append(curve.gain[1] <= 60 <= curve.gain[2] and curve.half[1] <= 150)
        true = ablations.saturating(curve.table["captions"], 600, 60, np.log(150))
        middle = (curve.table["high"] + curve.table["low"]) / 2
        assert np.abs(middle - true).max() < 90  # seeds move the level by 30 each
    assert np.mean(covered) >= 0.8
    exact = ablations.saturation(simulated(60, 150, noise=0.0))
    assert exact.gain[0] == pytest.approx(60, rel=1e-3)
    assert exact.half[0] == pytest.approx(150, rel=1e-2)
    assert "half of it by 1" in str(exact)
    falling = ablations.saturation(simulated(-60, 150))
    assert falling.gain[2] < 0


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (simulated(60, 150).iloc[:2], "it needs four .* here: 5, seeds: 2"),
        (simulated(60, 150)[[16, 64, 256]], "it needs four .* here: 3, seeds: 6"),
        (simulated(60, 300_000), "edge of the tested range|no gain"),
        (simulated(0, 150, noise=8.0), "no gain|edge of"),
    ],
)
def test_where_there_is_no_curve_it_is_said_and_none_is_drawn(scores, why):
    curve = ablations.saturation(scores)
    assert curve.table.empty and curve.gain is None
    assert str(curve).startswith("Saturation could not be estimated: ")
    assert pd.Series([curve.why]).str.contains(why).all()


def made(plan, values, device="cpu"):
    """Records with these MME-P scores, {arm: gain}, and the peak memory of a GPU."""
    rng, records = np.random.default_rng(3), []
    for seed in plan.seeds:
        level = rng.normal(0, 20)
        for name in plan.arms:
            score = 600 + level + values.get(name, 0) + rng.normal(0, 2)
            stage = {"device": device, "peak_bytes": 5e9}
            records.append(Record(plan.name, plan.digest, plan.family, name, "mini", seed,
                                  {"MME-P": score}, {}, {}, "key", {"device": device}, 1.0, 1,
                                  stage))  # fmt: skip
    return records


def test_the_conclusion_names_what_is_compared_and_its_own_ceiling():
    plan = committed(OURS[1])
    records = made(plan, {"share@PT": 10, "oracle@PT": 40, "none@PT": -10})
    found = effects.effects(plan, records)
    (primary,) = found[found["primary"]].itertuples()
    assert (primary.arm, primary.against) == ("share@PT", "blip@PT")
    assert primary.share == pytest.approx(0.25, abs=0.1)

    def said(plan, records):
        found, runs = effects.effects(plan, records), effects.by_seed(records, "MME-P")
        return conclusions.primary_conclusion(plan, found, runs)

    assert "helps" in said(plan, records) and "no gain" not in said(plan, records)
    without = made(plan, {"share@PT": 10, "oracle@PT": 40, "none@PT": 10})
    assert "against “no pre-training end to end” shows no gain" in said(plan, without)
    assert "Even true captions show no clear gain over “pre-training on BLIP captions”" in (
        said(plan, made(plan, {"share@PT": 10}))
    )
    tower = committed(OURS[2])
    records = made(tower, {"tower@50%": 12})
    assert "against “the ViT frozen” helps" in said(tower, records)
    assert effects.effects(tower, records)["share"].isna().all()
    assert "against tower@0%" in publishing.describe_plan(tower)


def title(axis):
    return axis.get_title() + axis.get_title(loc="left")


def test_figure_6_draws_the_curve_or_says_why_not(tmp_path):
    plan = committed(OURS[3])
    gains = {f"captions@{n}": float(ablations.saturating(n, 0, 60, np.log(150))) for n in NUMBERS}
    records = made(plan, gains)
    drawn = drawn_study.plan_figure(plan, records, effects.effects(plan, records), {})
    (axis,) = drawn.axes
    assert axis.get_xscale() == "log" and "a gain of" in title(axis)
    assert "128 steps for all" in axis.get_xlabel()
    flat = worth.scaling_curve(plan, made(plan, {}))
    assert "Saturation could not" in title(flat.axes[0])
    plt.close("all")


def test_more_captions_are_compared_with_fewer_and_not_with_another_training():
    plan = committed(OURS[3])
    gains = {"captions@0": 50, "captions@16": -20}
    records = made(plan, gains)
    table = ablations.most_against_fewer(ablations.scores_by_number(records, "MME-P"))
    assert list(table.index) == [16, 64, 256, 1024]
    assert table.loc[16, "low"] > 10 and table.loc[64, "low"] < 0 < table.loc[64, "high"]
    said = publishing.report(plan, records, Path())
    assert "The two differ in what is trained, too. Looked at afterwards, " in said
    assert f"{table.loc[16, 'effect']:+.1f} (" in said and "against 1,024" in said


@pytest.mark.parametrize(
    ("gain", "half", "noise", "word"), [(600, 300_000, 1.0, "grows"), (60, 40, 3.0, "saturates")]
)
def test_a_curve_that_goes_on_and_one_that_ends_are_told_apart(gain, half, noise, word):
    found = [ablations.growth(simulated(gain, half, noise, seed=seed)) for seed in range(20)]
    assert np.mean([one == word for one in found]) >= 0.8


def test_without_gain_or_seeds_no_growth_is_told_and_one_curve_is_named():
    flat = [ablations.growth(simulated(0, 150, noise=8.0, seed=seed)) for seed in range(40)]
    assert np.mean([one == "cannot be told" for one in flat]) >= 0.85
    assert ablations.growth(simulated(600, 300_000).iloc[:5]) == "cannot be told"
    plan = committed("study-figure6-llava-1.5-7b")
    gains = {f"alone@{n}": 12 * i for i, n in enumerate((16, 64, 256, 1024, 4096, 16384))}
    records = [replace(one, metrics={"Yes/no": one.metrics["MME-P"]}) for one in made(plan, gains)]
    said = publishing.report(plan, records, Path())
    assert "against 4,096. With their number the score grows" in said
    assert "differ in what is trained" not in said
    (axis,) = worth.scaling_curve(plan, records).axes
    assert axis.get_xlabel() == "different captions of the projector alone, 512 steps for all"
    plt.close("all")


def test_memory_grows_with_the_blocks_and_only_a_gpu_measures_it():
    table = ablations.memory()
    learning = table["learning, million"]
    half = learning["tower@50%"] - learning["tower@0%"]
    assert half == pytest.approx(138.6, abs=0.1)  # blocks 12 to 22, 12.60 million each
    steps = table.loc[[f"tower@{n}%" for n in (0, 25, 50, 75, 100)], "estimated, GB"]
    assert steps.is_monotonic_increasing
    assert table.loc["tower@50%", "reported, GB"] == 56.7
    assert np.isnan(table.loc["tower@whole", "reported, GB"])
    plan = committed(OURS[2])
    assert ablations.measured(made(plan, {}))["measured, GB"].isna().all()
    gpu = ablations.measured(made(plan, {}, "NVIDIA H100"))
    assert list(gpu.index) == list(plan.arms) and (gpu["measured, GB"] == 5.0).all()


def test_a_part_of_a_plan():
    plan = plans.make(
        "all", **{**TINY, "arms": list(profiles.section("07_ablations", "mini").arms)}
    )
    parts = {g: ablations.part(plan, g) for g in ("Table 4", "Table 5", "Table 6", "Figure 6")}
    assert [len(part.arms) for part in parts.values()] == [5, 3, 2, 3]
    assert parts["Table 5"].primary == ("share@PT", "MME-P")
    with pytest.raises(LabError, match="no arms of Table 6"):
        ablations.part(PLAN, "Table 6")
