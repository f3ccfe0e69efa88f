"""The fine-tuning mix of an arm in the drawn world, and which records it replaced.

The paper's Figure 2 swaps captions of (as far as it could) the same kind of images; its released
file also swaps the images. Both are here, as ``images`` of `training.config.Mix`.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sgv_lab import store
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import write_json
from sgv_lab.study import user_captions
from sgv_lab.training.config import Captions, Mix, Pool
from sgv_lab.world.annotators import ANNOTATORS, Annotator
from sgv_lab.world.export import write_images
from sgv_lab.world.facts import FACETS
from sgv_lab.world.records import (
    Record,
    caption_record,
    instruct_mix,
    question_record,
    scene_of,
    task_of,
)
from sgv_lab.world.scene import MINIATURE, Scene, scene

# sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json; "div" is 500 of each of four
RELEASED = {"coco": 9_000, "lcs": 3_000, "sam": 9_000,
            **dict.fromkeys(("textcaps", "wikiart", "landmark", "celebrity"), 500)}  # fmt: skip


def annotator(shown: Captions) -> Annotator:
    """Who writes these captions."""
    if shown.annotator not in ANNOTATORS:
        raise LabError(f"no annotator {shown.annotator!r}", fix=f"one of {', '.join(ANNOTATORS)}")
    writer = ANNOTATORS[shown.annotator].with_rates(shown.omission, shown.error, shown.invention)
    if not shown.untold:
        return writer
    if shown.untold not in FACETS:
        raise unknown("kind of fact", shown.untold, FACETS)
    omission = {**writer.omission, shown.untold: 1.0}
    return replace(writer, omission=omission, invention={**writer.invention, shown.untold: 0.0})


def altered(shown: Captions) -> bool:
    """Whether these are other captions than the annotator's first, or in other words."""
    rates = (shown.omission, shown.error, shown.invention)
    changes = (shown.untold, shown.draw, shown.wording, shown.filler)
    return rates != (None,) * 3 or any(changes)


def captioned(scene: Scene, shown: Captions, task: str = "detail") -> Record:
    """A record with the caption of ``scene`` that is shown."""
    writer = annotator(shown)
    return caption_record(scene, writer, shown.draw, task, shown.filler, shown.wording)


def build(mix: Mix, seed: int) -> tuple[list[Record], list[dict[str, str]]]:
    """The mix's records in order, and what was replaced: ``{"id": baseline's, "by": its own}``.

    Arms of a seed differ in detailed captions alone. Edits of these: "shuffled" shows each image
    another one's, "dropped" leaves them out (``by`` ""), "questions" has questions in their place.
    """
    records, places = _drawn(mix, seed)
    old = [str(records[i]["id"]) for i in places]
    if mix.images == "mixed":  # of all sources, in the released file's proportions
        rng = random.Random(f"mixed/{seed}")
        sources = rng.choices(list(RELEASED), list(RELEASED.values()), k=len(places))
        seeds = rng.sample(range(10**9), len(places))
        for i, s, source in zip(places, seeds, sources, strict=True):
            records[i] = captioned(scene(s, "train", source, MINIATURE), mix)
    shown = [records[i] for i in places]
    kept = [
        None if text is None else recaptioned(record, text)
        for record, text in zip(shown, edited(mix, seed, shown), strict=True)
    ]
    if mix.edit == "questions":
        kept = [question_record(scene_of(str(one["image"]), MINIATURE), seed) for one in shown]
    made = dict(enumerate(records)) | dict(zip(places, kept, strict=True))
    listed = [{"id": a, "by": str(b["id"]) if b else ""} for a, b in zip(old, kept, strict=True)]
    return [record for record in made.values() if record], listed


def _drawn(mix: Mix, seed: int) -> tuple[list[Record], list[int]]:
    """The mix as this mix's annotator captions it, and where the detailed captions stand."""
    rest = Mix() if mix.file else mix  # who captions what a file does not cover
    records = instruct_mix(
        mix.samples, seed, annotator(rest), mix.share, difficulty=MINIATURE, draw=rest.draw,
        filler=rest.filler, wording=rest.wording,
    )  # fmt: skip
    places = [i for i, record in enumerate(records) if task_of(record) == "detail"]
    if mix.file:  # a file of fewer images leaves places over, which stay as they are
        said, own = user_captions.validate_for_world(mix.file), mix.annotator == user_captions.ARM
        names = random.Random(f"own/{seed}").sample(sorted(said), min(len(said), len(places)))
        places = places[: len(names)]
        for i, name in zip(places, names, strict=True):
            record = captioned(scene_of(name, MINIATURE), rest if own else mix)
            records[i] = recaptioned(record, said[name]) if own else record
    return records, places


def edited(shown: Mix | Pool, seed: int, records: Sequence[Record]) -> list[str | None]:
    """The records' captions as they are shown; None where no caption is."""
    captions = [caption_of(record) for record in records]
    if shown.edit in ("dropped", "questions"):
        return [None] * len(captions)
    if shown.edit == "shuffled":  # along one random circle: nobody keeps the own caption
        circle = random.Random(f"shuffled/{seed}").sample(range(len(captions)), len(captions))
        moved = dict(zip(circle, circle[1:] + circle[:1], strict=True))
        return [captions[moved[i]] for i in range(len(captions))]
    return captions


def caption_of(record: Record) -> str:
    """What a record answers first."""
    return record["conversations"][1]["value"]


def recaptioned(record: Record, text: str) -> Record:
    """The record with other words in its first answer."""
    question, answer, *rest = record["conversations"]
    return {**record, "conversations": [question, {**answer, "value": text}, *rest]}


def mix_artifact(mix: Mix, seed: int) -> Path:
    """The store's folder of the mix: records.json, and replaced.json, the list of replaced ids."""

    def write(folder: Path) -> None:
        records, replaced = build(mix, seed)
        write_json(folder / "records.json", records)
        write_json(folder / "replaced.json", replaced)

    files = [user_captions.read(mix.file).folder] if mix.file else []
    return store.artifact("mix", asdict(mix) | {"file": "", "seed": seed}, files, write)


def drawn_images(records: Sequence[Record], side: int) -> Path:
    """The store's folder with the records' images, (side, side) pixels, in the official layout.

    Arms of one seed that show the same images share it: drawing is slower than captioning.
    """
    names = sorted({str(record["image"]) for record in records if "image" in record})

    def draw(folder: Path) -> None:
        write_images(folder, {name: scene_of(name, MINIATURE) for name in names}, side)

    settings = {"names": names, "side": side}
    return store.artifact("images", settings, [], draw)
