"""From made-up records to conclusions: known effects, none, and an instrument that cannot see."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sgv_lab.benchmarks.mme import PERCEPTION
from sgv_lab.errors import LabError
from sgv_lab.figures import study as drawn_study
from sgv_lab.figures import worth
from sgv_lab.files import write_jsonl
from sgv_lab.study import caption_content, conclusions, effects, plans, publishing
from sgv_lab.study.arms import ARMS, SURFACE, UNTOLD
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import SEEN, SUBTASKS

ALIKE = ("none@PT", "blip@PT", "share@PT", "oracle@PT")  # one annotator in fine-tuning
QUESTIONS = {"existence": 12, "color": 18}


def plan(arms=("before", "after", "oracle", "aa"), seeds=10, **keys):
    given = {"title": "made up", "family": "llava-1.5-7b", "arms": list(arms), "seeds": seeds}
    return plans.make("made-up", **given, **{"primary": ["after", "MME-P"], **keys})


def made(plan, gains, noise=4.0, device="cpu", digest=None):
    """Records and points: every arm's MME-P is the seed's, plus its gain, plus noise of mean 0."""
    rng, records, tables = np.random.default_rng(7), [], []
    errors = rng.normal(0, noise, (len(plan.seeds), len(plan.arms)))
    errors -= errors.mean(0)
    for seed, own in zip(plan.seeds, errors, strict=True):
        level = rng.normal(0, 30)  # moves all arms of a seed
        for arm, error in zip(plan.arms, own, strict=True):
            parts = []
            for subtask, n in QUESTIONS.items():
                shift = (level + gains.get(arm, 0.0) + error) / len(QUESTIONS)
                row = {"score": "MME-P", "stratum": subtask, "points": 100 + shift}
                parts.append(pd.DataFrame({"image": [f"{subtask}{i}" for i in range(n)], **row}))
            table = pd.concat(parts)
            score = table.groupby("stratum")["points"].mean().sum()
            tables.append(table.assign(arm=arm, seed=seed))
            parts = dict.fromkeys((f"MME {name}" for name in SUBTASKS), score / 10)
            metrics = {"MME-P": score, "MMB": rng.normal(40, 1), "yes-bias": 3.0, **parts}
            made_by = {"device": device, "revision": "0"}
            records.append(
                Record(plan.name, digest or plan.digest, plan.family, arm, "mini", seed, metrics,
                       {}, {}, "key", made_by, 1.0, 1)
            )  # fmt: skip
    return records, pd.concat(tables)


def concluded(study, records, found=None):
    """The sentence on the primary endpoint; ``found``: the effects, if a test changed them."""
    found = effects.effects(study, records) if found is None else found
    runs = effects.by_seed(records, study.primary[1])
    return conclusions.primary_conclusion(study, found, runs)


def test_a_known_effect_comes_out_with_its_share_of_the_oracle():
    study = plan()
    records, points = made(study, {"after": 20, "oracle": 40})
    found = effects.effects(study, records, points)
    row = found[found["primary"]].iloc[0]
    assert row["effect"] == pytest.approx(20) and 10 < row["low"] < 20 < row["high"] < 30
    assert row["p"] < 0.001 and row["flip"] == 2 / 2**10
    assert row["share"] == pytest.approx(0.5) and row["share_low"] < 0.5 < row["share_high"]
    assert row["effect"] == pytest.approx((row["crossed_low"] + row["crossed_high"]) / 2)
    assert row["crossed_low"] > 0
    assert np.isnan(row["holm"])  # the primary endpoint stands as it is
    said = concluded(study, records, found)
    assert "10 paired seeds. “GPT4-Vision captions” against" in said and " helps: " in said
    assert "of what the oracle gains" in said
    spread = [replace(one, base=f"base {one.seed % 3}") for one in records]
    told = publishing.report(study, spread, Path())
    assert "over 3 bases" in told and "with ten seeds" in told
    noise = effects.power_analysis(records, "after", "before").loc["MME-P"]
    assert noise["after − before"] == pytest.approx(20) and 3 < noise["noise"] < 10
    aa = found[(found["arm"] == "aa") & (found["score"] == "MME-P")].iloc[0]
    assert aa["low"] < 0 < aa["high"] and np.isnan(aa["holm"])  # a control, not a finding
    secondary = found[(found["arm"] == "after") & (found["score"] == "MMB")].iloc[0]
    assert secondary["holm"] == pytest.approx(min(1, secondary["p"]))


def test_what_helps_hurts_and_does_nothing_is_said_so_where_filler_is_alike():
    study = plan(ALIKE, primary=["share@PT", "MME-P"])
    for gain, word in ((20, " helps: "), (-25, " hurts: "), (0, " has no measurable effect: ")):
        records, _ = made(study, {"share@PT": gain, "oracle@PT": 40})
        found, said = effects.effects(study, records), concluded(study, records)
        assert word in said and "of what the oracle" in said and "filler" not in said
    assert found["crossed_low"].isna().all()  # no points were given


@pytest.mark.parametrize("gain", [20, -25, 0])
def test_where_filler_differs_nothing_is_put_down_to_better_captions(gain):
    study = plan(("before", "style", "oracle"), primary=["style", "MME-P"])
    records, _ = made(study, {"style": gain, "oracle": 40})
    said = concluded(study, records)
    held = caption_content.by_arm(study)["filler"]
    assert "Better captions and more filler cannot be told apart" in said
    assert f"Filler is {held['style']:.0f} % of the tokens of" in said
    assert not any(word in said for word in ("helps", "hurts", "no measurable effect"))
    other = replace(study, profile="paper")  # official captions: nobody knows their filler
    assert "of the tokens" not in concluded(other, records)


def test_losing_less_than_the_base_does_is_no_gain(tmp_path):
    study = plan(ALIKE, primary=["share@PT", "MME-P"])
    records, _ = made(study, {"share@PT": 20, "oracle@PT": 40})
    for base, said in ((1e4, "40 of 40 runs lie below the untuned base (10,000.0)"), (0.0, "")):
        (tmp_path / "untuned.json").write_text(json.dumps({"MME-P": base}))
        told = publishing.report(study, records, tmp_path)
        assert said in told and ("smaller loss" in told) == bool(said)


def test_every_run_is_compared_with_the_base_that_it_starts_from(tmp_path):
    study = plan()
    two = {seed: f"base.{i % 2}" for i, seed in enumerate(study.seeds)}
    records = [replace(one, base=two[one.seed]) for one in made(study, {"after": 20})[0]]
    scores = effects.by_seed(records, "MME-P")
    level = scores["before"].groupby(two).mean()
    untuned = {name: {"MME-P": level[name]} for name in level.index}
    gained = effects.gains(study, records, untuned).set_index(["score", "arm"]).loc["MME-P"]
    assert gained.loc["before", "effect"] == pytest.approx(0)
    assert gained.loc["after", "effect"] == pytest.approx(20)
    crossed = {"base.0": {"MME-P": -1e4}, "base.1": {"MME-P": 1e4}}
    (tmp_path / "untuned.json").write_text(json.dumps(crossed))
    assert "smaller loss" not in publishing.report(study, records, tmp_path)  # of a half alone
    means = effects.means(study, records, untuned)
    assert means.loc["(untuned)", "MME-P"] == pytest.approx(level.mean())
    drawn = drawn_study.pairs(study, records, effects.effects(study, records), untuned=untuned)
    dotted = [line.get_xdata()[0] for line in drawn.axes[0].lines if line.get_linestyle() == ":"]
    assert dotted == pytest.approx(list(level[[two[seed] for seed in study.seeds[:2]]]))
    plt.close("all")


def test_an_instrument_that_cannot_tell_the_oracle_concludes_nothing():
    study = plan()
    records, _ = made(study, {"after": 60})
    assert effects.effects(study, records)["share"].isna().all()
    said = concluded(study, records)
    assert "This study cannot tell" in said and "no clear gain" in said and "helps" not in said


def test_an_alarm_of_the_control_is_not_kept_quiet():
    study = plan()
    records, _ = made(study, {"after": 20, "oracle": 40, "aa": 30})
    assert "against “blind GPT-4 captions” differs: +" in concluded(study, records)
    calm, _ = made(study, {"after": 20, "oracle": 40})
    assert "differs" not in concluded(study, calm)


def test_other_images_and_leaving_captions_out_weaken_what_is_said():
    study = plan(arms=("before", "after", "oracle", "dropped"))
    records, points = made(study, {"after": 20, "oracle": 40, "dropped": 30})
    found = effects.effects(study, records, points)
    said = concluded(study, records, found)
    assert "against “no detailed captions” shows no gain: −" in said and "other images" not in said
    found.loc[found["primary"], "crossed_low"] = -1.0
    said = concluded(study, records, found)
    assert "other images (−1.0 to " in said and "it may be nothing" in said
    less, _ = made(study, {"after": 20, "oracle": 40, "dropped": 8})
    assert "no detailed" not in concluded(study, less)


def test_few_seeds_resolve_nothing_and_without_an_oracle_nobody_knows():
    few = plan(seeds=2)
    assert "resolve nothing" in concluded(few, made(few, {"after": 500, "oracle": 900}, 0.1)[0])
    blind = plan(arms=("before", "after"))
    assert "Without an oracle" in concluded(blind, made(blind, {"after": 50})[0])


def test_a_pilot_sizes_the_study():
    pilot = plan(arms=("before", "oracle"), seeds=4, primary=["oracle", "MME-P"], pilot=True)
    records, _ = made(pilot, {"oracle": 40}, noise=10)
    table = effects.power_analysis(records)
    assert table.loc["MME-P", "noise"] == pytest.approx(14, rel=0.6)
    assert table.loc["MME-P", "detectable"] < table.loc["MME-P", "at worst"]
    assert "detectable" in publishing.report(pilot, records, publishing.folder())


def test_draws_of_one_annotator_give_the_false_alarm_rate(tmp_path):
    study = plan(arms=("before", "aa", "aa-2", "aa-3"), primary=["aa", "MME-P"])
    records, _ = made(study, {})
    found = effects.false_alarms(records, "MME-P")
    runs = effects.by_seed(records, "MME-P")
    assert found[-1] == pytest.approx(stats.ttest_rel(runs["aa-2"], runs["aa-3"]).pvalue)
    figure = drawn_study.plan_figure(study, records, effects.effects(study, records), {})
    (axis,) = figure.axes
    assert sum(bar.get_height() for bar in axis.patches) == len(found) == 6
    plt.close(figure)
    alike = [replace(one, metrics=records[0].metrics) for one in records]
    assert list(effects.false_alarms(alike, "MME-P")) == [1] * 6
    said = publishing.report(study, records, tmp_path)
    assert "In 6 comparisons of an annotator with itself" in said


def test_the_false_alarm_rate_of_draws_that_differ_in_nothing(monkeypatch):
    def rate(scores):
        runs = pd.DataFrame(scores, columns=["before", *(f"aa-{i}" for i in range(15))])
        monkeypatch.setattr(effects, "by_seed", lambda *_: runs)
        found = effects.false_alarms([], "MME-P")
        return (found < 0.05).mean(), len(found)

    rng = np.random.default_rng(11)
    found = [rate(rng.normal(0, 1, (10, 16))) for _ in range(60)]
    assert {pairs for _, pairs in found} == {120}
    assert np.mean([share for share, _ in found]) == pytest.approx(0.05, abs=0.015)
    odd = rng.normal(0, 0.1, (10, 16))
    odd[:, 0] += 5
    assert rate(odd)[0] >= 15 / 120


def test_devices_are_not_mixed():
    study = plan(seeds=1)
    records = made(study, {})[0] + made(study, {}, device="NVIDIA H100")[0]
    with pytest.raises(LabError, match="several devices: NVIDIA H100, cpu"):
        effects.by_seed(records, "MME-P")


def test_records_carry_the_papers_cells():
    study = plan(seeds=1)
    table = effects.tidy(made(study, {})[0])
    after = table[(table["arm"] == "after") & (table["score"] == "MME-P")].iloc[0]
    assert (after["place"], after["row"], after["cell"]) == ("figure2", "LLaVA-1.5-7B", "after")
    assert set(table[table["arm"] == "oracle"]["place"]) == {""}
    assert list(effects.means(study, made(study, {})[0]).index) == list(study.arms)


def test_the_surface_puts_better_captions_up_and_to_the_right():
    study = plan(arms=("before", "after", "oracle", "o75e0i0", "o0e50i0", "shuffled", "dropped",
                       "style"))  # fmt: skip
    table = caption_content.by_arm(study)
    assert table.loc["oracle", "accuracy"] == 100
    assert table.loc["oracle", "detail"] > table.loc["after", "detail"] > 50
    assert table.loc["o75e0i0", "detail"] < 45 and table.loc["o75e0i0", "accuracy"] > 95
    assert table.loc["o0e50i0", "accuracy"] < 75
    assert table.loc["shuffled", "accuracy"] < 50 and table.loc["dropped"].isna().all()
    assert (table["filler"].drop(["dropped", "style"]) < 1).all()  # unless an arm adds it
    assert 15 < table.loc["style", "filler"] < 40  # a fifth of the words
    same = ["detail", "accuracy"]
    assert table.loc["style", same].to_list() == pytest.approx(table.loc["before", same], abs=1)


def test_what_the_first_editions_captions_held_is_on_record():
    (study, *_), old = (
        publishing.load_study("surface-llava-1.5-7b"),
        caption_content.first_edition(),
    )
    table = caption_content.by_arm(study)
    assert list(table.index) == list(study.arms) and table.loc["oracle", "filler"] == 0
    assert table.loc["o75e0i0", "filler"] > table.loc["before", "filler"] > 60  # concentrated
    names = [path.name for path in (publishing.folder() / "studies").iterdir()]
    plans = {name: publishing.load_study(name)[0] for name in names}
    assert set(old["plan"]) == {name for name in names if "exam" not in plans[name].benchmarks}


def test_what_the_base_can_answer_is_a_score_of_its_own():
    assert SUBTASKS == ("existence", "count", "position", "color", "scene")  # as recorded
    assert set(SUBTASKS) < set(PERCEPTION)
    study = plan()
    records, points = made(study, {"after": 20})
    found = effects.effects(study, records, points).set_index(["score", "arm"]).loc[SEEN]
    assert found.loc["after", "effect"] == pytest.approx(10)  # five subtasks of a tenth each
    assert found["holm"].isna().all() and found["crossed_low"].notna().all()
    full = [replace(record, profile="paper") for record in records]
    assert SEEN not in set(effects.tidy(full)["score"])  # there nobody knows it beforehand
    first = effects.means(study, records, {"": records[0].metrics}).iloc[0]
    assert first.name == "(untuned)" and first[SEEN] == pytest.approx(first["MME-P"] / 2)


def test_what_the_gate_asks_of_runs_is_counted_seed_by_seed(monkeypatch, tmp_path):
    rows = [{"form": "choice", "ability": a, "options": ["x"] * n} for a, n in
            (("color", 2), ("color", 4), ("scene", 4), ("count", 9))]  # fmt: skip
    write_jsonl(tmp_path / "exam" / "questions.jsonl", [{"form": "open"}, *rows])
    monkeypatch.setattr(effects, "questions", lambda plan: tmp_path)
    asked = {"primary": ["after", "Yes/no"], "benchmarks": ["exam"]}
    arms, learns = ("before", "after", "oracle", "shuffled"), {"tuning": "projector"}
    alone = plan(arms, 6, **asked, baseline=learns)
    found = {"shuffled": 50.0, "oracle": 62.0}
    records, _ = made(alone, {})
    for i, one in enumerate(records):
        level = 60.0 + 3 * (one.seed == alone.seeds[0])  # a base on which the oracle falls
        scores = {"Yes/no": found.get(one.arm, 61.0), "Choice": 32.0}
        records[i] = replace(one, metrics=scores, base=f"base {level}")
    untuned = {f"base {level}": {"Yes/no": level, "Choice": 31.0} for level in (60.0, 63.0)}
    table = effects.gate_after(alone, records, untuned).set_index("arm")
    assert table["holds"].to_dict() == {"shuffled": 6, "oracle": 5}
    assert table.loc["oracle", ["bound_low", "bound_high", "high"]].to_list() == [60, 63, 62]
    tuned = replace(plan(arms, 6, **asked), seeds=alone.seeds)
    table = effects.gate_after(tuned, records, untuned).set_index("arm")
    assert set(table["bound_low"]) == {100 * ((1 / 2 + 1 / 4) / 2 + 1 / 4) / 2}  # 31.25
    assert table["holds"].to_dict() == dict.fromkeys(tuned.arms, 6) | {"untuned": 0}


def test_short_captions_alone_hold_stock_phrases():
    study = plans.load(publishing.folder() / "plans" / "study-a-llava-1.5-7b.yaml")
    table = caption_content.by_arm(study, ["before", "after", "oracle", "human", "blip"])
    assert table["stock"].round().to_list() == [0, 0, 0, 24, 30] and (table["filler"] < 1).all()


def test_every_miniature_s_figure_says_that_rates_are_assumed():
    full = {"title": "one", "arms": ["before", "after"], "primary": ["after", "MME-P"]}
    for arms, profile in ((full["arms"], "mini"), (["before", "after", "o0e30i0"], "mini"),
                          (full["arms"], "paper")):  # fmt: skip
        study = replace(plan(tuple(arms), seeds=3), profile=profile)
        records, points = made(study, {"after": 20})
        table = effects.effects(study, records, points)
        figure = drawn_study.plan_figure(study, records, table, {})
        said = figure.get_supxlabel()
        assert ("assumed" in said) == (profile == "mini"), arms
        plt.close(figure)


def test_what_each_fault_costs_is_found_over_the_whole_surface():
    grid = [one for one in ARMS.values() if one.group == SURFACE]
    study = plan(arms=("before", "after", "oracle", *(one.name for one in grid)), seeds=6)
    worth = {"omission": -10.0, "error": -30.0, "invention": 4.0}  # of all facts
    gains = {a.name: sum(w * a.changes[rate] for rate, w in worth.items()) for a in grid}
    records, _ = made(study, gains, noise=0.5)
    table = caption_content.slopes(records, "MME-P")
    for rate, row in table.iterrows():
        assert row["effect"] == pytest.approx(worth.get(rate, 0) / 10, abs=0.01)  # mean noise is 0
        assert row["low"] < row["effect"] < row["high"] < row["low"] + 0.5
    assert list(table.index[3:]) == [
        "omission × error", "omission × invention", "error × invention",
    ]  # fmt: skip
    first = [one for one in records if "e0i" in one.arm or one.arm.endswith("i0")]
    alone = caption_content.slopes(first, "MME-P")
    assert list(alone.index) == list(worth)  # not crossed: each for itself, and narrower
    worse = {a.name: gains[a.name] - 50 * a.changes["omission"] * a.changes["error"] for a in grid}
    both = caption_content.slopes(made(study, worse, noise=0.5)[0], "MME-P")
    assert both.loc["omission × error", "effect"] == pytest.approx(-0.5, abs=0.01)
    assert both.loc["omission × error", "high"] < 0 < both.loc["error × invention", "high"]
    said = publishing.report(study, records, Path())
    assert (
        "MME-P per 10 points of a fault's rate: left out −1.0" in said and "made up +0.4 (" in said
    )
    held = caption_content.by_arm(publishing.load_study("surface-llava-1.5-7b")[0])
    told = held.reindex([one.name for one in grid]).dropna()
    wrong = told["detail"] / told["accuracy"] * (100 - told["accuracy"])
    by_facts, _ = made(study, (0.2 * told["detail"] - 0.3 * wrong).to_dict(), noise=0.5)
    facts = caption_content.worth_of_facts(told, by_facts, "MME-P")
    assert facts["effect"].to_dict() == pytest.approx({"true": 2.0, "wrong": -3.0}, abs=0.01)
    assert (facts["low"] < facts["effect"]).all() and facts.loc["wrong", "high"] < 0
    by_filler, _ = made(study, (-0.3 * held["filler"]).to_dict(), noise=0.1)
    assert caption_content.follows_filler(held, by_filler, "MME-P") < -0.99
    assert abs(caption_content.follows_filler(held, records, "MME-P")) < 0.9
    unasked = [replace(r, metrics={"MME-P": r.metrics["MME-P"]}) for r in records]
    assert SEEN not in publishing.report(study, unasked, Path())  # and nothing breaks
    some = plan(arms=("before", "after", "o75e0i0"))
    few, _ = made(some, {})
    assert caption_content.slopes(few, "MME-P").empty
    assert "cannot tell" in conclusions.costs_of_faults(caption_content.by_arm(some), few, "MME-P")


def test_telling_is_worth_what_true_captions_lose_without_it():
    study = plan(arms=("before", "oracle", *(f"no-{kind}" for kind in UNTOLD)),
                 primary=["oracle", "MME-P"])  # fmt: skip
    records, _ = made(study, {})
    abilities, draw = ("existence", *UNTOLD), np.random.default_rng(0)
    noise = {(seed, name): draw.normal(0, 0.3) for seed in study.seeds for name in abilities}

    def answered(one):
        lost = {one.arm.removeprefix("no-"): 10, "existence": 3 * (one.arm == "no-color")}
        return {
            f"Yes/no {name}": 70 - lost.get(name, 0) + noise[one.seed, name] * ("no" in one.arm)
            for name in abilities
        }

    table = caption_content.worth_of_telling([replace(r, metrics=answered(r)) for r in records])
    assert list(table[table["own"]].index) == [(kind, kind) for kind in UNTOLD]
    assert (abs(table.loc[table["own"], "effect"] - 10) < 0.5).all()
    assert (table.loc[table["own"], "low"] > 8).all() and len(table) == 30
    apart = table[(table["low"] > 0) & ~table["own"]]
    assert list(apart.index) == [("color", "existence")]
    drawn = worth.telling(table).axes[0]
    bold = [text.get_text() for text in drawn.texts if text.get_weight() == "bold"]
    assert len(bold) == 6 and len(drawn.texts) == 30
    assert [label.get_text() for label in drawn.get_yticklabels()] == list(UNTOLD.values())


def test_controls_are_no_dots_on_the_surface_and_their_filler_is_not_the_faults():
    study = plan(arms=("before", "after", "oracle", "style", "o0e30i0", "o75e0i0"))
    assert caption_content.on_surface(study) == ["before", "after", "oracle", "o0e30i0", "o75e0i0"]
    records, _ = made(study, {"after": 20, "oracle": 40})
    assert "follows the share of filler" not in publishing.report(study, records, Path())


def test_figures_draw_what_the_table_says():
    study = plan(arms=("before", "after", "oracle", "shuffled", "o75e0i0"))
    records, points = made(study, {"after": 20, "oracle": 40})
    found = effects.effects(study, records, points)
    drawn = drawn_study.pairs(study, records, found, "made up")
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert labels[0] == "blind GPT-4 captions" and len(labels) == 6
    shuffled = labels.index("GPT4-Vision captions of other images")
    assert labels[shuffled + 1] == f"{labels[shuffled]}\nover GPT4-Vision captions"
    numbers = [text.get_text() for text in drawn.axes[1].texts]
    shown = found[found["score"] == "MME-P"].set_index(["arm", "against"])["effect"]
    first = f"{shown['oracle', 'before']:+.1f} ("
    assert numbers[0].startswith(first) and labels[1] == "true and whole captions"
    assert len(numbers) == len(shown) == 5
    surface = drawn_study.plan_figure(study, records, found, {})
    named = {text.get_text() for text in surface.axes[0].texts}
    assert named == {"blind GPT-4", "GPT4-Vision", "true and whole", "Share-Captioner, trained"}
    plt.close("all")


def test_committed_records_are_read_back_and_half_a_seed_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "folder", lambda: tmp_path / "data")
    text = """{title: t, family: llava-1.5-7b, arms: [before, after, oracle], seeds: 8,
               primary: [after, MME-P], minutes_a_run: 3}"""
    (tmp_path / "data" / "plans").mkdir(parents=True)
    (tmp_path / "data" / "plans" / "one.yaml").write_text(text)
    (tmp_path / "data" / "plans" / "two.yaml").write_text(text)
    one = plans.load(tmp_path / "data" / "plans" / "one.yaml")
    records, points = made(one, {"after": 20, "oracle": 40})
    out = tmp_path / "run"
    write_jsonl(out / "records.jsonl", [asdict(r) for r in records[:-1]])
    points.to_parquet(out / "points.parquet")
    drawn_study.publish(one, records, out, tmp_path)
    assert (tmp_path / "one.png").is_file() and (tmp_path / "data" / "one.csv").is_file()
    assert len(publishing.load_study("one")[1]) == 21
    assert list(publishing.status()["state"]) == ["part, by an earlier design", "not run"]
    said = publishing.conclusions()["what follows, in miniature"]
    assert "7 paired seeds" in said["one"] and said["two"] == "not run"
    plt.close("all")


def test_an_effect_is_told_by_language_model_and_what_they_differ_by():
    study = plan(arms=("before", "after"), seeds=12)
    records, _ = made(study, {"after": 20}, noise=4)
    names = [f"llava-1.5-7b{n}" for n in ("", ".1", ".2", ".3", ".4", ".5")]
    base = {seed: names[i % 6] for i, seed in enumerate(study.seeds)}
    records = [replace(one, base=base[one.seed]) for one in records]
    found = effects.by_language_model(records, "after", "before", "MME-P")
    assert list(found.index) == ["language model 0", "language model 1", "difference"]
    assert found["seeds"].to_list() == [6, 6, 12]
    runs = effects.by_seed(records, "MME-P")
    d = (runs["after"] - runs["before"]).rename(base).groupby(lambda n: n[-1] in "345").mean()
    assert found["effect"].to_list() == pytest.approx([d[False], d[True], d[True] - d[False]])
    assert (found["low"] < found["effect"]).all() and (found["effect"] < found["high"]).all()
    alone = [one for one in records if one.base == names[0]]
    assert list(effects.by_language_model(alone, "after", "before", "MME-P").index) == [
        "language model 0"
    ]
