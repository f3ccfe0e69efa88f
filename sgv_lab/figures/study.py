"""A study drawn, in the miniature's own points: runs by seed, A/A, models side by side."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.captions.quality import judge_caption
from sgv_lab.figures import captions, style
from sgv_lab.figures.style import COLORS, INK, PALE
from sgv_lab.figures.worth import (
    SOURCE_COLORS,
    bought,
    note_rates,
    scaling_curve,
    surface,
    telling,
)
from sgv_lab.files import atomic
from sgv_lab.study import caption_content, criteria, effects, publishing, runner, sharegpt4v
from sgv_lab.study.arms import NUMBER, PAPER_ROWS, SURFACE, TELLING, arm
from sgv_lab.study.explore import Model
from sgv_lab.study.plans import Plan
from sgv_lab.study.run_arm import POINTS
from sgv_lab.study.runner import RECORDS, UNTUNED, Record
from sgv_lab.study.scores import UNITS
from sgv_lab.world.scene import Scene

VERDICTS = {  # of `criteria` -> its colour, and what a figure calls it
    criteria.FOR: (COLORS["LLaVA-23K"], criteria.FOR),
    criteria.UNRESOLVED: (PALE, criteria.UNRESOLVED),
    criteria.AGAINST: (style.SPARE[0], criteria.AGAINST),
    criteria.UNSOUND: (INK, "nothing follows"),
    criteria.CANNOT_TELL: (INK, "nothing follows"),
}
FARTHEST = 8.0  # points that `sensitivity` draws


def _color(name: str) -> str:
    return SOURCE_COLORS.get(name, SOURCE_COLORS.get(name.partition("@")[0], PALE))


def recorded_figure(name: str) -> Figure:
    """The figure of a committed study."""
    figure, *_ = next(study_figures(*publishing.load_study(name), publishing.folder().parent))
    return figure


def study_figures(
    plan: Plan, records: Sequence[Record], points: pd.DataFrame | None, root: Path
) -> Iterator[tuple[Figure, Path, pd.DataFrame]]:
    """A study's figures, each with its path below ``root`` without ending and the table behind it.

    The first is its plan's; ``root``: the folder whose data/studies holds the study.
    """
    table = effects.effects(plan, records, points)
    untuned = runner.untuned(root / "data" / "studies" / plan.name)
    yield plan_figure(plan, records, table, untuned), root / plan.name, table.round(5)
    if any(arm(name).group == TELLING for name in plan.arms):
        told = caption_content.worth_of_telling(records)
        yield telling(told), root / f"{plan.name}-telling", told.round(5).reset_index()


def publish(plan: Plan, records: Sequence[Record], out: Path, root: Path) -> list[Path]:
    """The paths of a study's records, figure and table, after putting them below ``root``."""
    target = root / "data" / "studies" / plan.name
    for name in (RECORDS, POINTS, UNTUNED):
        if (out / name).is_file():
            with atomic(target / name) as temporary:
                shutil.copyfile(out / name, temporary)
    style.use()
    for drawn in study_figures(plan, records, publishing.points_of(out), root):
        style.save(*drawn)
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
    labels = [_row_label(name, against, usual) for name, against in rows]
    size = (style.FULL_WIDTH, 1.5 + 0.17 * sum(label.count("\n") + 2 for label in labels))
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
        _numbers_beside(right, row.effect, row.low, row.high, y)
    right.axvline(0, color=INK, linewidth=0.8)
    style.list_rows(left, labels)
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
    note_rates(figure, plan)
    return figure


