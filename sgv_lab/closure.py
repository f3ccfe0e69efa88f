"""The code that a result rests on: every definition reached from the function that makes it.

Read from syntax trees; nothing is imported. A function, class or constant counts if its name stands
in a definition that counts. Of each module imported on the way what only runs (a registration)
counts, too; of a module that is handed on as a value, or loaded by a name in a string, all does.
A definition that mentions ``__file__`` counts with the tables beside its module. Docstrings,
comments and layout do not count, nor does what nothing on the way names.
"""

import ast
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from inspect import getclosurevars
from pathlib import Path
from types import FunctionType
from typing import Any

from sgv_lab.errors import LabError

TABLES = (".csv", ".jinja", ".json", ".jsonl", ".txt", ".yaml")
EVERYTHING, IMPORTED = "*", ""  # of a module, in place of one definition's name
_FINDERS = ("sgv_lab.store", "sgv_lab.closure")  # they find results; they do not make them
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
Key = tuple[str, str]  # module, definition
Imports = dict[str, set[str]]  # name -> full names that it may stand for


@dataclass(frozen=True)
class _Statement:
    """What one statement of a module holds, however deep; docstrings are left out."""

    text: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # with what is taken from them: a.b.c
    imports: Imports = field(default_factory=lambda: defaultdict(set))
    strings: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)  # how f-strings begin


@dataclass(frozen=True)
class _Module:
    """A parsed file: definitions by name, what its imports stand for, and what only runs."""

    name: str
    path: Path
    names: dict[str, list[ast.stmt]] = field(default_factory=lambda: defaultdict(list))
    imports: Imports = field(default_factory=lambda: defaultdict(set))
    runs: list[ast.stmt] = field(default_factory=list)
    read: dict[ast.stmt, _Statement] = field(default_factory=dict)

    def statement(self, node: ast.stmt) -> _Statement:
        """What a statement holds; read once."""
        if node not in self.read:
            self.read[node] = _Statement()
            _scan(node, self.read[node], self)
        return self.read[node]

    def ours(self, node: ast.expr) -> bool:
        """Whether an expression begins with a name of this module, or of another of ours."""
        head = next((n.id for n in ast.walk(node) if isinstance(n, ast.Name)), "")
        top = self.name.split(".")[0]
        return head in self.names or any(t.startswith(top) for t in self.imports.get(head, ()))


