"""Pairwise judging: what is kept of a vote, and what votes are said to mean."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sgv_lab import intervals
from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.study import judging
from sgv_lab.study.judging import Pair, Votes
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.scene import MINIATURE, scene

SCENES = [scene(i, "eval", None, MINIATURE) for i in range(40)]


def asked(first: str = "gpt4_vision", second: str = "blip") -> list[Pair]:
    texts = {
        name: {one.image_name: caption(one, ANNOTATORS[name], draw) for one in SCENES}
        for draw, name in enumerate((first, second))
    }
    return judging.pairs(texts, len(SCENES))


def scenes_of(some: list[Pair]) -> list:
    by_name = {one.image_name: one for one in SCENES}
    return [by_name[pair.image] for pair in some]


def drawn(
    images: int, raters: int, image_share: float, rater_share: float, shift: float, seed: int
) -> pd.DataFrame:
    """Values with crossed effects of images and raters, mean ``shift`` and variance 1."""
    rng = np.random.default_rng(seed)
    value = (
        shift
        + np.sqrt(image_share) * rng.normal(size=(images, 1))
        + np.sqrt(rater_share) * rng.normal(size=(1, raters))
        + np.sqrt(1 - image_share - rater_share) * rng.normal(size=(images, raters))
    )
    rows, columns = np.indices((images, raters))
    return pd.DataFrame({"v": value.ravel(), "image": rows.ravel(), "rater": columns.ravel()})


def test_pairs_are_of_common_images_and_in_an_order_of_the_raters_own() -> None:
    some = asked()
    assert {pair.image for pair in some} == {one.image_name for one in SCENES}
    lefts = [pair.shown("ann")[0][0] for pair in some]
    assert lefts == [pair.shown("ann")[0][0] for pair in some]
    assert 8 < lefts.count("blip") < 32
    assert lefts != [pair.shown("bob")[0][0] for pair in some]
    with pytest.raises(LabError, match="no image in common"):
        judging.pairs({"a": {"x": "1"}, "b": {"y": "2"}}, 5)


def test_votes_resume_where_a_rater_stopped_and_survive_a_line_cut_short(tmp_path: Path) -> None:
    some, path = asked()[:5], tmp_path / "votes.jsonl"
    votes = Votes(path)
    votes.add(some[0], "ann", "left")
    votes.add(some[1], "ann", "same")
    path.write_bytes(path.read_bytes()[:-9])  # a kill in the middle of a line
    votes = Votes(path)
    assert {pair.key for pair in votes.left(some, "ann")} == {pair.key for pair in some[1:]}
    assert len(votes.left(some, "bob")) == 5
    votes.add(some[1], "ann", "right")
    table = votes.table()
    assert table["choice"].tolist() == ["left", "right"]
    assert table["preferred"].tolist() == [some[0].shown("ann")[0][0], some[1].shown("ann")[1][0]]
    other_words = Pair(some[0].image, (("gpt4_vision", "A star."), some[0].captions[1]))
    assert votes.left([other_words], "ann") == [other_words]
    with pytest.raises(LabError, match="no choice 'best'"):
        votes.add(some[2], "ann", "best")
    path.write_text(path.read_text() + '{"pair": 1}\n')
    with pytest.raises(LabError, match=r"votes\.jsonl, line 3: is no vote"):
        votes.table()


def _vote_often(path: Path, rater: str) -> None:
    for pair in asked()[:20]:
        Votes(path).add(pair, rater, "same")


def test_raters_can_vote_into_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    context = multiprocessing.get_context("fork")
    raters = [context.Process(target=_vote_often, args=(path, name)) for name in "abc"]
    for one in raters:
        one.start()
    for one in raters:
        one.join()
    assert len(path.read_text().splitlines()) == len(Votes(path).table()) == 60


@pytest.mark.parametrize(("image_share", "rater_share"), [(0, 0), (0.3, 0), (0.1, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    image_share: float, rater_share: float
) -> None:
    runs = [drawn(60, 8, image_share, rater_share, 0.2, seed) for seed in range(400)]
    found = [intervals.two_way(run["v"], run["image"], run["rater"]) for run in runs]
    held = np.mean([low <= 0.2 <= high for _, low, high in found])
    assert 0.93 <= held <= 0.995


def test_an_interval_needs_no_complete_design_and_one_rater_is_over_images() -> None:
    run = drawn(50, 6, 0.2, 0.05, 0.0, 1).sample(frac=0.6, random_state=0)
    mean, low, high = intervals.two_way(run["v"], run["image"], run["rater"])
    assert low < mean < high
    alone = drawn(50, 1, 0.5, 0, 0.0, 2)
    mean, low, high = intervals.two_way(alone["v"], alone["image"], alone["rater"])
    assert np.isclose((high - low) / 2, 2.0096 * alone["v"].std() / np.sqrt(50), rtol=1e-4)


def test_what_is_called_detectable_is_found_in_four_of_five_studies() -> None:
    found = judging.resolution(80, 10, 0.15, 0.03)
    shift = found["detectable"] / (100 * np.sqrt(0.735))
    runs = [drawn(80, 10, 0.15, 0.03, shift, seed) for seed in range(500)]
    lows = [intervals.two_way(run["v"], run["image"], run["rater"])[1] for run in runs]
    assert 0.74 <= np.mean(np.array(lows) > 0) <= 0.87
    independent = judging.resolution(100, 10, 0, 0)
    assert independent["detectable"] < found["detectable"]
    # 1,000 independent votes, 73.5 % decided: an error of 2.71 points, of ten raters
    error = intervals.detectable(10) * 2.7111 * np.sqrt(10)
    assert np.isclose(independent["detectable"], error, rtol=1e-3)


def test_shares_count_as_table_2_does() -> None:
    some = asked()[:4]
    votes = pd.DataFrame(
        {
            "pair": [pair.key for pair in some for _ in range(2)],
            "image": [pair.image for pair in some for _ in range(2)],
            "rater": ["ann", "bob"] * 4,
            "left": ["x", "y"] * 4,
            "right": ["y", "x"] * 4,
            "choice": ["left", "right", "left", "same", "right", "right", "same", "left"],
            "preferred": ["x", "x", "x", "Comparable", "y", "x", "Comparable", "y"],
        }
    )
    table = judging.shares(votes).set_index("preferred")
    assert table["percent"].round(2).to_dict() == {
        "x": 50.0, "y": 25.0, "Comparable": 25.0, "x − y": 25.0, "left, of decided": 50.0,
    }  # fmt: skip
    assert table.loc["left, of decided", "votes"] == 6
    assert judging.agreement(votes) == {"same vote": 0.25}
    assert np.isnan(judging.agreement(votes[::2])["same vote"])  # one rater
    with pytest.raises(LabError, match="0 sources among 0 votes"):
        judging.shares(votes[:0])


def test_the_judge_that_knows_the_truth_prefers_who_tells_more_of_it(tmp_path: Path) -> None:
    some, votes = asked(), Votes(tmp_path / "votes.jsonl")
    votes.add_all(judging.truthful(some, scenes_of(some), 4))
    table = judging.shares(votes.table()).set_index("preferred")
    assert len(votes.table()) == 160
    assert table.loc["gpt4_vision", "low"] > 50  # sources stand in alphabetical order
    assert table.loc["blip − gpt4_vision", "high"] < 0
    assert judging.agreement(votes.table())["same vote"] > 0.5
    assert all(
        json.loads(line)["rater"].startswith("knows the truth") for line in votes.path.open()
    )


def test_the_judge_sees_no_difference_between_two_draws_of_one_annotator(tmp_path: Path) -> None:
    texts = {
        name: {one.image_name: caption(one, ANNOTATORS["gpt4_vision"], draw) for one in SCENES}
        for draw, name in enumerate(("first", "second"))
    }
    some, votes = judging.pairs(texts, len(SCENES)), Votes(tmp_path / "votes.jsonl")
    votes.add_all(judging.truthful(some, scenes_of(some), 4))
    table = judging.shares(votes.table()).set_index("preferred")
    assert table.loc["first − second", "low"] < 0 < table.loc["first − second", "high"]


def test_objects_that_are_not_in_the_image_are_counted_by_source(tmp_path):
    classes = [{"id": 1, "name": "dog"}, {"id": 2, "name": "car"}]
    seen = [(7, 1), (7, 2), (8, 1)]  # image, class
    boxes = [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(seen)]
    write_json(tmp_path / "instances_x.json", {"annotations": boxes, "categories": classes})
    (tmp_path / "synonyms.txt").write_text("dog, puppy\ncar\n")
    said = {
        "a": {
            "x/000007.jpg": "A puppy beside a car.",
            "x/000008.jpg": "A dog.",
            "x/9.jpg": "Cars.",
        },
        "b": {"x/000008.jpg": "A dog in a car.", "x/000007.jpg": "A car."},
    }
    table = judging.objects_named(said, tmp_path)
    assert table.loc["a"].to_list() == [0, 0, 100, 2]
    assert table.loc["b"].round(1).to_list() == [33.3, 50, 66.7, 2]
    with pytest.raises(LabError, match="9"):  # no boxes of it are known
        judging.objects_named({"a": said["a"]}, tmp_path)
