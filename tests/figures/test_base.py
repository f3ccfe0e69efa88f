import pandas as pd
import pytest
from PIL import Image

from sgv_lab.base.abilities import BLIND, CEILING
from sgv_lab.figures import base, style
from sgv_lab.files import write_jsonl


@pytest.fixture
def made(tmp_path):
    """Two checkpoints' folders, their learning curves in them."""
    folders = {}
    for name, losses in {"describe": [3.0, 2.0], "look": [4.0, 1.0, 0.5]}.items():
        folders[name] = tmp_path / name
        folders[name].mkdir()
        rows = [{"step": n, "loss": one} for n, one in enumerate(losses, 1)]
        write_jsonl(folders[name] / "metrics.jsonl", rows)
    return folders


def lines(axis):
    return [
        (list(one.get_xdata()), list(one.get_ydata())) for one in axis.lines if len(one.get_xdata())
    ]


def test_curves_lie_over_each_other_or_one_after_the_other(made):
    (axis,) = base.learning_curves(made, "loss").axes
    assert lines(axis) == [([1, 2], [3.0, 2.0]), ([1, 2, 3], [4.0, 1.0, 0.5])]
    assert [one.get_text() for one in axis.get_legend().texts] == ["describe", "look"]
    (axis,) = base.learning_curves(made, "loss", one_after_other=True).axes
    assert lines(axis) == [([1, 2], [3.0, 2.0]), ([3, 4, 5], [4.0, 1.0, 0.5])]


def test_a_single_curve_needs_no_legend(made):
    (axis,) = base.learning_curves({"look": made["look"]}, "loss").axes
    assert not axis.get_legend().get_visible()


def test_a_gate_shows_its_rows_and_its_bounds():
    row = {
        f"{name}{end}": 60.0
        for name in ("ceiling", "untuned", "blind")
        for end in ("", "_low", "_high")
    }
    table = pd.DataFrame(
        [{"ability": "color", **row, "ceiling": 90.0}, {"ability": "count", **row}]
    )
    style.use()
    left, right = base.gate_rows({"taught here": table, "as shipped": table}).axes
    assert (left.get_title("left"), right.get_title("left")) == ("taught here", "as shipped")
    assert [one.get_text() for one in left.get_yticklabels()] == ["color", "count"]
    dots = [list(one.get_xdata()) for one in left.lines]
    assert dots[0] == [90.0, 60.0]
    assert [one[0] for one in dots[3:]] == [CEILING, BLIND]


def test_each_patch_has_its_words_in_its_place():
    words = ["a, b", "c", "d", "e"]
    _, right = base.words_beside(Image.new("RGB", (8, 8)), words).axes
    found = {one.get_position(): one.get_text() for one in right.texts}
    assert found == {(0.5, 0.5): "a\nb", (1.5, 0.5): "c", (0.5, 1.5): "d", (1.5, 1.5): "e"}
