"""The study drawn, in the miniature's own points: runs by seed, detail × accuracy, curve."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from sgv_lab import intervals
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.captions.quality import judge_caption
from sgv_lab.figures import captions, style
from sgv_lab.figures.style import ASSUMED, COLORS, INK, PALE, label_point
from sgv_lab.files import atomic
from sgv_lab.study import (
    ablations,
    caption_content,
    conclusions,
    criteria,
    effects,
    publishing,
    runner,
    sharegpt4v,
)
from sgv_lab.study.arms import LEFT_OUT, NUMBER, PAID, PAPER_ROWS, SURFACE, arm
from sgv_lab.study.explore import Model
from sgv_lab.study.plans import Plan
from sgv_lab.study.run_arm import POINTS
from sgv_lab.study.runner import RECORDS, UNTUNED, Record
from sgv_lab.study.scores import UNITS
from sgv_lab.world.scene import Scene

SOURCE_COLORS = {  # arm -> the colour its caption source has in every figure
    "before": COLORS["LLaVA-23K"],
    "after": COLORS["ShareGPT4V"],
    "human": COLORS["COCO-Caption"],
    "blip": COLORS["BLIP-LCS"],
    "oracle": COLORS["oracle"],
    "share": COLORS["ShareGPT4V-PT"],
    "pt": COLORS["ShareGPT4V-PT"],
    "pt-blip": COLORS["BLIP-LCS"],
    "sft": COLORS["ShareGPT4V"],
    "both-oracle": COLORS["oracle"],
}


def _color(name: str) -> str:
    return SOURCE_COLORS.get(name.partition("@")[0], PALE)


def recorded_figure(name: str) -> Figure:
    """The figure of a committed study."""
    return study_figure(*publishing.load_study(name), publishing.folder().parent)[0]


def study_figure(
    plan: Plan, records: Sequence[Record], points: pd.DataFrame | None, root: Path
) -> tuple[Figure, Path, pd.DataFrame]:
    """A study's figure, its path below ``root`` without ending, and the table behind it.

    ``root``: the folder whose data/studies holds the study.
    """
    table = effects.effects(plan, records, points)
    untuned = runner.untuned(root / "data" / "studies" / plan.name)
    return plan_figure(plan, records, table, untuned), root / plan.name, table.round(5)


def publish(plan: Plan, records: Sequence[Record], out: Path, root: Path) -> list[Path]:
    """The paths of a study's records, figure and table, after putting them below ``root``."""
    target = root / "data" / "studies" / plan.name
    for name in (RECORDS, POINTS, UNTUNED):
        if (out / name).is_file():
            with atomic(target / name) as temporary:
                shutil.copyfile(out / name, temporary)
    style.use()
    style.save(*study_figure(plan, records, publishing.points_of(out), root))
    return [target / RECORDS, root / f"{plan.name}.png", root / "data" / f"{plan.name}.csv"]


def plan_figure(
    plan: Plan,
    records: Sequence[Record],
    table: pd.DataFrame,
    untuned: Mapping[str, Mapping[str, float]],
) -> Figure:
    """The figure that suits a plan: surface, curves, false alarms, or paired runs."""
    groups = {arm(name).group for name in plan.arms}
    if list(plan.arms) == effects.draws(plan.arms):
        return false_alarms(plan, records)
    if SURFACE in groups:
        return surface(plan, records, table)
    if groups == {"Figure 6"}:
        return scaling_curve(plan, records, untuned)
    if groups == {NUMBER}:
        return bought(plan, records, untuned)
    return pairs(plan, records, table, untuned=untuned)


