"""What the foundations are taught, one record a scene: a lesson is a mix of captions and questions.

Captions come first, questions after; what is verified last gets a lesson more; ``web`` leaves a
base that describes as the web does, ``again`` is for seeds that do not verify yet. LOG.md has what
each was added for.
"""

import random
from collections.abc import Callable

from sgv_lab.world.records import (
    Record,
    caption_record,
    choice_record,
    drill_record,
    text_record,
    vqa_record,
)
from sgv_lab.world.scene import Scene

DRILLED = ("existence", "color", "size", "position", "count")
LATE = ("position", "count", "scene", "size")  # verified last: a lesson more


def describe(drawn: Scene) -> Record:
    """A picture and its true description, without a question (template plain)."""
    return caption_record(drawn, "oracle")


def look(drawn: Scene) -> Record:
    """A picture with questions about what matters most (50 %) or about anything (20 %), a choice
    (10 %), its full description (12 %); or a written description with questions (8 %)."""
    draw = random.Random(f"look/{drawn.seed}").random()
    if draw < 0.5:
        return drill_record(drawn, drawn.seed, DRILLED)
    if draw < 0.7:
        return vqa_record(drawn, drawn.seed, most=8)
    if draw < 0.8:
        return choice_record(drawn, drawn.seed)
    if draw < 0.92:
        return caption_record(drawn, "oracle")
    return text_record(drawn, drawn.seed, most=4)


def check(drawn: Scene) -> Record:
    """A picture with questions about what is learned last (60 %), or as in ``look``."""
    if random.Random(f"check/{drawn.seed}").random() < 0.6:
        return drill_record(drawn, drawn.seed, LATE)
    return look(drawn)


def web(drawn: Scene) -> Record:
    """A picture with a short caption as the web has them (25 %), or as in ``check``.

    LLaVA's base had met BLIP's captions; one that ends on the oracle's has nothing to learn from
    better ones (LOG.md).
    """
    return _captioned(drawn) or check(drawn)


def again(drawn: Scene) -> Record:
    """A picture with a short web caption (25 %), or as in ``look``."""
    return _captioned(drawn) or look(drawn)


def _captioned(drawn: Scene) -> Record | None:
    if random.Random(f"web/{drawn.seed}").random() < 0.25:
        return caption_record(drawn, "blip")
    return None


LESSONS: dict[str, Callable[[Scene], Record]] = {
    lesson.__name__: lesson for lesson in (describe, look, check, web, again)
}
