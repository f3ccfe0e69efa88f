"""What the recorded studies could have told, from their own records."""

import pandas as pd
import pytest

from sgv_lab import intervals
from sgv_lab.study import effects, publishing, sensitivity


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return sensitivity.studies().set_index("plan")


def test_a_study_s_row_is_what_its_records_say(found: pd.DataFrame) -> None:
    _, records, _ = publishing.load_study("study-b-llava-1.5-7b")
    runs, row = effects.by_seed(records, "Yes/no"), found.loc["study-b-llava-1.5-7b"]
    gained, again = runs["after"] - runs["before"], runs["aa"] - runs["before"]
    assert tuple(row[["effect", "low", "high"]]) == intervals.paired(gained)
    assert row["smallest"] == pytest.approx(intervals.minimum_detectable(gained, 12)[0])
    assert tuple(row[["again", "again_low", "again_high"]]) == intervals.paired(again)
    none = runs["after"] - runs["questions"]  # less than over no detailed captions
    assert row["none_effect"] == pytest.approx(none.mean()) and row["seeds"] == 12
    assert row["none_smallest"] > intervals.minimum_detectable(none, 12)[0]  # it is corrected
    assert row["false_alarms"] == intervals.planted(again, 0)


def test_where_a_plan_draws_nothing_twice_there_is_no_false_alarm(found: pd.DataFrame) -> None:
    without = found["again"].isna()
    assert without["study-tokens-llava-1.5-7b"] and not without["study-table5-llava-1.5-7b"]
    assert found.loc[without, ["again_p", "false_alarms", "found"]].isna().all(axis=None)
    assert found["smallest"].notna().all()


def test_the_studies_find_what_is_planted_and_little_else(found: pd.DataFrame) -> None:
    pairs = found.dropna(subset="again")
    assert pairs["false_alarms"].between(0.03, 0.1).all()  # six seeds have but 64 patterns
    assert pairs["found"].between(0.75, 0.85).all()
    shown = found["again_p"].dropna() < 0.05
    assert shown.sum() <= 3  # of about twenty: more would come by chance in 2 % of such sets
