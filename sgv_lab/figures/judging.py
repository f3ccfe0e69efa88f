"""Votes on captions, drawn: what they say, and what a panel of people could find."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sgv_lab.figures import style
from sgv_lab.figures.style import INK, PALE


def vote_shares(table: pd.DataFrame) -> Figure:
    """`judging.shares`, drawn: a row each, its percent of votes and the interval; 0 is a line."""
    rows = table[table["preferred"] != "left, of decided"].reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(0.72 * style.FULL_WIDTH, 0.42 * len(rows) + 0.9))
    axis.hlines(rows.index, rows["low"], rows["high"], color=INK, lw=3, alpha=0.45)
    axis.plot(rows["percent"], rows.index, "o", color=INK, ms=8)
    axis.axvline(0, color=PALE, lw=1)
    axis.set_xlabel("percent of votes, with 95 % intervals")
    style.list_rows(axis, rows["preferred"])
    return figure


def panel_resolution(grid: pd.DataFrame, lead: float) -> Figure:
    """`judging.resolutions`, drawn: what a panel can detect, and the ``lead`` that was reported."""
    figure, axis = plt.subplots(figsize=(style.NARROW, 3.2))
    rows = grid.assign(rater=grid["rater"].map("{:.0%}".format))
    look = {"hue": "rater", "marker": "o", "palette": "blend:#A9B0BA,#22252A"}
    sns.lineplot(rows, x="image", y="detectable", **look, ax=axis)
    axis.axhline(lead, color=style.INVENTED, ls="--", lw=1)
    axis.text(0.5, lead + 0.5, f"the paper's lead: {lead:.1f}", ha="right", color=style.INVENTED)
    axis.set_xlabel("how alike votes on one image are (share of a vote's variance)")
    axis.set_ylabel("smallest lead that is found\nby 80 % of such studies, points")
    axis.set_ylim(0, 36)
    axis.legend(title="how alike votes of one person are", ncols=3, loc="upper left")
    return figure
