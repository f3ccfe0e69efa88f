"""What `pytest --nbval` runs: notebooks at profile smoke, and assertions about their variables.

SGV_PROFILE names another profile. A cell whose output differs between profiles is tagged with the
one that its stored output comes from, and compared there alone. The assertions stand in
``tests/notebooks/checks/NN_name.py`` and are run by the kernel that ran the notebook, behind its
last cell; each is a test of its own, named by its words.
"""

import ast
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from sgv_lab.profiles import PROFILES

CHECKS = Path(__file__).parent / "tests" / "notebooks" / "checks"


def pytest_configure(config: pytest.Config) -> None:
    """Run notebooks at profile smoke, unless another is named, without bars, with ids masked."""
    if config.getoption("nbval", False):
        os.environ.setdefault("SGV_PROFILE", "smoke")
        os.environ["TQDM_DISABLE"] = "1"  # as stored outputs are made
        config.option.nbval_sanitize_with = str(CHECKS.parent / "sanitize.cfg")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each notebook's checks behind its last cell, where all of it is run."""
    if not config.getoption("nbval", False):
        return
    books = dict.fromkeys(item.parent for item in items if item.path.suffix == ".ipynb")
    for book in books:
        cells = [item for item in items if item.parent is book]
        for item in cells:
            made = set(PROFILES) & set(item.cell.metadata.get("tags", ()))
            if made - {os.environ["SGV_PROFILE"]}:
                item.options["check"] = False
        if len(cells) == sum(cell.cell_type == "code" for cell in book.nb.cells):
            place = items.index(cells[-1]) + 1
            items[place:place] = _checks(book, type(cells[-1]), len(cells))


def _checks(book: pytest.File, kind: type[pytest.Item], number: int) -> Iterator[pytest.Item]:
    """An item for each assertion, with the statements before it that are none; counted on."""
    text = (CHECKS / f"{book.path.stem}.py").read_text(encoding="utf-8")
    waiting = []
    for node in ast.parse(text).body:
        waiting.append(ast.get_source_segment(text, node))
        if any(isinstance(inner, ast.Assert) for inner in ast.walk(node)):
            name = " ".join(waiting[-1].split())
            cell = nbformat.v4.new_code_cell("\n".join(waiting))
            how = {"cell_num": number, "cell": cell, "options": defaultdict(bool)}
            yield kind.from_parent(book, name=name, **how)
            number, waiting = number + 1, []
