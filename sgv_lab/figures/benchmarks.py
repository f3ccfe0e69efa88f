"""Scoring rules compared on the same answers, drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgv_lab import benchmarks
from sgv_lab.figures.style import FULL_WIDTH, INK, PALE

COLORS = ("#E69F00", "#56B4E9", "#CC79A7", "#D55E00")  # of the rules besides the official one


def rules(table: pd.DataFrame, knows: float | None) -> Figure:
    """Every rule's value by label, a panel a benchmark; ``knows`` is drawn as a dashed line.

    ``table``: of `variants.compare`.
    """
    names = list(dict.fromkeys(table["benchmark"]))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    size = (FULL_WIDTH, 2.9 * rows)
    look = {"figsize": size, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, **look)
    for axis, name in zip(axes.flat, names, strict=False):
        _panel(axis, table[table["benchmark"] == name], knows)
        axis.set_title(benchmarks.MODULES[name][1])
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("% of full marks")
    return figure


def _panel(axis: Axes, table: pd.DataFrame, knows: float | None) -> None:
    labels = list(dict.fromkeys(table["label"]))
    names = list(dict.fromkeys(table["rule"]))
    if knows is not None:
        axis.axhline(100 * knows, color=PALE, linewidth=1, linestyle="--")
    for number, rule in enumerate(names):
        values = table[table["rule"] == rule].set_index("label")["value"][labels]
        shift = (number - (len(names) - 1) / 2) * 0.13  # side by side where values are equal
        official = rule == benchmarks.OFFICIAL
        axis.scatter(
            np.arange(len(labels)) + shift,
            values,
            s=46 if official else 34,
            marker="oDsv^P"[number],
            color=INK if official else COLORS[number - 1],
            label=rule.replace("_", " "),
            zorder=3 if official else 2,
        )
    axis.set(ylim=(-5, 108), xticks=range(len(labels)), xlim=(-0.5, len(labels) - 0.5))
    axis.set_xticklabels(labels, fontsize=7.5, rotation=30, ha="right")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
