"""95 % intervals that respect clusters: the pictures, or the circular groups of questions."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import stats

FEWEST = 10  # clusters: below, all right or all wrong is too likely, and no width can be told


def by_cluster(clusters: Sequence[Hashable], columns: np.ndarray) -> np.ndarray:
    """(N,) cluster names and (N, S) columns -> (C, S) sums within each cluster."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    inverse = np.fromiter((numbers[name] for name in clusters), int, len(clusters))
    columns = np.asarray(columns, float).reshape(len(clusters), -1)
    return np.stack([np.bincount(inverse, weights=c, minlength=len(numbers)) for c in columns.T], 1)


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, most: float = np.inf
) -> list[float] | None:
    """95 % interval of ``statistic`` of the column sums, by the delete-one-cluster jackknife.

    ``sums`` is (C, S), one row a cluster; ``statistic`` maps (..., S) to (...), values from 0 to
    ``most``, where the interval ends, too. Deterministic and robust to any dependence within
    clusters (the CR3 variance for a mean; Bell & McCaffrey 2002), Student t with C − 1 degrees of
    freedom. None for fewer than ``FEWEST`` clusters, and where one of them decides whether the
    statistic is defined.
    """
    clusters = len(sums)
    if clusters < FEWEST:
        return None
    total = sums.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        point, left_out = statistic(total), statistic(total - sums)
    if not np.isfinite(left_out).all():
        return None
    variance = (clusters - 1) / clusters * ((left_out - left_out.mean()) ** 2).sum()
    half = stats.t.ppf(0.975, clusters - 1) * np.sqrt(variance)
    return [float(max(0.0, point - half)), float(min(most, point + half))]


def ratio(scale: float = 100.0) -> Callable[[np.ndarray], np.ndarray]:
    """The statistic ``scale`` × first column / second column."""
    return lambda sums: scale * sums[..., 0] / sums[..., 1]


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable], scale: float = 100.0
) -> list[float] | None:
    """``interval`` of the mean of (N,) ``values`` in [0, 1] × ``scale``, by (N,) ``clusters``."""
    columns = np.stack([np.asarray(values, float), np.ones(len(values))], 1)
    return interval(ratio(scale), by_cluster(clusters, columns), scale)
