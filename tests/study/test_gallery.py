"""The published figures: those of the tables beside them, and these the paper's."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from sgv_lab.study import gallery, reported

FOLDER = Path(__file__).resolve().parents[2] / "figures"


def test_the_committed_figures_are_drawn_from_the_committed_tables(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "data", tmp_path / "data")
    gallery.draw(tmp_path)
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert len(drawn) >= 9
    for name in drawn:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), (
            f"{name}: make figures"
        )
        assert (FOLDER / name).with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize("name", reported.FIGURES)
def test_the_tables_hold_what_the_paper_reports(name: str) -> None:
    stored = gallery.table(FOLDER / "data" / f"{name}.csv")
    expected = reported.tables()[name].reset_index(drop=True)
    pd.testing.assert_frame_equal(stored, expected, check_dtype=False)
