"""The paper's own numbers drawn, each labelled as reported, with what is known of their noise.

Bars and bands are 95 %, by `claims.standard_error`. What a recorded study found in miniature has a
panel and an axis of its own, or that panel says "not run".
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sgv_lab import paper
from sgv_lab.figures import style
from sgv_lab.figures.style import COLORS, INK, PALE, label_point, list_rows, note
from sgv_lab.study.claims import standard_error

BAR = "#C9CED6"
SOURCE = (
    "from a spread of 20 points between identical runs (MME-P) or from the number of questions; "
    "none: unknown"
)
_MINIATURE = (
    "right: in miniature, 95 % paired-t intervals over seeds; its points are not the paper's"
)
MODELS = {  # the models of the paper's Figure 1(b) -> their rows in Table 3, and their colours
    "ShareGPT4V-7B": ("ShareGPT4V-7B (Vicuna-7B)", "#009E73"),
    "Qwen-VL-Chat": ("Qwen-VL-Chat (Qwen-7B)", "#E69F00"),
    "LLaVA-1.5-7B": ("LLaVA-1.5 (Vicuna-7B)", "#0072B2"),
    "InstructBLIP-7B": ("InstructBLIP (Vicuna-7B)", "#CC79A7"),
}
_TITLES = {  # place -> title, and its rows in words
    "table4": ("Table 4: captions in", {"PT no, SFT no": "neither", "PT no, SFT yes": "fine-tuning",
               "PT yes, SFT no": "pre-training", "PT yes, SFT yes": "both"}),
    "table5": ("Table 5: pre-trained on", {"Baseline": "nothing more", "+BLIP-558K": "BLIP 558K",
               "+ShareGPT4V-PT-558K": "dense 558K"}),
    "table6": ("Table 6: vision blocks trained", {"24": "none", "18": "from 18", "12": "from 12",
               "6": "from 6", "0": "from 0"}),
}  # fmt: skip
_ARMS = {  # of the studies in miniature, in the words of the tables they re-test
    "before": "neither", "sft": "fine-tuning", "pt": "pre-training", "both": "both",
    "pt-blip": "pre-training on BLIP's", "both-oracle": "both, true captions",
    "none@PT": "nothing more", "blip@PT": "BLIP", "share@PT": "dense", "oracle@PT": "true captions",
    "tower@0%": "none", "tower@50%": "half", "tower@100%": "all", "tower@whole": "all, embeddings",
}  # fmt: skip

Effects = Mapping[str, pd.DataFrame]
"""The paper's place -> the table of `effects.effects` of its study in miniature, if it was run."""


def numbers(*places: str) -> pd.DataFrame:
    """What the paper reports at ``places``, tidy, with the standard error where it is known."""
    table = paper.facts().query("place in @places").dropna(subset="value")
    table = table[["place", "row", "arm", "column", "value", "unit"]]
    errors = [standard_error(c, v) for c, v in zip(table["column"], table["value"], strict=True)]
    return table.assign(error=pd.Series(errors, table.index, float).round(3))


def substitution(table: pd.DataFrame, _: Effects) -> Figure:
    """Figure 2: a panel a benchmark, and in it what each model gains by the swap."""
    figure, axes = plt.subplots(2, 4, figsize=(style.FULL_WIDTH + 1, 5.2), sharey=True)
    models = list(dict.fromkeys(table["row"]))
    names = sorted(table["column"].unique(), key=paper.BENCHMARKS.index)
    sides = table.pivot(index=["column", "row"], columns="arm", values=["value", "error"])
    for axis, name in zip(axes.flat, names, strict=True):
        axis.axvline(0, color=INK, lw=1)
        for y, model in enumerate(models):
            if (name, model) in sides.index:
                value, error = (sides.loc[(name, model), kind] for kind in ("value", "error"))
                _gain(axis, y, value["after"] - value["before"], 1.96 * np.hypot(*error))
        list_rows(axis, models)
        axis.set_title(name)
        axis.margins(x=0.2)
    said = "reported by the paper, one run per arm: after − before; red: a decline. "
    said += f"Grey: where 95 % would lie without any effect,\n{SOURCE}; "
    note(figure, f"{said}VQAv2's zeros: one label for both arms")
    figure.tight_layout(w_pad=1.2, h_pad=1.6)
    return figure


