"""Figures of the study: runs paired by seed, detail × accuracy, shares and numbers of captions.

All of them show the miniature's own points; the paper's MME points are never on the same axis.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sgv_lab import plotting
from sgv_lab.study import ablations, effects, statistics
from sgv_lab.study.arms import arm
from sgv_lab.study.caption_content import content
from sgv_lab.study.plans import Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import UNITS

SOURCE_COLORS = {  # arm -> the colour its caption source has in every figure
    "before": plotting.COLORS["LLaVA-23K"],
    "after": plotting.COLORS["ShareGPT4V"],
    "human": plotting.COLORS["COCO-Caption"],
    "blip": plotting.COLORS["BLIP-LCS"],
    "oracle": plotting.COLORS["oracle"],
    "share": plotting.COLORS["ShareGPT4V-PT"],
    "pt": plotting.COLORS["ShareGPT4V-PT"],
    "pt-blip": plotting.COLORS["BLIP-LCS"],
    "sft": plotting.COLORS["ShareGPT4V"],
    "both-oracle": plotting.COLORS["oracle"],
}


def _color(name: str) -> str:
    return SOURCE_COLORS.get(name.partition("@")[0], plotting.PALE)


def pairs(
    plan: Plan,
    records: Sequence[Record],
    found: pd.DataFrame,
    note: str = "",
    untuned: Mapping[str, float] | None = None,
) -> Figure:
    """Left: every seed a line over the arms. Right: the same runs minus what they are paired with.

    ``found`` is the table of `effects.effects`; the bars are 95 % paired-t intervals. ``note`` is
    put into the title: what the figure is (a demonstration, a recorded study). ``untuned``: the
    base's scores, for a line among the runs.
    """
    score = plan.primary[1]
    table = effects.by_seed(records, score)[list(plan.arms)]
    shown = found[(found["score"] == score)].reset_index(drop=True)
    height = 1.4 + 0.42 * max(len(plan.arms), len(shown))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(plotting.FULL_WIDTH, height), layout="constrained"
    )
    rows = np.arange(len(plan.arms))
    for _, values in table.iterrows():
        left.plot(values, rows, color=plotting.RULE, linewidth=1, zorder=1)
    for y, name in enumerate(plan.arms):
        left.scatter(table[name], [y] * len(table), color=_color(name), s=22, zorder=2)
    left.set(yticks=rows, yticklabels=[f"{arm(n).label}\n{n}" for n in plan.arms], title="runs")
    if untuned:
        left.axvline(untuned[score], color=plotting.INK, linestyle=":", linewidth=1.4)
        left.annotate("untuned", (untuned[score], 1), (0, 2), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    left.tick_params("y", labelsize=8)
    left.set_xlabel(f"{score}, {UNITS.get(score, 'percent')} in miniature")
    for y, row in shown.iterrows():
        d, color = table[row["arm"]] - table[row["against"]], _color(row["arm"])
        right.scatter(d, [y] * len(d), color=color, s=16, alpha=0.45)
        if np.isfinite(row["low"]):
            right.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.2)
        right.scatter([row["effect"]], [y], color=color, s=52, marker="D", zorder=3)
    right.axvline(0, color=plotting.INK, linewidth=0.8)
    right.set(yticks=range(len(shown)), title="paired differences")
    right.set_yticklabels([f"{r['arm']} − {r['against']}" for _, r in shown.iterrows()])
    spread = f"95 % interval over {len(table)} seeds" if len(table) > 1 else "one seed: no interval"
    right.set_xlabel(f"{score} gained, {spread}")
    for axis in (left, right):
        axis.invert_yaxis()
        axis.grid(True, axis="x")
    figure.suptitle(f"{plan.family}: {note or plan.title}", fontsize=11)
    return figure


def surface(plan: Plan, records: Sequence[Record], found: pd.DataFrame) -> Figure:
    """Detail × accuracy of the captions, coloured by what replacing with them gained.

    A ring marks an effect whose interval excludes 0; the paper's caption sources, smaller dots,
    bear their names. ``found`` is the table of `effects.effects`.
    """
    score = plan.primary[1]
    rows = found[(found["score"] == score) & (found["against"] == "before")].set_index("arm")
    held = content(plan)
    table = held.join(rows[["effect", "low", "high"]]).fillna({"effect": 0.0})
    named = table.index.isin(list(SOURCE_COLORS))
    table, named = table.iloc[np.argsort(named)], np.sort(named)  # the oracle lies on o0e0i0
    figure, axis = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    reach = max(1e-9, table["effect"].abs().max())
    apart = (table["low"] > 0) | (table["high"] < 0)
    drawn = axis.scatter(
        table["detail"],
        table["accuracy"],
        c=table["effect"],
        cmap="PuOr_r",
        vmin=-reach,
        vmax=reach,
        s=np.where(named, 90, 210),
        edgecolors=[plotting.INK if one else plotting.RULE for one in apart],
        linewidths=[1.8 if one else 0.8 for one in apart],
    )
    for name in table.index.intersection(list(SOURCE_COLORS)):
        place = (table.loc[name, "detail"], table.loc[name, "accuracy"])
        axis.annotate(name, place, xytext=(7, 6), textcoords="offset points", fontsize=9)
    axis.set_xlabel("detail: % of the true facts that captions state")
    axis.set_ylabel("accuracy: % of stated facts that are true")
    axis.set_title("\n".join(textwrap.wrap(ablations.faults(held, records, score), 64)), fontsize=9)
    axis.grid(True)
    figure.colorbar(drawn, label=f"{score} gained over before, in miniature")
    return figure


def shares(plan: Plan, found: pd.DataFrame) -> Figure:
    """What replacing blind by GPT4-Vision captions gains, by their share of the mix."""
    score = plan.primary[1]
    rows = found[(found["score"] == score) & found["arm"].str.startswith(("after@", "oracle@"))]
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for kind, part in rows.groupby(rows["arm"].str.partition("@")[0]):
        labels = part["arm"].str.partition("@")[2]
        bars = [part["effect"] - part["low"], part["high"] - part["effect"]]
        axis.errorbar(labels, part["effect"], bars, color=_color(kind), marker="o", label=kind)
    axis.axhline(0, color=plotting.INK, linewidth=0.8)
    axis.set(xlabel="detailed captions in the mix", ylabel=f"{score} gained, in miniature")
    axis.legend()
    return figure


def numbers(plan: Plan, records: Sequence[Record], note: str = "") -> Figure:
    """Figure 6: a dot a run by its number of captions, log axis, means with 95 % over seeds.

    The line is `ablations.saturation`'s with its band; where there is none the figure says why.
    Runs without stage 1 stand apart at the left: they differ in what is trained, too, and are no
    part of the fit.
    """
    score = plan.primary[1]
    table = ablations.numbers(records, score)
    curve = ablations.saturation(table)
    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    color, least = plotting.COLORS["ShareGPT4V-PT"], min(n for n in table if n)
    places = {n: n or least / 4 for n in table}
    for n, values in table.items():
        mean, low, high = statistics.interval(values)
        axis.scatter([places[n]] * len(values), values, color=color, s=16, alpha=0.5)
        axis.scatter([places[n]], [mean], color=color, s=52, marker="D", zorder=3)
        if np.isfinite(low):
            axis.plot([places[n]] * 2, [low, high], color=color, linewidth=2.2)
    if not curve.why:
        line = curve.table
        axis.plot(line["captions"], line["score"], color=plotting.INK, linewidth=1.2)
        axis.fill_between(line["captions"], line["low"], line["high"], color=color, alpha=0.2, lw=0)
    axis.set_xscale("log")
    axis.set_xticks(list(places.values()), [f"{n:,}" if n else "none" for n in places])
    axis.minorticks_off()
    axis.set(xlabel=f"different captions in stage 1, {_updates(plan)}",
             ylabel=f"{score}, {UNITS.get(score, 'percent')} in miniature")  # fmt: skip
    axis.set_title("\n".join([note or plan.title, *textwrap.wrap(str(curve), 60)]), fontsize=9)
    axis.grid(True)
    return figure


def _updates(plan: Plan) -> str:
    equal = plan.baseline.pretrain.max_steps
    return f"{equal} updates for all" if equal else "one epoch of each"


def votes(table: pd.DataFrame) -> Figure:
    """`judging.shares`, drawn: a row each, its percent of votes and the interval; 0 is a line."""
    rows = table[table["preferred"] != "left, of decided"][::-1]
    drawn, axis = plt.subplots(figsize=(0.72 * plotting.FULL_WIDTH, 0.42 * len(rows) + 0.9))
    axis.hlines(rows["preferred"], rows["low"], rows["high"], color=plotting.INK, lw=3, alpha=0.45)
    axis.plot(rows["percent"], rows["preferred"], "o", color=plotting.INK, ms=8)
    axis.axvline(0, color=plotting.PALE, lw=1)
    axis.set(xlabel="percent of votes, with 95 % intervals", ylim=(-0.6, len(rows) - 0.4))
    axis.grid(True, axis="x")
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)
    return drawn


def resolution(grid: pd.DataFrame, lead: float) -> Figure:
    """`judging.resolutions`, drawn: what a panel can detect, and the ``lead`` that was reported."""
    drawn, axis = plt.subplots(figsize=(plotting.FULL_WIDTH * 0.62, 3.2))
    sns.lineplot(
        grid.assign(rater=grid["rater"].map("{:.0%}".format)),
        x="picture", y="detectable", hue="rater", marker="o",
        palette="blend:#A9B0BA,#22252A", ax=axis,
    )  # fmt: skip
    axis.axhline(lead, color=plotting.INVENTED, ls="--", lw=1)
    axis.text(0.5, lead + 0.5, "Table 2", ha="right", color=plotting.INVENTED)
    axis.set(xlabel="share of a vote's variance that is the picture's", ylabel="points of votes")
    axis.set_ylim(0, 36)
    axis.legend(title="the rater's share", ncols=3, loc="upper left")
    return drawn
