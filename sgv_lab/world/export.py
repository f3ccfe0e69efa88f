"""The drawn world written to a folder as if it were a real data set: the one place that does."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sgv_lab.errors import LabError
from sgv_lab.files import atomic, write_json, write_jsonl
from sgv_lab.world import records
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.questions import questions
from sgv_lab.world.render import render
from sgv_lab.world.scene import FULL, MINIATURE, SPLITS, Difficulty, Scene, scene

CAPTIONS = {  # annotator -> file of its records, named as the original's
    "blip": "blip_laion_cc_sbu_558k.json",
    "gpt4_blind": "detail_23k.json",
    "gpt4_vision": "sharegpt4v_instruct_gpt4-vision_cap100k.json",
    "oracle": "oracle.json",
}
_DIFFICULTY = "difficulty.json"  # an image's name alone does not tell which world it is of


def export(
    out: Path,
    *,
    scenes: int = 100,  # How many scenes.
    split: str = "train",  # Which scenes.
    size: int = 256,  # The images' side in pixels.
    seed: int = 0,  # The first scene's seed.
    miniature: bool = False,  # Few objects: the world that studies show models.
) -> Path:
    """Write images, records and questions of the drawn world to OUT in the official layout.

    Images lie where the official data layout has their source
    (``coco/train2017/train-000000000.png``). Of every scene there is a caption by each annotator
    (LLaVA records; COCO annotations of five human captions below ``annotations``), one
    record each of conversation, short answers, multiple choice and text alone (``instruct.json``),
    questions with answers (``questions.jsonl``) and the full truth (``scenes.jsonl``). Ranges of
    seeds that do not overlap give disjoint data sets. OUT appears whole or not at all.
    """
    if out.exists():
        raise LabError("is already there", where=out, fix="name a new folder, or remove it first")
    if scenes < 1 or size < 16 or seed < 0 or split not in SPLITS:
        splits = ", ".join(SPLITS)
        fix = f"give 1 scene, 16 pixels and seed 0, or more of each, and a split of {splits}"
        raise LabError(f"cannot export {scenes=}, {size=}, {seed=}, {split=}", fix=fix)
    difficulty = MINIATURE if miniature else FULL
    drawn = [scene(seed + i, split, difficulty=difficulty) for i in range(scenes)]
    asked = (records.conversation_record, records.vqa_record)
    asked += (records.choice_record, records.text_record)
    files = {
        "scenes.jsonl": map(_truth, drawn),
        f"annotations/captions_{split}2017.json": human_captions(drawn, size),
        "instruct.json": [record(s) for s in drawn for record in asked],
        "questions.jsonl": (row for s in drawn for row in _questions(s)),
    }
    for writer, name in CAPTIONS.items():
        files[name] = [records.caption_record(s, writer) for s in drawn]
    with atomic(out) as root:
        write_dataset(root, drawn, size, files, progress=True)
    return out


def write_dataset(
    root: Path,
    scenes: Sequence[Scene],
    size: int,
    files: Mapping[str, Iterable[Any]],
    progress: bool = False,
) -> None:
    """Write ``scenes`` below ``root``: their images, which world they are of, and ``files``.

    Images of (size, size) pixels lie where the official layout has them. ``files``: path below
    ``root`` -> what it holds, a JSON document or the rows of a ``.jsonl``.
    """
    write_images(root, {drawn.image_name: drawn for drawn in scenes}, size, progress)
    write_json(root / _DIFFICULTY, asdict(scenes[0].difficulty))
    for name, held in files.items():
        (write_jsonl if name.endswith(".jsonl") else write_json)(root / name, held)


def write_images(
    root: Path, scenes: Mapping[str, Scene], size: int, progress: bool = False
) -> None:
    """Draw each scene as ``root / name``, (size, size) pixels; the suffix says PNG or JPEG."""
    for name, drawn in tqdm(scenes.items(), desc="images", unit="image", disable=not progress):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        render(drawn, size).save(path, quality=95)


def difficulty_of(root: str | Path) -> Difficulty | None:
    """Which world the images below ``root`` are of; None where nobody wrote it down: photos."""
    path = Path(root) / _DIFFICULTY
    if not path.is_file():
        return None
    given = json.loads(path.read_text(encoding="utf-8"))
    return Difficulty(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _truth(drawn: Scene) -> dict[str, object]:
    known = {name: value for name, value in asdict(drawn).items() if name != "difficulty"}
    return {"image": drawn.image_name, **known}


def human_captions(
    scenes: Sequence[Scene], size: int, first_draw: int = 0
) -> dict[str, list[dict[str, object]]]:
    """Five human captions an image, in the layout of COCO's ``captions_train2017.json``."""
    images = [
        {"id": s.seed, "file_name": s.image_name, "width": size, "height": size} for s in scenes
    ]
    drawn = [(s, first_draw + k) for s in scenes for k in range(5)]
    annotations = [
        {"id": i, "image_id": s.seed, "caption": caption(s, ANNOTATORS["human"], draw)}
        for i, (s, draw) in enumerate(drawn)
    ]
    return {"images": images, "annotations": annotations}


def _questions(drawn: Scene) -> Iterator[dict[str, object]]:
    """Rows as in LLaVA's question files, each with its answer."""
    for i, q in enumerate(questions(drawn, drawn.seed)):
        yield {
            "question_id": f"{drawn.split}-{drawn.seed:09d}-{i}",
            "image": drawn.image_name,
            "text": q.prompt,
            "category": q.ability,
            "form": q.form,
            "answer": q.answer,
        }
