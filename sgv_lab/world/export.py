"""The embedded world written to a folder as if it were a real data set."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from sgv_lab.files import atomic, write_json, write_jsonl
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.questions import questions
from sgv_lab.world.records import (
    caption_record,
    choice_record,
    conversation_record,
    text_record,
    vqa_record,
)
from sgv_lab.world.render import render
from sgv_lab.world.scene import FULL, SPLITS, Difficulty, Scene, scene

CAPTIONS = {  # annotator -> file of its records, named as the original's
    "blip": "blip_laion_cc_sbu_558k.json",
    "gpt4_blind": "detail_23k.json",
    "gpt4_vision": "sharegpt4v_instruct_gpt4-vision_cap100k.json",
    "oracle": "oracle.json",
}
_DIFFICULTY = "difficulty.json"  # a picture's name alone does not tell which world it is of


def export(
    folder: str | Path,
    n: int = 100,
    split: str = "train",
    size: int = 256,
    seed: int = 0,
    difficulty: Difficulty = FULL,
) -> Path:
    """Write the scenes ``seed`` ... ``seed + n - 1`` of a split, and return ``folder``.

    Pictures of (size, size) pixels lie where the official data layout has their source
    (``coco/train2017/train-000000000.png``). Of every scene there is a caption by each annotator
    (LLaVA records, CAPTIONS; COCO annotations of five human captions below ``annotations``), one
    record each of conversation, short answers, multiple choice and text alone (``instruct.json``),
    questions with answers (``questions.jsonl``) and the full truth (``scenes.jsonl``). Ranges of
    seeds that do not overlap give disjoint data sets.

    The folder appears whole or not at all. Raises FileExistsError if it is already there, and
    ValueError for arguments that name no data set.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is already there: name a new folder, or remove it first")
    if n < 1 or size < 16 or seed < 0 or split not in SPLITS:
        raise ValueError(
            f"cannot export n={n}, size={size}, seed={seed}, split={split!r}: n is 1 or more, size "
            f"16 pixels or more, seed 0 or more, split one of {', '.join(SPLITS)}"
        )
    scenes = [scene(seed + i, split, difficulty=difficulty) for i in range(n)]
    with atomic(folder) as root:
        for drawn in tqdm(scenes, desc="pictures", unit="scene"):
            path = root / drawn.image_name
            path.parent.mkdir(parents=True, exist_ok=True)
            render(drawn, size).save(path)
        write_difficulty(root, difficulty)
        write_jsonl(root / "scenes.jsonl", map(_truth, scenes))
        for annotator, name in CAPTIONS.items():
            write_json(root / name, [caption_record(s, annotator) for s in scenes])
        write_json(root / f"annotations/captions_{split}2017.json", _coco(scenes, size))
        asked = (conversation_record, vqa_record, choice_record, text_record)
        write_json(root / "instruct.json", [record(s) for s in scenes for record in asked])
        write_jsonl(root / "questions.jsonl", (row for s in scenes for row in _questions(s)))
    return folder


def write_difficulty(root: Path, difficulty: Difficulty) -> None:
    """Write down, below ``root``, which world the pictures there are of."""
    write_json(root / _DIFFICULTY, asdict(difficulty))


def difficulty_of(root: str | Path) -> Difficulty | None:
    """Which world the pictures below ``root`` are of; None where nobody wrote it down: photos."""
    path = Path(root) / _DIFFICULTY
    if not path.is_file():
        return None
    given = json.loads(path.read_text(encoding="utf-8"))
    return Difficulty(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _truth(drawn: Scene) -> dict[str, object]:
    row = {"image": drawn.image_name, **asdict(drawn)}
    del row["difficulty"]
    return row


def _coco(scenes: Sequence[Scene], size: int) -> dict[str, object]:
    """Five human captions a picture, in the layout of COCO's ``captions_train2017.json``."""
    images = [
        {"id": s.seed, "file_name": s.image_name, "width": size, "height": size} for s in scenes
    ]
    captions = [
        (s.seed, caption(s, ANNOTATORS["human"], draw)) for s in scenes for draw in range(5)
    ]
    annotations = [
        {"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(captions)
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
