"""The one look of all figures: fonts, sizes, a fixed colour for each source, and how to save.

Colours are of Okabe and Ito's palette, told apart by people who see few colours.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgv_lab.files import atomic

COLORS = {  # dataset or annotator -> its colour in every figure
    "COCO-Caption": "#E69F00",
    "BLIP-LCS": "#CC79A7",
    "LLaVA-23K": "#0072B2",
    "ShareGPT4V": "#009E73",
    "ShareGPT4V-PT": "#56B4E9",
    "oracle": "#555555",
}
SPARE = (  # of files that somebody brings
    *("#D55E00", "#A6761D", "#7B3294", "#1B1B1B"),
    *("#E7298A", "#66A61E", "#8DA0CB", "#7F0000"),
)
TRUE, MISTAKEN, INVENTED = "#00795A", "#9A6200", "#C03A00"  # facts, dark enough for text
INK, PALE, RULE = "#22252A", "#6B7280", "#D5D9E0"
MARKS = {"true": TRUE, "mistaken": MISTAKEN, "invented": INVENTED, "none": INK}  # of a word
FULL_WIDTH = 9.0  # inches
NARROW = FULL_WIDTH * 0.62  # of a figure with one small panel
ASSUMED = "the error rates of stand-ins are assumed"  # a note on every figure that rests on them


def use() -> None:
    """Set the look for all figures drawn from here on."""
    sns.set_theme(context="notebook", style="ticks", palette=list(COLORS.values()))
    plt.style.use(Path(__file__).with_suffix(".mplstyle"))
    plt.switch_backend(plt.get_backend())  # a notebook shows figures only after it is loaded


def palette(names: Iterable[str]) -> dict[str, str]:
    """The colour of each dataset or annotator; names that somebody brings get spare ones."""
    spare = cycle(SPARE)
    return {name: COLORS.get(name) or next(spare) for name in names}


def list_rows(axis: Axes, labels: Sequence[str]) -> None:
    """Make ``axis`` a list from the top down: a label a row, lines that mark values on x."""
    axis.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.75))
    axis.grid(True, axis="x")
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def label_point(
    axis: Axes, text: str, point: tuple[float, float], shift: tuple[int, int], **look: Any
) -> None:
    """Write ``text`` beside a point, ``shift`` printer's points away from it."""
    look = {"ha": "center", "fontsize": 8.5, "textcoords": "offset points"} | look
    axis.annotate(text, point, shift, **look)


def note(figure: Figure, text: str) -> None:
    """Write below a figure what a reader must know of it."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8.5, color=PALE)


def save(figure: Figure, stem: Path, data: pd.DataFrame | None = None) -> None:
    """Write a figure as ``stem``.png and .svg, without dates or versions, so that it is stable.

    ``data``: the table behind it, written as ``data/NAME.csv`` beside it.
    """
    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    for kind, strip in metadata.items():
        with atomic(stem.with_name(f"{stem.name}.{kind}")) as path:
            figure.savefig(path, format=kind, metadata=strip)
    plt.close(figure)
    if data is not None:
        with atomic(stem.parent / "data" / f"{stem.name}.csv") as path:
            data.to_csv(path, index=False)
