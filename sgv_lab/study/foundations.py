"""Stand-ins for what the paper downloaded: a vision tower, a language model, an aligned LLaVA.

ShareGPT4V started from CLIP, Vicuna and LLaVA's projector. The miniature starts from models of the
same shapes that learned the embedded world: the tower from dense truth, the projector to say what
is in a patch in the language model's own words (CLIP's features are aligned with words, too), then
projector and language model together, the tower frozen: first captions, as in LLaVA's
pre-training, then questions (`lessons`). The language model learns its English from those captions;
reading written descriptions first took longer and taught less (LOG.md). Every stage is a finished
checkpoint in its folder; the command called again goes on with the stage that is missing.
"""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sgv_lab.closure import digest
from sgv_lab.errors import LabError
from sgv_lab.files import atomic, sha256, write_json
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.models.shipped import ROOT
from sgv_lab.provenance import provenance
from sgv_lab.study import abilities, tower, words
from sgv_lab.study.lessons import LESSONS, describe, look
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.recipes import recipe
from sgv_lab.training.trainer import train
from sgv_lab.world.render import render
from sgv_lab.world.scene import GRID, MINIATURE, Difficulty, Scene, allowed_sources, scene

FAMILY = "llava-1.5-7b"
PROBE = 7 * 10**8  # the first of the scenes that say whether a lesson is needed again


@dataclass(frozen=True)
class Lesson:
    """One stage of training: which records, how many, for how many updates."""

    name: str
    records: int
    updates: int
    learning_rate: float
    samples_per_update: int = 32


@dataclass(frozen=True)
class Curriculum:
    """All numbers of a build."""

    tokenizer_texts: int = 2_000  # a lesson
    tower_pictures: int = 20_000
    tower_updates: int = 1_500
    tower_batch: int = 128
    tower_learning_rate: float = 3e-3
    words_scenes: int = 4_000
    words_updates: int = 3_000
    lessons: tuple[Lesson, ...] = (
        Lesson("describe", 24_000, 900, 2e-3),
        Lesson("look", 32_000, 1_600, 1.5e-3),
        Lesson("check", 12_000, 500, 1e-3),
        Lesson("web", 12_800, 400, 1e-3),
    )
    again: Lesson = Lesson("again", 12_000, 500, 1e-3)  # until it verifies: seeds differ in when
    most_again: int = 3
    probe_scenes: int = 250  # that say whether it does; the gate's are others


CURRICULUM = Curriculum()


def scenes(n: int, seed: int, difficulty: Difficulty) -> Iterator[Scene]:
    """``n`` training scenes, every source equally often."""
    # signs and landmarks are 0.5 % of the paper's pictures each, too few for a model that did not
    # read the web before
    sources = allowed_sources(difficulty)
    first = random.Random(f"foundations/{seed}").randrange(10**8)
    for i in range(n):
        yield scene(first + i, "train", sources[i % len(sources)], difficulty)


def build(out: str | Path, seed: int = 0, curriculum: Curriculum = CURRICULUM) -> Path:
    """Build the foundations in ``out`` and return the aligned base model's folder.

    ``seed`` sets scenes, first weights and the order of the data. Called again after a kill, it
    goes on from the last complete checkpoint; the same seed on the same machine gives the same
    weights. Raises LabError if ``out`` holds another build, by its settings or its code.
    """
    out = Path(out)
    _refuse_other(out, seed, curriculum)
    begun = _begin(out, seed, curriculum)
    for number, lesson in enumerate(curriculum.lessons):
        begun = _teach(out / lesson.name, begun, lesson, seed + number)
    for number in range(1, curriculum.most_again + 1):
        if _verifies(begun, curriculum.probe_scenes):
            break
        folder = out / f"{curriculum.again.name}-{number}"
        begun = _teach(folder, begun, curriculum.again, seed + 100 * number)
    return begun


def _verifies(checkpoint: Path, scenes: int) -> bool:
    """Whether every ability of the gate is right in more than LOW percent of yes/no questions."""
    asked = abilities.held_out(scenes, MINIATURE, first=PROBE)
    told = abilities.ask(
        *checkpoints.load(checkpoint), asked, abilities=abilities.GATE, forms=("yesno",)
    )
    return bool((100 * told.groupby("ability")["right"].mean() > abilities.LOW).all())


def _refuse_other(out: Path, seed: int, curriculum: Curriculum) -> None:
    """Write down what is built in ``out``, or refuse if that is something else."""
    settings = {"seed": seed, "curriculum": asdict(curriculum), "code": digest(build)}
    settings = json.loads(json.dumps(settings))
    path = out / "build.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise LabError(
            "holds a build with another seed or curriculum, or by other code",
            where=out,
            fix="choose another folder",
        )
    write_json(path, settings)


