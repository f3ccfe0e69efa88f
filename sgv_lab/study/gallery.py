"""``sgv-lab figures``: the published figures, drawn anew from the tables behind them."""

from pathlib import Path

import click
import matplotlib.pyplot as plt
import pandas as pd

from sgv_lab import plotting
from sgv_lab.captions import published
from sgv_lab.study import reported

MINIATURE = {  # figure -> the paper's places in it, each with the plan that re-tests it
    "reported_ablations": {f"table{n}": f"table{n}-llava-1.5-7b" for n in (4, 5, 6)},
    "reported_scaling": {"figure6": "figure6-llava-1.5-7b"},
}


def draw(folder: str | Path) -> None:
    """Draw every figure into ``folder`` (PNG and SVG) from the tables in ``folder``/data."""
    out = Path(folder)
    plotting.style()
    published.draw(out)
    for name, figure in reported.FIGURES.items():
        given = [table(out / "data" / f"{name}.csv")]
        if name in MINIATURE:
            given.append({place: effects(out, plan) for place, plan in MINIATURE[name].items()})
        plotting.save(figure(*given), out / name)
    plt.close("all")


def effects(out: Path, plan: str) -> pd.DataFrame | None:
    """What a study published into ``out``/data (``sgv-lab study --publish``); None: not run."""
    path = out / "data" / f"{plan}.csv"
    return pd.read_csv(path) if path.is_file() else None


def table(path: Path) -> pd.DataFrame:
    """One of `reported.tables` as it was written: text stays text, an error may be missing."""
    blank = {"error": [""]}
    return pd.read_csv(path, dtype={"row": str}, keep_default_na=False, na_values=blank)


@click.command()
@click.option("--out", default="figures", show_default=True, type=click.Path(path_type=Path))
@click.option("--tables", is_flag=True, help="Make the tables anew first (minutes).")
def figures(out: Path, tables: bool) -> None:
    """Draw the published figures anew from the tables in OUT/data."""
    if tables:
        (out / "data").mkdir(parents=True, exist_ok=True)
        published.tables(out / "data")
        for name, table in reported.tables().items():
            table.to_csv(out / "data" / f"{name}.csv", index=False)
    draw(out)
    click.echo(out)