def _gain(axis: Axes, y: int, gain: float, half: float) -> None:
    """One model's gain; ``half`` is half the length of the grey bar, or nan."""
    gain = round(gain, 2)
    mark, color, weight = (
        ("v", style.INVENTED, "bold") if gain < 0 else ("o", COLORS["LLaVA-23K"], "normal")
    )
    axis.plot([-half, half], [y, y], color=BAR, lw=9, solid_capstyle="butt", zorder=1)
    axis.plot(gain, y, mark, ms=7, color=color, zorder=3)
    look = {"color": color, "weight": weight, "bbox": {"fc": "white", "ec": "none", "pad": 0.4}}
    label_point(axis, f"{gain:+.1f}" if gain else "0.0", (gain, y), (0, 7), **look)


def ablations(table: pd.DataFrame, miniature: Effects) -> Figure:
    """Tables 4, 5 and 6: a row of panels a table, a panel a benchmark, a last one in miniature."""
    heights = [len(rows) for _, rows in _TITLES.values()]
    run = any(place in miniature for place in _TITLES)
    size = (style.FULL_WIDTH + (5.0 if run else 3.4), 7.6)  # arms' names need room
    figure, axes = plt.subplots(3, 4, figsize=size, height_ratios=heights, layout="constrained")
    for column in axes.T[: 4 if run else 3]:
        column[0].sharex(column[1])
        column[2].sharex(column[1])
    for (*line, last), (place, (title, rows)) in zip(axes, _TITLES.items(), strict=True):
        _miniature_gains(last, miniature.get(place))
        for axis, name in zip(line, ("MME-P", "MMB", "SEED-I"), strict=True):
            part = table[(table["place"] == place) & (table["column"] == name)].set_index("row")
            _dots(axis, part.loc[list(rows)], list(rows.values()))
            axis.tick_params(axis="x", labelbottom=True)
            if place == "table4":
                axis.set_title(name, pad=26)
        for axis in line[1:]:
            axis.set_yticklabels([])
        look = {"xycoords": "axes fraction", "weight": "bold", "fontsize": 9.5, "ha": "left"}
        label_point(line[0], title, (0, 1), (-92, 9), **look)
    note(figure, f"reported by the paper, one run each; grey: 95 %, {SOURCE}\n{_MINIATURE}")
    figure.get_layout_engine().set(hspace=0.06)
    return figure


def _dots(axis: Axes, part: pd.DataFrame, labels: Sequence[str]) -> None:
    y, half = np.arange(len(part)), 1.96 * part["error"]
    axis.hlines(y, part["value"] - half, part["value"] + half, color=BAR, lw=7)
    axis.plot(part["value"], y, "o", ms=7, color=COLORS["LLaVA-23K"])
    for i, value in zip(y, part["value"], strict=True):
        label_point(axis, f"{value:.1f}", (value, i), (0, 6))
    list_rows(axis, labels)


def _miniature(axis: Axes, table: pd.DataFrame | None) -> pd.DataFrame | None:
    """Set a miniature's panel apart; its effects on the score that comes first, if it was run."""
    axis.set_facecolor("#F4F5F7")
    if table is not None:
        return table[table["score"] == table["score"].iloc[0]].reset_index(drop=True)
    look = {"ha": "center", "va": "center", "color": PALE, "transform": axis.transAxes}
    axis.text(0.5, 0.5, "in miniature:\nnot run", **look)
    axis.set_yticks([])
    axis.tick_params(axis="x", bottom=False, labelbottom=False)
    axis.grid(False)
    return None


def _miniature_gains(axis: Axes, table: pd.DataFrame | None) -> None:
    """What arms gained over those they are compared with, a line each."""
    if (shown := _miniature(axis, table)) is None:
        return
    y = np.arange(len(shown))
    axis.axvline(0, color=INK, lw=1)
    axis.hlines(y, shown["low"], shown["high"], color=COLORS["ShareGPT4V"], lw=2.2)
    axis.plot(shown["effect"], y, "D", ms=6, color=COLORS["ShareGPT4V"])
    list_rows(axis, [f"{_ARMS[row.arm]} − {_ARMS[row.against]}" for row in shown.itertuples()])
    axis.tick_params(axis="y", labelsize=7.5)
    first = shown.iloc[0]
    axis.set_title(f"in miniature: {first['score']} gained, {first['seeds']} seeds", fontsize=9)
    axis.tick_params(axis="both", length=0, labelbottom=True)


