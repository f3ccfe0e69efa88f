"""Provenance names code and machine, and nothing private."""

import getpass
import json
import shutil
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from sgv_lab import provenance as module
from sgv_lab.provenance import provenance
from sgv_lab.study import cached_training


def test_names_code_and_versions_and_nothing_private() -> None:
    found = provenance()
    assert found["packages"]["torch"] == version("torch")
    assert {"papermill", "polars", "sgv-lab"} <= set(found["packages"])
    assert "nbval" not in found["packages"]
    text = json.dumps(found)
    assert str(Path.home()) not in text and str(Path.cwd()) not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_versions_of_packages_that_are_not_there_are_none(monkeypatch) -> None:
    """As in a working tree on the path, on a machine that has torch and little else."""

    def here(name: str) -> str:
        if name != "torch":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(module, "version", here)
    monkeypatch.setattr(module, "requires", here)
    found = provenance()["packages"]
    assert found.pop("sgv-lab") and found.pop("torch") == version("torch")
    assert {"polars", "openai", "jupyterlab"} <= set(found) and set(found.values()) == {None}
    assert cached_training.computer("cpu")["versions"]["peft"] is None


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *who, *command], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_tells_a_clean_tree_from_a_dirty_one_and_from_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    nothing = {"revision": "unknown", "clean": "unknown"}
    assert module._git(package) == nothing
    monkeypatch.setenv("SGV_REVISION", "1234abcd")  # a tree that was copied without its .git
    assert module._git(package) == nothing | {"revision": "1234abcd"}
    monkeypatch.delenv("SGV_REVISION")
    git(tmp_path, "init", "-q")
    assert module._git(package) == nothing  # a tree around us that does not track us
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    assert module._git(package) == {"revision": git(tmp_path, "rev-parse", "HEAD"), "clean": True}
    (tmp_path / "new.py").touch()
    assert module._git(package)["clean"] is False
