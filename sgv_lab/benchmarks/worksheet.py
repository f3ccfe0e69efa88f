"""Worksheets (.xlsx) of answers: read as they were typed, written as text.

An answer "=x+1" is no formula and "#N/A" no error, whatever a spreadsheet program makes of them.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sgv_lab.errors import LabError

log = logging.getLogger(__name__)


def read(path: Path) -> list[list[str]]:
    """The cells of the first sheet, formulas as their text (not as their last value)."""
    import openpyxl

    try:
        with path.open("rb") as file:
            sheet = openpyxl.load_workbook(file, read_only=True).worksheets[0]
            sheet.reset_dimensions()  # some writers leave them wrong
            return [[_typed(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # zipfile's, XML's and openpyxl's own
        raise LabError(f"is not a table ({error})", where=path) from error


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).upper()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def write(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write ``rows``, without control characters, which no worksheet can hold."""
    try:
        import openpyxl
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ModuleNotFoundError:  # it can be written later, from the same answers
        log.warning("no %s to submit: run `pip install openpyxl`, then the same again", path.name)
        return

    book = openpyxl.Workbook()
    for number, row in enumerate(rows, 1):
        for column, value in enumerate(row, 1):
            cell = book.active.cell(number, column)
            if isinstance(value, str):
                cell.value, cell.data_type = ILLEGAL_CHARACTERS_RE.sub("", value), "s"
            else:
                cell.value = value
    book.save(path)