class Sources:
    """The library's source files, or those of another copy at ``package``; each is parsed once."""

    def __init__(self, package: str | Path = Path(__file__).parent) -> None:
        self.paths: dict[str, Path] = {}
        self._modules: dict[str, _Module] = {}
        self._followed: dict[Key, tuple[str, list[Key]]] = {}
        self._add("sgv_lab", Path(package, "__init__.py"))

    def admit(self, module: str) -> None:
        """Let the script or package that holds an imported ``module`` count as ours."""
        top = module.split(".")[0]
        file = getattr(sys.modules.get(top), "__file__", None)
        if file and top not in self.paths:
            self._add(top, Path(file))

    def _add(self, top: str, file: Path) -> None:
        self.paths[top] = file
        for path in file.parent.rglob("*.py") if file.stem == "__init__" else ():
            parts = path.relative_to(file.parent).with_suffix("").parts
            self.paths[".".join([top, *parts]).removesuffix(".__init__")] = path

    def closure(self, *entries: Key) -> dict[str, str]:
        """Module -> hash of those of its definitions that count from ``entries`` on.

        Raises LabError for an entry that is in no source file.
        """
        todo, texts = list(entries), {}
        for module, name in entries:
            known = {EVERYTHING, *self._module(module).names} if module in self.paths else ()
            if name not in known:
                what, fix = f"{name} of {module} is in no source file", "define it in a module"
                raise LabError(what, where="what makes a result", fix=fix)
        while todo:
            if (key := todo.pop()) not in texts and key[0] not in _FINDERS:
                if key not in self._followed:
                    self._followed[key] = self._follow(*key)
                texts[key], more = self._followed[key]
                todo += more
        parts: dict[str, list[str]] = defaultdict(list)
        for (module, name), text in sorted(texts.items()):
            if text:
                parts[module].append(f"{name} {text}")
        return {module: _hash("\n".join(part).encode()) for module, part in parts.items()}

    def of_text(self, text: str) -> dict[str, str]:
        """`closure` of a script's text; IPython's lines of % and ! are no code."""
        name, path = f"the text {_hash(text.encode())}", Path("text.py")
        plain = re.sub(r"^\s*[%!].*$", "", text, flags=re.MULTILINE)
        self.paths[name], self._modules[name] = path, _parsed(name, path, plain)
        return self.closure((name, EVERYTHING))

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _parsed(name, self.paths[name], self.paths[name].read_bytes())
        return self._modules[name]

    def _follow(self, module: str, name: str) -> tuple[str, list[Key]]:
        """A definition as text, and those that it names."""
        one = self._module(module)
        if name == EVERYTHING:
            return "", [(module, other) for other in (IMPORTED, *one.names)]
        package = module.rpartition(".")[0]
        more = [] if name else [*self._run(one.imports), *[(package, IMPORTED)] * bool(package)]
        texts, outside = [], set()
        for node in one.names.get(name, []) if name else one.runs:
            found = one.statement(node)
            texts += found.text
            more += [(module, IMPORTED), *self._run(found.imports), *self._loaded(one, found)]
            for dotted in found.names:
                head = dotted.split(".")[0]
                if head == "__file__":
                    tables = (p for p in one.path.parent.iterdir() if p.suffix in TABLES)
                    outside |= {f"{path.name} {_hash(path.read_bytes())}" for path in tables}
                if head in one.names:
                    more.append((module, head))
                if head == "globals":
                    more.append((module, EVERYTHING))
                for target in found.imports.get(head) or one.imports.get(head, ()):
                    full = target + dotted.removeprefix(head)
                    more += self._meant(full)
                    if not self._owner(full):
                        outside.add(f"{head} is {target}")
        return " ".join([*texts, *sorted(outside)]), more

    def _run(self, imports: Imports) -> Iterator[Key]:
        """What runs when these are imported."""
        owners = {self._owner(target) for targets in imports.values() for target in targets}
        yield from ((owner, IMPORTED) for owner in owners if owner)

    def _meant(self, full: str) -> Iterator[Key]:
        """The definitions that a full name stands for, also through modules that pass it on."""
        if not (owner := self._owner(full)):
            return
        one, name = self._module(owner), full.removeprefix(owner).removeprefix(".").split(".")[0]
        passed = one.imports.get(name, ())
        if name in one.names or not passed:
            yield owner, name if name in one.names else EVERYTHING
        for target in passed:
            yield owner, IMPORTED
            yield from self._meant(target + full.removeprefix(f"{owner}.{name}"))

    def _owner(self, full: str) -> str:
        """The module of ours that a full name is, or lies in; "" where none is."""
        while full and full not in self.paths:
            full = full.rpartition(".")[0]
        return full

    def _loaded(self, one: _Module, found: _Statement) -> Iterator[Key]:
        """Modules loaded by name: one in full, or those of f"package.{…}" that strings of the same
        module name (all, if none is)."""
        yield from ((text, EVERYTHING) for text in found.strings if "." in text in self.paths)
        for prefix in found.prefixes:
            package = prefix.removesuffix(".") if prefix.endswith(".") else ""
            if inside := {n for n in self.paths if package and n.rpartition(".")[0] == package}:
                nodes = {node for nodes in one.names.values() for node in nodes}
                strings = set().union(*(one.statement(node).strings for node in nodes))
                named = {name for name in inside if name.removeprefix(prefix) in strings}
                yield from ((name, EVERYTHING) for name in named or inside)


