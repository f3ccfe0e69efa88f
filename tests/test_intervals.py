"""Known effects and none through the study's statistics: they cover, and reject, as they say."""

import numpy as np
import pytest
from scipy import stats

from sgv_lab import intervals as s
from sgv_lab.errors import LabError
from sgv_lab.study.scores import yes_bias

SEEDS, STUDIES = 10, 1500


def within(count: int, of: int, rate: float) -> bool:
    """Whether ``count`` of ``of`` is what a true ``rate`` gives (99.9 % binomial limits)."""
    low, high = stats.binom.interval(0.999, of, rate)
    return low <= count <= high


@pytest.mark.parametrize("effect", [0.0, 12.0])
def test_paired_intervals_cover_and_reject_at_their_rate(effect):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 75, (STUDIES, SEEDS, 1))  # moves both arms of a seed
    scores = noise + rng.normal([0, effect], 15, (STUDIES, SEEDS, 2))
    found = [s.paired(d) for d in scores[..., 1] - scores[..., 0]]
    assert within(sum(low <= effect <= high for _, low, high in found), STUDIES, 0.95)
    power = s.power(effect, 15 * 2**0.5, SEEDS) if effect else 0.05
    assert within(sum(low > 0 or high < 0 for _, low, high in found), STUDIES, power)


def test_pairing_is_what_makes_the_effect_visible():
    rng = np.random.default_rng(2)
    before = rng.normal(300, 75, SEEDS)
    after = before + 20 + rng.normal(0, 5, SEEDS)
    assert s.paired(after - before)[1] > 0
    assert stats.ttest_ind(after, before).pvalue > 0.2


def test_the_sign_flip_test_is_exact():
    assert s.sign_flip([1, 2, 3, 4]) == 2 / 2**4
    assert s.sign_flip([3.0, -1.0]) == 1.0  # means 2, 1, -1, -2 by two: |1| or more always
    assert s.sign_flip([5.0] * 5) > 0.05 > s.sign_flip([5.0] * 6)
    rng = np.random.default_rng(3)
    rejected = sum(s.sign_flip(rng.standard_t(3, 8)) <= 0.05 for _ in range(600))
    assert within(rejected, 600, 12 / 256)  # the largest p below 0.05 that 8 seeds can give


def crossed(rng, effect, seed_sd, picture_sd, noise_sd, pictures=40):
    seed, picture = rng.normal(0, seed_sd, (SEEDS, 1)), rng.normal(0, picture_sd, pictures)
    return effect + seed + picture + rng.normal(0, noise_sd, (SEEDS, pictures))


@pytest.mark.parametrize(("seed_sd", "picture_sd", "noise_sd"), [(3, 0, 1), (0.3, 6, 3), (2, 6, 8)])
def test_the_crossed_interval_covers_whatever_the_noise_comes_from(seed_sd, picture_sd, noise_sd):
    rng, covered, studies = np.random.default_rng(4), 0, 400
    strata = ["a"] * 10 + ["b"] * 30
    for _ in range(studies):
        units = crossed(rng, 2.0, seed_sd, picture_sd, noise_sd)
        _, low, high = s.crossed(units, strata)
        covered += low <= 4.0 <= high  # two subtasks, 2 points each
    assert covered / studies > stats.binom.interval(0.999, studies, 0.95)[0] / studies


def test_the_crossed_interval_is_no_wider_than_the_substitution_study_needs():
    """Standard errors as measured there: seeds 2.06, images 1.79, of these interaction 1.69."""
    subtasks, images, both = 9, 24, 1.69
    one = np.sqrt(subtasks / images)  # standard error of the sum, images of standard deviation 1
    scale = (np.sqrt(SEEDS) * np.sqrt(2.06**2 - both**2) / subtasks,
             np.sqrt(1.79**2 - both**2) / one, np.sqrt(SEEDS) * both / one)  # fmt: skip
    rng, studies = np.random.default_rng(12), 1000
    strata = [str(i % subtasks) for i in range(subtasks * images)]
    found = [
        s.crossed(crossed(rng, 6.3 / subtasks, *scale, subtasks * images), strata)
        for _ in range(studies)
    ]
    assert within(sum(low <= 6.3 <= high for _, low, high in found), studies, 0.95)
    assert np.mean([high - low for _, low, high in found]) == pytest.approx(9.6, abs=0.3)


def test_the_crossed_interval_sees_an_effect_and_agrees_with_t_where_pictures_do_not_matter():
    rng = np.random.default_rng(5)
    units = crossed(rng, 2.0, 3, 0, 0.0)
    assert s.crossed(units, ["a"] * 40) == pytest.approx(s.paired(units.mean(1)))
    _, low, _ = s.crossed(units + 20, ["a"] * 40)
    assert low > 0


