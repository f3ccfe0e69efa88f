"""What ShareGPT4V-7B and LLaVA-1.5's recipe answered, compared seed by seed."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sgv_lab import plotting
from sgv_lab.study import effects, scores
from sgv_lab.study.sharegpt4v import LLAVA, OURS

Found = Mapping[tuple[str, int], tuple[Mapping[str, float], pd.DataFrame]]
"""(model, seed) -> its scores and points by picture, as `sharegpt4v.asked` gives them."""


def versus(found: Found) -> pd.DataFrame:
    """Score -> both models' means in miniature and what ShareGPT4V-7B gains, seeds paired.

    The other columns are those of `effects.paired`.
    """
    points = pd.concat(
        [one.assign(arm=name, seed=seed) for (name, seed), (_, one) in found.items()]
    )
    rows, runs = {}, _runs(found)
    for score in (name for name in effects.TESTED if name in runs.columns):
        table = runs[score].unstack(0)
        gained = effects.paired(table, score, OURS, LLAVA, points)
        rows[score] = {**table[[LLAVA, OURS]].mean(), "gain": gained.pop("effect"), **gained}
    return pd.DataFrame.from_dict(rows, orient="index")


def _runs(found: Found) -> pd.DataFrame:
    """(model, seed) by scores."""
    return pd.DataFrame({key: one for key, (one, _) in found.items()}).T


def conclude(table: pd.DataFrame) -> str:
    """What follows from the table of `versus`, "nothing" included, in one sentence."""
    seeds = int(table["seeds"].iloc[0])
    if seeds < effects.RESOLVES:
        return f"{seeds} paired seeds resolve nothing: a demonstration that both recipes run"
    apart = {
        "more": table.index[table["low"] > 0].tolist(),
        "less": table.index[table["high"] < 0].tolist(),
    }
    said = [f"{OURS} has {which} {', '.join(names)}" for which, names in apart.items() if names]
    told = "; ".join(said) or f"no difference between {OURS} and the {LLAVA} can be seen"
    return f"{seeds} paired seeds: {told}, at equal updates"


def figure(found: Found, table: pd.DataFrame) -> Figure:
    """Gains by score: every seed a dot, the mean a diamond, 95 % paired-t intervals as bars."""
    units = {name: scores.UNITS.get(name, "percent") for name in table.index}
    kinds, runs = list(dict.fromkeys(units.values())), _runs(found)
    shown, axes = plt.subplots(
        1, len(kinds), figsize=(plotting.FULL_WIDTH, 2.6), layout="constrained", squeeze=False
    )
    for axis, unit in zip(axes[0], kinds, strict=True):
        names = [name for name in table.index if units[name] == unit]
        for y, name in enumerate(names):
            row, run = table.loc[name], runs[name].unstack(0)
            dots = run[OURS] - run[LLAVA]
            color = plotting.COLORS["ShareGPT4V-PT"]
            axis.scatter(dots, [y] * len(dots), color=plotting.PALE, s=18, alpha=0.6)
            if row["seeds"] > 1:
                axis.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.2)
            axis.scatter([row["gain"]], [y], color=color, s=52, marker="D", zorder=3)
        axis.axvline(0, color=plotting.INK, linewidth=0.8)
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
        axis.set_xlabel(f"{unit} gained in miniature")
        axis.grid(True, axis="x")
    seeds = int(table["seeds"].iloc[0])
    shown.suptitle(f"{OURS} − {LLAVA}, {seeds} paired seeds: a demonstration", fontsize=11)
    return shown


def curves(table: pd.DataFrame) -> Figure:
    """The loss of both stages, from the table of `losses`."""
    names = list(dict.fromkeys(table["stage"]))
    shown, axes = plt.subplots(
        1, len(names), figsize=(plotting.FULL_WIDTH, 2.6), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        rows = table[table["stage"] == name]
        axis.plot(rows["step"], rows["loss"], color=plotting.COLORS["ShareGPT4V-PT"], linewidth=1.4)
        axis.set(title=name, xlabel="update", ylabel="loss a supervised token")
        axis.xaxis.get_major_locator().set_params(integer=True)
    return shown
