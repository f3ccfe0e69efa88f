"""The fine-tuning mix of an arm in the embedded world, and which records it replaced.

The paper's Figure 2 swaps captions of (as far as it could) the same kind of pictures; its released
file also swaps the pictures, 9K from COCO, 3K from LCS, 9K from SAM, 2K from TextCaps, WikiArt and
the web. Both are here, as ``Design.images``.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sgv_lab import store
from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.study import own
from sgv_lab.study.arms import Design
from sgv_lab.world.annotators import ANNOTATORS, Annotator
from sgv_lab.world.export import write_images
from sgv_lab.world.phrases import REMARKS
from sgv_lab.world.records import Record, caption_record, instruct_mix, scene_of, task_of
from sgv_lab.world.scene import MINIATURE, scene

Length = Callable[[str], int]  # of a caption, in tokens
# sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json; "div" is 500 of each of four
RELEASED = {"coco": 9_000, "lcs": 3_000, "sam": 9_000,
            **dict.fromkeys(("textcaps", "wikiart", "landmark", "celebrity"), 500)}  # fmt: skip
LENGTHS = 942 / 609  # Table 1: characters of ShareGPT4V's captions over LLaVA-23K's
_DATA = (
    "annotator",
    "omission",
    "error",
    "invention",
    "draw",
    "images",
    "edit",
    "share",
    "samples",
)


def annotator(design: Design) -> Annotator:
    """Who captions in this design. Raises LabError for a name that is no annotator's."""
    if design.annotator not in ANNOTATORS:
        raise LabError(f"no annotator {design.annotator!r}", fix=f"one of {', '.join(ANNOTATORS)}")
    chosen = ANNOTATORS[design.annotator]
    return chosen.with_rates(design.omission, design.error, design.invention)


def build(design: Design, seed: int, length: Length) -> tuple[list[Record], list[dict[str, str]]]:
    """The mix's records in order, and what was replaced: ``{"id": baseline's, "by": its own}``.

    ``seed`` chooses scenes, tasks and order, whoever captions; everything but the detailed
    captions is the same in all arms of a seed. ``by`` is "" where a record is left out.
    """
    records, places = _drawn(design, seed)
    old = [str(records[i]["id"]) for i in places]
    if design.images == "mixed":
        for i, other in zip(places, _other_pictures(design, seed, len(places)), strict=True):
            records[i] = other
    shown = [records[i] for i in places]
    texts = edited(design, seed, shown, length)
    kept = [
        None if text is None else recaptioned(record, text)
        for record, text in zip(shown, texts, strict=True)
    ]
    made = dict(enumerate(records)) | dict(zip(places, kept, strict=True))
    listed = [{"id": a, "by": str(b["id"]) if b else ""} for a, b in zip(old, kept, strict=True)]
    return [record for record in made.values() if record], listed


def _drawn(design: Design, seed: int) -> tuple[list[Record], list[int]]:
    """The mix as this design's annotator captions it, and where the detailed captions stand."""
    rest = Design() if design.captions else design  # who captions what a file does not cover
    records = instruct_mix(
        design.samples, seed, annotator(rest), design.share, difficulty=MINIATURE, draw=rest.draw
    )
    places = [i for i, record in enumerate(records) if task_of(record) == "detail"]
    if design.captions:
        places = _own_pictures(design, seed, records, places)
    return records, places


def _own_pictures(
    design: Design, seed: int, records: list[Record], places: Sequence[int]
) -> list[int]:
    """Put the pictures of the design's own file, captioned, into ``places``; those that were used.

    A file of fewer pictures leaves places over, which keep the mix's own picture and caption.
    """
    said = own.drawn(design.captions)
    names = random.Random(f"own/{seed}").sample(sorted(said), min(len(said), len(places)))
    its = design.annotator == own.ARM
    for i, name in zip(places, names, strict=False):
        writer = annotator(Design() if its else design)
        record = caption_record(scene_of(name, MINIATURE), writer, design.draw, "detail")
        records[i] = recaptioned(record, said[name]) if its else record
    return list(places[: len(names)])


