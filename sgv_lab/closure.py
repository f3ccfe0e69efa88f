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
from functools import cache, partial
from inspect import getclosurevars
from itertools import accumulate
from pathlib import Path
from types import FunctionType
from typing import Any

from sgv_lab.errors import LabError

TABLES = (".csv", ".jinja", ".json", ".jsonl", ".txt", ".yaml")
EVERYTHING, IMPORTED = "*", ""  # of a module, in place of one definition's name
_FINDERS = ("sgv_lab.store", "sgv_lab.closure")  # they find results; they do not make them
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
Key = tuple[str, str]  # module, definition


class _Module:
    """A parsed file: its definitions by name, what imported names stand for, what only runs."""

    def __init__(self, name: str, path: Path, text: str | bytes) -> None:
        self.name, self.path = name, path
        self.names: dict[str, list[ast.stmt]] = defaultdict(list)
        self.imports: dict[str, set[str]] = defaultdict(set)  # name -> full names
        self.strings: set[str] = set()
        self.runs: list[ast.stmt] = []
        tree = _Undocumented().visit(ast.parse(text))
        for node in ast.walk(tree):
            if isinstance(node, _IMPORTS):
                for bound, full in _imported(node):
                    self.imports[bound].add(full)
            elif _is_text(node):
                self.strings.add(node.value)
        for node in tree.body:
            bound, runs = self._bound(node)
            for each in bound:
                self.names[each].append(node)
            if runs:
                self.runs.append(node)

    def _bound(self, node: ast.stmt) -> tuple[set[str], bool]:
        """The names that a statement binds, and whether it does more."""
        if isinstance(node, _DEFINITIONS):
            above = (*node.decorator_list, *getattr(node, "bases", ()))
            return {node.name}, any(map(self._ours, above))  # it may register
        assigned = isinstance(node, ast.Assign | ast.AnnAssign)
        places = getattr(node, "targets", [getattr(node, "target", node)]) if assigned else [node]
        inside = [each for place in places for each in ast.walk(place)]
        names = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        defined = {n.name for n in inside if isinstance(n, _DEFINITIONS)}
        return names | defined, not (assigned and names)

    def _ours(self, node: ast.expr) -> bool:
        """Whether an expression begins with a name of this module, or of another of ours."""
        head = next((n.id for n in ast.walk(node) if isinstance(n, ast.Name)), "")
        top = self.name.split(".")[0]
        return head in self.names or any(t.startswith(top) for t in self.imports.get(head, ()))


