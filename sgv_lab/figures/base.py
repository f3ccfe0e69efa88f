"""How the miniature's base was made, drawn: learning curves, what patches say, the gate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from sgv_lab.base.abilities import BLIND, CEILING, UNTUNED
from sgv_lab.figures.inside import patch_grid
from sgv_lab.figures.style import COLORS, FULL_WIDTH, INK, NARROW, PALE, RULE
from sgv_lab.training import metrics

_MADE_OUT = {  # what the tower is asked for -> in words
    "kind": "kind of object",
    "color": "its color",
    "size": "its size",
    "pattern": "its pattern",
    "place": "place of the patch",
    "background": "background",
    "light": "light",
    "sign": "word on the sign",
    "landmark": "landmark",
    "character": "person",
    "style": "style of art",
}
_SHOWN = (  # column of a gate's table, in words, color, offset of its dots
    ("ceiling", "own eyes", COLORS["ShareGPT4V"], -0.2),
    ("untuned", "new projector", COLORS["LLaVA-23K"], 0.0),
    ("blind", "own eyes, another image", PALE, 0.2),
)


def learning_curves(
    made: Mapping[str, Path], loss: str, step: str = "step", one_after_other: bool = False
) -> Figure:
    """Loss against steps, a line for each checkpoint under its name; a single one has no legend.

    Beside each checkpoint lies its metrics.jsonl. ``one_after_other``: each begins where the one
    before it ended. ``loss`` and ``step`` name the axes.
    """
    parts = {name: pd.DataFrame(metrics.read(at / "metrics.jsonl")) for name, at in made.items()}
    curves = pd.concat(parts, names=["which"]).reset_index("which")
    if one_after_other:
        curves["step"] = range(1, len(curves) + 1)
    figure, axis = plt.subplots(figsize=(NARROW, 2.6))
    sns.lineplot(curves, x="step", y="loss", hue="which", linewidth=1.2, ax=axis)
    axis.set(xlabel=step, ylabel=loss, ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(title=None).set_visible(len(made) > 1)
    return figure


def tower_accuracy(seen: pd.DataFrame) -> Figure:
    """Bars of what a vision tower makes out: ``seen`` is the accuracy.csv beside it, in percent."""
    figure, axis = plt.subplots(figsize=(NARROW, 3.2))
    told = seen.replace({"label": _MADE_OUT})
    order, color = _MADE_OUT.values(), COLORS["LLaVA-23K"]
    sns.barplot(told, x="accuracy", y="label", order=order, color=color, ax=axis)
    axis.set(xlabel="right in new images, percent", ylabel="", xlim=(0, 100))
    axis.grid(visible=False, axis="y")
    return figure


def words_beside(image: Image.Image, words: Sequence[str]) -> Figure:
    """An image cut into its patches, and beside it the words of each, row by row."""
    side = int(len(words) ** 0.5)
    size = (FULL_WIDTH * 0.9, 4)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained")
    patch_grid(left, image, side)
    left.set_title("the image")
    right.set(xlim=(0, side), ylim=(side, 0), xticks=range(side + 1), yticks=range(side + 1))
    right.set(xticklabels=[], yticklabels=[], aspect="equal", title="what its patches say")
    right.grid(visible=True, axis="both")
    right.tick_params(length=0)
    for number, said in enumerate(words):
        row, column = divmod(number, side)
        where = {"ha": "center", "va": "center", "fontsize": 8}
        right.text(column + 0.5, row + 0.5, said.replace(", ", "\n"), **where)
    return figure


def gate_rows(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Right yes/no answers by ability, with intervals; a panel for each gate's table, by name.

    Dotted: what own eyes must reach, and must stay below with another image. Band: where answers
    behind the new projector must lie.
    """
    size = (FULL_WIDTH, 3.6)
    figure, axes = plt.subplots(1, len(tables), figsize=size, sharey=True, layout="constrained")
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        height = pd.Series(range(len(table)))
        for column, said, color, lift in _SHOWN:
            axis.plot(table[column], height + lift, "o", color=color, label=said)
            ends = table[[f"{column}_low", f"{column}_high"]].astype(float).to_numpy().T
            axis.hlines(height + lift, *ends, color=color)
        axis.axvspan(*UNTUNED, color=RULE, alpha=0.3, linewidth=0)
        for bound in (CEILING, BLIND):
            axis.axvline(bound, color=INK, linestyle=":")
        axis.set(title=name, xlabel="yes/no questions right, percent", xlim=(30, 102))
        axis.set(yticks=height, yticklabels=table["ability"])
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def accuracy_by_form(known: pd.DataFrame) -> Figure:
    """Dots of a base's accuracy in percent by ability, a color for each form of question.

    ``known``: the abilities.csv beside the base, of one split.
    """
    figure, axis = plt.subplots(figsize=(NARROW, 3.6))
    told = known.replace({"form": {"yesno": "yes/no"}})
    sns.scatterplot(told, x="accuracy", y="ability", hue="form", s=45, ax=axis)
    axis.set(xlabel="right in new images, percent", ylabel="", xlim=(0, 102))
    axis.legend(title="", loc="upper left", bbox_to_anchor=(1, 1))
    return figure
