"""The exam of the drawn world: what its score makes of answers that are known beforehand."""

import random
from pathlib import Path
from typing import Any

import pytest
from written import lines

from sgv_lab.benchmarks import core, exam
from sgv_lab.errors import LabError
from sgv_lab.study import scores
from sgv_lab.world import benchmarks as world
from sgv_lab.world.questions import ABILITIES
from sgv_lab.world.scene import MINIATURE

SCENES = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    (folder,) = world.write(
        tmp_path_factory.mktemp("world"), ["exam"], images=SCENES, difficulty=MINIATURE
    )
    return folder


def rows(data: Path) -> list[dict[str, Any]]:
    return [entry.row for entry in core.entries(data / "questions.jsonl")]


def scored(data: Path, out: Path, say) -> dict[str, Any]:
    """The score where ``say`` makes of a question's row what is kept of its answer."""
    said = [{"question_id": q["id"], "prompt": q["prompt"], **say(q)} for q in rows(data)]
    return exam.score(lines(out / "answers.jsonl", said), data)


def test_every_scene_is_asked_all_it_allows_and_a_quarter_to_be_described(data: Path) -> None:
    asked = rows(data)
    assert {row["ability"] for row in asked} == {*ABILITIES, "caption"}
    assert len({row["image"] for row in asked}) == SCENES == len(list(data.rglob("*.png")))
    assert sum(row["form"] == "caption" for row in asked) == SCENES / 4
    for image in {row["image"] for row in asked}:
        forms = [(r["ability"], r["form"]) for r in asked if r["image"] == image]
        assert forms.count(("existence", "yesno")) == 2 and forms.count(("scene", "open")) == 1


def test_a_bias_costs_accuracy_but_no_ranking(data: Path, tmp_path: Path) -> None:
    def leaning(by: float):
        def say(q):
            margin = (1.0 if q["answer"] == "Yes" else -1.0) + by
            return {"text": "Yes" if margin > 0 else "No", "margin": margin}

        return say

    right, yes, no = (scored(data, tmp_path, leaning(by)) for by in (0, 5, -5))
    assert right["yesno"] == right["pairs"] == right["ranking"] == 100 and right["yes_bias"] == 0
    assert (yes["yesno"], yes["pairs"], yes["ranking"], yes["yes_bias"]) == (50, 0, 100, 50)
    assert (no["yesno"], no["pairs"], no["ranking"], no["yes_bias"]) == (50, 0, 100, -50)
    assert yes["unparsed"] == 0 and yes["missing"] == 0
    flat = scored(data, tmp_path, lambda q: {"text": "maybe", "margin": 0.0})
    assert flat["ranking"] == 50 and flat["yesno"] == 0 and flat["unparsed"] > 100


def test_headlines_are_means_over_the_primary_abilities(data: Path, tmp_path: Path) -> None:
    knows = ("color", "light")  # one of those that count, and one that does not
    found = scored(
        data, tmp_path, lambda q: {"text": q["answer"] if q["ability"] in knows else "x"}
    )
    share = 100 / len(exam.PRIMARY)
    assert found["open"] == found["choice"] == found["pairs"] == pytest.approx(share)
    assert found["abilities"]["open"]["light"] == found["abilities"]["yesno"]["color"] == 100
    low, high = found["interval"]["open"]
    assert low == high == pytest.approx(share)  # within an ability nothing varies


def test_captions_are_read_for_facts(data: Path, tmp_path: Path) -> None:
    truth = {q["id"]: q["answer"] for q in rows(data) if q["form"] == "caption"}

    def say(q):
        if q["form"] != "caption":
            return {"text": ""}
        kinds = [fact[len("existence(") : -1] for fact in q["answer"] if fact[:9] == "existence"]
        return {"text": f"There is a {kinds[0]}. There is a unicorn of no kind."}

    found = scored(data, tmp_path, say)
    facts = sum(map(len, truth.values()))
    assert 100 * len(truth) / facts <= found["recall"] < 100 * 4 * len(truth) / facts
    silent = scored(data, tmp_path, lambda q: {"text": ""})
    assert silent["recall"] == silent["precision"] == 0


def test_an_interval_is_of_images(data: Path, tmp_path: Path) -> None:
    """All answers about an image right or wrong together: as wide as that many coins."""
    rng = random.Random(0)
    lucky = {image: rng.random() < 0.5 for image in {q["image"] for q in rows(data)}}
    together = scored(
        data, tmp_path, lambda q: {"text": str(q["answer"]) if lucky[q["image"]] else ""}
    )
    apart = scored(
        data, tmp_path, lambda q: {"text": str(q["answer"]) if rng.random() < 0.5 else ""}
    )
    width = {name: (i := s["interval"]["yesno"])[1] - i[0]
             for name, s in (("together", together), ("apart", apart))}  # fmt: skip
    assert width["together"] > 2 * width["apart"] and together["clusters"]["n"] == SCENES


def test_points_by_image_add_up_to_the_score(data: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    found = scored(data, tmp_path, lambda q: {"text": rng.choice([q["answer"], "no"])}
                   if q["form"] != "caption" else {"text": ""})  # fmt: skip
    (tmp_path / "questions.jsonl").write_bytes((data / "questions.jsonl").read_bytes())
    table = scores.points("exam", tmp_path)
    kept = scores.metrics("exam", found, tmp_path)
    for name in ("Yes/no", "Open"):
        part = table[table["score"] == name]
        assert part.groupby("stratum")["points"].mean().sum() == pytest.approx(kept[name], abs=1e-3)
        assert set(part["stratum"]) == set(exam.PRIMARY)
        assert not part.duplicated(["stratum", "image"]).any()
    assert kept["Yes/no color"] == pytest.approx(found["abilities"]["yesno"]["color"], abs=1e-3)
    assert "Ranking" not in kept and scores.EXAM_BIAS in kept


def test_answers_of_other_questions_are_refused(data: Path, tmp_path: Path) -> None:
    first = rows(data)[0]
    answer = {"question_id": first["id"], "prompt": first["prompt"], "text": "Yes"}
    alone = exam.score(lines(tmp_path / "a.jsonl", [answer]), data)
    assert alone["missing"] == len(rows(data)) - 1
    for change, words in (
        ({"question_id": "x"}, "'x' is not in"),
        ({"prompt": "?"}, "answers '?'"),
    ):
        path = lines(tmp_path / "b.jsonl", [answer | change])
        with pytest.raises(LabError, match=words):
            exam.score(path, data)
