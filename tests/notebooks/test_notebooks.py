"""What every notebook keeps to, so that nbval checks something and a reader sees something."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from sgv_lab import notebook, profiles

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IGNORED = "nbval-ignore-output"
COMPARED = {"text/plain", "text/html", "image/svg+xml"}
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def compared(cell: Any) -> bool:
    """Whether nbval compares an output of this cell."""
    kinds = {
        kind for out in cell.outputs for kind in out.get("data", {"text/plain": out.get("text")})
    }
    return IGNORED not in tags(cell) and bool(kinds & COMPARED)


def test_there_is_one_for_each_number_and_each_is_on_the_map() -> None:
    assert NOTEBOOKS
    assert {path.stem for path in NOTEBOOKS} <= set(notebook.CONTENTS)
    assert {path.stem for path in NOTEBOOKS} <= set(profiles.SECTIONS)


@every
def test_was_run_from_top_to_bottom_without_noise(path: Path) -> None:
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for out in (out for cell in cells for out in cell.outputs):
        assert out.output_type != "error"
        assert out.get("name") != "stderr", out.text
    assert any(map(compared, cells))


@every
def test_every_picture_is_described_for_those_who_do_not_see_it(path: Path) -> None:
    for cell in code(path):
        if any("image/png" in out.get("data", {}) for out in cell.outputs):
            assert len(cell.metadata.get("alt", "")) > 20, cell.source  # the report's alt text


@every
def test_holds_no_path_of_the_machine_it_ran_on(path: Path) -> None:
    outputs = [
        dict(out.get("data", {}), text=out.get("text")) for c in code(path) for out in c.outputs
    ]
    texts = [{kind: text for kind, text in out.items() if "image/" not in kind} for out in outputs]
    assert not re.findall(
        r"(?<![\w.<])/(?:home|Users|root|work|tmp|usr|opt|mnt)/", json.dumps(texts)
    )
    assert "ipykernel_" not in json.dumps(texts)


@every
def test_begins_with_typed_documented_parameters(path: Path) -> None:
    cells = code(path)
    assert tags(cells[0]) == ["parameters"]
    assert sum("parameters" in tags(cell) for cell in cells) == 1
    declared = notebook.parameters(path)
    assert next(iter(declared)) == "profile" and declared["profile"].default == "smoke"
    assert f'notebook.begin("{path.stem}", globals())' in cells[1].source
    command = [sys.executable, "-m", "papermill", "--help-notebook", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name, parameter in declared.items():
        line = rf"  {name}: {re.escape(parameter.annotation)} \(default .*\)\s+\w.*"
        assert re.search(line, said), (
            f"papermill's help shows no type or comment for {name}; it cannot read `X | None` nor "
            f"a default over several lines: write `{name}: X = 0  # 0: as the profile says`\n{said}"
        )


@every
def test_calls_and_shows_and_defines_nothing(path: Path) -> None:
    for cell in code(path):
        source = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M)
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), cell.source


@every
def test_what_is_not_compared_is_asserted_in_the_next_cell(path: Path) -> None:
    cells = code(path)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if IGNORED in tags(cell):
            assert following is not None and "assert" in following.source, cell.source


def test_one_changed_number_makes_nbval_fail(tmp_path: Path) -> None:
    book = nbformat.read(FOLDER / "00_start_here.ipynb", as_version=4)
    copy = tmp_path / "00_start_here.ipynb"
    (cell,) = [cell for cell in book.cells if cell.source == "paper.wide(paper.table6())"]
    data = cell.outputs[0].data
    assert "1567.4" in data["text/plain"]
    data["text/plain"] = data["text/plain"].replace("1567.4", "1567.5")
    nbformat.write(book, copy)
    options = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(copy)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
    assert re.search(r"\d\d passed", done.stdout), done.stdout


def test_papermill_alone_runs_one_from_any_folder_and_a_typo_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", str(FOLDER / "00_start_here.ipynb"), "out.ipynb"]
    good = subprocess.run([*command, "-p", "profile", "mini"], cwd=tmp_path, capture_output=True)
    assert good.returncode == 0, good.stderr.decode()
    bad = subprocess.run(
        [*command, "-p", "profle", "mini"], cwd=tmp_path, capture_output=True, text=True
    )
    assert bad.returncode != 0
    assert "Did you mean 'profile'?" in bad.stderr
