"""Intervals that respect clusters: the images, or the circular groups of questions."""

from sgv_lab.intervals import by_cluster, ratio
from sgv_lab.intervals import clustered as interval
from sgv_lab.intervals import clustered_mean as mean_interval

__all__ = ["by_cluster", "interval", "mean_interval", "ratio"]
