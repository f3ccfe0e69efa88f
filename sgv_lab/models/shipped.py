"""The miniature models that come with the package, each a complete Hugging Face checkpoint.

Notebook 10 makes them; weights are half precision to keep the package small. A family's first base
lies in FAMILY, its others in FAMILY.1, FAMILY.2 and so on.
"""

from itertools import count, takewhile
from pathlib import Path

from sgv_lab.errors import LabError

ROOT = Path(__file__).parents[1] / "foundations"


def shipped(key: str) -> Path:
    """The checkpoint folder of family ``key`` in miniature, its first; LabError as `bases`."""
    return bases(key)[0]


def bases(key: str, root: str | Path = "") -> list[Path]:
    """All checkpoint folders of family ``key``, shipped or below ``root``; LabError if none is."""
    folder = Path(root) if root else ROOT
    numbered = takewhile(_is_model, (folder / f"{key}.{number}" for number in count(1)))
    if _is_model(folder / key):
        return [folder / key, *numbered]
    if root:
        raise LabError(f"no checkpoint of {key}", where=folder / key, fix="set models_root")
    raise LabError(
        f"no miniature of {key!r} comes with this package",
        where=ROOT,
        fix="choose a family that has one, or give --models-root, a folder with FAMILY in it",
    )


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()
