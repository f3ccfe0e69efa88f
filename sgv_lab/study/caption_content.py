"""What an arm's detailed captions hold: facts, mistakes, and filler, sentences without a fact."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from sgv_lab.captions.quality import judge
from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import shipped
from sgv_lab.study import mix
from sgv_lab.study.plans import Plan
from sgv_lab.training.config import Mix
from sgv_lab.world.records import caption_record
from sgv_lab.world.scene import MINIATURE, scene

_SHOWN = 200  # images, which nobody trains on


def content(plan: Plan, arms: Sequence[str] = ()) -> pd.DataFrame:
    """Detail, accuracy and filler of the captions of ``arms`` (none named: all), in percent.

    Detail: the share of the true facts that they state (recall); accuracy: that of the stated
    facts that are true (precision); filler: that of their tokens that lie in sentences without a
    fact. Missing where an arm has no captions.
    """
    designs, alike = plan.designs(), {"images": "same", "share": 1.0, "samples": 0}
    written = {name: replace(designs[name].captions, **alike) for name in arms or plan.arms}
    rows = {name: _content(plan.family, one) for name, one in written.items()}
    columns = ["detail", "accuracy", "filler"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


@cache  # a sentence, a figure and a table of one study ask for the same
def _content(family: str, shown: Mix) -> tuple[float, ...]:
    tokenizer = checkpoints.load_processor(shipped(family)).tokenizer
    length = lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)  # noqa: E731
    scenes = [scene(i, "eval", "coco", MINIATURE) for i in range(_SHOWN)]
    writer = mix.annotator(shown)
    records = [caption_record(one, writer, shown.draw, "detail") for one in scenes]
    texts = mix.edited(shown, 0, records)
    judged = [judge(text, one) for text, one in zip(texts, scenes, strict=True) if text]
    true = sum(len(one.true) for one in judged)
    wrong = sum(len(one.mistaken | one.invented) for one in judged)
    omitted = sum(len(one.omitted) for one in judged)
    filler = sum(length(sentence) for one in judged for sentence in one.unparsed)
    tokens = sum(map(length, filter(None, texts)))
    shares = (true, true + omitted), (true, true + wrong), (filler, tokens)
    return tuple(100 * part / whole if whole else np.nan for part, whole in shares)
