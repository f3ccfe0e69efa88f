"""Scoring rules compared on the same answers, drawn."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sgv_lab import benchmarks
from sgv_lab.figures.style import FULL_WIDTH, INK, PALE

COLORS = (INK, "#E69F00", "#56B4E9", "#CC79A7", "#D55E00")  # of the rules, the official one first


def rules(table: pd.DataFrame, knows: float | None = None) -> Figure:
    """Every rule's value by label, a panel a benchmark; ``knows`` is drawn as a dashed line.

    ``table``: of `rule_comparison.compare`.
    """
    names = table["benchmark"].unique()
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = plt.figure(figsize=(FULL_WIDTH, 2.9 * rows), layout="constrained")
    for number, name in enumerate(names, 1):
        axis = figure.add_subplot(rows, columns, number, title=benchmarks.MODULES[name][1])
        if knows is not None:
            axis.axhline(100 * knows, color=PALE, linewidth=1, linestyle="--")
        parts = table[table["benchmark"] == name].groupby("rule", sort=False)
        for rank, (rule, part) in enumerate(parts):
            look = {"markersize": 11 - 2 * rank, "color": COLORS[rank]}  # equal: nested marks
            axis.plot(part["label"], part["value"], "o", label=rule.replace("_", " "), **look)
        axis.set(ylim=(-5, 108), ylabel="% of full marks" if number % columns == 1 else "")
        axis.tick_params(axis="x", labelsize=7.5, rotation=30)
        axis.margins(x=0.12)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    return figure
