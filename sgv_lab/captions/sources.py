"""The five caption datasets of Table 1: what they are, and where a file of each comes from."""

import fnmatch
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from sgv_lab import store
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import files_below
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.export import human_captions, write_dataset
from sgv_lab.world.scene import FULL, Difficulty, Scene, allowed_sources, scene

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A row of Table 1 [PDF].

    ``pattern``: what its files are called; ``hub``: (dataset, file) that holds the official one;
    ``annotator``: the one of the drawn world that stands in for whoever wrote the captions;
    ``images``: where images lie below the data root that the file names without a folder.
    """

    name: str
    visible: bool | None  # None: not known
    captioned_by: str
    pattern: str
    file: str
    hub: str | None
    annotator: str | None
    images: str = ""


SOURCES = {
    source.name: source
    for source in (
        Source("COCO-Caption", True, "Human", "captions_*.json", "captions_train2017.json",
               None, "human"),
        Source("BLIP-LCS", True, "BLIP", "blip_laion_cc_sbu_*.json",
               "blip_laion_cc_sbu_558k.json", "liuhaotian/LLaVA-Pretrain", "blip"),
        Source("LLaVA-23K", False, "GPT4 (text)", "*detail_23k*.json",
               "detail_23k.json", "liuhaotian/LLaVA-Instruct-150K", "gpt4_blind",
               "coco/train2017/"),
        Source("ShareGPT4V", True, "GPT4-Vision", "sharegpt4v_*gpt4*v*.json",
               "sharegpt4v_instruct_gpt4-vision_cap100k.json", "Lin-Chen/ShareGPT4V",
               "gpt4_vision"),
        Source("ShareGPT4V-PT", True, "Share-Captioner", "share[-_]captioner*.json",
               "share-captioner_coco_lcs_sam_1246k_1107.json", "Lin-Chen/ShareGPT4V", None),
    )
}  # fmt: skip
"""Table 1, in its order. The world has no Share-Captioner: one has to be trained first."""


def source(name: str) -> Source:
    """The row of Table 1, or for any other name what is known of a file that somebody brought."""
    return SOURCES.get(name) or Source(name, None, "its author", name, name, None, None)


def recognise(file: str | Path) -> str:
    """The name of the dataset a file belongs to by its name, else the file's own stem."""
    name = Path(file).name.removesuffix(".gz")
    known = (source.name for source in SOURCES.values() if fnmatch.fnmatch(name, source.pattern))
    return next(known, Path(name).stem)


def find(root: str | Path) -> dict[str, Path | None]:
    """Each dataset's file below a data folder: the largest whose name fits, or None.

    Raises LabError if ``root`` is no folder that can be read.
    """
    if not Path(root).is_dir():
        fix = "give the folder that holds coco/, llava/ and sharegpt4v/"
        raise LabError("not a readable folder", where=root, fix=fix)
    fitting: dict[str, list[Path]] = {name: [] for name in SOURCES}
    for path in files_below(root):
        if (name := recognise(path)) in fitting and path.is_file():
            fitting[name].append(path)
    return {
        name: max(files, key=lambda p: p.stat().st_size, default=None)
        for name, files in fitting.items()
    }


def resolve(name: str) -> Path:
    """The local file behind a name: a path, or a row of Table 1 as ``hub:`` or ``world:DATASET``.

    Raises LabError if there is no such dataset, or its file cannot be had.
    """
    origin, _, dataset = name.rpartition(":")
    if origin not in ("hub", "world"):
        return Path(name)
    if dataset not in SOURCES:
        raise unknown("dataset", dataset, SOURCES)
    if origin == "hub":
        return download(SOURCES[dataset])
    if SOURCES[dataset].annotator is None:
        raise LabError("has nothing behind it yet", where=name, fix="train a captioner first")
    return find(world(1_000))[dataset] or Path(name)


def download(source: Source) -> Path:
    """A dataset's official file from the hub, below the store, fetched where the hub has a new one.

    Its size is told first. Raises LabError if it is not on the hub or cannot be fetched.
    """
    if source.hub is None:
        fix = "get annotations_trainval2017.zip from cocodataset.org and give the file's path"
        raise LabError("is not on the hub", where=source.name, fix=fix)
    wanted = {"repo_id": source.hub, "filename": source.file, "repo_type": "dataset"}
    wanted["cache_dir"] = store.root() / "hub"
    try:
        told = hf_hub_download(**wanted, dry_run=True)
        if told.will_download:
            size = (told.file_size or 0) / 1e6
            log.warning("%s: fetching %.1f MB from %s", source.file, size, source.hub)
        got = hf_hub_download(**wanted)
    except Exception as error:  # of the hub, the system, and the client below, which changes
        fix = "check the connection and run the same again"
        raise LabError(f"cannot be fetched ({error})", where=source.hub, fix=fix) from error
    return Path(got)


def world(
    samples: int,
    seed: int = 0,
    size: int = 128,
    even: bool = False,
    split: str = "train",
    difficulty: Difficulty = FULL,
) -> Path:
    """A data folder of the drawn world in the official layout, made once per arguments.

    ``samples`` images, in the proportions of the 100K or (``even``) as many of each image
    source, each captioned by every annotator: five human captions as COCO has them, one by each
    other, in files named like the official ones.
    """
    kinds = allowed_sources(difficulty) if even else [None]
    settings = {"samples": samples, "seed": seed, "size": size, "even": even, "split": split}
    settings["difficulty"] = asdict(difficulty)

    def build(out: Path) -> None:
        first = seed * 1_000_000
        drawn = [scene(first + i, split, kinds[i % len(kinds)], difficulty) for i in range(samples)]
        write_dataset(out, drawn, size, _files(drawn, seed, size))

    return store.artifact("caption-world", settings, [], build)


def _files(scenes: list[Scene], seed: int, size: int) -> dict[str, Iterable[Any]]:
    """The caption files of every annotator, by their paths in the official layout."""
    said: dict[str, Iterable[Any]] = {
        "coco/annotations/captions_world.json": human_captions(scenes, size, 5 * seed)
    }
    for source in SOURCES.values():
        if source.annotator not in (None, "human"):
            name = source.file.replace("558k", "world").replace("_23k", "_23k_world")
            folder = "sharegpt4v" if "GPT4V" in source.name else "llava"
            annotator = ANNOTATORS[source.annotator]
            said[f"{folder}/{name.replace('cap100k', 'cap_world')}"] = [
                _record(one, caption(one, annotator, seed)) for one in scenes
            ]
    return said


def _record(one: Scene, text: str) -> dict[str, object]:
    question = {"from": "human", "value": "<image>\nDescribe the following image."}
    turns = [question, {"from": "gpt", "value": text}]
    return {"id": Path(one.image_name).stem, "image": one.image_name, "conversations": turns}
