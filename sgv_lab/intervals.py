"""Intervals, tests and power: what the numbers say, and what they could have said.

One mechanism for all 95 % intervals: an estimate, its variance over groups that are independent of
each other (seeds, images, raters, questions asked together), and Student's t with as many degrees
of freedom as there are groups, less one. ``differences`` are (S,): one number a seed.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import optimize, stats

from sgv_lab.errors import LabError

LEVEL = 0.95
FEWEST = 10  # clusters: below, all right or all wrong is too likely, and no width can be told

Interval = tuple[float, float, float]
"""An estimate and the two ends of its interval."""


def student_t(estimate: float, variance: float, groups: int, level: float = LEVEL) -> Interval:
    """``estimate`` with its interval; infinite for a single group, which tells of no other."""
    if groups < 2:
        return float(estimate), -np.inf, np.inf
    half = stats.t.ppf((1 + level) / 2, groups - 1) * np.sqrt(variance)
    return float(estimate), float(estimate - half), float(estimate + half)


def paired(differences: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of ``differences`` and its paired-t interval; zero width if all are equal."""
    d = np.asarray(differences, float)
    if not d.size or not np.isfinite(d).all():
        raise LabError("no seed, or a seed without a number", where="paired interval")
    return student_t(d.mean(), d.var(ddof=1) / len(d) if len(d) > 1 else 0.0, len(d), level)


def level_of_each(count: int) -> float:
    """The level of each of ``count`` intervals at which all hold together at LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / count


def jackknife_variance(left_out: np.ndarray) -> np.ndarray:
    """Variance (...) of an estimate from ``left_out`` (C, ...), the estimate without each group."""
    return (len(left_out) - 1) * left_out.var(0)


def by_cluster(clusters: Sequence[Hashable], columns: np.ndarray) -> np.ndarray:
    """(N,) cluster names and (N, S) columns -> (C, S) sums within each cluster."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    inverse = np.fromiter((numbers[name] for name in clusters), int, len(clusters))
    columns = np.asarray(columns, float).reshape(len(clusters), -1)
    return np.stack([np.bincount(inverse, weights=c, minlength=len(numbers)) for c in columns.T], 1)


def by_cluster_and_group(
    clusters: Sequence[Hashable], groups: Sequence[Hashable], columns: Sequence[Sequence[float]]
) -> np.ndarray:
    """(N,) names of clusters and of groups, (N, S) columns -> (C, G, S) sums, in order of names."""
    names = list(dict.fromkeys(groups))
    placed = np.zeros((len(groups), len(names), len(columns[0])))
    placed[range(len(groups)), [names.index(group) for group in groups]] = columns
    return by_cluster(clusters, placed).reshape(-1, *placed.shape[1:])


def clustered(
    statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, most: float = np.inf
) -> list[float] | None:
    """Low and high end for ``statistic`` of the column sums, by the delete-one-cluster jackknife.

    ``sums`` is (C, S) or (C, G, S), one row a cluster; ``statistic`` maps (..., S) to (...), values
    from 0 to ``most``. Robust to any dependence within clusters (the CR3 variance for a mean; Bell
    & McCaffrey 2002). None for fewer than FEWEST clusters, and where one of them decides whether
    the statistic is defined.
    """
    if len(sums) < FEWEST:
        return None
    total = sums.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        point, left_out = statistic(total), statistic(total - sums)
    if not np.isfinite(left_out).all():
        return None
    _, low, high = student_t(point, jackknife_variance(left_out), len(sums))
    return [max(0.0, low), float(min(most, high))]


def ratio(scale: float = 100.0) -> Callable[[np.ndarray], np.ndarray]:
    """The statistic ``scale`` × first column / second column."""
    return lambda sums: scale * sums[..., 0] / sums[..., 1]


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], scale: float = 100.0
) -> list[float] | None:
    """`clustered` for the mean of (N,) ``values`` in [0, 1] × ``scale``, by (N,) ``clusters``."""
    columns = np.stack([np.asarray(values, float), np.ones(len(values))], 1)
    return clustered(ratio(scale), by_cluster(clusters, columns), scale)


def two_way(values: Sequence[float], *ways: Sequence[Hashable]) -> Interval:
    """Mean of (N,) ``values`` with its interval when other images *and* other raters are possible.

    ``ways``: the image and the rater of each value. Two-way clustered variance (Cameron, Gelbach &
    Miller 2011) with each way's small-sample factor, never below the larger of the two; t of the
    rarer of images and raters. With a single rater it is over images alone and says nothing of
    other raters. NaN limits where neither varies.
    """
    values = np.asarray(values, float)
    rest, mean = values - values.mean(), values.mean()
    sums = [by_cluster(names, rest)[:, 0] for names in ways]
    sums = [one for one in sums if len(one) > 1]
    if not sums:
        return float(mean), np.nan, np.nan
    each = [len(one) / (len(one) - 1) * (one**2).sum() for one in sums]
    total = max(sum(each) - (rest**2).sum() * (len(each) - 1), *each)
    return student_t(mean, total / len(values) ** 2, min(map(len, sums)))


