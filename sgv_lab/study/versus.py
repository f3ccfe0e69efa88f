"""What ShareGPT4V-7B and LLaVA-1.5's recipe answered, compared seed by seed."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sgv_lab import plotting
from sgv_lab.study import effects, scores, statistics
from sgv_lab.study.sharegpt4v import LLAVA, OURS

Found = Mapping[tuple[str, int], tuple[Mapping[str, float], pd.DataFrame]]
"""(model, seed) -> its scores and points by picture, as `sharegpt4v.asked` gives them."""


def versus(found: Found) -> pd.DataFrame:
    """Score -> both models' means in miniature and what ShareGPT4V-7B gains, seeds paired.

    low, high: the paired-t interval over seeds; flip: the sign-flip test's p; crossed: the interval
    over seeds and pictures, where there are points by picture.
    """
    seeds = list(dict.fromkeys(seed for _, seed in found))
    rows, table = {}, gains(found)
    for score in (name for name in effects.TESTED if name in table.columns):
        runs = {name: [found[name, seed][0][score] for seed in seeds] for name in (LLAVA, OURS)}
        gained = table[score]
        effect, low, high = statistics.interval(gained)
        row = {name: sum(one) / len(one) for name, one in runs.items()}
        row |= {"gain": effect, "low": low, "high": high}
        row |= {"flip": statistics.sign_flip(gained) if gained.std() > 0 else float("nan")}
        rows[score] = row | {"seeds": len(seeds)} | _crossed(found, score, seeds)
    return pd.DataFrame.from_dict(rows, orient="index")


def gains(found: Found) -> pd.DataFrame:
    """Seeds by scores: what ShareGPT4V-7B has more of than LLaVA-1.5's recipe."""
    table = pd.DataFrame({key: one for key, (one, _) in found.items()}).T
    return table.loc[OURS] - table.loc[LLAVA]


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
    kinds, gained = list(dict.fromkeys(units.values())), gains(found)
    shown, axes = plt.subplots(
        1, len(kinds), figsize=(plotting.FULL_WIDTH, 2.6), layout="constrained", squeeze=False
    )
    for axis, unit in zip(axes[0], kinds, strict=True):
        names = [name for name in table.index if units[name] == unit]
        for y, name in enumerate(names):
            row, dots = table.loc[name], gained[name]
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


def _crossed(found: Found, score: str, seeds: Sequence[int]) -> dict[str, float]:
    tables = []
    for seed in seeds:
        points = [found[name, seed][1] for name in (OURS, LLAVA)]
        ours, theirs = (
            table[table["score"] == score].set_index(["stratum", "picture"])["points"]
            for table in points
        )
        tables.append(ours - theirs)
    units = pd.concat(tables, axis=1).sort_index()
    if units.empty or len(seeds) < 2:
        return {}
    strata = units.index.get_level_values("stratum").tolist()
    _, low, high = statistics.crossed_bootstrap(units.to_numpy().T, strata)
    return {"crossed low": low, "crossed high": high}
