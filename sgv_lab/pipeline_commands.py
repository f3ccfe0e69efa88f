"""``sgv-lab run`` and ``sgv-lab world``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgv_lab import notebook
from sgv_lab.errors import LabError
from sgv_lab.options import pairs


def run(
    notebooks: tuple[str, ...] = (),
    *,
    profile: str = "smoke",  # smoke, mini or paper.
    p: tuple[str, ...] = (),  # NAME=VALUE: A notebook's parameter.
    out: Path | None = None,  # Run folder.  [default: in runs/]
) -> Iterator[Any]:
    """Run NOTEBOOKS (such as 01 04; all, if none is named), then write one HTML report.

    The same command run again after a failure or a kill does only what is missing.
    """
    from sgv_lab import pipeline  # papermill and nbconvert take a second to import

    folder = notebook.folder()
    jobs = pipeline.plan(notebooks, profile, pairs("-p", p), folder)
    out = out or pipeline.default_out(jobs, whole=not (notebooks or p))
    yield from pipeline.run(jobs, folder, out, bars=sys.stderr.isatty())
    yield from (out / f"{job.notebook}.ipynb" for job in jobs)
    yield f"report: {out / 'report.html'}"


def export(
    out: Path,
    *,
    scenes: int = 100,  # How many scenes.
    split: str = "train",  # Which scenes.
    size: int = 256,  # The images' side in pixels.
    seed: int = 0,  # The first scene's seed.
    miniature: bool = False,  # Few objects: the world that studies show models.
) -> Path:
    """Write images, records and questions of the drawn world to OUT in the official layout."""
    from sgv_lab.world.export import export
    from sgv_lab.world.scene import FULL, MINIATURE

    try:
        return export(out, scenes, split, size, seed, MINIATURE if miniature else FULL)
    except (FileExistsError, ValueError) as error:  # the world knows no error of ours
        if getattr(error, "errno", None):  # but this one is the system's
            raise
        raise LabError(str(error)) from error
