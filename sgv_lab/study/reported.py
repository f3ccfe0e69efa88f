"""The paper's own numbers drawn, each labelled as reported, with what is known of their noise.

Bars and bands are 95 %, by `claims.error`. Where nothing is known there is none. What a recorded
study found in miniature has a panel and an axis of its own, or that panel says "not run".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgv_lab import paper, plotting
from sgv_lab.benchmarks import rule_comparison
from sgv_lab.captions import published
from sgv_lab.plotting import COLORS, FULL_WIDTH, INK, INVENTED, PALE
from sgv_lab.study import publishing
from sgv_lab.study.claims import error

BAR = "#C9CED6"
SOURCE = (
    "from ±20 points between identical runs (MME-P) or from the number of questions; none: unknown"
)
FOUR = {  # the models of the paper's Figure 1 -> their rows in Table 3
    "ShareGPT4V-7B": "ShareGPT4V-7B (Vicuna-7B)",
    "Qwen-VL-Chat": "Qwen-VL-Chat (Qwen-7B)",
    "LLaVA-1.5-7B": "LLaVA-1.5 (Vicuna-7B)",
    "InstructBLIP-7B": "InstructBLIP (Vicuna-7B)",
}
_TITLES = {
    "table4": ("Table 4: captions in", {"PT no, SFT no": "neither", "PT no, SFT yes": "fine-tuning",
               "PT yes, SFT no": "pre-training", "PT yes, SFT yes": "both"}),
    "table5": ("Table 5: pre-trained on", {"Baseline": "nothing more", "+BLIP-558K": "BLIP 558K",
               "+ShareGPT4V-PT-558K": "dense 558K"}),
    "table6": ("Table 6: vision blocks trained", {"24": "none", "18": "from 18", "12": "from 12",
               "6": "from 6", "0": "from 0"}),
}  # fmt: skip
_ARMS = {  # of those studies, in the words of the tables they re-test
    "before": "neither", "sft": "fine-tuning", "pt": "pre-training", "both": "both",
    "pt-blip": "pre-training on BLIP's", "both-oracle": "both, true captions",
    "none@PT": "nothing more", "blip@PT": "BLIP", "share@PT": "dense", "oracle@PT": "true captions",
    "tower@0%": "none", "tower@50%": "half", "tower@100%": "all", "tower@whole": "all, embeddings",
}  # fmt: skip
STUDIES = {  # the paper's place -> the plan that re-tests it in miniature
    place: f"{place}-llava-1.5-7b" for place in (*_TITLES, "figure6")
}
Effects = Mapping[str, pd.DataFrame | None]
"""The paper's place -> the table that a study in miniature published; None: not run."""


def tables() -> dict[str, pd.DataFrame]:
    """The table behind each figure, by its name; tidy, with the standard error where known."""
    places = {
        "reported_substitution": ["figure2"],
        "reported_ablations": ["table4", "table5", "table6"],
        "reported_scaling": ["figure6"],
        "reported_radar": ["table3"],
    }
    found = {}
    for name, wanted in places.items():
        table = paper.facts().loc[lambda t, wanted=wanted: t["place"].isin(wanted)]
        table = table[["place", "row", "arm", "column", "value", "unit"]].dropna(subset="value")
        errors = [error(c, v) for c, v in zip(table["column"], table["value"], strict=True)]
        found[name] = table.assign(error=pd.Series(errors, table.index, float).round(3))
    return found


def substitution(table: pd.DataFrame, _: Effects) -> Figure:
    """Figure 2: a panel a benchmark, and in it what each model gains by the swap."""
    figure, axes = plt.subplots(2, 4, figsize=(FULL_WIDTH + 1, 5.2), sharey=True)
    models = list(dict.fromkeys(table["row"]))
    names = sorted(table["column"].unique(), key=paper.BENCHMARKS.index)
    sides = table.pivot(index=["column", "row"], columns="arm", values=["value", "error"])
    for axis, name in zip(axes.flat, names, strict=True):
        axis.axvline(0, color=INK, lw=1)
        for y, model in enumerate(models):
            if (name, model) in sides.index:
                value, off = (sides.loc[(name, model), kind] for kind in ("value", "error"))
                _gain(axis, y, value, 1.96 * np.hypot(off["before"], off["after"]))
        axis.set_title(name)
        axis.set(ylim=(len(models) - 0.4, -0.75), yticks=range(len(models)), yticklabels=models)
        axis.margins(x=0.2)
        axis.grid(False, axis="y")
        axis.grid(True, axis="x")
        axis.tick_params(axis="y", length=0)
    note = "reported by the paper, one run an arm: after − before; red: a decline. "
    note += f"Grey: where 95 % would lie without any effect,\n{SOURCE}; "
    note += "VQAv2's zeros: one label for both arms"
    _note(figure, note, 0.0)
    figure.tight_layout(w_pad=1.2, h_pad=1.6, rect=(0, 0.06, 1, 1))
    return figure


