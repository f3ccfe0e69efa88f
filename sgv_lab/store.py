"""The artefact store: what one stage makes and another needs, computed once and found again.

An artefact is a folder named by everything that went into it, so a changed setting, input or
line of code makes a new one and nothing is ever stale. The store lies at ``SGV_STORE``
(default ``~/.cache/sgv_lab``).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from sgv_lab.closure import closure
from sgv_lab.errors import LabError
from sgv_lab.files import full_disk, sha256, write_json

MANIFEST = "manifest.json"


def root() -> Path:
    """The store's folder, made if it is absent; LabError if it cannot be."""
    fix = "set SGV_STORE to a folder that can be written"
    try:
        folder = Path(os.environ.get("SGV_STORE") or Path.home() / ".cache" / "sgv_lab")
    except RuntimeError as error:  # a container's user without a home
        raise LabError("the store has no place: there is no home folder", fix=fix) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the store cannot be written ({error.strerror})"
        raise LabError(what, where=folder, fix=fix) from error
    return folder


def artifact(
    name: str,
    settings: Mapping[str, Any],
    inputs: Sequence[str | Path],
    build: Callable[[Path], object],
    resumes: bool = False,
) -> Path:
    """The folder of the artefact ``name``, made by ``build(folder)`` if the store lacks it.

    The key is the hash of the name, the ``settings`` (a dict that JSON can hold; no paths), the
    ``inputs``' contents (files, folders or other artefacts) and the code that ``build`` rests on
    (see `closure`). ``build`` writes into an empty folder, which takes its place only when it is
    whole; two processes that ask at once compute it once. With ``resumes`` the folder of a build
    that died is handed to the next build as it was left.

    Raises LabError if settings are no JSON, an input is missing, ``build`` is in no source file, or
    the disk is full.
    """
    recipe = _recipe(name, settings, inputs, build)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:20]
    folder = root() / name / key
    if (folder / MANIFEST).is_file():
        return folder
    building = folder.with_name(f".{key}.building")
    fix = "free some space or point SGV_STORE at a larger disk, then run the same again"
    with full_disk(folder.parent, fix):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{key}.lock")):
            if not (folder / MANIFEST).is_file():
                _build(building, build, resumes)
                files = sorted(path for path in building.rglob("*") if path.is_file())
                sizes = {p.relative_to(building).as_posix(): p.stat().st_size for p in files}
                sizes.pop(MANIFEST, None)  # of a build that was killed just here
                write_json(building / MANIFEST, {**recipe, "files": sizes})
                building.rename(folder)  # from here on it is whole
    return folder


def _build(building: Path, build: Callable[[Path], object], resumes: bool) -> None:
    """Make an artefact in ``building``, left as it is after a failure if the build resumes."""
    if not resumes:
        shutil.rmtree(building, ignore_errors=True)
    building.mkdir(exist_ok=True)
    try:
        build(building)
    except BaseException:
        if not resumes:
            shutil.rmtree(building, ignore_errors=True)
        raise


def _recipe(
    name: str,
    settings: Mapping[str, Any],
    inputs: Sequence[str | Path],
    build: Callable[[Path], object],
) -> dict[str, Any]:
    """Everything that decides what an artefact is, as JSON."""
    try:
        plain = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        what, where = f"settings are no JSON ({error})", f"stage {name!r}"
        fix = "use strings, finite numbers, booleans, lists and dicts"
        raise LabError(what, where=where, fix=fix) from error
    read = [_content(Path(path), name) for path in inputs]
    return {"name": name, "settings": plain, "inputs": read, "code": closure(build)}


def _content(path: Path, name: str) -> str:
    """What an input holds: its artefact's key (and its place in it), or the hash of its bytes."""
    if not path.exists():
        raise LabError("the input does not exist", where=path, fix=f"make it before {name!r}")
    inside = path.relative_to(root()).parts if path.is_relative_to(root()) else ()
    # A folder within an artefact may hold a manifest of its own: a trained model does.
    if len(inside) > 1 and (root() / inside[0] / inside[1] / MANIFEST).is_file():
        return "/".join(inside[1:])
    return sha256(path)
