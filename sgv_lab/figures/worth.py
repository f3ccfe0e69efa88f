"""What captions are worth, drawn: by what they hold, by what they tell, by their number."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sgv_lab import intervals
from sgv_lab.figures.style import ASSUMED, COLORS, INK, PALE, SPARE, label_point, note
from sgv_lab.study import (
    ablations,
    caption_content,
    conclusions,
    criteria,
    effects,
    publishing,
    share_captioner,
)
from sgv_lab.study.arms import PAID, UNTOLD, arm
from sgv_lab.study.plans import Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import UNITS

SOURCE_COLORS = {  # arm -> the colour its caption source has in every figure
    "before": COLORS["LLaVA-23K"],
    "after": COLORS["ShareGPT4V"],
    "human": COLORS["COCO-Caption"],
    "blip": COLORS["BLIP-LCS"],
    "oracle": COLORS["oracle"],
    "share": COLORS["ShareGPT4V-PT"],
    "pt": COLORS["ShareGPT4V-PT"],
    "pt-blip": COLORS["BLIP-LCS"],
    "pt@4": COLORS["ShareGPT4V"],
    "half": SPARE[1],
    "wrong": SPARE[0],
    "sft": COLORS["ShareGPT4V"],
    "both-oracle": COLORS["oracle"],
}


def note_rates(figure: Figure, plan: Plan) -> None:
    """Say below a miniature's figure where its captions' mistakes come from."""
    if plan.profile != "paper":
        note(figure, ASSUMED)


def surface(plan: Plan, records: Sequence[Record], table: pd.DataFrame) -> Figure:
    """Detail × accuracy of the captions, coloured by what replacing with them gained.

    Round: the grid; diamonds with their names: the caption sources. A dark ring marks an effect
    whose interval excludes 0. Colours end at the grid's largest effect. Hollow: where the trained
    Share-Captioners of Table 5's study lie, on other images of the same world.
    """
    score = plan.primary[1]
    quality = caption_content.by_arm(plan, caption_content.on_surface(plan))
    gains = table[(table["score"] == score) & (table["against"] == "before")].set_index("arm")
    dots = quality.join(gains[["effect", "low", "high"]]).fillna({"effect": 0.0})
    named = dots.index.isin(list(SOURCE_COLORS))
    figure, axis = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    trained = "stock" in quality  # the drawn world's first edition had other captioners
    reach = max(1e-9, dots.loc[~named, "effect"].abs().max())
    look = {"vmin": -reach, "vmax": reach, "cmap": "PuOr_r"}
    for these, marker, size in ((~named, "o", 150), (named, "D", 90)):
        some = dots[these]
        ringed = (some["low"] > 0) | (some["high"] < 0)
        edges = {"edgecolors": np.where(ringed, INK, PALE), "linewidths": np.where(ringed, 2, 0.7)}
        where = some["detail"], some["accuracy"]
        drawn = axis.scatter(*where, c=some["effect"], marker=marker, s=size, **look, **edges)
    for name, (x, y) in dots.loc[named, ["detail", "accuracy"]].iterrows():
        said = arm(name).label.removesuffix(" captions")
        away = 10 if trained and name == "before" else -17  # below blind captions: the trained
        label_point(axis, said, (x, y), (0, away), fontsize=9, fontweight="bold")
    if trained:
        student = share_captioner.recorded(publishing.folder())["student"]
        where = student["recall"], student["precision"]
        axis.scatter(*where, marker="D", s=90, facecolors="none", edgecolors=INK)
        label_point(axis, "Share-Captioner, trained", where, (9, -4), fontsize=9, ha="left")
    axis.set_xlabel("detail: % of the true facts that captions state")
    axis.set_ylabel("accuracy: % of stated facts that are true")
    axis.margins(0.08)
    title = conclusions.costs_of_faults(quality, records, score)
    axis.set_title(textwrap.fill(title, 72), fontsize=8.5, fontweight="normal")
    axis.grid(True)
    said = f"{score} gained over blind captions, in miniature (ring: interval without 0)"
    figure.colorbar(drawn, extend="both").set_label(said, fontsize=8.5)
    note_rates(figure, plan)
    return figure


def telling(table: pd.DataFrame) -> Figure:
    """A heat map of `caption_content.worth_of_telling`: a row a kind of fact, a column an ability.

    Bold where the interval excludes 0.
    """
    wide = table["effect"].unstack("ability", sort=False)[list(table.index.unique("ability"))]
    told = ((table["low"] > 0) | (table["high"] < 0)).unstack("ability", sort=False)[[*wide]]
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    reach = wide.abs().to_numpy().max()
    look = {"vmin": -reach, "vmax": reach, "cmap": "PuOr_r", "linewidths": 1}
    sns.heatmap(wide, ax=axis, annot=True, fmt="+.1f", **look)
    for text, apart in zip(axis.texts, told.to_numpy().flat, strict=True):
        text.set(text=criteria.signed(text.get_text()), weight="bold" if apart else "normal")
    axis.set_xlabel("ability: right yes/no answers")
    axis.set_ylabel("what is told")
    axis.set_yticklabels([UNTOLD[kind] for kind in wide.index], rotation=0)
    axis.set_title("In miniature: points that telling it gains (bold: not 0)", fontsize=9)
    return figure


def scaling_curve(
    plan: Plan,
    records: Sequence[Record],
    untuned: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Figure 6: a dot a run by its number of captions, log axis, means with 95 % over seeds.

    The line is `ablations.saturation`'s with its band; where there is none the figure says why.
    Runs without pre-training stand apart at the left: they differ in what is trained, too.
    ``untuned``: the bases' scores, dotted.
    """
    score = plan.primary[1]
    runs = ablations.scores_by_number(records, score)
    fitted = ablations.saturation(runs)
    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    color, least = COLORS["ShareGPT4V-PT"], min(n for n in runs if n)
    places = {n: n or least / 4 for n in runs}
    for n, values in runs.items():
        mean, low, high = intervals.paired(values)
        axis.scatter([places[n]] * len(values), values, color=color, s=16, alpha=0.5)
        axis.scatter([places[n]], [mean], color=color, s=52, marker="D", zorder=3)
        if np.isfinite(low):
            axis.plot([places[n]] * 2, [low, high], color=color, linewidth=2.2)
    for start in effects.untuned_by_seed(records, untuned or {}, score).dropna().unique():
        axis.axhline(start, color=INK, linestyle=":", linewidth=1.4)
    if not fitted.why:
        numbers, scores, low, high = fitted.table.to_numpy().T
        axis.plot(numbers, scores, color=INK, linewidth=1.2)
        axis.fill_between(numbers, low, high, color=color, alpha=0.2, lw=0)
    axis.set_xscale("log")
    axis.set_xticks(list(places.values()), [f"{n:,}" if n else "none" for n in places])
    axis.minorticks_off()
    learned = plan.configs()[plan.arms[-1]]
    steps = (learned.pretrain or learned).max_steps
    equal = f"{steps} steps for all" if steps else "one epoch of each"
    where = "in pre-training" if learned.pretrain else "of the projector alone"
    base = "; base untuned: dotted" if untuned else ""
    axis.set_xlabel(f"different captions {where}, {equal}{base}")
    axis.set_ylabel(f"{score}, {UNITS.get(score, 'percent')} in miniature")
    axis.set_title(f"{plan.title}\n{textwrap.fill(str(fitted), 60)}", fontsize=9)
    axis.grid(True)
    note_rates(figure, plan)
    return figure


