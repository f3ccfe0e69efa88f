"""The miniature models that come with the package, each a complete Hugging Face checkpoint.

Notebook 10 makes them. A family's first base lies in FAMILY, its others in FAMILY.1, FAMILY.2 and
so on. To keep the repository small, weights are half precision, and bases that differ in their
projector alone share a file of all else, weights-HASH.
"""

from itertools import count, takewhile
from pathlib import Path

from safetensors.torch import load_file, save_file

from sgv_lab.errors import LabError
from sgv_lab.files import sha256, write_json
from sgv_lab.models.architectures import part
from sgv_lab.models.families import FAMILIES

ROOT = Path(__file__).parents[1] / "foundations"
HALF_TAUGHT = ROOT / "half-taught"  # bases whose vision tower has something to learn, for Table 6


def shipped(key: str) -> Path:
    """The checkpoint folder of family ``key`` in miniature, its first; LabError as `bases`."""
    return bases(key)[0]


def every() -> list[Path]:
    """All bases that ship with a taught vision tower, a family's together."""
    return [base for key in FAMILIES if _is_model(ROOT / key) for base in bases(key)]


def bases(key: str, root: str | Path = "", below: str = "") -> list[Path]:
    """All checkpoint folders of family ``key``, shipped or in ``root``; LabError if none is.

    ``below``: the folder of either that holds them; "": itself.
    """
    folder = Path(root or ROOT, below)
    numbered = takewhile(_is_model, (folder / f"{key}.{number}" for number in count(1)))
    if _is_model(folder / key):
        return [folder / key, *numbered]
    if root or below:
        raise LabError(f"no checkpoint of {key}", where=folder / key, fix="set models_root")
    raise LabError(
        f"no miniature of {key!r} comes with this package",
        where=ROOT,
        fix="choose a family that has one, or give --models-root, a folder with FAMILY in it",
    )


def share(folder: Path) -> None:
    """Split a checkpoint in two, its projector apart; all else becomes a link to a file beside it.

    That file is named by what it holds, so bases with the same have one. LabError for a folder
    without model.safetensors.
    """
    if not (folder / "model.safetensors").is_file():
        fix = "share a folder once, as checkpoints.save wrote it"
        raise LabError("holds no model.safetensors", where=folder, fix=fix)
    rest, own = (folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    whole = load_file(folder / "model.safetensors")
    projector = {n for n in whole if part(f"model.{n.removeprefix('model.')}") == "projector"}
    places = {name: own if name in projector else rest for name in whole}
    for file in (rest, own):
        save_file({n: w for n, w in whole.items() if places[n] == file}, file, {"format": "pt"})
        file.chmod((folder / "config.json").stat().st_mode)  # else its owner's alone
    size = sum(weight.nbytes for weight in whole.values())
    names = {name: file.name for name, file in places.items()}
    index = {"metadata": {"total_size": size}, "weight_map": names}
    write_json(folder / "model.safetensors.index.json", index)
    (folder / "model.safetensors").unlink()
    common = folder.parent / f"weights-{sha256(rest)[:12]}.safetensors"
    rest.replace(common)
    rest.symlink_to(Path("..", common.name))


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()
