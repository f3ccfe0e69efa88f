"""Caption datasets drawn: side by side, lengths, vocabulary, parts of speech, quality."""

import re
import string
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker
from matplotlib.ticker import MaxNLocator
from PIL import Image

from sgv_lab.captions.convert import Captions, captions_of
from sgv_lab.captions.quality import judge_caption
from sgv_lab.captions.sources import source
from sgv_lab.errors import LabError
from sgv_lab.figures.style import (
    ASSUMED,
    FULL_WIDTH,
    INK,
    MARKS,
    NARROW,
    PALE,
    label_point,
    list_rows,
    note,
    palette,
)
from sgv_lab.images import load_image
from sgv_lab.world.facts import Fact
from sgv_lab.world.phrases import NUMBERS, PATTERN_AFTER, SYNONYMS
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import Difficulty, Scene

Word = tuple[str, str]  # a word and its mark
_WIDTH = 98  # characters a line of caption
_LINE = 0.178  # inches a line
_LEGEND = {
    "true": "true",
    "mistaken": "wrong detail: it is there, this is not",
    "invented": "invented: it is not in the image",
    "none": "grey: states nothing to check",
}
_SAME = {other: word for word, others in SYNONYMS.items() for other in others}
_FUNCTION = {"", "a", "an", "and", "at", "in", "of", "on", "the", "to"}  # they name nothing
_SAME |= {phrase.split()[-1]: word for word, (phrase,) in PATTERN_AFTER.items()}  # "dots": "dotted"


def marked(caption: str, scene: Scene | None) -> list[Word]:
    """The words of a caption, each with its mark, a key of MARKS.

    In a sentence with facts the words are "true", but those that name what is wrong "mistaken"
    or "invented"; where none names it, as in "a red car and a red kite" of a blue kite, those that
    name what it is said of. Without a scene every word is "none".
    """
    words: list[Word] = []
    for sentence in re.finditer(r"[^.!?]+[.!?]*", caption):
        parts = sentence[0].split()
        stated = _stated(caption, *sentence.span(), scene) if scene is not None else {}
        if not any(stated.values()):
            words += [(part, "none") for part in parts]
            continue
        right = {w for f in stated["true"] for w in _stems(f"{f.subject} {f.value}")}
        named = {
            "invented": {w for f in stated["invented"] for w in _stems(f"{f.subject} {f.value}")}
            - right,
            "mistaken": {w for f in stated["mistaken"] for w in _stems(f.value)} - right,
        }
        marks = [next((m for m in named if _stems(p) & named[m]), "true") for p in parts]
        for mark in named:
            if mark not in marks:
                about = {w for f in stated[mark] for w in _stems(f.subject)}
                named_in = [bool(_stems(p) & about) for p in parts]
                marks = [mark if of else m for of, m in zip(named_in, marks, strict=True)]
        words += zip(parts, marks, strict=True)
    return words


def _stated(caption: str, start: int, end: int, scene: Scene) -> dict[str, frozenset[Fact]]:
    """One sentence's facts: of it alone ("a boat"), and after those before it ("it is red")."""
    alone, before, after = (
        judge_caption(text, scene) for text in (caption[start:end], caption[:start], caption[:end])
    )
    return {
        mark: getattr(alone, mark) | (getattr(after, mark) - getattr(before, mark))
        for mark in ("true", "mistaken", "invented")
    }


def _stems(text: str) -> set[str]:
    """The beginnings of a text's words: "stripes" is found in "striped", "big" in "large"."""
    words = (word.strip(string.punctuation).lower() for word in text.split())
    words = (_SAME.get(word, word) for word in words)
    words = (NUMBERS[int(word)] if word.isdigit() and len(word) == 1 else word for word in words)
    return {word[:4] for word in words if word not in _FUNCTION}


