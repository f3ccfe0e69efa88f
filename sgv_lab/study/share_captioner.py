"""Share-Captioner: taught to describe by GPT4-Vision's captions, it then captions many pictures.

How the released one was trained was never published, so every choice but the data is ours:
`CHOICES` lists them. Both stages are artefacts of the store, made once.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from sgv_lab import store
from sgv_lab.captioning import bulk
from sgv_lab.captioning.merge import merge
from sgv_lab.captioning.miniature import miniature_100k
from sgv_lab.captioning.pictures import find
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, shipped
from sgv_lab.study import two_stages
from sgv_lab.training import plan as planning
from sgv_lab.training.recipes import Recipe, recipe

NAME = "share-captioner_coco_lcs_sam"
"""What its captions' file is called: by this they are recognised as ShareGPT4V-PT's."""
_MINIATURE: Mapping[str, Any] = {  # a model 128 wide learns hotter, in smaller steps
    "learning_rate": 1e-3,
    "samples_per_update": 32,
    "warmup_ratio": 0.1,
    "gradient_checkpointing": False,
}
CHOICES = pd.read_csv(Path(__file__).with_suffix(".csv"), index_col="choice", dtype=str)
"""What makes a Share-Captioner; published: ShareGPT4V's repository, cards and threads."""


def settings(miniature: bool) -> Recipe:
    """How it is fine-tuned: LLaVA's fine-tuning recipe, in miniature hotter."""
    return recipe("sft", _MINIATURE if miniature else {})


def materials(
    profile: str, base: str, collected: str, image_root: str, pictures: int, seed: int = 0
) -> tuple[Path, Path, Path]:
    """The base checkpoint, the collected records, and the root of their pictures.

    What is not given is, in miniature, the shipped base and what notebook 02 collects about that
    many ``pictures``. Raises LabError where it is not given at profile "paper", or none is shipped.
    """
    given = {"base": base, "collected": collected, "image_root": image_root}
    if profile == "paper" and (missing := [name for name, value in given.items() if not value]):
        what, fix = f"{missing[0]} is not given", f"add -p {missing[0]}=..."
        raise LabError(what, where="profile paper", fix=fix)
    if not collected:
        collected, image_root = miniature_100k(pictures, seed)
    return Path(base or shipped.shipped("llava-1.5-7b")), Path(collected), Path(image_root)


def preflight(
    base: Path, collected: Path, image_root: Path, updates: int = 0, miniature: bool = True
) -> planning.Plan:
    """What `trained` needs of the same arguments, and what stands in its way; trains nothing."""
    return two_stages.preflight(base, collected, image_root, settings(miniature), updates or None)


def trained(
    base: str | Path,
    collected: str | Path,
    image_root: str | Path,
    updates: int = 0,
    seed: int = 0,
    miniature: bool = True,
) -> Path:
    """The captioner's checkpoint: ``base`` fine-tuned on ``collected``, made once per arguments.

    ``collected``: a JSON file of LLaVA records with their pictures below ``image_root``;
    ``updates``: 0 takes one epoch. Raises LabError as `two_stages.stage` does.
    """
    chosen = settings(miniature)
    return two_stages.stage(base, collected, image_root, chosen, updates or None, seed,
                            name="share-captioner")  # fmt: skip


def captioned(model: str | Path, images: str | Path, max_new_tokens: int) -> Path:
    """A caption of each picture by the captioner ``model``: an official file, made once.

    ``images``: as `pictures.find` takes them. Paths in the file are relative to the pictures' root;
    what could not be captioned is left out and counted in the card beside it. Raises LabError as
    `bulk.caption` does.
    """
    pictures, decoding = find(images), bulk.Decoding(max_new_tokens=max_new_tokens)

    def build(out: Path) -> None:
        run = bulk.caption(*checkpoints.load(model), pictures, out / "run", decoding=decoding)
        merge(run, out, NAME)

    said = {"pictures": pictures.digest(), **asdict(decoding), **two_stages.computer()}
    folder = store.stage("share-captions", said, [model], build, resumes=True)
    return folder / f"{NAME}.json"
