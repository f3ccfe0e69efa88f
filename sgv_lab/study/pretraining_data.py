"""Pre-training of an arm: whose captions of which images it learns from.

Drawn images come in ShareGPT4V-PT's proportions of sources, or from one; all seeds draw from one
pool, or each its own. Share-Captioner, trained from the arm's base, captions the pool once.
"""

import json
import random
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from sgv_lab import store
from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.study import mix, official, share_captioner
from sgv_lab.training.config import Pool
from sgv_lab.world import vocabulary
from sgv_lab.world.records import caption_record
from sgv_lab.world.scene import MINIATURE, Scene, scene

SOURCES = {"coco": 118_000, "lcs": 558_000, "sam": 570_000}  # images in ShareGPT4V-PT, 1,246K
FILES = {  # below data_root/sharegpt4v: ShareGPT4V's release, and LLaVA-Pretrain's
    "share": "share-captioner_coco_lcs_sam_1246k_1107.json",
    "blip": "blip_laion_cc_sbu_558k.json",
}
LCS = "llava/llava_pretrain/images/"  # where both files' LCS images lie below data_root


def materials(
    captions: Pool, base: Path, side: int, seed: int, data_root: Path | None = None
) -> tuple[Path, Path]:
    """The file of the stage's records, and the folder that holds their images.

    ``side``: of drawn images in pixels; ``data_root``: of the official files, in the drawn world's
    place. Raises LabError for captions that nobody has.
    """
    if data_root:
        return _official(captions, seed, data_root), data_root
    if captions.annotator == "share" and mix.altered(captions):
        raise LabError("Share-Captioner says what it says", fix="change another's captions")
    pool = _pool(captions, seed)
    images = mix.drawn_images([{"image": one.image_name} for one in pool], side)
    dense = []
    if captions.annotator == "share":
        size = share_captioner.SIZES[captions.captioner]
        collected = share_captioner.materials("mini", str(base), "", "", size["collected"])
        config = share_captioner.settings(steps=size["steps"])
        model = share_captioner.trained(*collected, config, 0)
        dense = [share_captioner.captioned(model, images, max_new_tokens=size["tokens"])]

    def write(out: Path) -> None:
        # the first of one random order: a seed's smaller sets lie within its larger ones
        order = random.Random(f"stage 1/{seed}").sample(pool, len(pool))
        records = (mix.captioned(one, captions, "caption") for one in order)
        if dense:  # what Share-Captioner could not caption is left out
            known = {one["image"]: mix.caption_of(one) for one in json.loads(dense[0].read_bytes())}
            records = (
                mix.recaptioned(caption_record(one, "blip"), known[one.image_name])
                for one in order
                if one.image_name in known
            )
        shown = list(islice(records, captions.samples))
        texts = mix.edited(captions, seed, shown)
        write_json(out / "records.json", list(map(mix.recaptioned, shown, texts)))

    said = asdict(captions) | {"seed": seed, "pool": [one.image_name for one in pool]}
    folder = store.artifact("pretraining-captions", said, dense, write)
    return folder / "records.json", images


def _pool(captions: Pool, seed: int) -> list[Scene]:
    """The scenes that pre-training draws from: all seeds' or, of ``pool`` 0, this one's own."""
    number = captions.pool or captions.samples
    own = "" if captions.pool else f"/{seed}"
    rng = random.Random(f"stage 1/{captions.collection}{own}")
    sources = [captions.collection] * number
    if not captions.collection:
        sources = rng.choices(list(SOURCES), list(SOURCES.values()), k=number)
    seeds = rng.sample(range(10**9), number)
    return [scene(s, "train", one, MINIATURE) for s, one in zip(seeds, sources, strict=True)]


def _official(captions: Pool, seed: int, data_root: Path) -> Path:
    """The store's file of official captions; of LCS only those images that both files have."""
    of_all = captions.annotator != "blip" or captions.collection == "lcs"
    if captions.annotator not in FILES or not of_all or mix.altered(captions) or captions.edit:
        what = f"no official file has {captions.annotator} captions of all of pre-training's images"
        raise LabError(what, where=data_root, fix="at full size BLIP captioned LCS only: Table 5")
    named = FILES if captions.collection == "lcs" else [captions.annotator]  # both have LCS
    paths = official.files(data_root, [FILES[by] for by in named])

    def write(out: Path) -> None:
        read = {
            by: _placed(json.loads(path.read_bytes()), by)
            for by, path in zip(named, paths, strict=True)
        }
        names = sorted(set.intersection(*map(set, read.values())))
        if captions.collection:
            prefix = f"{vocabulary.SOURCES[captions.collection].prefix}/"
            names = [name for name in names if name.startswith(prefix)]
        wanted = min(captions.samples or len(names), len(names))
        chosen = random.Random(f"stage 1/{seed}").sample(names, len(names))[:wanted]
        write_json(out / "records.json", [read[captions.annotator][name] for name in chosen])

    said = {**asdict(captions), "seed": seed}
    return store.artifact("pretraining-captions", said, paths, write) / "records.json"


def _placed(records: list[dict[str, Any]], by: str) -> dict[str, dict[str, Any]]:
    """Image -> record; LLaVA-Pretrain's paths begin at its own folder."""
    prefix = LCS if by == "blip" else ""
    return {prefix + r["image"]: {**r, "image": prefix + r["image"]} for r in records}