def _gain(axis: Axes, y: int, value: pd.Series, half: float) -> None:
    """One model's gain; ``half`` is half the length of the grey bar, or nan."""
    gain = round(value["after"] - value["before"], 2)
    color = INVENTED if gain < 0 else COLORS["LLaVA-23K"]
    axis.plot([-half, half], [y, y], color=BAR, lw=9, solid_capstyle="butt", zorder=1)
    axis.plot(gain, y, "v" if gain < 0 else "o", ms=7, color=color, zorder=3)
    axis.annotate(f"{gain:+.1f}" if gain else "0.0", (gain, y), (0, 7), ha="center",
                  textcoords="offset points", fontsize=8.5, color=color,
                  weight="bold" if gain < 0 else "normal",
                  bbox={"fc": "white", "ec": "none", "pad": 0.4})  # fmt: skip


def ablations(table: pd.DataFrame, miniature: Effects) -> Figure:
    """Tables 4, 5 and 6: a row of panels a table, a panel a benchmark, a dot an arm.

    A last panel a table shows what its own study found in ``miniature``.
    """
    heights = [len(rows) for _, rows in _TITLES.values()]
    run = any(found is not None for found in miniature.values())
    size = (FULL_WIDTH + (5.0 if run else 3.4), 7.6)  # arms' names need room
    figure, axes = plt.subplots(3, 4, figsize=size, height_ratios=heights, layout="constrained")
    for column in axes.T[: 4 if run else 3]:
        column[0].sharex(column[1])
        column[2].sharex(column[1])
    for (*line, last), (place, (title, rows)) in zip(axes, _TITLES.items(), strict=True):
        _gains(last, miniature[place])
        for axis, name in zip(line, ("MME-P", "MMB", "SEED-I"), strict=True):
            part = table[(table["place"] == place) & (table["column"] == name)].set_index("row")
            _dots(axis, part.loc[list(rows)], list(rows.values()))
            axis.tick_params(axis="x", labelbottom=True)
            if place == "table4":
                axis.set_title(name, pad=26)
        for axis in line[1:]:
            axis.set_yticklabels([])
        line[0].annotate(title, (0, 1), (-92, 9), xycoords="axes fraction", weight="bold",
                         textcoords="offset points", fontsize=9.5)  # fmt: skip
    note = f"reported by the paper, one run each; grey: 95 %, {SOURCE}"
    _note(figure, f"{note}\n{_RIGHT}", 0.0)
    figure.get_layout_engine().set(rect=(0, 0.07, 1, 0.93), hspace=0.06)
    return figure


_RIGHT = "right: in miniature, 95 % paired-t intervals over seeds; its points are not the paper's"


def _own(axis: Axes, found: pd.DataFrame | None) -> pd.DataFrame | None:
    """Set a miniature's panel apart; its effects on the score that comes first, if it was run."""
    axis.set_facecolor("#F4F5F7")
    if found is None:
        axis.text(0.5, 0.5, "in miniature:\nnot run", ha="center", va="center", color=PALE,
                  transform=axis.transAxes)  # fmt: skip
        axis.set_yticks([])
        axis.tick_params(axis="x", bottom=False, labelbottom=False)
        axis.grid(False)
        return None
    return found[found["score"] == found["score"].iloc[0]].reset_index(drop=True)


def _gains(axis: Axes, found: pd.DataFrame | None) -> None:
    """What arms gained over those they are compared with, a line each."""
    shown = _own(axis, found)
    if shown is None:
        return
    y = np.arange(len(shown))
    axis.axvline(0, color=INK, lw=1)
    axis.hlines(y, shown["low"], shown["high"], color=COLORS["ShareGPT4V"], lw=2.2)
    axis.plot(shown["effect"], y, "D", ms=6, color=COLORS["ShareGPT4V"])
    names = [
        f"{_ARMS[a]} − {_ARMS[b]}" for a, b in zip(shown["arm"], shown["against"], strict=True)
    ]
    axis.set(yticks=y, yticklabels=names, ylim=(len(shown) - 0.5, -0.75))
    axis.tick_params(axis="y", labelsize=7.5)
    seeds = int(shown["seeds"].iloc[0])
    axis.set_title(f"in miniature: {shown['score'].iloc[0]} gained, {seeds} seeds", fontsize=9)
    axis.grid(False, axis="y")
    axis.grid(True, axis="x")
    axis.tick_params(axis="both", length=0, labelbottom=True)


def _dots(axis: Axes, part: pd.DataFrame, labels: Sequence[str]) -> None:
    y = np.arange(len(part))
    half = 1.96 * part["error"]
    axis.hlines(y, part["value"] - half, part["value"] + half, color=BAR, lw=7)
    axis.plot(part["value"], y, "o", ms=7, color=COLORS["LLaVA-23K"])
    for i, value in zip(y, part["value"], strict=True):
        axis.annotate(f"{value:.1f}", (value, i), (0, 6), textcoords="offset points",
                      ha="center", fontsize=8.5)  # fmt: skip
    axis.set(yticks=y, yticklabels=labels, ylim=(len(part) - 0.5, -0.75))
    axis.grid(False, axis="y")
    axis.grid(True, axis="x")
    axis.tick_params(axis="y", length=0)