def test_the_crossed_interval_by_hand_and_never_narrower_than_seeds_or_images_alone():
    units = np.array([[1.0, 3.0, 8.0], [2.0, 8.0, 2.0]])
    t = stats.t.ppf(0.975, 1)  # seeds' means 4 and 4
    _, low, high = s.crossed(units, ["a"] * 3)
    images = np.var([1.5, 5.5, 5.0], ddof=1) / 3  # the interaction is more than the seeds
    assert (low, high) == pytest.approx((4 - t * images**0.5, 4 + t * images**0.5))
    units[1] += 10
    seeds, both = 10**2 / 2 / 2, (0.5**2 + 2.5**2 + 3**2) * 2 / 2 / 6
    _, low, high = s.crossed(units, ["a"] * 3)
    half = t * np.sqrt(max(seeds + images - both, seeds))
    assert (low, high) == pytest.approx((9 - half, 9 + half))


def test_a_subtask_of_one_picture_and_a_single_seed_are_no_trouble():
    units = np.random.default_rng(6).normal(0, 1, (4, 12))
    _, low, high = s.crossed(units, ["rare"] + ["often"] * 11)
    assert np.isfinite([low, high]).all()
    assert s.crossed(units[:1], ["a"] * 12)[1:] == (-np.inf, np.inf)


def test_holm_by_hand_and_holding_the_family_wise_rate():
    assert s.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert s.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    rng = np.random.default_rng(7)
    any_rejected = sum(s.holm(rng.random(5)).min() < 0.05 for _ in range(STUDIES))
    assert any_rejected <= stats.binom.interval(0.999, STUDIES, 0.05)[1]


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_the_share_of_the_ceiling_covers(share):
    rng, covered, bounded = np.random.default_rng(8), 0, 0
    for _ in range(STUDIES):
        ceiling = rng.normal(30, 20, SEEDS)
        found = s.share_of(rng.normal(30 * share, 20, SEEDS), ceiling)
        bounded += found is not None
        covered += found is not None and found[1] <= share <= found[2]
    assert bounded > 0.9 * STUDIES
    assert covered / bounded > 0.935


def test_without_a_ceiling_there_is_no_share():
    rng = np.random.default_rng(9)
    silent = sum(s.share_of(rng.normal(5, 1, 10), rng.normal(0, 9, 10)) is None for _ in range(300))
    assert within(silent, 300, 0.975)
    assert s.share_of([1, 1, 1.1], [-5, -5, -5.1]) is None  # the oracle hurts: no ceiling either


def test_the_minimum_detectable_effect_is_detected_as_often_as_it_says():
    rng = np.random.default_rng(10)
    effect, upper = s.minimum_detectable(pilot := rng.normal(30, 20, 4), SEEDS)
    assert upper > effect
    studies = rng.normal(effect, pilot.std(ddof=1), (STUDIES, SEEDS))
    assert within(sum(s.paired(d)[1] > 0 for d in studies), STUDIES, 0.8)
    few, _ = s.minimum_detectable(pilot, 3)
    assert few > 2 * effect
    assert s.power(s.detectable(SEEDS, 0.99), 1, SEEDS, 0.99) == pytest.approx(0.8)


def test_yes_bias():
    assert yes_bias(["yes"] * 4, ["yes", "no"] * 2) == 50
    assert yes_bias(["no", "other"], ["yes", "no"]) == -50


def test_too_little_is_said_so():
    assert s.paired([3.0]) == (3.0, -np.inf, np.inf)
    with pytest.raises(LabError, match="no seed"):
        s.paired([])
    with pytest.raises(LabError, match="no seed"):
        s.paired([1.0, float("nan")])
    with pytest.raises(LabError, match="noise cannot be told"):
        s.minimum_detectable([1.0], 10)


def test_an_effect_planted_in_noise_of_any_sign_is_found_as_often_as_is_said():
    rng, said = np.random.default_rng(12), s.detectable(9)
    noise = rng.normal(0, 3, (60, 9))
    found = [s.planted(d, said * d.std(ddof=1)) for d in noise]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)
    assert np.mean([s.planted(d, 0) for d in noise]) == pytest.approx(0.05, abs=0.01)


def test_planted_counts_every_pattern_of_signs_and_one_direction_alone():
    assert s.planted([1, 2, 3, 9], 0) == 0  # all of one sign, and p is still above 0.05
    assert s.planted([1, 1.1, 1.2, 1.3, 1.4], 0) == 2 / 32  # all up, all down
    assert s.planted([0.1, 0.2, 0.3], 50) == 1 == s.planted([0.1, 0.2, 0.3], -50)
    far = [10, 11, 12, 13, 14]  # shown by two patterns, one of them in the other direction
    assert s.planted(far, 0.1) == s.planted(far, -0.1) == 1 / 32
