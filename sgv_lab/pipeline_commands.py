"""``sgv-lab run`` and ``sgv-lab world``."""

import sys
from pathlib import Path

import click
from tqdm import tqdm

from sgv_lab import notebook
from sgv_lab.errors import LabError


@click.command()
@click.argument("notebooks", nargs=-1, metavar="[NN]...")
@click.option("--profile", default="smoke", show_default=True, help="smoke, mini or paper.")
@click.option("-p", "given", multiple=True, metavar="NAME=VALUE", help="A notebook's parameter.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: in runs/]")
def run(notebooks: tuple[str, ...], profile: str, given: tuple[str, ...], out: Path | None) -> None:
    """Run notebooks NN (all, if none is named) in order, then write one HTML report.

    The same command run again after a failure or a kill does only what is missing.
    """
    from sgv_lab import pipeline  # papermill and nbconvert take a second to import

    values = dict(_pair(text) for text in given)
    jobs = pipeline.plan(notebooks, profile, values, notebook.folder())
    out = out or pipeline.default_out(jobs, whole=not (notebooks or given))
    with tqdm(total=len(jobs), unit="notebook") as bar:

        def say(line: str) -> None:
            bar.write(line)
            bar.update()

        def progress(name: str, cell: int, cells: int) -> None:
            bar.set_description(f"{name} {cell}/{cells}", refresh=sys.stderr.isatty())

        pipeline.run(jobs, out, say, progress)
    for job in jobs:
        click.echo(out / f"{job.notebook}.ipynb")
    click.echo(f"report: {out / 'report.html'}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip()):
        raise LabError(f"cannot read -p {text!r}", fix="write -p name=value")
    return name.strip(), value


@click.group()
def world() -> None:
    """The embedded world."""


@world.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scenes", default=100, show_default=True, help="How many scenes.")
@click.option("--split", default="train", show_default=True, help="Which scenes.")
@click.option("--size", default=256, show_default=True, help="Pictures' side in pixels.")
@click.option("--seed", default=0, show_default=True, help="The first scene's seed.")
@click.option("--miniature", is_flag=True, help="Few objects: the world that studies show models.")
def export(out: Path, scenes: int, split: str, size: int, seed: int, miniature: bool) -> None:
    """Write pictures, records and questions to OUT in the official folder layout."""
    from sgv_lab.world import export as exporting
    from sgv_lab.world.scene import FULL, MINIATURE

    try:
        exporting.export(out, scenes, split, size, seed, MINIATURE if miniature else FULL)
    except (FileExistsError, ValueError) as error:  # the world knows no error of ours
        if getattr(error, "errno", None):  # but this one is the system's
            raise
        raise LabError(str(error)) from error
    click.echo(out)
