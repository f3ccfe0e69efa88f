"""What paired runs say, and what they could have said: intervals, tests, detectable effects.

Everywhere ``differences`` is (S,): one number a seed, an arm minus the arm it is compared with, the
same seed in both. Whatever scipy has is scipy's.
"""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from sgv_lab.errors import LabError

LEVEL = 0.95


def interval(differences: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Mean and its paired-t interval over seeds; endless with one seed, a point without noise.

    Raises LabError for no or non-finite differences.
    """
    d = np.asarray(differences, float)
    if not d.size or not np.isfinite(d).all():
        raise LabError("no seed, or a seed without a number", where="paired interval")
    if len(d) < 2:
        return float(d[0]), -np.inf, np.inf
    half = stats.t.ppf((1 + level) / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the exact sign-flip test: under "no effect" either arm could be the other.

    All 2^S sign patterns up to 16 seeds, 65,536 random ones beyond. With S seeds no p lies below
    2^(1-S): five seeds cannot reach 0.05.
    """
    d = np.asarray(differences, float)
    test = stats.permutation_test(
        (d,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**16,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def crossed_interval(units: np.ndarray, strata: Sequence[str]) -> tuple[float, float, float]:
    """Effect and 95 % interval when other seeds *and* other images could have been drawn.

    ``units`` is (S, I): by seed and image, the arm's points minus the other's; ``strata`` (I,)
    names each image's subtask. The effect is the sum over subtasks of mean points, as MME's.
    Variance: that of seeds + that of images - that of their interaction, which both of the first
    hold (Cameron, Gelbach & Miller 2011); at least the larger of the two, as the true one is.
    Student's t of S - 1.
    """
    seeds, of = len(units), np.asarray(strata)
    parts = [units[:, of == name] for name in dict.fromkeys(strata)]
    by_seed = sum(part.mean(1) for part in parts)
    if seeds < 2:
        return float(by_seed[0]), -np.inf, np.inf
    by_image = both = 0.0
    for part in parts:
        images, mean = part.shape[1], part.mean(0)
        if images > 1:
            by_image += mean.var(ddof=1) / images
            rest = part - mean - part.mean(1, keepdims=True) + part.mean()
            both += (rest**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
    effect, over_seeds = by_seed.mean(), by_seed.var(ddof=1) / seeds
    variance = max(over_seeds + by_image - both, over_seeds, by_image)
    half = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * np.sqrt(variance)
    return float(effect), float(effect - half), float(effect + half)


def holm(p: Sequence[float]) -> np.ndarray:
    """(K,) p values adjusted by Holm's step-down: below 0.05, the family-wise rate is 5 %."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def share_of(
    effect: Sequence[float], ceiling: Sequence[float]
) -> tuple[float, float, float] | None:
    """``effect`` as a share of ``ceiling`` (both (S,) differences) with Fieller's interval.

    None where the ceiling's own interval reaches 0 or below: the instrument is insensitive then,
    and a share of nothing says nothing.
    """
    y, x = np.asarray(effect, float), np.asarray(ceiling, float)
    mean, low, _ = interval(x)
    if low <= 0:
        return None
    t2 = stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) ** 2 / len(x)
    (xx, xy), (_, yy) = np.cov(x, y)
    a, b, c = mean**2 - t2 * xx, mean * y.mean() - t2 * xy, y.mean() ** 2 - t2 * yy
    root = np.sqrt(max(b * b - a * c, 0.0))
    return float(y.mean() / mean), float((b - root) / a), float((b + root) / a)


def power(effect: float, noise: float, seeds: int, level: float = LEVEL) -> float:
    """How often ``seeds`` pairs whose differences have standard deviation ``noise`` show it."""
    t, shift = stats.t.ppf((1 + level) / 2, seeds - 1), effect * np.sqrt(seeds) / noise
    wrong_sign = np.nan_to_num(stats.nct.cdf(-t, seeds - 1, shift))  # nan where it underflows
    return float(stats.nct.sf(t, seeds - 1, shift) + wrong_sign)


def detectable(seeds: int) -> float:
    """The effect that 80 % of studies of ``seeds`` pairs show, in standard deviations of a pair."""
    return float(optimize.brentq(lambda e: power(e, 1.0, seeds) - 0.8, 1e-3, 1e2))


def minimum_detectable(pilot: Sequence[float], seeds: int) -> tuple[float, float]:
    """The effect that ``seeds`` pairs show in 80 % of studies, from a pilot's noise.

    Second number: the same if the noise is as large as its 80 % upper limit, since a pilot of a
    few seeds knows it badly. Raises LabError for a pilot without noise or of one seed.
    """
    d = np.asarray(pilot, float)
    if len(d) < 2 or seeds < 2 or not d.std():
        raise LabError("the noise cannot be told", where="pilot", fix="run at least two seeds")
    noise = d.std(ddof=1)
    upper = noise * np.sqrt((len(d) - 1) / stats.chi2.ppf(0.2, len(d) - 1))
    return float(detectable(seeds) * noise), float(detectable(seeds) * upper)


def rejection_rate(scores: np.ndarray) -> tuple[float, int]:
    """Share of A/A pairs that the paired-t interval calls different, and the number of pairs.

    ``scores`` is (D, S): D draws of one annotator's captions, S training seeds. Every two draws
    are an A/A study; what is rejected here is the instrument's own false-alarm rate.
    """
    first, second = np.triu_indices(len(scores), 1)
    pairs = [interval(d) for d in scores[first] - scores[second]]
    return float(np.mean([low > 0 or high < 0 for _, low, high in pairs])), len(pairs)


def yes_bias(said: Sequence[str], truth: Sequence[str]) -> float:
    """Share of "yes" said minus share of "yes" true, in percentage points; 50: always yes."""
    return 100 * float(np.mean([s == "yes" for s in said]) - np.mean([t == "yes" for t in truth]))
