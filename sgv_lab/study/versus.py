"""What ShareGPT4V-7B and LLaVA-1.5's recipe answered, compared seed by seed."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sgv_lab import plotting
from sgv_lab.study import effects, scores, statistics
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
    runs, seeds = _runs(found), int(table["seeds"].iloc[0])
    gained = (runs.loc[OURS] - runs.loc[LLAVA])[list(table.index)]
    rows = gained.melt(var_name="score", value_name="gained in miniature")
    rows["unit"] = [scores.UNITS.get(name, "percent") for name in rows["score"]]
    grid = sns.FacetGrid(rows, col="unit", sharex=False, sharey=False, height=2.6, aspect=1.7)
    where = {"x": "gained in miniature", "y": "score"}
    bars = {"errorbar": lambda one: statistics.interval(one)[1:]} if seeds > 1 else {}
    grid.map_dataframe(sns.stripplot, **where, color=plotting.PALE, jitter=False)
    grid.map_dataframe(sns.pointplot, **where, color=plotting.COLORS["ShareGPT4V-PT"],
                       markers="D", linestyle="none", **bars)  # fmt: skip
    grid.refline(x=0, color=plotting.INK, linestyle="-")
    grid.figure.suptitle(f"{OURS} − {LLAVA}, {seeds} paired seeds: a demonstration", y=1.06)
    return grid.figure
