"""The ``sgv-lab`` command: a table of functions, each imported only when it is called."""

import ast
import errno
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from sgv_lab import __version__
from sgv_lab.errors import LabError
from sgv_lab.options import command

COMMANDS = {  # name -> "module:function", listed in --help in this order
    "run": "sgv_lab.commands:run",
    "world export": "sgv_lab.commands:export",
    "stats": "sgv_lab.captions.commands:stats",
    "figures": "sgv_lab.figures.published:figures",
    "collect": "sgv_lab.captioning.commands:collect",
    "caption": "sgv_lab.captioning.commands:caption",
    "models": "sgv_lab.models.commands:models",
    "convert": "sgv_lab.models.commands:convert",
    "inspect": "sgv_lab.training.inspect_command:inspect",
    "train": "sgv_lab.training.commands:train",
    "plan": "sgv_lab.training.commands:plan",
    "throughput train": "sgv_lab.training.commands:throughput_train",
    "throughput caption": "sgv_lab.captioning.commands:throughput",
    "score": "sgv_lab.benchmarks.commands:score",
    "evaluate": "sgv_lab.benchmarks.commands:evaluate",
    "study": "sgv_lab.commands:study",
}
GROUPS = {"world": "The drawn world.", "throughput": "Measure speed with random weights."}


_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


_SURROUNDINGS = {  # what an error says -> what it means
    "determine home directory": LabError(
        "there is no home folder", fix="set HOME to a folder that can be written"
    ),
    "surrogates not allowed": LabError(
        "a name is not in the encoding of this locale", fix="set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
    ),
}


class _Lab(click.Group):
    """The commands whose names begin with ``prefix``; what a user did wrong is one line."""

    def __init__(self, *given: Any, prefix: str = "", **more: Any) -> None:
        super().__init__(*given, **more)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        inside = [name for name in COMMANDS if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.removeprefix(self.prefix).split()[0] for name in inside))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        full = self.prefix + name
        if full in GROUPS:
            return _Lab(name, prefix=f"{full} ", help=GROUPS[full])
        if full not in COMMANDS:
            return None
        module, function = COMMANDS[full].split(":")
        return command(name, getattr(importlib.import_module(module), function))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command's name and first sentence, without importing any."""
        names = self.list_commands(ctx)
        room = formatter.width - 6 - max(map(len, names))
        helps = [GROUPS.get(name) or _docstring(COMMANDS[self.prefix + name]) for name in names]
        short = [click.Command(None, help=text).get_short_help_str(room) for text in helps]
        with formatter.section("Commands"):
            formatter.write_dl(list(zip(names, short, strict=True)))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "sgv_lab"):
                raise
            what = LabError(f"{package} is not installed", fix=f"run `pip install {package}`")
            raise click.ClickException(str(what)) from error
        except LabError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise click.ClickException(str(_unwritable(error))) from error
        except (RuntimeError, UnicodeEncodeError) as error:
            for said, told in _SURROUNDINGS.items():
                if said in str(error):
                    raise click.ClickException(str(told)) from error
            raise


def _unwritable(error: OSError) -> LabError:
    """What to do about a file or folder that the system does not let be written (or read)."""
    name = error.filename2 or error.filename
    path = Path(os.fsdecode(name) if isinstance(name, str | bytes | Path) else ".")
    path = path.absolute().parent if path.name.startswith(".") else path  # a file in the making
    store = os.environ.get("SGV_STORE") or os.path.expanduser("~/.cache/sgv_lab")  # noqa: PTH111
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, fix = "the disk is full", "free some space, or name a folder on another disk"
    elif path.is_file() and not os.access(path, os.R_OK):
        what, fix = "cannot be read", "give this user the right to read it"
    else:
        what = (
            "is not there and cannot be made"
            if error.errno == errno.ENOENT
            else "cannot be written"
        )
        fix = "name another folder with --out, or run the command in one that can be written"
    if path.absolute().is_relative_to(Path(store).absolute()):
        fix = "set SGV_STORE to a folder that can be written, on a disk with space"
    return LabError(f"{what} ({error.strerror})", where=path, fix=fix)


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