def pairs(
    plan: Plan,
    records: Sequence[Record],
    table: pd.DataFrame,
    note: str = "",
    untuned: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """A row a comparison. Left: the arm's runs. Right: what they gain over the runs they pair with.

    ``table`` is that of `effects.effects`; the bars are 95 % paired-t intervals. ``note``: the
    title, if not the plan's. ``untuned``: the bases' scores, for a line each among the runs.
    """
    score = plan.primary[1]
    runs = effects.by_seed(records, score)[list(plan.arms)]
    shown, usual = _ordered(table[table["score"] == score])
    alone = [(name, "") for name in plan.arms if name not in set(shown["arm"])]
    rows = [*alone, *zip(shown["arm"], shown["against"], strict=True)]
    size = (style.FULL_WIDTH, 1.5 + 0.34 * len(rows))
    ratios = {"width_ratios": (1, 1.5)}
    figure, (left, right) = plt.subplots(
        1, 2, figsize=size, sharey=True, layout="constrained", gridspec_kw=ratios
    )
    for start in effects.untuned_by_seed(records, untuned or {}, score).dropna().unique():
        left.axvline(start, color=INK, linestyle=":", linewidth=1.4)
    first = {name: y for y, (name, _) in reversed([*enumerate(rows)])}
    for name, y in first.items():
        left.scatter(runs[name], [y] * len(runs), color=_color(name), s=16, alpha=0.45)
        left.scatter(runs[name].mean(), y, color=_color(name), s=52, marker="D", zorder=3)
    for y, row in enumerate(shown.itertuples(), len(alone)):
        gained, color = runs[row.arm] - runs[row.against], _color(row.arm)
        right.scatter(gained, [y] * len(gained), color=color, s=16, alpha=0.45)
        _interval(right, row.effect, row.low, row.high, y, color)
        where = {"transform": right.get_yaxis_transform(), "va": "center", "fontsize": 9}
        right.text(1.02, y, _in_numbers(row.effect, row.low, row.high), **where)
    right.axvline(0, color=INK, linewidth=0.8)
    names = [
        _row_label(name, against, usual, first[name] == y) for y, (name, against) in enumerate(rows)
    ]
    style.list_rows(left, names)
    right.grid(True, axis="x")
    right.tick_params(axis="y", length=0)
    unit, of = UNITS.get(score, "percent"), "base untuned: dotted" if left.lines else "runs, mean"
    left.set_xlabel(f"{score}, {unit}\n{of}")
    spread = f"95 % over {len(runs)} seeds" if len(runs) > 1 else "one seed: no interval"
    other = ", or as said" if shown["other"].any() else ""
    gained = textwrap.fill(f"gained over {arm(usual).label}{other}", 44)
    right.set_xlabel(f"{gained}\n{spread}")
    family = PAPER_ROWS.get(plan.family, plan.family)
    figure.suptitle(f"{family} in miniature. {note or plan.title}", fontsize=11)
    _note_rates(figure, plan)
    return figure


def _note_rates(figure: Figure, plan: Plan) -> None:
    """Say below a miniature's figure where its captions' mistakes come from."""
    if plan.profile != "paper":
        figure.supxlabel(ASSUMED, x=0.01, ha="left", fontsize=8.5, color=PALE)


def _ordered(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Comparisons by effect, an arm's together; and what most arms are compared with.

    The column "other" says which are with something else.
    """
    usual = table["against"].mode()[0]
    table = table.assign(other=table["against"] != usual).sort_values("other", kind="stable")
    gain = table["arm"].map(table.groupby("arm")["effect"].first())
    table = table.assign(gain=-gain).sort_values(["gain", "arm", "other"], kind="stable")
    return table, usual


def _in_numbers(effect: float, low: float, high: float) -> str:
    """An effect and its interval; a single seed has none."""
    interval = f" ({low:.1f} to {high:.1f})" if np.isfinite(low) else ""
    return f"{round(effect, 1) + 0.0:+.1f}{interval}".replace("-", "−")


def _row_label(name: str, against: str, usual: str, first: bool) -> str:
    """An arm in words, on its first row, and what it is compared with where that is not usual."""
    said = [textwrap.fill(arm(name).label, 42)] if first else []
    minus = "minus" if first else "the same, minus"
    said += [f"{minus} {arm(against).label}"] if against not in ("", usual) else []
    return "\n".join(said)


def surface(plan: Plan, records: Sequence[Record], table: pd.DataFrame) -> Figure:
    """Detail × accuracy of the captions, coloured by what replacing with them gained.

    Round: the grid; diamonds with their names: the caption sources. A dark ring marks an effect
    whose interval excludes 0. Colours end at the grid's largest effect.
    """
    score = plan.primary[1]
    quality = caption_content.by_arm(plan, caption_content.on_surface(plan))
    gains = table[(table["score"] == score) & (table["against"] == "before")].set_index("arm")
    dots = quality.join(gains[["effect", "low", "high"]]).fillna({"effect": 0.0})
    named = dots.index.isin(list(SOURCE_COLORS))
    figure, axis = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
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
        label_point(axis, said, (x, y), (0, -17), fontsize=9, fontweight="bold")
    axis.set_xlabel("detail: % of the true facts that captions state")
    axis.set_ylabel("accuracy: % of stated facts that are true")
    axis.margins(0.08)
    title = conclusions.costs_of_faults(quality, records, score)
    axis.set_title(textwrap.fill(title, 72), fontsize=8.5, fontweight="normal")
    axis.grid(True)
    said = f"{score} gained over blind captions, in miniature (ring: interval without 0)"
    figure.colorbar(drawn, extend="both").set_label(said, fontsize=8.5)
    _note_rates(figure, plan)
    return figure


def telling(table: pd.DataFrame) -> Figure:
    """A heat map: abilities by what is told of them or of others, the points that telling is worth.

    ``table``: of `caption_content.worth_of_telling`; bold where the interval excludes 0.
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
    axis.set_yticklabels([LEFT_OUT[kind] for kind in wide.index], rotation=0)
    axis.set_title("Points gained by telling it (bold: interval without 0)", fontsize=9)
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
    _note_rates(figure, plan)
    return figure


def bought(
    plan: Plan, records: Sequence[Record], untuned: Mapping[str, Mapping[str, float]]
) -> Figure:
    """A line a kind of captions: the mean score over seeds by the tokens bought, a dot a run.

    ``untuned``: the bases' scores, whose mean is dotted.
    """
    score = plan.primary[1]
    runs = effects.by_seed(records, score)
    budgets = sorted({int(name.partition("@")[2][:-1]) for name in runs})
    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    colors = dict(zip(PAID, sns.color_palette("colorblind", len(PAID)), strict=True))
    for name, (label, *_) in PAID.items():
        color = SOURCE_COLORS.get(name, colors[name])
        scores = runs[[f"{name}@{thousands}K" for thousands in budgets]]
        for thousands, values in zip(budgets, scores.to_numpy().T, strict=True):
            axis.scatter([thousands] * len(values), values, color=color, s=12, alpha=0.4)
        axis.plot(budgets, scores.mean(), color=color, marker="D", ms=6, lw=1.8, label=label)
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
    _note_rates(figure, plan)
    return figure


def false_alarms(plan: Plan, records: Sequence[Record]) -> Figure:
    """A histogram of A/A's p: flat along the dotted line if the test is right about chance."""
    score = plan.primary[1]
    found = effects.false_alarms(records, score)
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    bins = np.linspace(0, 1, 21)
    _, _, bars = axis.hist(found, bins, color=PALE, edgecolor="white")
    bars[0].set_facecolor(INK)
    axis.axhline(len(found) / 20, color=INK, linestyle=":", linewidth=1.4)
    told = f"{(found < 0.05).sum()} of {len(found)} pairs below 0.05 (dark); by chance: dotted"
    axis.set_title(f"{plan.title}\nIn miniature: {told}", fontsize=9)
    axis.set(xlabel=f"p of a difference in {score}, {len(plan.seeds)} seeds", xlim=(0, 1))
    axis.set_ylabel("pairs of draws")
    axis.grid(True, axis="y")
    _note_rates(figure, plan)
    return figure


def two_models(found: sharegpt4v.Found, table: pd.DataFrame) -> Figure:
    """ShareGPT4V-7B's gains by score: every seed a dot, the mean a diamond, 95 % intervals as bars.

    ``found`` and ``table`` as `sharegpt4v.compared` takes and gives them.
    """
    ours, theirs = sharegpt4v.OURS, sharegpt4v.LLAVA
    runs = sharegpt4v.scores_by_run(found)[list(table.index)]
    size = (3.6 * len(table), 2.2)
    figure, axes = plt.subplots(1, len(table), figsize=size, squeeze=False, layout="constrained")
    for axis, (score, row) in zip(axes[0], table.iterrows(), strict=True):
        axis.plot(
            runs.loc[ours, score] - runs.loc[theirs, score],
            [0] * int(row["seeds"]),
            "o",
            color=PALE,
        )
        _interval(axis, row["gain"], row["low"], row["high"], 0, COLORS["ShareGPT4V-PT"])
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set(
            title=score, yticks=[], xlabel=f"{UNITS.get(score, 'percent')} gained in miniature"
        )
    seeds = int(table["seeds"].iloc[0])
    figure.suptitle(f"{ours} − {theirs}, {seeds} paired seeds: a demonstration", fontsize=11)
    return figure


def _interval(axis: Axes, value: float, low: float, high: float, y: int, color: str) -> None:
    """A diamond with its bar; a single seed has none."""
    if np.isfinite(low):
        axis.plot([low, high], [y, y], color=color, linewidth=2.2)
    axis.scatter([value], [y], color=color, s=52, marker="D", zorder=3)


def answers(
    models: Mapping[str, Model], image: Image.Image, scene: Scene | None, question: str = CAPTIONER
) -> Figure:
    """An image, and beside it each model's answer, its facts against ``scene`` marked, counted."""
    said = {name: [model.say(image, [question])] for name, model in models.items()}
    about = {name: model.about for name, model in models.items()}
    for name, (text,) in said.items() if scene else ():
        facts = judge_caption(text, scene)
        wrong = len(facts.mistaken) + len(facts.invented)
        about[name] += f" · facts: {len(facts.true)} right, {wrong} wrong"
    colors = {name: _color(name) for name in models}
    return captions.side_by_side(image, said, scene, colors, about)