def swap_by_model(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Figure 2 in miniature: a panel a score, a row a model, of `effects.effects` of its study.

    What GPT4-Vision's captions and true ones gain over blind ones in the mix, 95 % intervals.
    """
    size = (style.FULL_WIDTH + 1, 1.4 + 0.7 * len(tables))
    figure, axes = plt.subplots(1, 3, figsize=size, sharey=True, layout="constrained")
    for axis, score in zip(axes, ("Yes/no", "Ranking", "Open"), strict=True):
        for y, table in enumerate(tables.values()):
            rows = table[(table["against"] == "before") & (table["score"] == score)]
            for above, name in ((-0.18, "after"), (0.18, "oracle")):
                row = rows.set_index("arm").loc[name]
                label = arm(name).label if y == 0 else None
                value, low, high = row["effect"], row["low"], row["high"]
                _interval(axis, value, low, high, y + above, _color(name), label)
                style.label_point(axis, _in_numbers(value, low, high), (value, y + above), (0, 5))
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set(title=score, xlabel="points gained over blind ones")
        axis.margins(x=0.24)
        style.list_rows(axis, list(tables))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle("In miniature: other captions in the fine-tuning mix", fontsize=11)
    return figure


def headlines(found: pd.DataFrame) -> Figure:
    """A row a study: its primary effect, 95 %, in the colour of what follows by its plan.

    ``found``: `sensitivity.studies`; rows of a group stand below it.
    """
    figure, (axis,), rows = _by_group(found)
    for y, row in rows.items():
        color, shown = VERDICTS[row["verdict"]]
        known = shown not in axis.get_legend_handles_labels()[1]
        _interval(axis, row["effect"], row["low"], row["high"], y, color, shown if known else None)
        _numbers_beside(axis, row["effect"], row["low"], row["high"], y)
    axis.set_xlabel("points of right yes/no answers gained, 95 % over seeds")
    axis.legend(loc="center right")
    figure.suptitle("In miniature: what the studies found, and what follows by their plans",
                    fontsize=11)  # fmt: skip
    style.note(figure, style.ASSUMED)
    return figure


def sensitivity(found: pd.DataFrame) -> Figure:
    """A row a study: what it found, and what it would miss, in its two deciding comparisons.

    ``found``: `sensitivity.studies`; rows of a group stand below it. Hollow: where nothing differs.
    A triangle is a gain of more than FARTHEST.
    """
    figure, axes, rows = _by_group(found, 2)
    table = pd.DataFrame(rows).T.infer_objects()
    places, missed = table.index.to_numpy(), "missed by one of five such studies or more"
    for axis, which in zip(axes, ("", "none_"), strict=True):
        bars = {"height": 0.62, "color": style.RULE}
        axis.barh(places, table[f"{which}smallest"], label=missed, **bars)
        for color, word in dict(VERDICTS.values()).items():
            own = table[[VERDICTS[one] == (color, word) for one in table["verdict"]]]
            gained = own[f"{which}effect"]
            axis.plot(gained.where(gained <= FARTHEST), own.index, "D", color=color, label=word)
            beyond = own.index[gained > FARTHEST]
            axis.plot([FARTHEST] * len(beyond), beyond, ">", color=color)
        axis.set(xlim=(-3.2, FARTHEST + 0.6), xlabel="points of right yes/no answers gained")
    hollow = {"color": INK, "markerfacecolor": "white", "markersize": 5.5}
    axes[0].hlines(places, table["again_low"], table["again_high"], INK, linewidth=1.4)
    axes[0].plot(table["again"], places, "o", label="found where nothing differs, 95 %", **hollow)
    axes[0].set_title("over the captions compared with", fontsize=9.5)
    axes[1].set_title("over no captions, corrected", fontsize=9.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("In miniature: what the studies found, and what they could miss", fontsize=11)
    return figure


def _by_group(
    found: pd.DataFrame, panels: int = 1
) -> tuple[Figure, Sequence[Axes], dict[int, pd.Series]]:
    """An empty list of studies, by group, from the top down; and which study stands at which y."""
    lines = [line for group, rows in found.groupby("group", sort=False)
             for line in (group, *rows.index)]  # fmt: skip
    size = (style.FULL_WIDTH, 1.1 + 0.23 * len(lines) + 0.5 * (panels - 1))
    shape = {"squeeze": False, "sharey": True, "layout": "constrained"}
    figure, ((*axes,),) = plt.subplots(1, panels, figsize=size, **shape)
    studies = {y: found.loc[line] for y, line in enumerate(lines) if not isinstance(line, str)}
    where = {"transform": axes[0].get_yaxis_transform(), "va": "center", "fontsize": 9.5}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for y, line in enumerate(lines):
        if y not in studies:
            text = axes[0].text(0.012, y, line, fontweight="bold", zorder=4, bbox=box, **where)
            text.set_in_layout(panels == 1)
    axes[0].set_zorder(1)  # its headings reach over the next panel
    named = {y: f"{row['label']}, {row['seeds']} seeds" for y, row in studies.items()}
    for axis in axes:
        axis.axvline(0, color=INK, linewidth=0.8)
        style.list_rows(axis, [named.get(y, "") for y in range(len(lines))])
    return figure, axes, studies


def _ordered(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Comparisons by effect, an arm's together; and what most arms are compared with.

    The column "other" says which are with something else.
    """
    usual = table["against"].mode()[0]
    table = table.assign(other=table["against"] != usual).sort_values("other", kind="stable")
    gain = table["arm"].map(table.groupby("arm")["effect"].first())
    table = table.assign(gain=-gain).sort_values(["gain", "arm", "other"], kind="stable")
    return table, usual


def _numbers_beside(axis: Axes, effect: float, low: float, high: float, y: float) -> None:
    """An effect in numbers, right of its row."""
    where = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 9}
    axis.text(1.02, y, _in_numbers(effect, low, high), **where)


def _in_numbers(effect: float, low: float, high: float) -> str:
    """An effect and its interval; a single seed has none."""
    interval = f" ({low:.1f} to {high:.1f})" if np.isfinite(low) else ""
    return f"{round(effect, 1) + 0.0:+.1f}{interval}".replace("-", "−")


def _row_label(name: str, against: str, usual: str) -> str:
    """An arm in words, and what it is compared with where that is not the usual."""
    label = textwrap.fill(arm(name).label, 48)
    return label if against in ("", usual) else f"{label}\nover {arm(against).label}"


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
    note_rates(figure, plan)
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
        axis.set(title=score, yticks=[], xlabel="points gained in miniature")
    seeds = int(table["seeds"].iloc[0])
    figure.suptitle(f"{ours} − {theirs}, {seeds} paired seeds: a demonstration", fontsize=11)
    return figure


def _interval(
    axis: Axes,
    value: float,
    low: float,
    high: float,
    y: float,
    color: str,
    label: str | None = None,
) -> None:
    """A diamond with its bar; a single seed has none."""
    if np.isfinite(low):
        axis.plot([low, high], [y, y], color=color, linewidth=2.2)
    axis.scatter([value], [y], color=color, s=52, marker="D", zorder=3, label=label)


def answers(models: Mapping[str, Model], image: Image.Image, scene: Scene | None) -> Figure:
    """An image, and beside it each model's answer, its facts against ``scene`` marked, counted."""
    said = {name: [model.say(image, [CAPTIONER])] for name, model in models.items()}
    about = {name: model.about for name, model in models.items()}
    for name, (text,) in said.items() if scene else ():
        facts = judge_caption(text, scene)
        wrong = len(facts.mistaken) + len(facts.invented)
        about[name] += f" · facts: {len(facts.true)} right, {wrong} wrong"
    colors = {name: _color(name) for name in models}
    return captions.side_by_side(image, said, scene, colors, about)
