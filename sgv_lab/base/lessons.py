"""What the base is taught with: scenes, and lessons, which make a record of each.

Captions come first, questions after; what is verified last gets a lesson more. The last lessons
are a new projector's alone: ``align``, and ``chat`` where a study starts from a chat model, as
Qwen-VL-Chat's. LOG.md has what each was added for.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from sgv_lab.world import records
from sgv_lab.world.annotators import ANNOTATORS
from sgv_lab.world.scene import Difficulty, Scene, allowed_sources, scene

DRILLED = ("existence", "color", "size", "position", "count", "pattern", "scene")
LATE = ("existence", "scene", "size", "count", "position")  # verified last
FILLER = 0.2  # share of filler in every other whole caption
TRUE = {name: ANNOTATORS[name].with_rates(None, 0, 0) for name in ("blip", "human")}


def training_scenes(n: int, seed: int, difficulty: Difficulty) -> list[Scene]:
    """``n`` training scenes, every source equally often."""
    # signs and landmarks are 0.5 % of the paper's images each, too few for a model that did not
    # read the web before
    sources = allowed_sources(difficulty)
    first = random.Random(f"foundations/{seed}").randrange(10**8)
    return [scene(first + i, "train", sources[i % len(sources)], difficulty) for i in range(n)]


def describe(drawn: Scene) -> records.Record:
    """An image and a true caption: whole (70 %), as the web's or as people's (15 % each).

    Every other whole one holds filler, so that no caption of a study is of a kind never read.
    """
    draw = random.Random(f"describe/{drawn.seed}").random()
    if draw < 0.7:
        return records.caption_record(drawn, "oracle", filler=FILLER * (drawn.seed % 2))
    return records.caption_record(drawn, TRUE["blip" if draw < 0.85 else "human"], task="brief")


def look(drawn: Scene) -> records.Record:
    """An image with questions about what matters most (45 %) or about anything (15 %), with choices
    (18 %), in VizWiz's words (4 %), or a caption as in ``describe`` (12 %); or a written
    description with questions (6 %)."""
    draw = random.Random(f"look/{drawn.seed}").random()
    if draw < 0.45:
        return records.drill_record(drawn, drawn.seed, DRILLED)
    if draw < 0.6:
        return records.vqa_record(drawn, drawn.seed, most=8)
    if draw < 0.78:
        return records.choice_record(drawn, drawn.seed, most=5)
    if draw < 0.82:
        return records.unanswerable_record(drawn, drawn.seed)
    if draw < 0.94:
        return describe(drawn)
    return records.text_record(drawn, drawn.seed, most=4)


def check(drawn: Scene) -> records.Record:
    """An image with questions about what is learned last (60 %), or as in ``look``."""
    if random.Random(f"check/{drawn.seed}").random() < 0.6:
        return records.drill_record(drawn, drawn.seed, LATE)
    return look(drawn)


def align(drawn: Scene) -> records.Record:
    """An image and its caption as BLIP wrote it, mistakes and all: LLaVA's pre-training."""
    return records.caption_record(drawn, "blip", task="brief")


class Lesson(NamedTuple):
    """How a lesson makes a record of a scene, and how it is taught."""

    make: Callable[[Scene], records.Record]
    learning_rate: float
    template: str = "v1"
    base: str = "sft"  # of its config
    new_projector: bool = False


LESSONS = {
    "describe": Lesson(describe, 2e-3, "plain"),
    "look": Lesson(look, 1.5e-3),
    "check": Lesson(check, 1.2e-3),
    "align": Lesson(align, 3e-3, "plain", "projector-only", True),
    "chat": Lesson(records.question_record, 1e-3, base="projector-only"),
}