def _other_pictures(design: Design, seed: int, n: int) -> list[Record]:
    """``n`` captions of pictures from all sources, in the released file's proportions."""
    rng = random.Random(f"mixed/{seed}")
    sources = rng.choices(list(RELEASED), list(RELEASED.values()), k=n)
    scenes = [
        scene(s, "train", source, MINIATURE)
        for s, source in zip(rng.sample(range(10**9), n), sources, strict=True)
    ]
    return [caption_record(drawn, annotator(design), design.draw, "detail") for drawn in scenes]


def edited(
    design: Design, seed: int, records: Sequence[Record], length: Length
) -> list[str | None]:
    """The records' captions as this design shows them; None where the record is left out."""
    captions = [caption_of(record) for record in records]
    if design.edit == "dropped":
        return [None] * len(captions)
    if design.edit == "shuffled":  # along one random circle: nobody keeps the own caption
        circle = random.Random(f"shuffled/{seed}").sample(range(len(captions)), len(captions))
        moved = dict(zip(circle, circle[1:] + circle[:1], strict=True))
        return [captions[moved[i]] for i in range(len(captions))]
    if design.edit == "padded":
        return [_padded(design, record) for record in records]
    if design.edit == "truncated":
        return [_truncated(text) for text in captions]
    if design.edit == "matched":
        blind, places = _drawn(replace(design, annotator="gpt4_blind"), seed)
        budget = sum(length(caption_of(blind[i])) for i in places)
        return _within(captions, budget, length, seed)
    return captions


def _padded(design: Design, record: Record) -> str:
    """The same facts in LENGTHS times the words (or all remarks there are)."""
    drawn, writer = scene_of(str(record["image"]), MINIATURE), annotator(design)
    for remarks in range(writer.remarks[0], len(REMARKS) + 1):
        longer = replace(writer, remarks=(remarks, remarks))
        found = caption_of(caption_record(drawn, longer, design.draw, "detail"))
        if len(found.split()) >= LENGTHS * len(caption_of(record).split()):
            break
    return found


def _truncated(text: str) -> str:
    """Whole sentences from the start, at most 1/LENGTHS of the words, but one."""
    kept, limit = "", len(text.split()) / LENGTHS
    for sentence in text.split(". "):
        longer = f"{kept}. {sentence}".removeprefix(". ")
        if kept and len(longer.split()) > limit:
            return f"{kept}."
        kept = longer
    return text


def _within(captions: list[str], budget: int, length: Length, seed: int) -> list[str | None]:
    """A random choice of captions whose lengths together stay within ``budget``."""
    kept: list[str | None] = [None] * len(captions)
    for i in random.Random(f"matched/{seed}").sample(range(len(captions)), len(captions)):
        budget -= length(captions[i])
        if budget < 0:
            break
        kept[i] = captions[i]
    return kept


def caption_of(record: Record) -> str:
    """What a record answers first."""
    return record["conversations"][1]["value"]


def recaptioned(record: Record, text: str) -> Record:
    """The record with other words in its first answer."""
    question, answer, *rest = record["conversations"]
    return {**record, "conversations": [question, {**answer, "value": text}, *rest]}


def stage(design: Design, seed: int, length: Length, vocabulary: str) -> Path:
    """The store's folder of the mix: records.json, and replaced.json, the list of replaced ids.

    ``vocabulary`` names the tokenizer that ``length`` counts with, for the artefact's key.
    """
    settings = {key: asdict(design)[key] for key in _DATA}
    if design.edit == "matched":
        settings["vocabulary"] = vocabulary

    def write(folder: Path) -> None:
        records, replaced = build(design, seed, length)
        write_json(folder / "records.json", records)
        write_json(folder / "replaced.json", replaced)

    files = [own.read(design.captions).folder] if design.captions else []
    return store.stage("mix", settings | {"seed": seed}, files, write)


def pictures(records: Sequence[Record], side: int) -> Path:
    """The store's folder with the records' pictures, (side, side) pixels, in the official layout.

    Arms of one seed that show the same pictures share it: drawing is slower than captioning.
    """
    names = sorted({str(record["image"]) for record in records if "image" in record})

    def draw(folder: Path) -> None:
        write_images(folder, {name: scene_of(name, MINIATURE) for name in names}, side)

    settings = {"names": names, "side": side}
    return store.stage("pictures", settings, [], draw)