class _Undocumented(ast.NodeTransformer):
    """Takes docstrings out, and other texts that nothing is done with."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if _is_text(node.value) else node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """The names that an import binds, and the full names that they stand for."""
    above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    yield from ((each.asname or each.name, above + each.name) for each in node.names)


def _dotted(node: ast.AST) -> str:
    """``a.b.c`` of such an expression; "" if it begins otherwise."""
    if isinstance(node, ast.Name):
        return node.id
    above = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{above}.{node.attr}" if above else ""


class Sources:
    """The library's source files, or those of another copy at ``package``; each is parsed once."""

    def __init__(self, package: str | Path = Path(__file__).parent) -> None:
        self.paths: dict[str, Path] = {}
        self.modules: dict[str, _Module] = {}
        self._followed: dict[Key, tuple[str, set[Key]]] = {}
        for path in Path(package).rglob("*.py"):
            parts = path.relative_to(package).with_suffix("").parts
            self.paths[".".join(["sgv_lab", *parts]).removesuffix(".__init__")] = path

    def closure(self, *entries: Key) -> dict[str, str]:
        """Module -> hash of those of its definitions that count from ``entries`` on.

        Raises LabError for an entry that is in no source file.
        """
        for module, name in entries:
            if module not in self.paths or name not in {EVERYTHING, *self._module(module).names}:
                what, fix = f"{name} of {module} is in no source file", "define it in a module"
                raise LabError(what, where="what makes a result", fix=fix)
        todo, texts = set(entries), {}
        while todo:
            if (key := todo.pop()) not in texts and key[0] not in _FINDERS:
                if key not in self._followed:
                    self._followed[key] = self._follow(*key)
                texts[key], more = self._followed[key]
                todo |= more
        parts: dict[str, list[str]] = defaultdict(list)
        for (module, name), text in sorted(texts.items()):
            if text:
                parts[module].append(f"{name} {text}")
        return {module: _hash("\n".join(part).encode()) for module, part in parts.items()}

    def _module(self, name: str) -> _Module:
        if name not in self.modules:
            self.modules[name] = _Module(name, self.paths[name], self.paths[name].read_bytes())
        return self.modules[name]

    def _follow(self, module: str, name: str) -> tuple[str, set[Key]]:
        """A definition as text, and those that it names."""
        one = self._module(module)
        if name == EVERYTHING:
            return "", {(module, other) for other in (IMPORTED, *one.names)}
        package = module.rpartition(".")[0]
        more = {(module, IMPORTED)} if name else {(package, IMPORTED)} if package else set()
        texts, outside, known = [], set(), set()
        for node in one.names.get(name, []) if name else one.runs:
            texts += [] if isinstance(node, _IMPORTS) else [ast.dump(node)]
            for each in ast.walk(node):  # what holds a node comes before it
                if isinstance(each, _IMPORTS):
                    owners = {self._owner(full) for _, full in _imported(each)}
                    more |= {(owner, IMPORTED) for owner in owners if owner}
                elif isinstance(each, ast.Name | ast.Attribute):
                    if each not in known:
                        more |= self._named(one, _dotted(each), outside)
                    known.add(getattr(each, "value", None))  # a.b of a.b.c
                else:
                    more |= self._loaded(one, each)
        return " ".join([*texts, *sorted(outside)]), more

    def _named(self, one: _Module, dotted: str, outside: set[str]) -> set[Key]:
        """The definitions that a name in ``one`` stands for; others are put into ``outside``."""
        parts = dotted.split(".")
        more = {(one.name, parts[0])} if parts[0] in one.names else set()
        if parts[0] == "globals":
            more.add((one.name, EVERYTHING))
        if parts[0] == "__file__":
            tables = (p for p in one.path.parent.iterdir() if p.suffix in TABLES)
            outside |= {f"{path.name} {_hash(path.read_bytes())}" for path in tables}
        for head in accumulate(parts, "{}.{}".format):
            for target in one.imports.get(head, ()):
                full = target + dotted.removeprefix(head)
                more |= self._meant(full)
                if not self._owner(full):
                    outside.add(f"{head} is {target}")
        return more

    def _meant(self, full: str) -> set[Key]:
        """The definitions that a full name stands for, also through modules that pass it on."""
        if not (owner := self._owner(full)):
            return set()
        one, name = self._module(owner), full.removeprefix(owner).removeprefix(".").split(".")[0]
        if name in one.names or name not in one.imports:
            return {(owner, name if name in one.names else EVERYTHING)}
        passed = {target + full.removeprefix(f"{owner}.{name}") for target in one.imports[name]}
        return {(owner, IMPORTED)}.union(*map(self._meant, passed))

    def _owner(self, full: str) -> str:
        """The module of ours that a full name is, or lies in; "" where none is."""
        while full and full not in self.paths:
            full = full.rpartition(".")[0]
        return full

    def _loaded(self, one: _Module, node: ast.AST) -> set[Key]:
        """The module that a text names, or those of f"package.{…}" that texts of the same module
        name (all, if none is)."""
        if _is_text(node) and "." in node.value and node.value in self.paths:
            return {(node.value, EVERYTHING)}
        if not isinstance(node, ast.JoinedStr) or not _is_text(node.values[0]):
            return set()
        package, _, rest = node.values[0].value.rpartition(".")
        if rest or not package:
            return set()
        inside = {n for n in self.paths if n.rpartition(".")[0] == package}
        named = {n for n in inside if n.removeprefix(f"{package}.") in one.strings}
        return {(n, EVERYTHING) for n in named or inside}


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
        file = getattr(sys.modules.get(named.__module__), "__file__", None)
        if asked and file:
            sources.paths.setdefault(named.__module__, Path(file))
        if (asked or named.__module__ in sources.paths) and not any(one is old for old in seen):
            seen.append(one)
            entries.add((named.__module__, named.__qualname__.split(".")[0]))
            if isinstance(one, FunctionType):
                todo += [(value, False) for value in getclosurevars(one).nonlocals.values()]
    return sources.closure(*entries)


def of_text(text: str) -> dict[str, str]:
    """`closure` of a script's text, such as a notebook's cells; lines of % and ! are no code."""
    sources, name = _sources(), f"the text {_hash(text.encode())}"
    plain = re.sub(r"^\s*[%!].*$", "", text, flags=re.MULTILINE)
    sources.paths[name] = Path("text.py")
    sources.modules[name] = _Module(name, sources.paths[name], plain)
    return sources.closure((name, EVERYTHING))


def digest(*makers: Callable[..., Any]) -> str:
    """One hash of `closure`."""
    return _hash(json.dumps(closure(*makers), sort_keys=True).encode())