def _begin(out: Path, seed: int, curriculum: Curriculum) -> Path:
    """The LLaVA whose tower sees and whose projector speaks words, as a checkpoint."""
    folder = out / "tower"
    if (folder / "manifest.json").is_file():
        return folder
    model = families.build(FAMILY, "mini", seed)
    match_first(model)
    tokenizer = mini.train_tokenizer(_texts(curriculum.tokenizer_texts, seed))
    processor = families.processor(FAMILY, "mini", tokenizer)
    side = model.config.vision_config.image_size
    crowded = replace(MINIATURE, max_objects=4)
    pictures = tower.Pictures(list(scenes(curriculum.tower_pictures, seed, crowded)), side, GRID)
    found = tower.train(
        model.model.vision_tower,
        processor.image_processor,
        pictures,
        out / "tower-checkpoints",
        seed,
        steps=curriculum.tower_updates,
        batch=curriculum.tower_batch,
        learning_rate=curriculum.tower_learning_rate,
    )
    pictures = tower.Pictures(list(scenes(curriculum.words_scenes, seed + 1, crowded)), side, GRID)
    error = words.train(
        model, processor, pictures, out / "words-checkpoints", seed, steps=curriculum.words_updates
    )
    with atomic(folder) as temporary:
        checkpoints.save(model, processor, temporary)
        found |= {"words_error": error, "provenance": provenance()}
        write_json(temporary / "manifest.json", found)
    return folder


@torch.no_grad()
def match_first(model: PreTrainedModel) -> None:
    """First weights with which attention matches like with like, and copies it.

    Keys begin as queries do, outputs as the transpose of values, the output head as the
    embeddings (mimetic initialisation: Trockman and Kolter 2023, arXiv 2305.09828).
    """
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)
    model.lm_head.weight.copy_(model.get_input_embeddings().weight)


def _texts(number: int, seed: int) -> Iterator[str]:
    """What the tokenizer learns from: captions and questions, as the models will read them."""
    for teach in (describe, look):
        for drawn in scenes(number, seed, MINIATURE):
            turns = teach(drawn)["conversations"]
            yield SYSTEM + " USER: " + "\nASSISTANT: ".join(t["value"] for t in turns)


def _teach(folder: Path, start: Path, lesson: Lesson, seed: int) -> Path:
    """One lesson, from the checkpoint ``start``, as the checkpoint ``folder``."""
    if (folder / "manifest.json").is_file():
        return folder
    model, processor = checkpoints.load(start)
    drawn = list(scenes(lesson.records, seed, MINIATURE))
    records = [LESSONS[lesson.name](one) for one in drawn]
    pictures = folder.parent / "pictures"
    write_pictures(pictures, drawn, model.config.vision_config.image_size)
    changes: dict[str, Any] = {
        "template": "plain" if lesson.name == "describe" else "v1",
        "learning_rate": lesson.learning_rate,
        "samples_per_update": lesson.samples_per_update,
        "gradient_checkpointing": False,
        "warmup_ratio": 0.05,
        "adam_beta2": 0.98,
    }
    return train(
        model,
        processor,
        records,
        pictures,
        recipe("sft", changes),
        folder,
        seed,
        max_steps=lesson.updates,
        micro_batch=16,
    )


def write_pictures(root: Path, drawn: Sequence[Scene], side: int) -> None:
    """The scenes' pictures below ``root`` in the official layout; those there already are kept."""
    for one in drawn:
        path = root / one.image_name
        if not path.is_file():
            with atomic(path) as temporary:
                render(one, side).save(temporary)


def ship(built: Path, family: str, tables: Path) -> Path:
    """Put the checkpoint ``built`` into the package in half precision, with what is known of it.

    ``tables``: the folder of its ability tables, copied beside. Returns the folder.
    """
    model, processor = checkpoints.load(built, dtype=torch.float16)
    folder, known = ROOT / family, provenance()  # known before the tree is touched
    shutil.rmtree(folder, ignore_errors=True)
    with atomic(folder) as fresh:
        checkpoints.save(model, processor, fresh)
        for table in tables.glob("*.csv"):
            shutil.copy(table, fresh)
        facts = {
            "made_by": "sgv-lab build-foundations",
            "build": json.loads((built.parent / "build.json").read_text(encoding="utf-8")),
            "weights_sha256": sha256(fresh / "model.safetensors"),
            "provenance": known,
        }
        write_json(fresh / "manifest.json", facts)
    return folder
