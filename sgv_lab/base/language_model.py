"""The miniature's stand-ins for Vicuna and Qwen: a language model taught with its eyes open.

The tower frozen, projector and language model learn together: first captions, as in LLaVA's
pre-training, then questions (`lessons`). The language model learns its English from those captions.
One taught by text alone was not built for this base: a prototype of it stayed at chance in
position, count and pattern (LOG.md, 2026-11-29).
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from sgv_lab import store
from sgv_lab.base.abilities import write_tables
from sgv_lab.base.lessons import LESSONS, describe, look, training_scenes
from sgv_lab.base.projector import renew_projector
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.models.architectures import template
from sgv_lab.models.shipped import share
from sgv_lab.provenance import provenance
from sgv_lab.training import qwen_vl_chat
from sgv_lab.training.config import base
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.trainer import train
from sgv_lab.world.export import write_images
from sgv_lab.world.scene import MINIATURE

SAMPLES = 32  # a step
_RECORDS = 32_000  # of a lesson at most; a longer one shows them again
_ROLES = {  # template -> what stands before a user's and an assistant's words
    "v1": (SYSTEM + " USER: ", "\nASSISTANT: "),
    "qwen": (f"system\n{qwen_vl_chat.SYSTEM}\nuser\nPicture 1: ", "\nassistant\n"),
}


def untrained_model(family: str, seed: int, texts: int = 2_000) -> Path:
    """A family's miniature before it learned anything, made once per arguments.

    Its tokenizer is made from ``texts`` captions and as many questions. LabError for a family that
    is neither a LLaVA nor a Qwen-VL-Chat.
    """
    known = families.family(family)
    if known.template not in _ROLES:
        taught = [key for key, one in families.FAMILIES.items() if one.template in _ROLES]
        raise LabError(f"no base of {family} can be taught", fix=f"choose of {', '.join(taught)}")

    def build(out: Path) -> None:
        model = families.build(family, "mini", seed)
        match_first(model)
        tokenizer = mini.train_tokenizer(
            _texts(texts, seed, *_ROLES[known.template]), make=known.tokenizer
        )
        checkpoints.save(model, families.processor(family, "mini", tokenizer), out / "model")

    settings = {"family": family, "seed": seed, "texts": texts}
    return store.artifact("untrained", settings, [], build) / "model"


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


def _texts(number: int, seed: int, user: str, assistant: str) -> Iterator[str]:
    """What the tokenizer learns from: captions and questions behind the words of their roles."""
    for make in (describe, look):
        for drawn in training_scenes(number, seed, MINIATURE):
            turns = make(drawn)["conversations"]
            yield user + assistant.join(t["value"] for t in turns)


def train_language_model(start: Path, lessons: Mapping[str, int], seed: int) -> dict[str, Path]:
    """The checkpoint after each lesson, by its name, from the checkpoint ``start``; made once.

    ``lessons``: steps of each of LESSONS, in order. Beside each checkpoint lies its metrics.jsonl.
    """
    made: dict[str, Path] = {}
    for number, (name, steps) in enumerate(lessons.items()):
        start = made[name] = teach(start, name, steps, seed + number)
    return made


def teach(start: Path, lesson: str, steps: int, seed: int) -> Path:
    """The checkpoint ``start`` after one of LESSONS, made once; a killed one goes on.

    Lessons "align" and "chat" are the projector's alone, which "align" begins anew from ``seed``.
    A Qwen-VL-Chat reads every lesson in its own template.
    """
    taught = LESSONS[lesson]
    chat = template(checkpoints.configuration(start))
    changes: dict[str, Any] = {
        "template": taught.template if chat == "v1" else chat,
        "learning_rate": taught.learning_rate,
        "samples_per_step": SAMPLES,
        "gradient_checkpointing": False,
        "warmup_ratio": 0.05,
        "adam_beta2": 0.98,
    }

    def build(out: Path) -> None:
        model, processor = checkpoints.load(start)
        if taught.new_projector:
            renew_projector(model, processor, seed)
        drawn = training_scenes(min(steps * SAMPLES, _RECORDS), seed, MINIATURE)
        side, images = model.config.vision_config.image_size, out / "images"
        write_images(images, {one.image_name: one for one in drawn}, side)
        records = [taught.make(one) for one in drawn]
        chosen = base(taught.base, changes)
        train(model, processor, records, images, chosen, out / "model", seed,
              max_steps=steps, micro_batch=16, progress=False)  # fmt: skip
        shutil.rmtree(images)

    settings = {"lesson": lesson, "steps": steps, "seed": seed, "recipe": changes}
    return store.artifact("lesson", settings, [start], build, resumes=True) / "model"


def ship(built: Path, folder: Path, tables: Mapping[str, pd.DataFrame], **made_with: Any) -> Path:
    """Write the checkpoint ``built`` to ``folder``, in half precision, with its ``tables``.

    All but its projector is a link to a file that bases beside it share (`shipped.share`).
    ``made_with``: family, seed (of tower and language model), projector (its number), settings.
    """
    if folder.exists():
        raise LabError("is already there", where=folder, fix="choose another folder")
    model, processor = checkpoints.load(built, dtype=torch.float16)
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    share(checkpoints.save(model, processor, building))
    found = checkpoints.fingerprint(building)
    known = {"made_with": made_with, "provenance": provenance(), "fingerprint": found}
    write_tables(building, tables, known)
    return building.rename(folder)  # from here on it is a base
