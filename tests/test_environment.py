"""environment.yml is the one list of exact pins, and agrees with pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins() -> list[Requirement]:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    return [Requirement(line) for line in pip]


def ranges() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def test_everything_is_pinned_once_within_its_range() -> None:
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert sorted(names) == sorted(ranges())
    for pin in pins():
        (one,) = pin.specifier
        assert one.operator == "=="
        assert ranges()[canonicalize_name(pin.name)].specifier.contains(one.version), pin


def test_the_python_of_conda_is_one_the_package_allows() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = [entry for entry in listed if str(entry).startswith("python=")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = Requirement(f"python{project['requires-python']}").specifier
    assert allowed.contains(python.removeprefix("python=") + ".0")


def test_the_makefile_reads_the_same_pins() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = [line for line in makefile.splitlines() if line.startswith("PINS = ")]
    command = line.removeprefix("PINS = ").replace("$$", "$")
    said = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [Requirement(pin) for pin in said.split()] == pins()


@pytest.mark.slow
def test_the_pins_resolve_together(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("\n".join(map(str, pins())))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
    subprocess.run([*command, "-r", str(tmp_path / "pins.txt")], check=True)
