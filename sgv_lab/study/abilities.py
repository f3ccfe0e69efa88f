"""What a miniature model can do: held-out questions and captions against the world's truth.

Every number comes with a 95 % interval clustered by scene, because questions about one picture
succeed and fail together.
"""

import base64
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab.benchmarks import mme
from sgv_lab.benchmarks.evaluate import answer
from sgv_lab.benchmarks.tasks import Question, Task, write_nothing
from sgv_lab.intervals import clustered, clustered_mean, ratio
from sgv_lab.world.facts import FACETS, facts
from sgv_lab.world.questions import ABILITIES, FORMS, questions
from sgv_lab.world.reader import read
from sgv_lab.world.records import DESCRIBE, LETTER, SHORT
from sgv_lab.world.render import render
from sgv_lab.world.scene import Difficulty, Scene, scene

SUFFIX = {"open": SHORT, "yesno": SHORT, "choice": LETTER}
GATE = ("existence", "color", "position", "count")  # official yes/no pairs, as MME's subtasks
LOW = 60  # percent of them right: above this a model sees
_TOLD = frozenset(FACETS) - {"relation"}  # relations follow from positions; nobody tells them all


def held_out(
    n: int, difficulty: Difficulty, split: str = "eval", first: int = 0, source: str | None = None
) -> list[Scene]:
    """``n`` scenes that training never draws: their seeds start at ``first``."""
    return [scene(first + i, split, source, difficulty) for i in range(n)]


def ask(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    scenes: Sequence[Scene],
    *,
    abilities: Collection[str] = ABILITIES,
    forms: Collection[str] = FORMS,
    pictures: Sequence[Scene] | None = None,
) -> pd.DataFrame:
    """Greedy answers to questions about ``scenes``, one row each.

    ``pictures``: scenes to show in place of the ones asked about (None: the same), to see whether
    the model looks. Columns: scene, ability, form, question, answer, said, right.
    """
    side = model.config.vision_config.image_size
    asked, truth = [], {}
    for number, (about, shown) in enumerate(zip(scenes, pictures or scenes, strict=True)):
        png = _png(shown, side)
        for i, q in enumerate(questions(about, 0, abilities, forms)):
            key = f"{number}/{i}"
            truth[key] = (number, q)
            asked.append(Question(key, q.prompt + SUFFIX[q.form], encoded=png))
    rows = []
    for key, said in _answers(model, processor, asked, 12).items():
        number, q = truth[key]
        right = _same(said, q.answer, q.form)
        rows.append((number, q.ability, q.form, q.text, q.answer, said, right))
    columns = ["scene", "ability", "form", "question", "answer", "said", "right"]
    return pd.DataFrame(rows, columns=columns).sort_values("scene", kind="stable")


def table(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent by ability and form, with its interval and the number of questions."""
    rows = []
    for (ability, form), part in answers.groupby(["ability", "form"], sort=True):
        low, high = clustered_mean(part["right"], part["scene"]) or (None, None)
        rows.append((ability, form, len(part), 100 * part["right"].mean(), low, high))
    return pd.DataFrame(rows, columns=["ability", "form", "questions", "accuracy", "low", "high"])


def captions(
    model: PreTrainedModel, processor: ProcessorMixin, scenes: Sequence[Scene]
) -> pd.DataFrame:
    """Greedy captions, one row each: text, facts stated, stated and true, true facts to state."""
    side = model.config.vision_config.image_size
    asked = [
        Question(str(i), DESCRIBE[0], encoded=_png(shown, side)) for i, shown in enumerate(scenes)
    ]
    said = _answers(model, processor, asked, 160)
    rows = []
    for i, shown in enumerate(scenes):
        text = said[str(i)]
        stated = {fact for fact in read(text).facts if fact.kind in _TOLD}
        truth = {fact for fact in facts(shown) if fact.kind in _TOLD}
        rows.append((i, text, len(stated), len(stated & truth), len(truth)))
    return pd.DataFrame(rows, columns=["scene", "text", "stated", "true", "facts"])


def caption_quality(found: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of captions' facts in percent, with intervals over scenes."""
    rows = []
    for name, whole in (("precision", "stated"), ("recall", "facts")):
        sums = found[["true", whole]].to_numpy(float)
        low, high = clustered(ratio(), sums, 100.0) or (None, None)
        rows.append((name, 100 * found["true"].sum() / max(1, found[whole].sum()), low, high))
    return pd.DataFrame(rows, columns=["measure", "percent", "low", "high"])


def _answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    asked: Sequence[Question],
    max_new_tokens: int,
) -> dict[str, str]:
    """Answers by question id, in the way the benchmarks are asked."""
    task = Task(lambda _: iter(asked), "pad", max_new_tokens, write_nothing)
    batches = answer(model, processor, asked, task, Path(), 64)
    return {q.id: text for batch, texts in batches for q, text in zip(batch, texts, strict=True)}


def _png(shown: Scene, side: int) -> str:
    stream = io.BytesIO()
    render(shown, side).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _same(said: str, truth: str, form: str) -> bool:
    """Yes/no by MME's rule, all else by the whole answer, a final period aside."""
    if form == "yesno":
        return mme.parse(said) == truth.lower()
    return said.strip().rstrip(".").lower() == truth.lower()
