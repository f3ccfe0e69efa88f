"""The published figures: those of the tables beside them, and these the paper's."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sgv_lab.figures import paper as drawn_paper
from sgv_lab.figures import published, style

FOLDER = Path(__file__).resolve().parents[2] / "figures"


def _parts(svg: Path) -> tuple[list[str], list[float]]:
    """A drawing's words and its numbers, which another processor's sums move in the sixth digit.

    Matplotlib names a shape by the hash of its numbers, so these names are left out.
    """
    text = re.sub(r"\b[mp][0-9a-f]{10}\b", "", svg.read_text())
    number = r"-?\d+\.\d+"
    return re.split(number, text), [float(one) for one in re.findall(number, text)]


def test_the_committed_figures_are_drawn_from_the_committed_tables(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "data", tmp_path / "data")
    published.draw(tmp_path)
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert {path.name for path in FOLDER.glob("*.svg")} == {*drawn}
    for name in drawn:
        (words, places), (kept, known) = (_parts(folder / name) for folder in (tmp_path, FOLDER))
        assert words == kept, f"{name}: make figures"
        assert places == pytest.approx(known, abs=1e-3), f"{name}: make figures"
        assert (FOLDER / name).with_suffix(".png").stat().st_size > 10_000


def test_own_files_get_colours_of_their_own_whatever_was_drawn_before() -> None:
    own = [f"own {i}" for i in range(8)]
    first = style.palette(["ShareGPT4V", *own])
    assert len(set(first.values())) == 9 and first["ShareGPT4V"] == style.COLORS["ShareGPT4V"]
    assert style.palette(own[::-1])["own 7"] == first["own 0"] and set(style.COLORS).isdisjoint(own)


@pytest.mark.parametrize("name", published.REPORTED)
def test_the_tables_hold_what_the_paper_reports(name: str) -> None:
    text = {"dtype": {"row": str}, "keep_default_na": False, "na_values": {"error": [""]}}
    stored = pd.read_csv(FOLDER / "data" / f"{name}.csv", **text)
    expected = drawn_paper.numbers(*published.REPORTED[name][1:]).reset_index(drop=True)
    pd.testing.assert_frame_equal(stored, expected, check_dtype=False)


def test_the_miniatures_panels_are_its_own_and_say_where_it_was_not_run() -> None:
    style.use()
    effects = [
        ("sft", "before", "MME-P", 6, 12.5, 3.0, 22.0),
        ("pt", "before", "MME-P", 6, -1, -9, 7),
        ("sft", "before", "MMB", 6, 1, -2, 4),
    ]
    columns = ["arm", "against", "score", "seeds", "effect", "low", "high"]
    table4 = pd.DataFrame(effects, columns=columns)
    numbers = [(f"captions@{n}", "captions@0", "MME-P", 6, n / 9, n / 20, n / 5) for n in (16, 64)]
    tables = {
        name: drawn_paper.numbers(*places) for name, (_, *places) in published.REPORTED.items()
    }
    alone = drawn_paper.ablations(tables["reported_ablations"], {})
    both = drawn_paper.ablations(tables["reported_ablations"], {"table4": table4})
    assert len(alone.axes) == len(both.axes) == 12
    own = [both.axes[i] for i in (3, 7, 11)]
    assert [label.get_text() for label in own[0].get_yticklabels()] == [
        "fine-tuning − neither",
        "pre-training − neither",
    ]
    assert own[0].get_title(loc="left") == "in miniature: MME-P gained, 6 seeds"
    assert [axis.texts[0].get_text() for axis in own[1:]] == ["in miniature:\nnot run"] * 2
    for i in (0, 1, 2, 4, 5, 6, 8, 9, 10):
        mine, its = alone.axes[i], both.axes[i]
        assert [line.get_xydata().tolist() for line in mine.lines] == [
            line.get_xydata().tolist() for line in its.lines
        ]
    figure6 = {"figure6": pd.DataFrame(numbers, columns=columns)}
    left, right = drawn_paper.scaling(tables["reported_scaling"], figure6).axes
    assert len(left.lines) == 2 and right.get_xlim()[1] > 64


def test_the_plans_behind_those_panels_are_there() -> None:
    places = ("table4", "table5", "table6", "figure6")
    assert all((FOLDER / "data/plans" / f"{place}-llava-1.5-7b.yaml").is_file() for place in places)
