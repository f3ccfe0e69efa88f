"""A table as a reader wants it: words to the left, numbers to the right, blanks for gaps."""

import hashlib
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Table:
    """A DataFrame's display: numbers with ``digits`` decimals, nothing where nothing is known."""

    frame: pd.DataFrame
    digits: int = 1

    def _repr_html_(self) -> str:
        frame = self.frame.rename_axis(index=None, columns=None)
        if not frame.index.is_unique or not frame.columns.is_unique:
            frame = frame.reset_index(names="")
        words = [not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
        numbers = frame.columns[[not one for one in words]]
        name = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:8]  # the same in every run
        styled = frame.style.format(precision=self.digits, thousands=",", na_rep="")
        styled = styled.set_uuid(name).set_properties(**{"text-align": "left"})
        styled = styled.set_properties(subset=numbers, **{"text-align": "right"})
        styled = styled.set_table_styles([{"selector": "th", "props": "text-align: left"}])
        if isinstance(frame.index, pd.RangeIndex):
            styled = styled.hide(axis="index")
        return styled.to_html()

    def __repr__(self) -> str:
        return self.frame.round(self.digits).to_string(na_rep="")
