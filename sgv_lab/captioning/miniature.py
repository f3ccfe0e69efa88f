"""The 100K as a folder: pictures and what was collected about them, in the official layout.

Without an address the pictures are drawn, a local endpoint answers, and the artefact store keeps
the result: it is the miniature's 100K, which later stages train on.
"""

import os
import shutil
from functools import partial
from pathlib import Path

from sgv_lab import store
from sgv_lab.captioning import endpoint
from sgv_lab.captioning.collect import Terms, collect
from sgv_lab.captioning.merge import merge
from sgv_lab.captioning.pictures import Pictures, find
from sgv_lab.captions.sources import SOURCES
from sgv_lab.errors import LabError
from sgv_lab.world.render import render
from sgv_lab.world.scene import MINIATURE, scene

FILE = SOURCES["ShareGPT4V"].file  # in the official folder "sharegpt4v"
_PARTS = ("collect", "endpoint", "keys", "merge", "miniature", "pictures", "prompts", "writer")
_CODE = [f"sgv_lab.captioning.{part}" for part in _PARTS]


def miniature_100k(pictures: int, size: int = 64, seed: int = 0, connections: int = 8) -> Path:
    """A data folder of the miniature world: ``pictures`` and GPT4-Vision's captions of them.

    Pictures of (size, size) pixels lie as in the official layout, the records in sharegpt4v/FILE;
    ``collected`` holds the run with all that was discarded. Made once per arguments.
    """
    images = drawn(pictures, size, seed)
    with endpoint.opened("", images) as url:
        return hundred_k(url, endpoint.MODEL, images, "", Terms(connections=connections), seed)


def drawn(pictures: int, size: int = 64, seed: int = 0) -> Path:
    """A folder of drawn pictures, in the 100K's proportions of sources, made once per arguments.

    Raises LabError for none: real pictures are not drawn.
    """
    if not pictures:
        raise LabError("no pictures to caption", fix="give a folder or a list of them as `images`")
    settings = {"pictures": pictures, "size": size, "seed": seed}
    code = ["sgv_lab.world", "sgv_lab.captioning.miniature"]
    return store.stage("pictures", settings, [], partial(_draw, **settings), code)


def _draw(out: Path, pictures: int, size: int, seed: int) -> None:
    for number in range(pictures):
        one = scene(seed * 1_000_000 + number, difficulty=MINIATURE)
        path = out / one.image_name
        path.parent.mkdir(parents=True, exist_ok=True)
        render(one, size).save(path)


def hundred_k(
    url: str, model: str, images: str | Path, out: str | Path, terms: Terms, seed: int = 0
) -> Path:
    """Collect captions of ``images`` at ``url``, merge them, and return the data folder.

    ``out``: where they are kept; "" is the store, for the local endpoint only, as captions that
    were paid for do not belong in a cache. Pictures are linked beside captions in the store only.
    Raises LabError as `collect` and `merge` do.
    """
    if out:
        _collected(url, model, find(images), terms, seed, Path(out))
        return Path(out)
    if model != endpoint.MODEL:
        raise LabError(f"captions by {model} need a folder", fix="give one as `out`")
    settings = {"model": model, "seed": seed, "temperature": terms.temperature}
    settings |= {"max_tokens": terms.max_tokens}
    build = partial(_linked, url, model, Path(images), terms, seed)
    code = ["sgv_lab.world", "sgv_lab.captions.defects", *_CODE]
    return store.stage("miniature-100k", settings, [images], build, code, resumes=True)


def _linked(url: str, model: str, images: Path, terms: Terms, seed: int, out: Path) -> None:
    """Collect into ``out`` and put the pictures beside, as links where the disk knows them."""
    pictures = find(images)
    _collected(url, model, pictures, terms, seed, out)
    for name in pictures.names.to_pylist():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).unlink(missing_ok=True)
        try:
            os.link(images / name, out / name)
        except OSError:
            shutil.copyfile(images / name, out / name)


def _collected(
    url: str, model: str, pictures: Pictures, terms: Terms, seed: int, out: Path
) -> None:
    collect(url, model, pictures, out / "collected", terms, seed=seed)
    merge(out / "collected", out / "sharegpt4v", FILE.removesuffix(".json"))
