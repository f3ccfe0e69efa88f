"""The published figures of caption datasets, and the tables behind them: ``sgv-lab figures``."""

from collections.abc import Mapping
from pathlib import Path

import click
import pandas as pd
from PIL import Image

from sgv_lab import plotting
from sgv_lab.captions import convert, diagram, figures, lexical, quality, sources, statistics

PICTURES = 7_000  # a thousand of each kind
SAMPLE = 2_000  # captions a source that are tagged
SHOWN = "web-landmark/images/train-000000152.png"  # chosen because every mark occurs in it
_MANY = 10**12  # no finite-population correction: the world has as many captions as one likes


def publish(folder: str | Path) -> None:
    """Draw all of them anew into ``folder``, from the embedded world; minutes of work."""
    out = Path(folder)
    plotting.style()
    world = sources.world(PICTURES, even=True)
    captions = {name: one for name, one in convert.load(world).items() if one is not None}
    judged = {name: quality.quality(one) for name, one in captions.items()}
    plotting.save(figures.quality_bars(judged), out / "caption_quality", _long(judged).round(5))
    shares = {
        name: lexical.composition(lexical.analyse(statistics.sample(one, SAMPLE, 0)), _MANY)
        for name, one in captions.items()
    }
    drawn = figures.lexical_composition(shares)
    plotting.save(drawn, out / "caption_parts_of_speech", _long(shares).round(5))
    table1 = statistics.table1(convert.load(world))
    table1.reset_index().to_csv(out / "data" / "caption_table1_world.csv", index=False)
    lengths = {name: statistics.lengths(one, bins=40) for name, one in captions.items()}
    columns = ["characters", "characters, paper"]
    means = {name: tuple(table1.loc[name, columns]) for name in captions}
    drawn = figures.length_distributions(lengths, means)
    plotting.save(drawn, out / "caption_lengths", _long(lengths))
    plotting.save(diagram.collection(), out / "caption_collection")
    _side_by_side(out)


def _side_by_side(out: Path) -> None:
    world = sources.world(210, 0, 256, even=True)
    scene, said = sources.scene_of(SHOWN), convert.captions_of(convert.load(world), SHOWN)
    words = [
        (SHOWN, source, number, word, mark)
        for source, texts in said.items()
        for number, text in enumerate(texts)
        for word, mark in figures.marked(text, scene)
    ]
    table = pd.DataFrame(words, columns=["image", "source", "caption", "word", "mark"])
    with Image.open(world / SHOWN) as picture:
        drawn = figures.side_by_side(picture, said, scene)
    plotting.save(drawn, out / "caption_side_by_side", table)


def _long(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table with the sources in a column."""
    return pd.concat(tables, names=["source"]).reset_index(level=0).reset_index(drop=True)


@click.command("figures")
@click.option("--out", default="figures", show_default=True, type=click.Path())
def command(out: str) -> None:
    """Draw the published figures of caption datasets anew, with the tables behind them."""
    publish(out)
