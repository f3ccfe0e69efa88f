"""The verdict on simulated studies: no effect, small and large ones, controls that fail."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from sgv_lab.study import criteria, plans, publishing

TRUE = {"after": 2.0, "oracle": 2.4, "shuffled": -2.5, "dropped": -1.0, "questions": -1.0}
STUDIES = 200


@cache
def plan(name="study-b"):
    return plans.load(publishing.folder() / "plans" / f"{name}-llava-1.5-7b.yaml")


def simulated(gains, seed, noise=1.0, arms=()):
    """Right answers in percent, seeds by arms: a pair's differences spread by ``noise``."""
    rng, arms = np.random.default_rng(seed), arms or plan().arms
    level = 65 + rng.normal(0, 3, (12, 1))
    runs = level + rng.normal(0, noise / 2**0.5, (12, len(arms)))
    return pd.DataFrame(runs, columns=list(arms)) + [gains.get(one, 0.0) for one in arms]


def verdicts(gains):
    """Verdict -> its share of simulated studies."""
    study = plan()
    found = (simulated(gains, seed) for seed in range(STUDIES))
    told = [criteria.verdict(criteria.comparisons(study, runs)) for runs in found]
    return pd.Series(told).value_counts(normalize=True)


def test_where_nothing_differs_the_instrument_is_said_to_tell_nothing():
    found = verdicts({})
    assert found[criteria.CANNOT_TELL] > 0.94  # a gate at 5 %, of which half is upwards
    assert found.get(criteria.FOR, 0) == 0


def test_without_an_effect_beside_a_real_ceiling_for_is_rare_and_against_usual():
    gains = TRUE | {"after": 0.0, "dropped": 0.0, "questions": 0.0}
    found = verdicts(gains)
    assert found.get(criteria.FOR, 0) < 0.03 and found[criteria.AGAINST] > 0.6


def test_a_large_effect_is_for_the_paper_and_a_small_one_mostly_not_resolved():
    assert verdicts(TRUE)[criteria.FOR] > 0.8
    small = verdicts(TRUE | {"after": 0.7, "dropped": 0.0, "questions": 0.0})
    assert small[criteria.UNRESOLVED] > 0.5 and small.get(criteria.AGAINST, 0) < 0.2
    small_alone = verdicts(TRUE | {"after": 0.5, "dropped": 0.0, "questions": 0.0})
    assert small_alone.get(criteria.FOR, 0) < 0.3


@pytest.mark.parametrize("control", ["aa", "style"])
def test_a_control_that_fails_stops_the_verdict_and_one_that_holds_seldom_does(control):
    assert verdicts(TRUE | {control: 2.0})[criteria.UNSOUND] > 0.9
    assert verdicts(TRUE | {control: 0.0}).get(criteria.UNSOUND, 0) < 0.1  # 5 %, but for chance


def test_captions_of_other_images_must_do_worse_and_no_captions_too():
    for arm, gain, word in (
        ("shuffled", 0.0, "shows no loss"),
        ("questions", 2.0, "shows no gain"),
    ):
        runs = simulated(TRUE | {arm: gain}, 3, noise=0.5)
        found = criteria.comparisons(plan(), runs)
        assert criteria.verdict(found) != criteria.FOR and word in " ".join(criteria.not_met(found))


def test_all_but_the_gate_and_the_primary_endpoint_are_corrected_together():
    runs = simulated(TRUE, 1)
    found = criteria.comparisons(plan(), runs)
    assert list(found["kind"]) == ["ceiling", "primary", "none", "none", "shuffled",
                                   "control", "control"]  # fmt: skip
    alone = criteria.comparisons(plan(), runs[["before", "after", "oracle", "aa"]])
    both = pd.concat([found, alone]).groupby(["kind", "arm"])
    width = (found["high"] - found["low"])[5], (alone["high"] - alone["low"])[2]
    assert width[0] > 1.2 * width[1]  # five rows, and one
    assert found["p"][5] >= alone["p"][2] and both["p"].nunique()["primary", "after"] == 1


def test_a_study_of_captions_alone_is_held_against_the_untuned_base():
    study = plan("study-a")
    runs = simulated({"after": 2, "oracle": 3, "shuffled": -15, "untuned": -4}, 5,
                     arms=(*study.arms, "untuned"))  # fmt: skip
    found = criteria.comparisons(study, runs).set_index("kind")
    assert found.loc["none", "against"] == "untuned" == found.loc["shuffled", "against"]
    assert criteria.verdict(found.reset_index()) == criteria.FOR
    above = criteria.comparisons(study, runs.assign(untuned=runs["after"] + 1))
    assert "against the untuned base shows no gain" in " ".join(criteria.not_met(above))


def test_what_is_planned_is_what_the_second_instrument_asks():
    asked = {name: criteria.planned(plan(name)) for name in ("study-a", "study-tokens", "pilot-c")}
    assert all(asked.values())
    assert not any(criteria.planned(plan(name)) for name in ("sft", "study-figure6"))
