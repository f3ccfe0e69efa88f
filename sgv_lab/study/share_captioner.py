"""Share-Captioner: taught to describe by GPT4-Vision's captions, it then captions many images.

How the released one was trained was never published, so every choice but the data is ours:
`CHOICES` lists them. Both stages are artefacts of the store, made once.
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from sgv_lab import intervals, store
from sgv_lab.captioning import bulk
from sgv_lab.captioning.image_lists import list_images
from sgv_lab.captioning.merge import merge
from sgv_lab.captioning.miniature import miniature_100k
from sgv_lab.captions.quality import judge_caption, quality_of
from sgv_lab.errors import LabError
from sgv_lab.models import shipped
from sgv_lab.study import cached_training, judging, mix
from sgv_lab.training.config import DRAWN_CAPTIONER, RunConfig, base
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import MINIATURE

NAME = "share-captioner_coco_lcs_sam"
"""What its captions' file is called: by this they are recognised as ShareGPT4V-PT's."""
SIZES = {  # of the miniature's: captions collected, steps of training, most tokens of a caption
    "smoke": {"collected": 160, "steps": 10, "tokens": 160},
    "mini": {"collected": 2_000, "steps": 125, "tokens": 192},
}
"""Notebook 03 has the same ones in its profiles, so that arms find what it made."""
CHOICES = pd.read_csv(Path(__file__).with_suffix(".csv"), index_col="choice", dtype=str)
"""What makes a Share-Captioner; published: ShareGPT4V's repository, cards and threads."""


RECORDED = "share_captioners.csv"
"""`beside_teacher` of the captioners of Table 5's studies, a base each; see `recorded`."""


def settings(miniature: bool = True, steps: int = 0) -> RunConfig:
    """How it is fine-tuned: LLaVA's fine-tuning recipe, in miniature hotter; 0: for one epoch."""
    config = base("sft", DRAWN_CAPTIONER if miniature else {}, "drawn world")
    return config.changed({"max_steps": steps or None}, "profile")


def materials(
    profile: str, start: str, collected: str, image_root: str, images: int, seed: int = 0
) -> tuple[Path, Path, Path]:
    """The base checkpoint, the collected records, and the root of their images.

    What is not given is, in miniature, the shipped base and what notebook 02 collects about that
    many ``images``; at profile "paper" it is refused.
    """
    given = {"base": start, "collected": collected, "image_root": image_root}
    if profile == "paper" and (missing := [name for name, value in given.items() if not value]):
        what, fix = f"{missing[0]} is not given", f"add -p {missing[0]}=..."
        raise LabError(what, where="profile paper", fix=fix)
    if not collected:
        collected, image_root = miniature_100k(images, seed)
    return Path(start or shipped.shipped("llava-1.5-7b")), Path(collected), Path(image_root)


def trained(start: Path, collected: Path, image_root: Path, config: RunConfig, seed: int) -> Path:
    """The captioner's checkpoint: ``start`` fine-tuned on ``collected``, made once."""
    given = (start, collected, image_root, config, seed)
    return cached_training.train_cached(*given, name="share-captioner")


def captioned(model: str | Path, images: str | Path, max_new_tokens: int) -> Path:
    """A caption of each image by the captioner ``model``: an official file, made once.

    ``images``: as `list_images` takes them. What was not captioned is counted in the card beside.
    """
    images, decoding = list_images(images), bulk.Decoding(max_new_tokens=max_new_tokens)

    def build(out: Path) -> None:
        run = bulk.caption(*bulk.load(model), images, out / "run", decoding=decoding)
        merge(run, out, NAME)

    said = {"images": images.digest(), **asdict(decoding), **cached_training.computer()}
    folder = store.artifact("share-captions", said, [model], build, resumes=True)
    return folder / f"{NAME}.json"


def beside_teacher(file: Path, raters: int = 10, pairs: int = 100) -> dict[str, float]:
    """What a captioner's ``file`` of drawn images tells, and its teacher of the same images.

    In percent, "student" and "teacher" each: precision and recall of facts, invented facts, and
    the votes for it of ``raters`` scripted judges (`judging.truthful`) on so many ``pairs``;
    characters, and how many images there are. The teacher is GPT4-Vision's stand-in.
    """
    said = {one["image"]: mix.caption_of(one) for one in json.loads(file.read_bytes())}
    scenes = {image: scene_of(image, MINIATURE) for image in said}
    taught = {image: caption(one, ANNOTATORS["gpt4_vision"]) for image, one in scenes.items()}
    asked = judging.pairs({"teacher": taught, "student": said}, pairs)
    votes = judging.truthful(asked, [scenes[pair.image] for pair in asked], raters)
    won = Counter(judging.preferred(*vote) for vote in votes)
    found: dict[str, float] = {"images": len(said)}
    for name, texts in {"student": said, "teacher": taught}.items():
        judged = [judge_caption(text, scenes[image]) for image, text in texts.items()]
        shares = 100 * quality_of(judged).loc[0, ["precision", "recall", "invented"]]
        found |= {f"{measure}, {name}": share for measure, share in shares.items()}
        found[f"characters, {name}"] = sum(map(len, texts.values())) / len(texts)
        found[f"votes, {name}"] = 100 * won[name] / len(votes)
    return found


def recorded(data: Path, family: str = "llava-1.5-7b") -> pd.DataFrame:
    """What was recorded of a family's captioners beside their teacher, in percent, a row a measure.

    ``data``: the folder that holds RECORDED, `publishing.folder`.
    Columns student, teacher (means over captioners), effect, low, high (student − teacher, paired t
    over captioners, 95 %), captioners.
    """
    table = pd.read_csv(data / RECORDED)
    table = table[table["base"].str.startswith(family)]
    rows = {}
    for measure in ("precision", "recall", "invented", "characters", "votes"):
        student, teacher = (table[f"{measure}, {name}"] for name in ("student", "teacher"))
        difference = intervals.paired(student - teacher)
        rows[measure] = (student.mean(), teacher.mean(), *difference, len(table))
    names = ["student", "teacher", "effect", "low", "high", "captioners"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)