def scaling(table: pd.DataFrame, miniature: Effects) -> Figure:
    """Figure 6: two benchmarks by the number of pre-training captions; a panel in miniature."""
    size = (style.FULL_WIDTH * 1.2, 3.9)
    figure, (axis, right) = plt.subplots(1, 2, figsize=size, width_ratios=(3, 2))
    _miniature_growth(right, miniature.get("figure6"))
    higher = table.groupby("row")["value"].transform("max") == table["value"]
    for name, mark, color in (("MMB", "o", "LLaVA-23K"), ("SEED-I", "s", "COCO-Caption")):
        part = table.assign(captions=table["row"].astype(int), higher=higher)
        part = part[part["column"] == name].sort_values("captions")
        x, value, half = np.arange(len(part)), part["value"], 1.96 * part["error"]
        axis.fill_between(x, value - half, value + half, color=COLORS[color], alpha=0.16, lw=0)
        axis.plot(x, value, marker=mark, ms=6, lw=2, color=COLORS[color])
        look = {"ha": "left", "va": "center", "weight": "bold", "color": INK, "fontsize": 9.5}
        label_point(axis, name, (x[-1], value.iloc[-1]), (9, 0), **look)
        for i, y, above in zip(x, value, part["higher"], strict=True):
            label_point(axis, f"{y:.1f}", (i, y), (0, 7 if above else -14))
    axis.set_xticks(x, [f"{n // 1000:,}K" if n else "none" for n in part["captions"]])
    axis.set(ylabel="% right", xlim=(-0.3, len(x) - 0.2))
    axis.set_title("reported by the paper, one run per point", fontsize=9)
    axis.set_xlabel("captions in pre-training (steps as in the paper, not to scale)")
    said = "left: read from the paper's Figure 6; "
    note(figure, f"{said}bands: 95 % from the number of questions alone\n{_MINIATURE}")
    figure.tight_layout()
    return figure


def _miniature_growth(axis: Axes, table: pd.DataFrame | None) -> None:
    """What numbers of captions gained over none, on a logarithmic axis."""
    if (shown := _miniature(axis, table)) is None:
        return
    captions = shown["arm"].str.partition("@")[2].astype(int)
    off = [shown["effect"] - shown["low"], shown["high"] - shown["effect"]]
    axis.axhline(0, color=INK, lw=1)
    axis.errorbar(captions, shown["effect"], off, fmt="D", ms=6, color=COLORS["ShareGPT4V"])
    axis.set_xscale("log")
    axis.set_xticks(captions, [f"{n:,}" for n in captions])
    axis.minorticks_off()
    axis.set(xlabel="captions in pre-training", ylabel=f"{shown['score'].iloc[0]} gained over none")
    axis.set_title(f"in miniature, {int(shown['seeds'].iloc[0])} seeds", fontsize=9)


def reported_radar(table: pd.DataFrame, _: Effects) -> Figure:
    """Figure 1(b): Table 3's eleven benchmarks for four models of about 7 billion parameters."""
    four = table.pivot(index="row", columns="column", values="value")[list(paper.BENCHMARKS[:11])]
    figure = radar(four.loc[[row for row, _ in MODELS.values()]].set_axis(list(MODELS)))
    said = "reported by the paper's Table 3; each axis from 80 % of its lowest value to its best"
    note(figure, f"{said}, printed")
    return figure