def side_by_side(
    image: Image.Image,
    captions: Mapping[str, Sequence[str]],
    scene: Scene | None = None,
    colors: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> Figure:
    """An image, and beside it what each source says of it.

    With ``scene``, the truth, words are coloured by what they state: true, mistaken, invented.
    ``colors``: of the sources' names (None: `palette`'s of these). ``about``: what stands beside
    each name (None: who captioned).
    """
    colors, about = colors or palette(captions), about or writers(captions, scene is not None)
    blocks = [
        _block(name, about[name], texts, scene, colors[name]) for name, texts in captions.items()
    ]
    lines = sum(count for _, count in blocks)
    side = 3.1  # inches
    height = max(side if scene is None else side + 1.0, _LINE * lines + 0.2)
    width = FULL_WIDTH + 2.5
    figure = plt.figure(figsize=(width, height))
    shown = figure.add_axes((0, 1 - side / height, side / width, side / height))
    shown.imshow(image.convert("RGB"))
    shown.set_anchor("N")
    shown.set_axis_off()
    for i, (mark, words) in enumerate(_LEGEND.items() if scene is not None else ()):
        look = {"fontsize": 9, "va": "top", **_look(mark, scene)}
        figure.text(0.04 / width, 1 - (side + 0.16 + 0.19 * i) / height, words, **look)
    packed = VPacker(children=[block for block, _ in blocks], pad=0, sep=9)
    place = {"bbox_to_anchor": ((side + 0.3) / width, 1.0), "bbox_transform": figure.transFigure}
    figure.add_artist(
        AnchoredOffsetbox("upper left", child=packed, pad=0, borderpad=0, frameon=False, **place)
    )
    return figure


def writers(names: Iterable[str], drawn: bool) -> dict[str, str]:
    """Who captioned, for each source's name; in the drawn world stand-ins did."""
    found = {}
    for name in names:
        stand_in = "a stand-in for " * bool(drawn and source(name).annotator)
        found[name] = f"captioned by {stand_in}{source(name).captioned_by}"
    return found


def _block(
    name: str, about: str, texts: Sequence[str], scene: Scene | None, color: str
) -> tuple[VPacker, int]:
    """A source's name above its captions, and how many lines high that is."""
    title = TextArea(name, textprops={"color": color, "weight": "bold", "size": 11})
    writer = TextArea(about, textprops={"color": PALE, "size": 9})
    head = HPacker(children=[title, writer], pad=0, sep=8, align="baseline")
    lines = [line for text in texts for line in _lines(marked(text, scene), scene)]
    return VPacker(children=[head, *lines], pad=0, sep=3.2), len(lines) + 2


def _look(mark: str, scene: Scene | None) -> dict[str, str]:
    """How words with a mark are printed: what is wrong bold; what states nothing pale."""
    weight = "bold" if mark in ("mistaken", "invented") else "normal"
    return {
        "color": PALE if mark == "none" and scene is not None else MARKS[mark],
        "weight": weight,
    }


def _lines(words: Sequence[Word], scene: Scene | None) -> Iterator[HPacker]:
    """Marked words, broken into lines of text."""
    left = iter(words)
    wrapped = textwrap.wrap(
        " ".join(word for word, _ in words), _WIDTH, break_long_words=False, break_on_hyphens=False
    )
    for line in wrapped:
        runs = []
        for mark, run in groupby(islice(left, len(line.split())), key=itemgetter(1)):
            props = {"size": 9, **_look(mark, scene)}
            runs.append(TextArea(" ".join(word for word, _ in run), textprops=props))
        yield HPacker(children=runs, pad=0, sep=3.4, align="baseline")


def examples(
    captions: Mapping[str, Captions | None],
    root: str | Path,
    difficulty: Difficulty | None = None,
) -> Iterator[Figure]:
    """Each source's first captioned image that is there, with what every source says of it.

    Images that more sources caption come before others; one is shown once. With ``difficulty`` the
    images are of that drawn world: facts are marked.
    """
    shown, colors = set(), palette(captions)
    unique = pl.col("image").drop_nulls().unique(maintain_order=True)
    named = [one.rows().select(unique).collect() for one in filter(None, captions.values())]
    for paths in named:
        by = pl.sum_horizontal(pl.col("image").is_in(other["image"].implode()) for other in named)
        paths = paths.sort(by, descending=True, maintain_order=True)["image"]
        path, image = _first_sound(Path(root), paths)
        if image is None or path in shown:
            continue
        shown.add(path)
        scene = scene_of(path, difficulty) if difficulty else None
        yield side_by_side(image, captions_of(captions, path), scene, colors)


def _first_sound(root: Path, paths: Iterable[str]) -> tuple[str, Image.Image | None]:
    """The first image that can be read, and its path."""
    for path in paths:
        with suppress(LabError):
            return path, load_image(root, path)[1]
    return "", None


def length_distributions(tables: Mapping[str, pd.DataFrame], means: Mapping[str, float]) -> Figure:
    """Characters a caption, one row a source on one logarithmic axis.

    ``tables``: as ``statistics.lengths`` gives them; ``means``: the mean of each source.
    """
    colors, size = palette(tables), (FULL_WIDTH, 1.05 * len(tables) + 0.6)
    figure, axes = plt.subplots(len(tables), 1, figsize=size, sharex=True, squeeze=False)
    for axis, (name, table) in zip(axes[:, 0], tables.items(), strict=True):
        share = table["captions"] / table["captions"].sum()
        density = share / np.log(table["end"] / table["start"].clip(lower=1))
        edges = [max(1, table["start"].iloc[0]), *table["end"]]
        axis.stairs(density, edges, fill=True, color=colors[name], alpha=0.85)
        axis.set(yticks=[], xscale="log", xlim=(10, 4000), ylim=(0, density.max() * 1.12))
        axis.grid(False)
        axis.spines["left"].set_visible(False)
        where = {"transform": axis.transAxes, "ha": "right"}
        axis.text(-0.01, 0.42, name, **where, weight="bold", fontsize=9.5, color=colors[name])
        axis.text(-0.01, 0.14, f"mean {means[name]:.0f}", **where, fontsize=8.5)
    axes[-1, 0].set_xlabel("characters per caption (logarithmic)")
    ticks = [10, 30, 100, 300, 1000, 3000]
    axes[-1, 0].set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes[-1, 0].minorticks_off()
    figure.subplots_adjust(hspace=0.12)
    return figure


def vocabulary(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Distinct words against words read, a line a source, both axes logarithmic.

    ``tables``: as ``statistics.vocabulary_growth`` gives them.
    """
    figure, axis = plt.subplots(figsize=(NARROW, 3.2))
    for name, color in palette(tables).items():
        axis.loglog(tables[name]["words"], tables[name]["types"], color=color, lw=2.2, label=name)
    axis.set(xlabel="words read", ylabel="distinct words met")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.legend()
    return figure


def lexical_composition(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of each part of speech in all words, a bar a source, with 95 % intervals.

    ``tables``: as ``lexical.composition`` gives them.
    """
    figure, axis = plt.subplots(figsize=(FULL_WIDTH, 3.4))
    width = 0.8 / len(tables)
    for i, (name, color) in enumerate(palette(tables).items()):
        share, low, high = (tables[name][column] for column in ("share", "low", "high"))
        x = np.arange(len(share)) + (i - (len(tables) - 1) / 2) * width
        ends = np.nan_to_num([share - low, high - share])
        axis.bar(x, share, width * 0.92, color=color, label=name)
        axis.errorbar(x, share, ends, fmt="none", ecolor=INK, lw=1, capsize=2)
    names = ["nouns", "adjectives", "adverbs", "verbs", "numerals", "prepositions"]
    axis.set(xticks=range(len(names)), xticklabels=names, ylabel="share of all words")
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.tick_params(axis="x", length=0)
    axis.legend(ncols=len(tables), loc="upper right")
    return figure


def quality_bars(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Precision, recall and invented share of each source, with 95 % intervals.

    ``tables``: as ``quality.quality`` gives them, the row "all".
    """
    titles = {
        "precision": "precision:\nof what is said, true",
        "recall": "recall:\nof what is true, said",
        "invented": "invented (another scale):\nof what is said, not there",
    }
    figure, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 0.42 * len(tables) + 1.5), sharey=True)
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for y, (name, color) in enumerate(palette(tables).items()):
            share, low, high = tables[name].iloc[0][[key, f"{key}_low", f"{key}_high"]]
            axis.plot([low, high], [y, y], c=color, lw=3, alpha=0.45, solid_capstyle="round")
            axis.plot(share, y, "o", color=color, ms=8, clip_on=False)
            label_point(axis, f"{share:.0%}", (share, y), (0, 8))
        list_rows(axis, list(tables))
        axis.set(xlim=(0, None))
        axis.set_title(title, fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter("{x:.0%}")
        sns.despine(ax=axis, left=True)
    for axis in axes[:2]:
        axis.set_xlim(0, 1)
    axes[2].set_xlim(0, min(1, max(0.05, axes[2].dataLim.x1 * 1.25)))
    note(figure, f"drawn world, where all is known; {ASSUMED}")
    figure.tight_layout(w_pad=2)
    return figure
