"""The published figures, each drawn from its table in figures/data, and ``sgv-lab figures``."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sgv_lab.captions import convert, lexical, quality, sources, statistics
from sgv_lab.errors import LabError
from sgv_lab.figures import captions, paper, study, style
from sgv_lab.study import ledger, publishing, sensitivity
from sgv_lab.world.records import scene_of
from sgv_lab.world.render import render

IMAGES = 7_000  # a thousand of each kind
SAMPLE = 2_000  # captions a source that are tagged
SHOWN = "web-landmark/images/train-000000152.png"  # chosen because every mark occurs in it
REPORTED = {  # figure -> how it is drawn, and the paper's places that it shows
    "reported_substitution": (paper.substitution, "figure2"),
    "reported_ablations": (paper.ablations, "table4", "table5", "table6"),
    "reported_scaling": (paper.scaling, "figure6"),
    "reported_radar": (paper.reported_radar, "table3"),
    "reported_collection": (paper.collection, "table1"),
}


SWAPS = ("C3", "C1", "C2")  # the claims of Figure 2's rows, in its order


def swap_figure(data: Path) -> Figure:
    """Figure 2 in miniature, of the studies of SWAPS that published a table in ``data``."""
    names = ledger.tasks()["miniature"].loc[list(SWAPS)].explode()
    files = {ledger.label_of(name): data / f"{name}.csv" for name in names}
    run = {model: pd.read_csv(file) for model, file in files.items() if file.is_file()}
    return study.swap_by_model(run)


def reported_figure(name: str, data: Path) -> tuple[Figure, pd.DataFrame]:
    """A figure of REPORTED and the table behind it; ``data``: where studies published theirs."""
    draw, *places = REPORTED[name]
    table = paper.numbers(*places)
    studies = {place: data / f"{place}-llava-1.5-7b.csv" for place in places}
    run = {place: pd.read_csv(file) for place, file in studies.items() if file.is_file()}
    return draw(table, run), table


def caption_tables() -> dict[str, pd.DataFrame]:
    """The tables behind the figures of caption datasets, from the drawn world; minutes of work."""
    world = sources.world(IMAGES, even=True)
    present = {name: one for name, one in convert.load(world).items() if one is not None}
    judged = {name: quality.quality(one) for name, one in present.items()}
    shares = {
        name: lexical.composition(lexical.analyse(statistics.sample(one, SAMPLE, 0)))
        for name, one in present.items()
    }
    lengths = {name: statistics.lengths(one, bins=40) for name, one in present.items()}
    return {
        "caption_quality": _long(judged).round(5),
        "caption_parts_of_speech": _long(shares).round(5),
        "caption_lengths": _long(lengths),
        "caption_table1_world": statistics.table1(convert.load(world)).reset_index(),
        "caption_side_by_side": _words(),
    }


def _words() -> pd.DataFrame:
    """What each source says of the image SHOWN, a row a word with its mark."""
    world = sources.world(210, 0, 256, even=True)
    scene, texts = scene_of(SHOWN), convert.captions_of(convert.load(world), SHOWN)
    words = [
        (SHOWN, source, number, word, mark)
        for source, said in texts.items()
        for number, text in enumerate(said)
        for word, mark in captions.marked(text, scene)
    ]
    return pd.DataFrame(words, columns=["image", "source", "caption", "word", "mark"])


def _long(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table with the sources in a column."""
    return pd.concat(tables, names=["source"]).reset_index(level=0).reset_index(drop=True)


def caption_figures(data: Path) -> dict[str, Figure]:
    """The figures of caption datasets, from the tables in ``data``."""
    tables = {path.stem: pd.read_csv(path) for path in data.glob("caption_*.csv")}
    if not tables:
        fix = "run this in a checkout, or make them with --tables"
        raise LabError("holds no tables to draw", where=data, fix=fix)
    means = tables["caption_table1_world"].set_index("dataset")["characters"]
    words = tables["caption_side_by_side"].groupby(["source", "caption"], sort=False)["word"]
    texts = words.agg(" ".join).groupby("source", sort=False).agg(list).to_dict()
    scene = scene_of(SHOWN)
    by_source = {
        name: dict(list(table.groupby("source", sort=False)))
        for name, table in tables.items()
        if "source" in table
    }
    shares, lengths = by_source["caption_parts_of_speech"], by_source["caption_lengths"]
    return {
        "caption_quality": captions.quality_bars(by_source["caption_quality"]),
        "caption_parts_of_speech": captions.lexical_composition(shares),
        "caption_lengths": captions.length_distributions(lengths, means),
        "caption_side_by_side": captions.side_by_side(render(scene, 256), texts, scene),
    }


def draw(out: Path) -> None:
    """Draw every published figure into ``out`` (PNG and SVG) from the tables in ``out``/data."""
    style.use()
    for name, figure in caption_figures(out / "data").items():
        style.save(figure, out / name)
    for name in publishing.status().query("done > 0").index:
        for drawn in study.study_figures(*publishing.load_study(name), out):
            style.save(*drawn)
    style.save(swap_figure(out / "data"), out / "swap_by_model")
    found = sensitivity.studies()
    style.save(study.headlines(found), out / "headlines")
    style.save(study.sensitivity(found), out / "sensitivity")
    for name in REPORTED:
        figure, table = reported_figure(name, out / "data")
        style.save(figure, out / name, table)


def figures(
    *,
    out: Path = Path("figures"),  # Folder of the figures; tables are below it.
    tables_: bool = False,  # Make captions' tables anew first (minutes).
) -> Path:
    """Draw the published figures anew from the tables in OUT/data."""
    if tables_:
        (out / "data").mkdir(parents=True, exist_ok=True)
        for name, table in caption_tables().items():
            table.to_csv(out / "data" / f"{name}.csv", index=False)
    draw(out)
    return out
