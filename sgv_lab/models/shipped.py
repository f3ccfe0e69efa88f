"""The miniature models that come with the package, each a complete Hugging Face checkpoint.

Notebook 10 makes them; weights are half precision to keep the package small.
"""

from pathlib import Path

from sgv_lab.errors import LabError

ROOT = Path(__file__).parents[1] / "foundations"


def shipped(key: str) -> Path:
    """The checkpoint folder of family ``key`` in miniature; LabError if none is shipped."""
    folder = ROOT / key
    if not (folder / "config.json").is_file():
        raise LabError(
            f"no miniature of {key!r} comes with this package",
            where=ROOT,
            fix="choose a family that has one, or give --models-root, a folder with FAMILY in it",
        )
    return folder
