"""Scoring rules compared on the same answers, drawn."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sgv_lab import benchmarks
from sgv_lab.figures.style import FULL_WIDTH, INK, PALE

_READ = sns.light_palette("#009E73", as_cmap=True)  # pale: hardly any of the knowledge is counted


def rules(table: pd.DataFrame) -> Figure:
    """A row per benchmark and rule, a column per label: the value, darker the more of it counts.

    Colours compare the cells of one benchmark. ``table``: of `rule_comparison.compare`.
    """
    wide = table.pivot_table("value", ["benchmark", "rule"], "label", sort=False)
    best = wide.groupby("benchmark", sort=False).transform("max").max(axis=1)
    size = (FULL_WIDTH * 0.85, 0.33 * len(wide) + 1.1)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    look = {"annot": wide.to_numpy(), "fmt": ".0f", "cmap": _READ, "vmin": 0, "vmax": 1}
    sns.heatmap(wide.div(best.clip(lower=1), axis=0), ax=axis, cbar=False, linewidths=1, **look)
    names = wide.index.get_level_values("benchmark")
    labels = [rule.replace("_", " ") for rule in wide.index.get_level_values("rule")]
    axis.set(xlabel="", ylabel="")
    axis.set_yticks(axis.get_yticks(), labels, rotation=0, fontsize=8.5)
    axis.set_xticks(axis.get_xticks(), wide.columns, rotation=0)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    for row, name in enumerate(names):
        if row and name == names[row - 1]:
            continue
        axis.axhline(row, color=INK, lw=1)
        where = {"xycoords": ("axes fraction", "data"), "va": "center", "ha": "left"}
        title = benchmarks.MODULES[name][1]
        axis.annotate(title, (-0.42, row + 0.5), weight="bold", fontsize=9, **where)
    note = (
        "% of full marks; the darker, the more of the benchmark's best value; official rule first"
    )
    axis.set_xlabel(note, fontsize=8.5, color=PALE)
    return figure
