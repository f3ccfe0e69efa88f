"""A store of its own for each test, no bars."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
