"""The ability table, checked with models whose answers are known beforehand."""

import pandas as pd
import pytest

from sgv_lab.base import abilities
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.questions import questions
from sgv_lab.world.scene import Difficulty

EASY = Difficulty(max_objects=3)


@pytest.fixture
def scenes():
    return abilities.held_out(40, EASY)


class _Oracle:
    """Stands in for a model: says what ``say`` makes of a question."""

    class config:
        class vision_config:
            image_size = 64


def told(monkeypatch, say):
    monkeypatch.setattr(
        abilities, "_answers", lambda model, processor, asked, *_: {q.id: say(q) for q in asked}
    )


def truth_of(scenes, seed=0):
    return {
        f"{i}/{j}": q.answer for i, s in enumerate(scenes) for j, q in enumerate(questions(s, seed))
    }


def test_the_truth_scores_100_and_its_opposite_0(scenes, monkeypatch):
    answers = truth_of(scenes)
    told(monkeypatch, lambda q: answers[q.id])
    assert set(abilities.ability_table(abilities.ask(_Oracle, None, scenes))["accuracy"]) == {100.0}
    flipped = {"Yes": "No", "No": "Yes"}
    told(monkeypatch, lambda q: flipped.get(answers[q.id], "nothing"))
    assert set(abilities.ability_table(abilities.ask(_Oracle, None, scenes))["accuracy"]) == {0.0}


def test_always_yes_is_at_chance_for_every_pair(scenes, monkeypatch):
    told(monkeypatch, lambda q: "Yes, it is.")
    table = abilities.ability_table(abilities.ask(_Oracle, None, scenes, forms=("yesno",)))
    assert set(table["accuracy"]) == {50.0}


def test_intervals_are_of_scenes_not_of_questions():
    # ten scenes, all questions of a scene alike: as much is known as from ten questions
    rows = [(s, "color", "open", "", "", "", s < 5) for s in range(10) for _ in range(50)]
    columns = ["scene", "ability", "form", "question", "answer", "said", "right"]
    many = abilities.ability_table(pd.DataFrame(rows, columns=columns)).iloc[0]
    one = abilities.ability_table(pd.DataFrame(rows[::50], columns=columns)).iloc[0]
    assert many["low"] == pytest.approx(one["low"])
    assert many["questions"] == 500
    assert many["high"] - many["low"] > 50


def test_captions_of_known_annotators(scenes, monkeypatch):
    def quality(name):
        texts = {str(i): caption(s, ANNOTATORS[name], 1) for i, s in enumerate(scenes)}
        told(monkeypatch, lambda q: texts[q.id])
        found = abilities.caption_quality(abilities.captions(_Oracle, None, scenes))
        return dict(zip(found["measure"], found["percent"], strict=True))

    oracle, human, blind = quality("oracle"), quality("human"), quality("gpt4_blind")
    assert oracle["precision"] > 99
    assert oracle["recall"] > human["recall"] + 30
    assert human["precision"] > blind["precision"] + 10


def test_images_can_be_another_scenes(scenes, monkeypatch):
    shown = []
    told(monkeypatch, lambda q: shown.append(q.encoded) or "Yes")
    abilities.ask(_Oracle, None, scenes[:2], shown=scenes[2:4], abilities=("scene",))
    assert set(shown) == {abilities._png(s, 64) for s in scenes[2:4]}
