"""The arms at full size, from the official files, and what training and test images share.

Below ``data_root`` lie the images in ShareGPT4V's layout, ``sharegpt4v/`` with the files named
here, and ``benchmarks/<name>/``, each an official release unpacked.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from sgv_lab import store
from sgv_lab.benchmarks.tasks import TASKS
from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.study import user_captions
from sgv_lab.study.mix import altered, caption_of, recaptioned
from sgv_lab.training.config import Mix

FILES = {
    "mix": "llava_v1_5_mix665k.json",
    "detail": "detail_23k.json",  # LLaVA-Instruct's, which the mix holds
    "captions": "sharegpt4v_instruct_gpt4-vision_cap100k.json",
    "released": "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json",
}
COCO = "coco/train2017/"
OWN_MIX = {"llava-7b": "llava_instruct_150k.json"}  # 158K; every other family's is "mix"
Record = dict[str, Any]
Records = list[Record]


def files(data_root: Path, names: Iterable[str]) -> list[Path]:
    """The official caption files of these names. Raises LabError naming those that are absent."""
    root = data_root / "sharegpt4v"
    paths = [root / name for name in names]
    if absent := [path.name for path in paths if not path.is_file()]:
        fix = "download them: docs/full_size.md"
        raise LabError(f"lacks {', '.join(absent)}", where=root, fix=fix)
    return paths


def official_mix(mix: Mix, data_root: Path, family: str = "llava-1.5-7b") -> Path:
    """The store's folder with records.json and replaced.json of an arm, as `mix.mix_artifact`'s."""
    names = list(FILES.values())
    if family in OWN_MIX:  # there is no released file, so no arm "mixed"
        names = [OWN_MIX[family], *names[1:3]]
    paths = files(data_root, names)

    def write(folder: Path) -> None:
        before, *others = ([_placed(r) for r in json.loads(p.read_bytes())] for p in paths)
        made = arm(mix, before, *others)
        new, old = (set(map(_key, rows)) for rows in (made, before))
        gone = [r["id"] for r in before if _key(r) not in new]
        come = [r["id"] for r in made if _key(r) not in old]
        rows = [{"id": a, "by": b} for a, b in zip_longest(gone, come, fillvalue="")]
        if mix.annotator == user_captions.ARM:  # the same records in the same places
            pairs = zip(before, made, strict=True)
            rows = [{"id": a["id"], "by": b["id"]} for a, b in pairs if a != b]
        write_json(folder / "records.json", made)
        write_json(folder / "replaced.json", rows)

    settings = {key: getattr(mix, key) for key in ("annotator", "images", "edit", "draw")}
    own = [user_captions.read(mix.file).folder] if mix.annotator == user_captions.ARM else []
    return store.artifact("mix", settings, [*paths, *own], write)


def _placed(record: Record) -> Record:
    """The record with its image below ``data_root``: LLaVA-Instruct names COCO's file alone."""
    image = str(record.get("image", ""))
    return record if not image or "/" in image else {**record, "image": COCO + image}


def _key(record: Record) -> tuple[str, str]:
    """What tells records apart: LLaVA-Instruct has several of one image under one id."""
    return record["id"], caption_of(record)


def arm(
    mix: Mix, before: Records, detail: Records, captions: Records, released: Records | None = None
) -> Records:
    """An arm's records. The mix's detailed captions are those whose words stand in ``detail``.

    "same" images: the first COCO captions of the 100K by name, as many as were taken out (an
    author's words, InternLM-XComposer issue 107; only 9,599 images are in both sets), in their
    places. "mixed": the released file as it is. "own": the same images, as far as a file has them.
    """
    known = None if altered(mix) else (mix.annotator, mix.images, mix.edit)
    said = set(map(caption_of, detail))
    if known == ("gpt4_vision", "mixed", "") and released:
        return released
    if known == ("gpt4_blind", "same", "dropped"):
        return [r for r in before if caption_of(r) not in said]
    if known == ("gpt4_blind", "same", ""):
        return before
    if known == (user_captions.ARM, "same", ""):
        return _own(before, said, mix.file)
    if known == ("gpt4_vision", "same", ""):
        coco = [r for r in captions if str(r.get("image", "")).startswith(COCO)]
        return _replaced(before, said, sorted(coco, key=lambda record: record["image"]))
    how = "altered" if altered(mix) else mix.edit or mix.images
    what = f"no official file has captions of {mix.annotator}, {how}"
    raise LabError(what, fix="at full size there are before, after, own, sft and dropped")


def _replaced(before: Records, said: set[str], new: Records) -> Records:
    """``before`` with a record of ``new`` in the place of each whose caption is one of ``said``."""
    wanted = sum(caption_of(record) in said for record in before)
    if not 0 < wanted <= len(new):
        what = f"{wanted} detailed captions in the mix, {len(new)} to put in their place"
        raise LabError(what, fix="give the files of one release: see docs/full_size.md")
    left = iter(new)
    return [next(left) if caption_of(record) in said else record for record in before]


def _own(before: Records, detailed: set[str], file: str) -> Records:
    """``before`` with the words of one's own ``file`` for the ``detailed`` captions it covers."""
    known = user_captions.captions_by_image(user_captions.read(file))
    shown = [r["image"] for r in before if caption_of(r) in detailed and "image" in r]
    if known.keys().isdisjoint(shown):
        fix = f'name the images as the mix does, such as "{shown[-1] if shown else ""}"'
        raise LabError("covers no detailed caption of the mix", where=file, fix=fix)
    return [
        recaptioned(r, known[r["image"]])
        if r.get("image") in known and caption_of(r) in detailed
        else r
        for r in before
    ]


def overlap(
    records: Iterable[Mapping[str, Any]], image_root: Path, benchmarks: Mapping[str, Path]
) -> pd.DataFrame:
    """How many of each benchmark's images were trained on: by COCO number, and byte for byte.

    ``benchmarks``: name -> data folder. An image scaled or saved again is found by neither.
    """
    names = {str(record["image"]) for record in records if record.get("image")}
    numbers = {found[1] for name in names if (found := re.search(r"coco/.*?(\d{12})\.\w+$", name))}
    sizes: dict[int, list[Path]] = {}
    for path in (image_root / name for name in names):
        if path.is_file():  # images that are gone cannot be trained on either
            sizes.setdefault(path.stat().st_size, []).append(path)
    rows = {}
    for benchmark, data in benchmarks.items():
        shown: dict[str, bool] = {}  # image -> whether one of these bytes was trained on
        for q in TASKS[benchmark].questions(data):
            if (q.path or q.encoded) and q.path not in shown:
                raw = q.file(data)
                name = q.path or hashlib.sha256(raw).hexdigest()
                shown[name] = any(p.read_bytes() == raw for p in sizes.get(len(raw), ()))
        coco = sum(bool(numbers.intersection(re.findall(r"(\d{12})\.\w+$", n))) for n in shown)
        same = sum(shown.values())
        rows[benchmark] = (len(shown), coco, same)
    columns = ["images", "COCO number trained on", "identical file trained on"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
