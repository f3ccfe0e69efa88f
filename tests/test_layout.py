"""The shape of the library: which part may use which, and what nothing may do."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OWNERS = packages_distributions()  # import name -> distributions
MODULES = sorted((ROOT / "sgv_lab").rglob("*.py"))
every = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "sgv_lab")))

# part -> the only parts of ours it may import (besides itself); parts not named may import all
GROUND = {"errors", "files"}
TOOLS = GROUND | {
    "closure",
    "images",
    "options",
    "store",
    "profiles",
    "provenance",
    "intervals",
    "paper",
    "world",
}
ALLOWED = {
    "paper": set(),
    "errors": set(),
    "files": {"errors"},
    "images": GROUND,
    "intervals": {"errors"},
    "world": GROUND,
    "options": GROUND,
    "closure": {"errors"},
    "store": GROUND | {"closure"},
    "provenance": GROUND,
    "profiles": GROUND,
    "captions": TOOLS,
    "captioning": TOOLS | {"captions", "models", "training"},
    "models": TOOLS | {"captions", "training"},
    "training": TOOLS | {"captions", "models"},
    "benchmarks": TOOLS | {"captions", "captioning", "models", "training"},
}


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@every
def test_imports_point_left_and_down(path: Path) -> None:
    part = path.relative_to(ROOT / "sgv_lab").parts[0].removesuffix(".py")
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("sgv_lab.")}
    if part in ALLOWED:
        assert ours - {part} <= ALLOWED[part]
    assert "pipeline" not in ours or part.startswith("pipeline")


@every
def test_imports_only_what_pyproject_declares(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    for name in imports(path):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top != "sgv_lab":
            assert {canonicalize_name(owner) for owner in OWNERS[top]} & declared, top


@every
def test_needs_no_torchvision_and_runs_no_foreign_code(path: Path) -> None:
    assert "torchvision" not in {name.split(".")[0] for name in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert ast.unparse(node.value) == "False", f"{path}:{node.value.lineno}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler")
            assert called != "torch.load" or "weights_only=True" in ast.unparse(node)


@every
def test_text_files_are_utf_8_whatever_the_locale(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        called = ast.unparse(node.func)
        if called.endswith((".read_text", ".write_text")):
            assert called == "core.read_text", f"{path}:{node.lineno}"
        if called == "open" or (
            called.endswith(".open") and called not in ("Image.open", "os.open")
        ):
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            assert any("b" in str(mode) for mode in modes), f"{path}:{node.lineno}"


@every
def test_stays_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            told = len((ast.get_docstring(node) or "").splitlines())
            assert node.end_lineno - node.lineno - told <= 50, node.name


def test_no_file_names_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    roots = "|".join(["home", "Users", "root", "work", "tmp", "mnt"])
    machine = re.compile(rf"(?<![\w.<}}])/({roots})/\w")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".png", ".safetensors", ".model", ".parquet") or not path.is_file():
            continue
        text = path.read_bytes().decode(errors="replace")
        found += [f"{name}: {hit.group()}" for hit in machine.finditer(text)]
    assert not found


def test_what_the_readme_links_to_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) >= 4
    assert [link for link in links if not (ROOT / link).exists()] == []