def bought(
    plan: Plan, records: Sequence[Record], untuned: Mapping[str, Mapping[str, float]]
) -> Figure:
    """A line a kind of captions: the mean score over seeds by the tokens bought, a dot a run.

    ``untuned``: the bases' scores, whose mean is dotted.
    """
    score = plan.primary[1]
    runs = effects.by_seed(records, score)
    runs.columns = pd.MultiIndex.from_tuples(
        (kind, int(thousands.rstrip("K")))
        for kind, _, thousands in (name.partition("@") for name in runs)
    )
    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for kind in (name for name in PAID if name in runs):
        scores, color = runs[kind].sort_index(axis=1), SOURCE_COLORS[kind]
        for thousands, values in scores.items():
            axis.scatter([thousands] * len(values), values, color=color, s=12, alpha=0.4)
        look = {"marker": "D", "ms": 6, "lw": 1.8, "label": PAID[kind][0]}
        axis.plot(list(scores), scores.mean(), color=color, **look)
    budgets = sorted(runs.columns.unique(1))
    start = effects.untuned_by_seed(records, untuned, score).mean()
    axis.axhline(start, color=INK, linestyle=":", linewidth=1.4)
    axis.set_xscale("log")
    axis.set_xticks(budgets, [f"{thousands}K" for thousands in budgets])
    axis.minorticks_off()
    axis.set_xlabel("tokens of captions bought, as many trained on by all; base untuned: dotted")
    axis.set_ylabel(f"{score}, {UNITS.get(score, 'percent')} in miniature")
    axis.set_title(plan.title, fontsize=9)
    axis.grid(True)
    axis.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5))
    note_rates(figure, plan)
    return figure
