"""What every notebook keeps to, so that nbval checks something and a reader sees something."""

import ast
import builtins
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from papermill.cli import papermill

from sgv_lab import notebook, profiles

ROOT = Path(__file__).resolve().parents[2]
FOLDER, CHECKS = ROOT / "notebooks", Path(__file__).parent / "checks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IGNORED = "nbval-ignore-output"
BY_PROFILE = "mini"  # compared at the profile of the stored outputs alone: see conftest.py
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
def test_every_image_is_described_for_those_who_do_not_see_it(path: Path) -> None:
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
    assert next(iter(declared)) == "profile" and 'profile: str = "mini"' in cells[0].source
    assert f'notebook.load_settings("{path.stem}", globals())' in cells[1].source
    said = CliRunner().invoke(papermill, ["--help-notebook", str(path)]).output
    for name, kind in declared.items():
        line = rf"  {name}: {re.escape(kind)} \(default .*\)\s+\w.*"
        assert re.search(line, said), (
            f"papermill's help shows no type or comment for {name}; it cannot read `X | None` nor "
            f"a default over several lines: write `{name}: X = 0  # 0: as the profile says`\n{said}"
        )


@every
def test_calls_and_shows_and_defines_nothing(path: Path) -> None:
    for cell in code(path):
        source = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M)
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assert), cell.source


def names(source: str) -> set[str]:
    """The names that a source mentions, without Python's own."""
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name)} - set(dir(builtins))


@every
def test_what_is_printed_and_not_compared_is_checked(path: Path) -> None:
    """By `conftest.py`, in the kernel, behind the last cell."""
    checked = names((CHECKS / f"{path.stem}.py").read_text())
    for cell in code(path):
        kinds = {kind for out in cell.outputs for kind in out.get("data", {"text/plain": ""})}
        shown = any(kind.startswith("image/") for kind in kinds)
        if {IGNORED, BY_PROFILE} & {*tags(cell)} and not shown:
            assert names(cell.source) & checked, cell.source


def _checked(root: Path) -> Path:
    """The folder of checks below ``root``, empty, with what compares and runs them around it."""
    checks = root / "tests" / "notebooks" / "checks"
    checks.mkdir(parents=True)
    shutil.copy(ROOT / "conftest.py", root)
    shutil.copy(CHECKS.parent / "sanitize.cfg", checks.parent)
    return checks


def test_a_check_that_fails_is_named_and_the_notebooks_own_variables_are_seen(
    tmp_path: Path,
) -> None:
    checks = _checked(tmp_path)
    (tmp_path / "notebooks").mkdir()
    cells = [nbformat.v4.new_code_cell(source) for source in ("one = 1", "two = one + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "00_a.ipynb")
    check = "more = two + 1\nassert more == 3\nfor each in (one, two):\n    assert each < 2\n"
    (checks / "00_a.py").write_text(check)
    options = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, "notebooks"],
        *(), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert "for each in (one, two): assert each < 2" in done.stdout


@pytest.mark.parametrize(("profile", "said"), [("smoke", "4 passed"), ("mini", "1 failed, 3 p")])
def test_an_output_of_one_profile_is_compared_at_that_profile_alone_and_no_table_s_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, said: str
) -> None:
    monkeypatch.setenv("SGV_PROFILE", profile)
    checks = _checked(tmp_path)
    (checks / "00_a.py").write_text("assert two == 2\n")
    stored = nbformat.v4.new_output("execute_result", {"text/plain": "3"}, execution_count=1)
    cells = [
        nbformat.v4.new_code_cell(one) for one in ("two = 1 + 1", "two", "print('T_0123abcd')")
    ]
    cells[1].update(outputs=[stored], execution_count=1)
    printed = nbformat.v4.new_output("stream", name="stdout", text="T_abcd0123\n")
    cells[2].update(outputs=[printed], execution_count=2)
    cells[1].metadata["tags"] = [BY_PROFILE]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00_a.ipynb")
    options = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, "00_a.ipynb"],
        *(), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert said in done.stdout, done.stdout


def test_one_changed_number_makes_nbval_fail(tmp_path: Path) -> None:
    book = nbformat.read(FOLDER / "00_start_here.ipynb", as_version=4)
    copy = tmp_path / "00_start_here.ipynb"
    (cell,) = [cell for cell in book.cells if "facts(place)" in cell.source]
    data = cell.outputs[0].data
    parameters, begin, *_ = (one for one in book.cells if one.cell_type == "code")
    book.cells = [parameters, begin, cell]
    assert "1567.4" in data["text/plain"]
    data["text/plain"] = data["text/plain"].replace("1567.4", "1567.5")
    nbformat.write(book, copy)
    options = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(copy)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
    assert "2 passed" in done.stdout, done.stdout


def test_papermill_alone_runs_one_from_any_folder_and_a_typo_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", str(FOLDER / "00_start_here.ipynb"), "out.ipynb"]
    good = subprocess.run([*command, "-p", "profile", "mini"], cwd=tmp_path, capture_output=True)
    assert good.returncode == 0, good.stderr.decode()
    bad = subprocess.run(
        [*command, "-p", "profle", "mini"], cwd=tmp_path, capture_output=True, text=True
    )
    assert bad.returncode != 0
    assert "Did you mean 'profile'?" in bad.stderr
