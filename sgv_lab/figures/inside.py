"""The inside of a model drawn: pixels, patches, tokens, attention, LoRA's matrices."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from sgv_lab.figures.style import COLORS, FULL_WIDTH, INK, NARROW, PALE, RULE, TRUE

READ, SEEN, TAUGHT = "only read", "the image", "supervised: the loss counts it"
TOKENS = {READ: (RULE, INK), SEEN: (COLORS["LLaVA-23K"], "white"), TAUGHT: (TRUE, "white")}
_SIGNED = "RdBu_r"  # below 0, above 0
_LIT = LinearSegmentedColormap.from_list("lit", [(0.9, 0.35, 0, 0), (0.9, 0.35, 0, 0.85)])
_LETTER, _LINE = 0.092, 0.34  # inches: a letter's width, a line's height


def image_row(shown: Mapping[str, Image.Image | np.ndarray]) -> Figure:
    """Images side by side under their names; arrays (H, W) in grey, on one scale around 0."""
    arrays = [one for one in shown.values() if isinstance(one, np.ndarray)]
    most = max((float(np.abs(one).max()) for one in arrays), default=1.0)
    size = (FULL_WIDTH, FULL_WIDTH / len(shown) + 0.2)
    figure, axes = plt.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False)
    for axis, (name, one) in zip(axes[0], shown.items(), strict=True):
        drawn = axis.imshow(one, cmap="gray", vmin=-most, vmax=most)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    if arrays:
        bar = figure.colorbar(drawn, ax=axes[0], fraction=0.03, pad=0.01, shrink=0.7)
        bar.outline.set_visible(False)
    return figure


def patch_grid(axis: Axes, image: Image.Image, side: int, names: Sequence[str] = ()) -> None:
    """An image cut by white lines into ``side`` × ``side`` patches, a name in each one's corner."""
    axis.imshow(image, extent=(0, side, side, 0))
    for line in range(1, side):
        axis.axhline(line, color="white", lw=1.5)
        axis.axvline(line, color="white", lw=1.5)
    for number, name in enumerate(names):
        row, column = divmod(number, side)
        box = {"facecolor": "white", "alpha": 0.75, "pad": 1.2, "linewidth": 0}
        axis.text(column + 0.06, row + 0.08, name, va="top", fontsize=8, color=INK, bbox=box)
    axis.set_axis_off()


def numbered_patches(image: Image.Image, side: int, patches: Mapping[str, np.ndarray]) -> Figure:
    """The image's numbered patches, and some of them alone, as images (H, W, 3) under names."""
    figure, axes = plt.subplot_mosaic(
        [["all", *patches]], width_ratios=[2.4, *(1 for _ in patches)],
        figsize=(FULL_WIDTH, 3.1), layout="constrained",
    )  # fmt: skip
    patch_grid(axes["all"], image, side, [str(n + 1) for n in range(side * side)])
    for name, one in patches.items():
        axes[name].imshow(one)
        axes[name].set_title(name, fontsize=9)
        axes[name].set_axis_off()
    return figure


def over_image(image: Image.Image, maps: Mapping[str, np.ndarray], unit: str) -> Figure:
    """The image once for each name in ``maps``, its patches (N,) lit by their values.

    All panels share one scale, from 0 to the largest value; large values are written, too.
    ``unit`` says what they are.
    """
    side = int(len(next(iter(maps.values()))) ** 0.5)
    most = max(float(values.max()) for values in maps.values())
    size = (FULL_WIDTH, FULL_WIDTH / len(maps) * 0.92 + 0.2)
    figure, axes = plt.subplots(1, len(maps), figsize=size, layout="constrained", squeeze=False)
    for axis, (name, values) in zip(axes[0], maps.items(), strict=True):
        patch_grid(axis, image.convert("L").convert("RGB"), side)
        table, frame = np.reshape(values, (side, side)), (0, side, side, 0)
        heat = axis.imshow(table, extent=frame, cmap=_LIT, vmin=0, vmax=most)
        for row, column in np.argwhere(table > most / 4):
            where = {"ha": "right", "va": "bottom", "fontsize": 8, "weight": "bold"}
            axis.text(column + 0.95, row + 0.95, f"{table[row, column]:.0f}", **where)
        axis.set_title(name, fontsize=10)
    bar = figure.colorbar(heat, ax=axes[0], fraction=0.03, pad=0.01, shrink=0.8, label=unit)
    bar.outline.set_visible(False)
    return figure


def token_boxes(words: Sequence[str], kinds: Sequence[str]) -> Figure:
    """Every token in a box of its kind's colour (keys of TOKENS), in lines as in a text."""
    lines, along = 0, 0.0
    placed = []
    for word, kind in zip(words, kinds, strict=True):
        width = _LETTER * max(len(word), 1) + 0.1
        if along + width > FULL_WIDTH:
            lines, along = lines + 1, 0.0
        placed.append((along, lines, width, word, kind))
        along += width + 0.04
    height = _LINE * (lines + 1)
    figure, axis = plt.subplots(figsize=(FULL_WIDTH, height + 0.4))
    axis.set(xlim=(0, FULL_WIDTH), ylim=(height + 0.4, 0))
    axis.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 1)
    for left, line, width, word, kind in placed:
        fill, ink = TOKENS[kind]
        top = 0.4 + line * _LINE
        axis.add_patch(plt.Rectangle((left, top), width, _LINE - 0.07, facecolor=fill))
        where = {"ha": "center", "va": "center", "fontsize": 8.5, "family": "monospace"}
        axis.text(left + width / 2, top + _LINE / 2 - 0.035, word, color=ink, **where)
    left = 0.0
    for kind in dict.fromkeys(kinds):
        axis.add_patch(plt.Rectangle((left, 0.06), 0.16, 0.18, facecolor=TOKENS[kind][0]))
        axis.text(left + 0.22, 0.16, kind, va="center", fontsize=9, color=INK)
        left += 0.075 * len(kind) + 0.6
    return figure


def next_words(table: pd.DataFrame) -> Figure:
    """Bars of probabilities: a row of ``table`` a token, a column a condition."""
    rows = table.rename_axis("token").reset_index()
    long = rows.melt("token", var_name="shown", value_name="probability")
    figure, axis = plt.subplots(figsize=(NARROW, 0.42 * len(table) + 0.8))
    colors = dict(zip(table, (COLORS["ShareGPT4V"], RULE), strict=False))
    sns.barplot(long, x="probability", y="token", hue="shown", palette=colors, ax=axis)
    axis.set(xlabel="probability of being the next token", ylabel="")
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.grid(visible=False, axis="y")
    axis.legend(title=None)
    return figure


def matrices(shown: Mapping[str, np.ndarray], below: str) -> Figure:
    """Matrices side by side in colours around 0, each on its own scale, sizes in proportion."""
    widths = [max(one.shape[1], 52) for one in shown.values()]
    figure, axes = plt.subplots(
        1, len(shown), width_ratios=widths, figsize=(FULL_WIDTH, 3.0), layout="constrained",
        sharey=True,
    )  # fmt: skip
    for axis, (name, one) in zip(axes, shown.items(), strict=True):
        most = float(np.abs(one).max()) or 1.0
        axis.imshow(one, cmap=_SIGNED, vmin=-most, vmax=most, interpolation="nearest")
        axis.set_title(f"{name}\n{one.shape[0]} × {one.shape[1]}", fontsize=9)
        axis.set_axis_off()
    figure.supxlabel(below, fontsize=9, color=PALE)
    return figure
