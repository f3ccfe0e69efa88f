"""The ability table, checked with models whose answers are known beforehand."""

import pandas as pd
import pytest

from sgv_lab.base import abilities
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.scene import MINIATURE, scene


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path))
    return abilities.held_out(40, 64)


def told(monkeypatch, say):
    """Let ``say`` answer in place of a model."""

    def answer(model, processor, asked, *_, **__):
        yield [(q, {"text": say(q)}) for q in asked]

    monkeypatch.setattr(abilities, "answer", answer)


def test_the_truth_scores_100_and_its_opposite_0(data, monkeypatch):
    told(monkeypatch, lambda q: str(q.row["answer"]))
    assert set(abilities.ability_table(abilities.ask(None, None, data))["accuracy"]) == {100.0}
    flipped = {"Yes": "No", "No": "Yes"}
    told(monkeypatch, lambda q: flipped.get(str(q.row["answer"]), "nothing"))
    assert set(abilities.ability_table(abilities.ask(None, None, data))["accuracy"]) == {0.0}


def test_always_yes_is_at_chance_for_every_pair(data, monkeypatch):
    told(monkeypatch, lambda q: "Yes, it is.")
    table = abilities.ability_table(abilities.ask(None, None, data, forms=("yesno",)))
    assert set(table["accuracy"]) == {50.0}


def test_intervals_are_of_scenes_not_of_questions():
    # ten scenes, all questions of a scene alike: as much is known as from ten questions
    rows = [(str(s), "color", "open", s < 5) for s in range(10) for _ in range(50)]
    columns = ["image", "ability", "form", "right"]
    many = abilities.ability_table(pd.DataFrame(rows, columns=columns)).iloc[0]
    one = abilities.ability_table(pd.DataFrame(rows[::50], columns=columns)).iloc[0]
    assert many["low"] == pytest.approx(one["low"])
    assert many["questions"] == 500
    assert many["high"] - many["low"] > 50


def test_captions_of_known_annotators(data, monkeypatch):
    def quality(name):
        def say(q):
            drawn = scene(q.row["scene"], "eval", q.row["source"], MINIATURE)
            return caption(drawn, ANNOTATORS[name], 1)

        told(monkeypatch, say)
        found = abilities.caption_quality(abilities.ask(None, None, data, forms=("caption",)))
        return dict(zip(found["measure"], found["percent"], strict=True))

    oracle, human, blind = quality("oracle"), quality("human"), quality("gpt4_blind")
    assert oracle["precision"] > 99
    assert oracle["recall"] > human["recall"] + 30
    assert human["precision"] > blind["precision"] + 10


def test_blind_every_question_shows_another_scene(data, monkeypatch):
    shown = {}
    told(monkeypatch, lambda q: shown.setdefault(q.row["image"], q.path) and "Yes")
    abilities.ask(None, None, data, blind=True)
    assert len(set(shown.values())) == len(shown) == 40
    assert all(own != other for own, other in shown.items())