def crossed(units: np.ndarray, strata: Sequence[str]) -> Interval:
    """Effect with its interval when other seeds *and* other images could have been drawn.

    ``units`` is (S, I): by seed and image, the arm's points minus the other's; ``strata`` (I,)
    names each image's subtask. The effect is the sum over subtasks of mean points, as MME's.
    Variance as in `two_way`.
    """
    seeds, of = len(units), np.asarray(strata)
    parts = [units[:, of == name] for name in dict.fromkeys(strata)]
    by_seed = sum(part.mean(1) for part in parts)
    if seeds < 2:
        return student_t(by_seed[0], 0.0, seeds)
    by_image = both = 0.0
    for part in parts:
        images, mean = part.shape[1], part.mean(0)
        if images > 1:
            by_image += mean.var(ddof=1) / images
            rest = part - mean - part.mean(1, keepdims=True) + part.mean()
            both += (rest**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
    over_seeds = by_seed.var(ddof=1) / seeds
    variance = max(over_seeds + by_image - both, over_seeds, by_image)
    return student_t(by_seed.mean(), variance, seeds)


def share_of(effect: Sequence[float], ceiling: Sequence[float]) -> Interval | None:
    """``effect`` as a share of ``ceiling`` (both (S,) differences) with Fieller's interval.

    None where the ceiling's own interval reaches 0 or below: a share of nothing says nothing.
    """
    y, x = np.asarray(effect, float), np.asarray(ceiling, float)
    mean, low, _ = paired(x)
    if low <= 0:
        return None
    t2 = stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) ** 2 / len(x)
    (xx, xy), (_, yy) = np.cov(x, y)
    a, b, c = mean**2 - t2 * xx, mean * y.mean() - t2 * xy, y.mean() ** 2 - t2 * yy
    root = np.sqrt(max(b * b - a * c, 0.0))
    return float(y.mean() / mean), float((b - root) / a), float((b + root) / a)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the exact sign-flip test: under "no effect" either arm could be the other.

    All 2^S sign patterns up to 16 seeds, 65,536 random ones beyond. With S seeds no p lies below
    2^(1-S): five seeds cannot reach 0.05.
    """
    test = stats.permutation_test(
        (np.asarray(differences, float),),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**16,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def holm(p: Sequence[float]) -> np.ndarray:
    """(K,) p values adjusted by Holm's step-down: below 0.05, the family-wise rate is 5 %."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(steps, 1)[np.argsort(order)]


def power(effect: float, noise: float, seeds: int, level: float = LEVEL) -> float:
    """How often ``seeds`` pairs whose differences have standard deviation ``noise`` show it."""
    t, shift = stats.t.ppf((1 + level) / 2, seeds - 1), effect * np.sqrt(seeds) / noise
    wrong_sign = np.nan_to_num(stats.nct.cdf(-t, seeds - 1, shift))  # nan where it underflows
    return float(stats.nct.sf(t, seeds - 1, shift) + wrong_sign)


def detectable(seeds: int, level: float = LEVEL) -> float:
    """The effect that 80 % of studies of ``seeds`` pairs show, in standard deviations of a pair."""
    return float(optimize.brentq(lambda e: power(e, 1.0, seeds, level) - 0.8, 1e-3, 1e2))


def planted(differences: Sequence[float], effect: float) -> float:
    """How often ``differences`` (S,) with ``effect`` added show it, under all 2^S signs of theirs.

    Where nothing differs either arm could be the other, so every pattern of signs could have come,
    if seeds are independent. With an ``effect`` of 0: how often one is shown that is none.
    """
    d = np.asarray(differences, float)
    signs = 1 - 2 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
    tested = stats.ttest_1samp(signs * d + effect, 0, axis=1)
    return float(((tested.pvalue < 1 - LEVEL) & (tested.statistic * effect >= 0)).mean())


def minimum_detectable(pilot: Sequence[float], seeds: int) -> tuple[float, float]:
    """The effect that ``seeds`` pairs show in 80 % of studies, from a pilot's differences.

    Second number: the same if the noise is as large as its 80 % upper limit.
    """
    d = np.asarray(pilot, float)
    if len(d) < 2 or seeds < 2 or not d.std():
        raise LabError("the noise cannot be told", where="pilot", fix="run at least two seeds")
    upper = np.sqrt((len(d) - 1) / stats.chi2.ppf(0.2, len(d) - 1))
    effect = detectable(seeds) * d.std(ddof=1)
    return float(effect), float(effect * upper)