def radar(table: pd.DataFrame) -> Figure:
    """Models (rows) by benchmarks (columns), each axis from 80 % of its least value to its best."""
    angles = np.linspace(0, 2 * np.pi, len(table.columns), endpoint=False)
    low, high = 0.8 * table.min(), table.max()
    figure, axis = plt.subplots(figsize=(6.4, 5.6), subplot_kw={"polar": True})
    axis.set(theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 1.05), yticks=(0.5, 1.0))
    axis.spines["polar"].set_visible(False)  # the outermost ring drawn is the best value
    colors = [color for _, color in MODELS.values()]
    for (name, row), color in zip(table.iterrows(), colors, strict=False):
        radii = ((row - low) / (high - low)).to_numpy(float)
        closed = np.append(radii, radii[0])
        axis.plot([*angles, angles[0]], closed, color=color, marker="o", markersize=4, label=name)
        if np.isfinite(radii).all():
            axis.fill([*angles, angles[0]], closed, color=color, alpha=0.12)
    axis.set_xticks(angles, [f"{name}\n{high[name]:g}" for name in table.columns])
    axis.tick_params(axis="x", pad=9)
    axis.set_yticklabels([])
    axis.grid(True, color=style.RULE)
    axis.spines["polar"].set_color(style.RULE)
    axis.legend(loc="upper left", bbox_to_anchor=(1.08, 1.05))
    return figure


def collection(table: pd.DataFrame, _: Effects) -> Figure:
    """How the captions were collected: images, prompts, GPT4-Vision, Share-Captioner, training.

    Captions and their lengths are Table 1's; images a kind, section 3's and the second version's.
    """
    told = table.pivot(index="row", columns="column", values="value")
    told = {
        name: f"{row['samples']:,.0f} captions\nmean {row['mean characters']:.0f} characters"
        for name, row in told.iterrows()
    }
    figure = plt.figure(figsize=(style.FULL_WIDTH + 2.5, 4.0))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 115), ylim=(0, 40))
    axis.set_axis_off()
    steps = ((1, "Images of six kinds"), (26, "A prompt for each kind"), (54, "GPT4-Vision writes"),
             (76, "Share-Captioner,\ntaught by the 100K"), (98, "ShareGPT4V-7B"))  # fmt: skip
    for number, (x, text) in enumerate(steps, 1):
        axis.text(x, 39.5, f"{number}  {text}", weight="bold", fontsize=10.5, va="top")
    kinds = (("COCO, 50K", "everyday photos"), ("LCS, 30K", "LAION, CC, SBU"),
             ("SAM, 20K", "crowded photos"), ("TextCaps, 0.5K", "photos with writing"),
             ("WikiArt, 0.5K", "paintings"), ("web, 1K", "landmarks, celebrities"))  # fmt: skip
    prompts = (
        "you are a powerful captioner\n\nphoto: objects, colors, counts,\nplaces, actions\n"
        "writing: what it says\nlandmark: its name and place\ncelebrity: who it is\n"
        "painting: its style and genre\n\nonly what is sure,\nno lists, little praise"
    )
    boxes = [(1, 29 - 5.6 * i, 19, 5, "COCO-Caption", *kind) for i, kind in enumerate(kinds)]
    boxes += [(26, 5, 22, 25, "LLaVA-23K", "one frame, a part for each", prompts),
              (54, 12, 16, 11, "ShareGPT4V", "ShareGPT4V", told["ShareGPT4V"]),
              (76, 20, 16, 11, "ShareGPT4V-PT", "ShareGPT4V-PT", told["ShareGPT4V-PT"]),
              (98, 20, 16, 11, "oracle", "pre-training", "on all of them"),
              (98, 3, 16, 11, "oracle", "fine-tuning",
               "23K of the 100K\nreplace LLaVA's")]  # fmt: skip
    for x, y, width, height, color, title, text in boxes:
        look = {"facecolor": f"{COLORS[color]}1A", "edgecolor": COLORS[color], "lw": 1.2}
        axis.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0", **look))
        middle, top = x + width / 2, y + height
        axis.text(middle, top - 0.8, title, weight="bold", ha="center", va="top")
        axis.text(middle, y + (height - 2.2) / 2, text, fontsize=8.3, ha="center", va="center")
    arrows = [((20, 31.5 - 5.6 * i), (26, 17.5)) for i in range(6)]
    arrows += [((48, 17.5), (54, 17.5)), ((70, 20), (76, 25)), ((92, 25.5), (98, 25.5)),
               ((70, 15), (98, 8.5)), ((106, 20), (106, 14))]  # fmt: skip
    for start, end in arrows:
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": PALE})
    return figure
