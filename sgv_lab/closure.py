"""The code that a result rests on: the module that makes it, and all that it imports on the way.

Read from syntax trees; nothing is imported. Imports within functions count, and so do modules that
are loaded by a name in a string. A module that mentions ``__file__`` counts with the tables beside
it. Docstrings, comments and layout do not count.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from inspect import getclosurevars
from itertools import accumulate
from pathlib import Path
from types import FunctionType
from typing import Any

from sgv_lab.errors import LabError

TABLES = (".csv", ".jinja", ".json", ".jsonl", ".txt", ".yaml")
_FINDERS = ("sgv_lab.store", "sgv_lab.closure")  # they find results; they do not make them


class _Undocumented(ast.NodeTransformer):
    """Takes docstrings out, and other texts that nothing is done with."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if _is_text(node.value) else node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


class Sources:
    """The library's source files, or those of another copy at ``package``; each is parsed once."""

    def __init__(self, package: str | Path = Path(__file__).parent) -> None:
        self.paths: dict[str, Path] = {}
        self.parsed: dict[str, tuple[str, set[str]]] = {}  # module -> hash, what it imports
        for path in Path(package).rglob("*.py"):
            parts = path.relative_to(package).with_suffix("").parts
            self.paths[".".join(["sgv_lab", *parts]).removesuffix(".__init__")] = path

    def closure(self, *modules: str) -> dict[str, str]:
        """Module -> its hash, of ``modules`` and of all that they import on the way.

        Raises LabError for a module that is in no source file.
        """
        todo, found = {*modules}, {}
        while todo:
            name = todo.pop()
            if name in found or name in _FINDERS:
                continue
            if name not in self.paths:
                what, fix = f"{name} is in no source file", "define it in a module"
                raise LabError(what, where="what makes a result", fix=fix)
            if name not in self.parsed:
                path = self.paths[name]
                self.parsed[name] = self.parse(path.read_bytes(), path)
            found[name], more = self.parsed[name]
            todo |= more
        return dict(sorted(found.items()))

    def parse(self, text: str | bytes, path: Path) -> tuple[str, set[str]]:
        """The hash of a module of that ``text``, and the modules of ours that it loads."""
        tree = _Undocumented().visit(ast.parse(text))
        nodes = [*ast.walk(tree)]
        counted = [ast.dump(tree)]
        if any(isinstance(node, ast.Name) and node.id == "__file__" for node in nodes):
            tables = (p for p in path.parent.iterdir() if p.suffix in TABLES)
            counted += sorted(f"{table.name} {_hash(table.read_bytes())}" for table in tables)
        strings = {node.value for node in nodes if _is_text(node)}
        loaded = {name for node in nodes for name in self._loaded(node, strings)}
        above = {part for one in loaded for part in accumulate(one.split("."), "{}.{}".format)}
        return _hash("\n".join(counted).encode()), above & self.paths.keys()

    def _loaded(self, node: ast.AST, strings: set[str]) -> Iterator[str]:
        """Full names that a part of a module imports, or holds as a string.

        Of f"package.{…}" these are the modules that the module's ``strings`` name, else all.
        """
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif _is_text(node) and node.value in self.paths:
            yield node.value
        elif isinstance(node, ast.JoinedStr) and _is_text(node.values[0]):
            package, dot, rest = node.values[0].value.rpartition(".")
            if package and dot and not rest:
                inside = {n for n in self.paths if n.rpartition(".")[0] == package}
                yield from {f"{package}.{one}" for one in strings} & inside or inside


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


_sources = cache(Sources)


def closure(*makers: Callable[..., Any]) -> dict[str, str]:
    """Module -> hash of the modules that ``makers`` rest on; "makers" -> their own names.

    What a maker holds, in its closure or as a partial's arguments, counts if it is ours. Raises
    LabError for a maker that is in no source file.
    """
    sources, names, seen = _sources(), set(), []
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
            names.add((named.__module__, named.__qualname__))
            if isinstance(one, FunctionType):
                todo += [(value, False) for value in getclosurevars(one).nonlocals.values()]
    found = sources.closure(*(module for module, _ in names))
    return found | {"makers": " ".join(map(".".join, sorted(names)))}


def of_text(text: str) -> dict[str, str]:
    """`closure` of a script's text, such as a notebook's cells; lines of % and ! are no code."""
    sources = _sources()
    plain = re.sub(r"^\s*[%!].*$", "", text, flags=re.MULTILINE)
    own, modules = sources.parse(plain, Path())
    return sources.closure(*modules) | {"text": own}


def digest(*makers: Callable[..., Any]) -> str:
    """One hash of `closure`."""
    return _hash(json.dumps(closure(*makers), sort_keys=True).encode())
