"""What ``sgv-lab measure`` found, as a table and as bars; "not measured" until then."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sgv_lab.figures import style
from sgv_lab.study import measure

NOT_MEASURED = "not measured"
_LABELS = ["recipe", "model", "row"]
_NAMES = {
    "speed": "speed",
    "unit": "in",
    "ratio": "times the official way",
    "mfu": "share of the measured peak",
    "mfu_vendor": "share of the vendor's peak",
    "peak_bytes": "memory, GB",
    "planned_bytes": "planned, GB",
}
_UNITS = {"caption": "captions/s", "evaluate": "answers/s"}  # of training: tokens/s


def _speeds(file: str | Path) -> pd.DataFrame:
    """The rows that `measure` has at true size, with the numbers of those that are in ``file``."""
    rows = [vars(one) for one in measure.rows("paper", Path(), ()) if one.recipe != "check"]
    found = pd.DataFrame(columns=[*_LABELS, "size", "status"])
    if Path(file).is_file():
        found = pd.read_csv(file)
    found = found[(found["size"] == "paper") & (found["status"] == "ok")]
    found = found.reindex(columns=[*_LABELS, *measure.RATES, *_NAMES])
    found = pd.DataFrame(rows)[_LABELS].merge(found, how="left", on=_LABELS)
    found["speed"] = found[list(measure.RATES)].astype(float).bfill(axis=1).iloc[:, 0]
    found["unit"] = found["recipe"].map(_UNITS).fillna("tokens/s")
    found[["peak_bytes", "planned_bytes"]] = found[["peak_bytes", "planned_bytes"]] / 1e9
    return found


def speed_table(file: str | Path) -> pd.DataFrame:
    """How fast each row of `measure` was, its share of the peak, its memory.

    ``file``: as `measure` wrote it. What is not in it, or all where it is missing, has the speed
    "not measured".
    """
    found = _speeds(file)
    told = found["speed"].astype(object).where(found["speed"].notna(), NOT_MEASURED)
    return found.assign(speed=told)[[*_LABELS, *_NAMES]].rename(columns=_NAMES)


def speed_bars(file: str | Path) -> Figure:
    """A bar for each row of `speed_table`; beside it, its speed and share of the measured peak."""
    parts = dict(list(_speeds(file).groupby("unit", sort=False)))
    lengths = [len(part) for part in parts.values()]
    figure, axes = plt.subplots(
        len(parts),
        figsize=(style.FULL_WIDTH, 0.3 * sum(lengths) + 0.6 * len(parts)),
        height_ratios=lengths,
        layout="constrained",
    )
    for axis, (unit, part) in zip(axes, parts.items(), strict=True):
        official = part["row"].isin(measure.USUAL)
        colors = [style.PALE if one else style.COLORS["ShareGPT4V"] for one in official]
        axis.barh(range(len(part)), part["speed"].fillna(0.0), color=colors)
        for y, (speed, share) in enumerate(zip(part["speed"], part["mfu"], strict=True)):
            said = f" {speed:,.0f}" if speed >= 100 else f" {speed:,.1f}"
            said = " " + NOT_MEASURED if pd.isna(speed) else said
            said += "" if pd.isna(share) else f", {share:.0%} of the peak"
            axis.text(speed if speed > 0 else 0.0, y, said, va="center", fontsize=8.5)
        style.list_rows(axis, part[_LABELS].agg(" · ".join, axis=1))
        axis.set_xlim(0, 1.4 * part["speed"].max() if part["speed"].notna().any() else 1.0)
        axis.set_xlabel(unit)
        axis.tick_params(axis="x", labelbottom=part["speed"].notna().any())
    return figure