def _parsed(name: str, path: Path, text: str | bytes) -> _Module:
    one = _Module(name, path)
    for node in ast.parse(text).body:
        if isinstance(node, _DEFINITIONS):
            one.names[node.name].append(node)
            if any(map(one.ours, (*node.decorator_list, *getattr(node, "bases", ())))):
                one.runs.append(node)  # it may register
            continue
        assigned = isinstance(node, ast.Assign | ast.AnnAssign)
        places = getattr(node, "targets", [getattr(node, "target", None)]) if assigned else [node]
        inside = [each for place in places for each in ast.walk(place)]
        bound = [n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        for each in {*bound, *(n.name for n in inside if isinstance(n, _DEFINITIONS))}:
            one.names[each].append(node)
        for each, targets in one.statement(node).imports.items():
            one.imports[each] |= targets
        if not (isinstance(node, ast.Import | ast.ImportFrom) or (assigned and bound)):
            one.runs.append(node)
    return one


def _scan(node: ast.AST, found: _Statement, one: _Module, inner: bool = False) -> None:
    """Put what a tree holds into ``found``. ``inner``: below a name that is in already."""
    if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        _imports(node, found.imports, one)
    elif isinstance(node, ast.Name | ast.Attribute) and not inner:
        if inner := bool(dotted := _dotted(node)):
            found.names.add(dotted)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        found.prefixes.add(str(node.values[0].value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        found.strings.add(node.value)
    found.text.append(type(node).__name__)
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                if not isinstance(each, ast.expr_context):  # its place tells
                    _scan(each, found, one, inner)
            elif each is not None:
                found.text.append(f"{name}={each!r}")
    found.text.append(".")


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` of such an expression; "" if it begins otherwise."""
    taken = []
    while isinstance(node, ast.Attribute):
        taken.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(taken)]) if isinstance(node, ast.Name) else ""


def _imports(node: ast.Import | ast.ImportFrom, found: Imports, one: _Module) -> None:
    """Put what an import's names stand for into ``found``."""
    if isinstance(node, ast.Import):
        for each in node.names:
            found[each.asname or each.name].add(each.name)
            if not each.asname:
                found[each.name.split(".")[0]].add(each.name.split(".")[0])
        return
    above = one.name.split(".") if node.level else []
    above = above[: len(above) - node.level + (one.path.stem == "__init__")]
    source = ".".join([*above, *filter(None, [node.module])])
    for each in node.names:
        found[each.asname or each.name].add(f"{source}.{each.name}".removesuffix(".*"))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


_sources = cache(Sources)


def closure(*makers: Callable[..., Any]) -> dict[str, str]:
    """Module -> hash of those of its definitions that ``makers`` rest on.

    What a maker holds, in its closure or as a partial's arguments, counts if it is ours. Raises
    LabError for a maker that is in no source file.
    """
    sources, entries, seen = _sources(), set(), []
    todo = [(maker, True) for maker in makers]
    while todo:
        one, asked = todo.pop()
        if isinstance(one, partial):
            todo += [(one.func, asked), *((v, False) for v in (*one.args, *one.keywords.values()))]
            continue
        one = getattr(one, "__func__", one)
        named = one if hasattr(one, "__qualname__") else type(one)
        if asked:
            sources.admit(named.__module__)
        if (asked or named.__module__ in sources.paths) and not any(one is old for old in seen):
            seen.append(one)
            entries.add((named.__module__, named.__qualname__.split(".")[0]))
            if isinstance(one, FunctionType):
                todo += [(value, False) for value in getclosurevars(one).nonlocals.values()]
    return sources.closure(*entries)


def of_text(text: str) -> dict[str, str]:
    """`closure` of a script's text, such as a notebook's cells."""
    return _sources().of_text(text)


def digest(*makers: Callable[..., Any]) -> str:
    """One hash of `closure`."""
    return _hash(json.dumps(closure(*makers), sort_keys=True).encode())
