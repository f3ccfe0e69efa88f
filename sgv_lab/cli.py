"""The ``sgv-lab`` command: a table of functions, each imported only when it is called."""

import ast
import errno
import importlib
import os
import sys
from pathlib import Path

import click

from sgv_lab import __version__
from sgv_lab.errors import LabError
from sgv_lab.options import command

COMMANDS = {  # name -> "module:function", listed in --help in this order
    "run": "sgv_lab.commands:run",
    "world export": "sgv_lab.world.export:export",
    "stats": "sgv_lab.captions.commands:stats",
    "figures": "sgv_lab.figures.published:figures",
    "collect": "sgv_lab.captioning.commands:collect",
    "caption": "sgv_lab.captioning.commands:caption",
    "models": "sgv_lab.commands:models",
    "convert": "sgv_lab.commands:convert",
    "inspect": "sgv_lab.training.commands:inspect",
    "train": "sgv_lab.training.commands:train",
    "plan": "sgv_lab.training.commands:plan",
    "push": "sgv_lab.training.commands:push",
    "measure": "sgv_lab.study.measure:measure",
    "score": "sgv_lab.benchmarks.commands:score",
    "evaluate": "sgv_lab.benchmarks.commands:evaluate",
    "study": "sgv_lab.commands:study",
    "studies": "sgv_lab.commands:studies",
}
_WORLD = "The drawn world."  # what the group "world" is about
_SYSTEM = {  # an error of the system -> what to do about it
    **dict.fromkeys(("ENOSPC", "EDQUOT"), "free some space"),
    **dict.fromkeys(("EACCES", "EPERM", "EROFS"), "give this user the right to it"),
    **dict.fromkeys(("ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG"), "mend the path"),
}
_ELSEWHERE = "or name another place with --out (SGV_STORE for the store)"
_SURROUNDINGS = {  # what an error says -> what it means, and what to do
    "determine home directory": ("there is no home folder", "set HOME to one that can be written"),
    "surrogates not allowed": (
        "a name is not in the encoding of this locale",
        "set PYTHONUTF8=1, or LC_ALL=C.UTF-8",
    ),
}


class _Lab(click.Group):
    """All commands; what a user did wrong is one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name.removesuffix(" export") for name in COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "world":
            return click.Group(name, [_loaded("world export")], help=_WORLD)
        return _loaded(name) if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command's name and first sentence, without importing any."""
        names = self.list_commands(ctx)
        room = formatter.width - 6 - max(map(len, names))
        helps = [_docstring(COMMANDS[name]) if name in COMMANDS else _WORLD for name in names]
        short = [click.Command(None, help=text).get_short_help_str(room) for text in helps]
        with formatter.section("Commands"):
            formatter.write_dl(list(zip(names, short, strict=True)))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if mistake := _mistake(error):
                raise click.ClickException(str(mistake)) from error
            raise


def _loaded(name: str) -> click.Command:
    module, function = COMMANDS[name].split(":")
    return command(name.split()[-1], getattr(importlib.import_module(module), function))


def _mistake(error: Exception) -> LabError | None:
    """What a user can do about an error; None for one of ours."""
    if isinstance(error, LabError):
        return error
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in ("", "sgv_lab"):
            return LabError(f"{package} is not installed", fix=f"run `pip install {package}`")
    if isinstance(error, OSError) and (fix := _SYSTEM.get(errno.errorcode.get(error.errno))):
        name = error.filename2 or error.filename
        path = Path(os.fsdecode(name) if isinstance(name, str | bytes | Path) else ".").absolute()
        path = path.parent if path.name.startswith(".") else path  # a file in the making
        what = f"cannot be written or read ({error.strerror})"
        return LabError(what, where=path, fix=f"{fix}, {_ELSEWHERE}")
    if isinstance(error, RuntimeError | UnicodeEncodeError):
        for said, (what, fix) in _SURROUNDINGS.items():
            if said in str(error):
                return LabError(what, fix=fix)
    return None


def _docstring(place: str) -> str:
    """The docstring of "module:function", read from the source."""
    module, name = place.split(":")
    path = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    return ast.get_docstring(found) or ""


@click.group(cls=_Lab, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Re-test the claims of ShareGPT4V, in miniature and at paper size."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
