"""Stage 1 of an arm: whose captions of which pictures it learns from, and where that ends.

In the embedded world all arms and seeds draw from one pool of pictures, in ShareGPT4V-PT's
proportions of sources; Share-Captioner, trained as in notebook 03 from the arm's own base, captions
it once. At full size captions come from the official files. Arms of a seed that ask for the same
stage 1 share its checkpoint (see `two_stages`).
"""

import json
import random
from pathlib import Path
from typing import Any

from sgv_lab import store
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import write_json
from sgv_lab.study import mix, official, share_captioner
from sgv_lab.training.config import Pool
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.records import Record, caption_record, scene_of
from sgv_lab.world.scene import MINIATURE, scene

SOURCES = {"coco": 118_000, "lcs": 558_000, "sam": 570_000}  # pictures in ShareGPT4V-PT, 1,246K
FILES = {  # below data_root/sharegpt4v: ShareGPT4V's release, and LLaVA-Pretrain's
    "share": "share-captioner_coco_lcs_sam_1246k_1107.json",
    "blip": "blip_laion_cc_sbu_558k.json",
}
LCS = "llava/llava_pretrain/images/"  # where both files' LCS pictures lie below data_root


def materials(
    captions: Pool, base: Path, side: int, seed: int, data_root: Path | None = None
) -> tuple[Path, Path]:
    """The file of the stage's records, and the folder that holds their pictures.

    ``side``: of drawn pictures in pixels; ``data_root``: of the official files, in place of the
    embedded world. Raises LabError for captions that nobody has.
    """
    if data_root:
        return _official(captions, seed, data_root), data_root
    pool, images, dense = _pool(captions, base, side)
    said = {"by": captions.annotator, "captions": captions.samples, "seed": seed}

    def write(out: Path) -> None:
        known = {
            one["image"]: mix.caption_of(one)
            for one in json.loads(dense.read_text(encoding="utf-8"))
        }
        kept = [record for record in pool if record["image"] in known]
        # the first of one random order: a seed's smaller sets lie within its larger ones
        order = random.Random(f"stage 1/{seed}").sample(kept, len(kept))[: captions.samples]
        write_json(
            out / "records.json", [_captioned(one, captions.annotator, known) for one in order]
        )

    names = sorted(str(record["image"]) for record in pool)
    folder = store.stage("stage-1-captions", said | {"pool": names}, [dense], write)
    return folder / "records.json", images


def _pool(captions: Pool, base: Path, side: int) -> tuple[list[Record], Path, Path]:
    """Records of the pool, without words yet; their pictures; Share-Captioner's file of them."""
    rng = random.Random(f"stage 1/{captions.collection}")
    sources = [captions.collection] * captions.pool
    if not captions.collection:
        sources = rng.choices(list(SOURCES), list(SOURCES.values()), k=captions.pool)
    seeds = rng.sample(range(10**9), captions.pool)
    scenes = [scene(s, "train", one, MINIATURE) for s, one in zip(seeds, sources, strict=True)]
    pool = [caption_record(one, "blip") for one in scenes]
    images = mix.pictures(pool, side)
    size = share_captioner.SIZES[captions.captioner]
    collected = share_captioner.materials("mini", str(base), "", "", size["collected"])
    model = share_captioner.trained(*collected, size["updates"])
    return pool, images, share_captioner.captioned(model, images, max_new_tokens=size["tokens"])


def _captioned(record: Record, by: str, dense: dict[str, str]) -> Record:
    name = str(record["image"])
    if by == "share":
        text = dense[name]
    elif by in ANNOTATORS:
        text = caption(scene_of(name, MINIATURE), ANNOTATORS[by])
    else:
        raise unknown("captioner of stage 1", by, ("share", *ANNOTATORS))
    return mix.recaptioned(record, text)


def _official(captions: Pool, seed: int, data_root: Path) -> Path:
    """The store's file of official captions; of LCS only those pictures that both files have."""
    if captions.annotator not in FILES or (
        captions.annotator == "blip" and captions.collection != "lcs"
    ):
        what = f"no official file has {captions.annotator} captions of all of stage 1's pictures"
        raise LabError(what, where=data_root, fix="at full size BLIP captioned LCS only: Table 5")
    named = FILES if captions.collection else {captions.annotator: FILES[captions.annotator]}
    paths = dict(zip(named, official.files(data_root, named.values()), strict=True))

    def write(out: Path) -> None:
        read = {
            by: _placed(json.loads(path.read_text(encoding="utf-8")), by)
            for by, path in paths.items()
        }
        names = sorted(set.intersection(*(set(records) for records in read.values())))
        if captions.collection:
            names = [name for name in names if name.startswith(LCS)]
        wanted = min(captions.samples or len(names), len(names))
        chosen = random.Random(f"stage 1/{seed}").sample(names, len(names))[:wanted]
        write_json(out / "records.json", [read[captions.annotator][name] for name in chosen])

    said = {
        "by": captions.annotator,
        "source": captions.collection,
        "captions": captions.samples,
        "seed": seed,
    }
    return store.stage("stage-1-captions", said, list(paths.values()), write) / "records.json"


def _placed(records: list[dict[str, Any]], by: str) -> dict[str, dict[str, Any]]:
    """Picture -> record; LLaVA-Pretrain's paths begin at its own folder."""
    prefix = LCS if by == "blip" else ""
    return {prefix + r["image"]: {**r, "image": prefix + r["image"]} for r in records}
