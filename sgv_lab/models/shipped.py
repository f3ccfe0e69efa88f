"""The miniature models that come with the package, each a complete Hugging Face checkpoint.

Notebook 10 makes them. A family's first base lies in FAMILY, its others in FAMILY.1, FAMILY.2 and
so on. To keep the package small, weights are half precision, and bases that differ in their
projector alone share a file of all else.
"""

import os
from itertools import count, takewhile
from pathlib import Path

from safetensors.torch import load_file, save_file

from sgv_lab.errors import LabError
from sgv_lab.files import sha256, write_json
from sgv_lab.models.architectures import PROJECTORS
from sgv_lab.models.families import FAMILIES

ROOT = Path(__file__).parents[1] / "foundations"


def shipped(key: str) -> Path:
    """The checkpoint folder of family ``key`` in miniature, its first; LabError as `bases`."""
    return bases(key)[0]


def families() -> list[str]:
    """The families that have a miniature here."""
    return [key for key in FAMILIES if _is_model(ROOT / key)]


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


def share(folder: Path) -> None:
    """Split a checkpoint in two, its projector apart; all else is a link where a sibling has it."""
    rest, own = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    whole = load_file(folder / "model.safetensors")
    marks = [name.removeprefix("model.") for name in PROJECTORS]
    places = {name: own if any(m in name for m in marks) else rest for name in whole}
    for file in (rest, own):
        held = {name: weight for name, weight in whole.items() if places[name] == file}
        save_file(held, folder / file, {"format": "pt"})
        (folder / file).chmod((folder / "config.json").stat().st_mode)  # else its owner's alone
    size = sum(weight.nbytes for weight in whole.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    write_json(folder / "model.safetensors.index.json", index)
    (folder / "model.safetensors").unlink()
    shared = folder / rest
    for other in sorted(folder.parent.glob(f"*/{rest}")):
        if other != shared and not other.is_symlink() and sha256(other) == sha256(shared):
            shared.unlink()
            shared.symlink_to(os.path.relpath(other, folder))
            break


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()
