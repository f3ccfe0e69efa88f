"""The published figures of caption datasets, and the tables behind them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sgv_lab import plotting
from sgv_lab.captions import convert, diagram, figures, lexical, quality, sources, statistics
from sgv_lab.errors import LabError
from sgv_lab.world.render import render

PICTURES = 7_000  # a thousand of each kind
SAMPLE = 2_000  # captions a source that are tagged
SHOWN = "web-landmark/images/train-000000152.png"  # chosen because every mark occurs in it
_MANY = 10**12  # no finite-population correction: the world has as many captions as one likes


def tables(folder: str | Path) -> None:
    """Write the tables into ``folder``, from the embedded world; minutes of work."""
    out = Path(folder)
    world = sources.world(PICTURES, even=True)
    captions = {name: one for name, one in convert.load(world).items() if one is not None}
    judged = {name: quality.quality(one) for name, one in captions.items()}
    shares = {
        name: lexical.composition(lexical.analyse(statistics.sample(one, SAMPLE, 0)), _MANY)
        for name, one in captions.items()
    }
    lengths = {name: statistics.lengths(one, bins=40) for name, one in captions.items()}
    written = {
        "caption_quality": _long(judged).round(5),
        "caption_parts_of_speech": _long(shares).round(5),
        "caption_lengths": _long(lengths),
        "caption_table1_world": statistics.table1(convert.load(world)).reset_index(),
        "caption_side_by_side": _words(),
    }
    for name, table in written.items():
        table.to_csv(out / f"{name}.csv", index=False)


def _words() -> pd.DataFrame:
    """What each source says of the picture SHOWN, a row a word with its mark."""
    world = sources.world(210, 0, 256, even=True)
    scene, said = sources.scene_of(SHOWN), convert.captions_of(convert.load(world), SHOWN)
    words = [
        (SHOWN, source, number, word, mark)
        for source, texts in said.items()
        for number, text in enumerate(texts)
        for word, mark in figures.marked(text, scene)
    ]
    return pd.DataFrame(words, columns=["image", "source", "caption", "word", "mark"])


def draw(folder: str | Path) -> None:
    """Draw all of them into ``folder`` from the tables in ``folder``/data."""
    out = Path(folder)
    read = {path.stem: pd.read_csv(path) for path in (out / "data").glob("caption_*.csv")}
    if not read:
        fix = "run this in a checkout, or make them with --tables"
        raise LabError("holds no tables to draw", where=out / "data", fix=fix)
    means = read["caption_table1_world"].set_index("dataset")
    means = means[["characters", "characters, paper"]].dropna().T.to_dict("list")
    words = read["caption_side_by_side"].groupby(["source", "caption"], sort=False)["word"]
    said = words.agg(" ".join).groupby("source", sort=False).agg(list)
    scene = sources.scene_of(SHOWN)
    drawn = {
        "caption_quality": figures.quality_bars(_by_source(read["caption_quality"])),
        "caption_parts_of_speech": figures.lexical_composition(
            _by_source(read["caption_parts_of_speech"])
        ),
        "caption_lengths": figures.length_distributions(_by_source(read["caption_lengths"]), means),
        "caption_collection": diagram.collection(),
        "caption_side_by_side": figures.side_by_side(render(scene, 256), said.to_dict(), scene),
    }
    for name, figure in drawn.items():
        plotting.save(figure, out / name)


def _by_source(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {
        name: part.drop(columns="source").reset_index(drop=True)
        for name, part in table.groupby("source", sort=False)
    }


def _long(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table with the sources in a column."""
    return pd.concat(tables, names=["source"]).reset_index(level=0).reset_index(drop=True)
