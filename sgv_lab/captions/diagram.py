"""The paper's collection procedure as a diagram."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sgv_lab.plotting import COLORS, FULL_WIDTH, PALE


def collection() -> Figure:
    """How the captions were made: sources, prompts, GPT4-Vision, Share-Captioner, training.

    Counts: the paper's section 3, and the second version's supplement as third parties report it.
    """
    figure = plt.figure(figsize=(FULL_WIDTH + 2.5, 4.0))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 115), ylim=(3, 43))
    axis.set_axis_off()
    sources = [
        ("COCO", "50K", "everyday photos"), ("LCS", "30K", "LAION, CC, SBU"),
        ("SAM", "20K", "crowded photos"), ("TextCaps", "0.5K", "photos with writing"),
        ("WikiArt", "0.5K", "paintings"), ("web", "1K", "landmarks, celebrities"),
    ]  # fmt: skip
    _heading(axis, 1, "1  Images of six kinds")
    for i, (name, count, what) in enumerate(sources):
        y = 33.2 - 5.7 * i
        _box(axis, 1, y, 19, 5.0, COLORS["COCO-Caption"])
        axis.text(2.2, y + 3.3, name, va="center", weight="bold", fontsize=9)
        axis.text(18.9, y + 3.3, count, va="center", ha="right", fontsize=9)
        axis.text(2.2, y + 1.3, what, va="center", fontsize=7.5, color=PALE)
        _arrow(axis, (20, y + 2.5), (26, 21.5))
    _heading(axis, 26, "2  A prompt for each kind")
    _box(axis, 26, 9, 22.5, 25, COLORS["LLaVA-23K"])
    for text, y in (
        ("the same for all: you are a\npowerful image captioner", 32.3),
        ("its own part\n  photo: objects, colours,\n  counts, places, actions\n"
         "  landmark: name and place\n  painting: style and genre", 26.2),
        ("the same for all: only what is\nsure, no lists, little praise", 13.6),
    ):  # fmt: skip
        axis.text(27.3, y, text, va="top", fontsize=8.3, linespacing=1.5)
    _arrow(axis, (48.5, 21.5), (54, 21.5))
    _heading(axis, 54, "3  GPT4-Vision writes")
    _dataset(axis, 54, 15.5, "ShareGPT4V", "100K captions\nmean 942 characters")
    _arrow(axis, (72, 24), (78, 29))
    _arrow(axis, (72, 19), (97, 11.5))
    _heading(axis, 78, "4  Share-Captioner")
    axis.text(
        87, 37.6, "is trained on the 100K", fontsize=8.3, color=PALE, ha="center", va="center"
    )
    _dataset(axis, 78, 23.5, "ShareGPT4V-PT", "1.2M captions\nmean 826 characters")
    _arrow(axis, (96, 29.5), (99, 29.5))
    _heading(axis, 97, "5  ShareGPT4V-7B")
    for y, name, what in ((24, "pre-training", "on all 1.2M"),
                          (6, "fine-tuning", "23K of the 100K\nreplace LLaVA's")):  # fmt: skip
        _box(axis, 97 + 2 * (y > 10), y, 16 - 2 * (y > 10), 11, PALE)
        middle = 105 + (y > 10)
        axis.text(middle, y + 8, name, ha="center", va="center", weight="bold", fontsize=9.5)
        axis.text(middle, y + 3.9, what, ha="center", va="center", fontsize=8.3)
    _arrow(axis, (106, 24), (106, 17))
    return figure


def _dataset(axis: Axes, x: float, y: float, name: str, what: str) -> None:
    _box(axis, x, y, 18, 12, COLORS[name])
    axis.text(x + 9, y + 8.8, name, ha="center", va="center", weight="bold", fontsize=10)
    axis.text(x + 9, y + 4.2, what, ha="center", va="center", fontsize=8.5)


def _heading(axis: Axes, x: float, text: str) -> None:
    axis.text(x, 41.5, text, weight="bold", fontsize=10.5, va="center")


def _box(axis: Axes, x: float, y: float, width: float, height: float, color: str) -> None:
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.9",
                           facecolor=f"{color}1A", edgecolor=color, lw=1.2)  # fmt: skip
    axis.add_patch(shape)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=PALE,
                                   shrinkA=2, shrinkB=2, lw=1))  # fmt: skip
