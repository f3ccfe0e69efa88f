"""Tables as readers see them."""

import pandas as pd

from sgv_lab.figures.tables import Table


def test_numbers_are_rounded_and_gaps_are_blank() -> None:
    frame = pd.DataFrame({"who": ["a", "b"], "score": [1234.56, None]})
    shown = Table(frame)._repr_html_()
    assert "1,234.6" in shown and "nan" not in shown.lower()
    assert "nan" not in repr(Table(frame)).lower() and shown == Table(frame)._repr_html_()
    assert ">0</th>" not in shown  # a running number says nothing


def test_a_named_index_is_kept_and_its_name_is_not() -> None:
    shown = Table(pd.DataFrame({"value": [1]}, pd.Index(["a row"], name="claim")))._repr_html_()
    assert "a row" in shown and "claim" not in shown
