"""Rules compared on the same answers, and the figures of notebook 06."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from sgv_lab.benchmarks import rule_comparison
from sgv_lab.errors import LabError
from sgv_lab.figures.benchmarks import rules as draw_rules
from sgv_lab.figures.paper import radar
from sgv_lab.world import benchmarks as world


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> pd.DataFrame:
    """An answerer that knows everything: what is missing is reading."""
    folder = tmp_path_factory.mktemp("scripted")
    world.write(folder / "data", rule_comparison.COMPARED, images=6)
    files = rule_comparison.scripted_submissions(
        rule_comparison.COMPARED, folder / "data", folder / "out", knows=1.0
    )
    return rule_comparison.compare(files)


def value(table: pd.DataFrame, benchmark: str, label: str, rule: str = "official") -> float:
    row = table.query("benchmark == @benchmark and label == @label and rule == @rule")
    return float(row["value"].item())


def test_bare_answers_get_full_marks_under_every_official_rule(scripted: pd.DataFrame) -> None:
    bare = scripted.query("label == 'bare' and rule == 'official'").set_index("benchmark")["value"]
    assert set(bare.index) == set(rule_comparison.COMPARED)
    assert bare.drop("vqav2").eq(100).all() and bare["vqav2"] > 80


@pytest.mark.parametrize(
    ("benchmark", "label", "rule", "full"),
    [
        ("mme", "sentence", "official", False),
        ("mme", "sentence", "any_word", True),
        ("mmbench", "period", "official", True),
        ("mmbench", "period", "exact_letter", False),
        ("seed", "period", "official", False),
        ("seed", "period", "first_character", True),
        ("pope", "sentence", "official", True),
        ("pope", "period", "exact_word", False),
        ("scienceqa", "sentence", "official", True),
        ("scienceqa", "sentence", "lenient_letter", False),
        ("qbench", "sentence", "letter_anywhere", True),
    ],
)
def test_knowledge_is_lost_in_reading(
    scripted: pd.DataFrame, benchmark: str, label: str, rule: str, full: bool
) -> None:
    assert (value(scripted, benchmark, label, rule) == 100) == full


def test_what_is_known_does_not_depend_on_the_style(tmp_path: Path) -> None:
    world.write(tmp_path / "data", ["pope"], images=20)
    files = rule_comparison.scripted_submissions(
        ["pope"], tmp_path / "data", tmp_path / "out", knows=0.6
    )
    table = rule_comparison.compare(files).query("rule == 'official'")
    assert table["value"].nunique() == 1 and 20 < table["value"].iloc[0] < 90


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    assert rule_comparison.own_file("", "", "", "") == {}
    ((name, label), arguments) = next(
        iter(rule_comparison.own_file("SEED-Bench", "p", "a", "").items())
    )
    assert (name, label) == ("seed", "your file")
    assert arguments == {"predictions": Path("p"), "annotations": Path("a"), "questions": None}
    with pytest.raises(LabError, match="unknown benchmark"):
        rule_comparison.own_file("", "p", "", "")


def test_figures_show_every_rule_and_leave_gaps(scripted: pd.DataFrame) -> None:
    (shown,) = draw_rules(scripted).axes
    rules = [text.get_text() for text in shown.get_yticklabels()]
    assert set(rules) == set(scripted["rule"].str.replace("_", " "))
    assert rules.count("official") == len(rule_comparison.COMPARED)
    cells = [text.get_text() for text in shown.texts]
    assert len(cells) == len(scripted) + len(rule_comparison.COMPARED)  # and their names
    table = pd.DataFrame({"A": [2.0, 1.0], "B": [3.0, None], "C": [4.0, 2.0]}, index=["x", "y"])
    (axis,) = radar(table).axes
    full, gap = axis.get_lines()
    assert full.get_ydata().tolist() == [1, 1, 1, 1]
    assert gap.get_ydata()[0] == pytest.approx(0.2 / 1.2) and pd.isna(gap.get_ydata()[1])
    plt.close("all")