def scaling(table: pd.DataFrame, miniature: Effects) -> Figure:
    """Figure 6: two benchmarks by the number of pre-training captions, in the paper's steps.

    A second panel shows what its own study found in ``miniature``, on its own axes.
    """
    size = (FULL_WIDTH * 1.2, 3.9)
    figure, (axis, right) = plt.subplots(1, 2, figsize=size, width_ratios=(3, 2))
    _growth(right, miniature["figure6"])
    higher = table.groupby("row")["value"].transform("max") == table["value"]
    for name, mark, color in (("MMB", "o", "LLaVA-23K"), ("SEED-I", "s", "COCO-Caption")):
        part = table.assign(captions=table["row"].astype(int), higher=higher)
        part = part[part["column"] == name].sort_values("captions")
        x, half = np.arange(len(part)), 1.96 * part["error"]
        axis.fill_between(x, part["value"] - half, part["value"] + half, color=COLORS[color],
                          alpha=0.16, lw=0)  # fmt: skip
        axis.plot(x, part["value"], marker=mark, ms=6, lw=2, color=COLORS[color])
        axis.annotate(name, (x[-1], part["value"].iloc[-1]), (9, 0), va="center", weight="bold",
                      textcoords="offset points", color=INK, fontsize=9.5)  # fmt: skip
        for i, value, above in zip(x, part["value"], part["higher"], strict=True):
            axis.annotate(f"{value:.1f}", (i, value), (0, 7 if above else -14), ha="center",
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
    labels = [f"{n // 1000:,}K" if n else "none" for n in part["captions"]]
    axis.set(xticks=x, xticklabels=labels, ylabel="% right", xlim=(-0.3, len(x) - 0.2))
    axis.set_xlabel("captions in pre-training (steps as in the paper, not to scale)")
    note = "reported by the paper (read from its Figure 6), one run a point;\n"
    note += f"bands: 95 % from the number of questions alone\n{_RIGHT}"
    _note(figure, note, -0.03)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return figure


def _growth(axis: Axes, found: pd.DataFrame | None) -> None:
    """What numbers of captions gained over none, on a logarithmic axis."""
    shown = _own(axis, found)
    if shown is None:
        return
    captions = shown["arm"].str.partition("@")[2].astype(int)
    off = [shown["effect"] - shown["low"], shown["high"] - shown["effect"]]
    axis.axhline(0, color=INK, lw=1)
    axis.errorbar(captions, shown["effect"], off, fmt="D", ms=6, color=COLORS["ShareGPT4V"])
    axis.set_xscale("log")
    axis.set_xticks(captions, [f"{n:,}" for n in captions])
    axis.minorticks_off()
    axis.set(xlabel="captions in stage 1", ylabel=f"{shown['score'].iloc[0]} gained over none")
    axis.set_title(f"in miniature, {int(shown['seeds'].iloc[0])} seeds", fontsize=9)


def radar(table: pd.DataFrame, _: Effects) -> Figure:
    """Figure 1(b): Table 3's eleven benchmarks for four models of about 7 billion parameters."""
    four = table.pivot(index="row", columns="column", values="value")
    four = four.loc[list(FOUR.values()), list(paper.BENCHMARKS[:11])].set_axis(list(FOUR), axis=0)
    figure = rule_comparison.radar(four)
    _note(figure, "reported by the paper's Table 3; each axis from 80 % of its lowest value "
          "to its best, printed", -0.02)  # fmt: skip
    return figure


def _note(figure: Figure, text: str, y: float) -> None:
    figure.text(0.01, y, text, fontsize=8.5, color=PALE, va="bottom")


FIGURES = {
    "reported_substitution": substitution,
    "reported_ablations": ablations,
    "reported_scaling": scaling,
    "reported_radar": radar,
}


def read(name: str, data: Path) -> pd.DataFrame:
    """A table of `tables` as it was written: text stays text, an error may be missing."""
    blank = {"error": [""]}
    path = data / f"{name}.csv"
    return pd.read_csv(path, dtype={"row": str}, keep_default_na=False, na_values=blank)


def drawn(name: str, data: Path) -> Figure:
    """A figure of FIGURES, from its table in ``data`` and from what studies published there."""
    files = {place: data / f"{plan}.csv" for place, plan in STUDIES.items()}
    found = {place: pd.read_csv(f) if f.is_file() else None for place, f in files.items()}
    return FIGURES[name](read(name, data), found)


def draw(out: Path) -> None:
    """Draw every published figure into ``out`` (PNG and SVG) from the tables in ``out``/data."""
    plotting.style()
    published.draw(out)
    for name in FIGURES:
        plotting.save(drawn(name, out / "data"), out / name)
    plt.close("all")


def figures(
    *,
    out: Path = Path("figures"),  # Folder of the figures; tables are below it.
    tables_: bool = False,  # Make the tables anew first (minutes).
) -> Path:
    """Draw the published figures anew from the tables in OUT/data."""
    if tables_:
        (out / "data").mkdir(parents=True, exist_ok=True)
        published.tables(out / "data")
        for name, table in tables().items():
            table.to_csv(out / "data" / f"{name}.csv", index=False)
    draw(out)
    publishing.redraw(out)
    return out
