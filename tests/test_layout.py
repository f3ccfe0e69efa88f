"""The shape of the library: which part may use which, and what nothing may do."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OWNERS = packages_distributions()  # import name -> distributions
MODULES = sorted((ROOT / "sgv_lab").rglob("*.py"))
every = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "sgv_lab")))

# What may use what: a part imports from parts before it, never from one behind it.
TOOLS = ["errors", "files", "images", "intervals", "closure", "store", "options", "provenance",
         "report", "profiles", "notebook"]  # fmt: skip
FLOW = ["paper", "world", "captions", "models", "training", "captioning", "benchmarks", "base",
        "study", "figures", "widgets", "pipeline", "commands", "cli",
        "__main__"]  # fmt: skip
ORDER = [*TOOLS, *FLOW]
PAGE = """# What imports what

Captions flow in from the left, claims come out on the right; imports point left. An arrow goes from
a part to one that it imports from; what follows from two others is left out.

```mermaid
flowchart RL
{arrows}
```

All of them may use the tools, which stand below: {tools}.

`tests/test_layout.py` holds the order, and writes this page (`python tests/test_layout.py`).
"""
OTHER_WORDS = re.compile(  # for image, drawn world, projector, pre-training, step
    r"picture|embedded world|connector|stage[ -]1\b|samples_per_update", re.IGNORECASE
)
QUOTES = {  # modules that have such a word in data, of other people, or of older files
    *("base/language_model.py", "captioning/writer.py", "captions/answers.py", "images.py"),
    "models/architectures.py",
    *("models/qwen_vl.py", "study/plans.py", "study/pretraining_data.py", "study/publishing.py"),
    *("training/qwen_vl_chat.py", "training/throughput.py", "world/phrases.py"),
    *("world/phrasing.py", "world/reader.py", "world/records.py"),
}
UPWARD: set[tuple[str, str]] = set()  # exceptions, to be emptied: (part, a part behind it)


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


def modules_used() -> dict[str, set[str]]:
    """Each module of ours -> those of ours that it imports, also inside functions."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    used = {}
    for module, path in names.items():
        found = set()
        for name in imports(path):
            while name and name not in names:
                name = name.rpartition(".")[0]
            found |= {name} - {"", module, "sgv_lab"}
        used[module] = found
    return used


def part(module: str) -> str:
    return module.split(".")[1]


def parts_used() -> dict[str, set[str]]:
    """Each part of the library -> the other parts that it imports from."""
    used: dict[str, set[str]] = {}
    for module, others in modules_used().items():
        if module != "sgv_lab":
            used.setdefault(part(module), set()).update(map(part, others))
    return {name: others - {name} for name, others in used.items()}


def drawing() -> str:
    """docs/imports.md: the arrows that follow from no other two."""
    used = parts_used()
    flow = [name for name in FLOW if name in used]

    def below(name: str) -> set[str]:
        return used[name].union(*map(below, used[name]))

    arrows = [
        f"    {name} --> {other}"
        for name in flow
        for other in flow
        if other in used[name] and not any(other in below(more) for more in used[name])
    ]
    tools = ", ".join(f"`{name}`" for name in TOOLS if name in used)
    return PAGE.format(arrows="\n".join(arrows), tools=tools)


def test_imports_point_left_and_down() -> None:
    used = parts_used()
    assert set(used) <= set(ORDER), "a new part: give it its place in ORDER"
    place = {name: number for number, name in enumerate(ORDER)}
    upward = {(a, b) for a, others in used.items() for b in others if place[b] > place[a]}
    assert upward == UPWARD


def test_no_modules_import_each_other_in_a_circle() -> None:
    list(TopologicalSorter(modules_used()).static_order())  # CycleError names the circle


def test_the_drawing_of_the_imports_is_this() -> None:
    page = ROOT / "docs" / "imports.md"
    assert page.read_text(encoding="utf-8") == drawing(), "run python tests/test_layout.py"


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


def test_one_word_a_thing() -> None:
    """CONTRIBUTING.md, Words."""
    texts = {path.relative_to(ROOT / "sgv_lab").as_posix(): path.read_text() for path in MODULES}
    assert {name for name, text in texts.items() if OTHER_WORDS.search(text)} == QUOTES


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


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_text_links_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links or page.name == "imports.md"
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    places = {"#" + re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
    there = [link in places if link[0] == "#" else (page.parent / link).exists() for link in links]
    assert [link for link, found in zip(links, there, strict=True) if not found] == []


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    texts = "".join(page.read_text() for page in PAGES[:2])
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in texts] == []


if __name__ == "__main__":
    (ROOT / "docs" / "imports.md").write_text(drawing(), encoding="utf-8")
