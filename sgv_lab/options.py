"""Commands made of functions: the signature says what can be given, the docstring is the help.

Parameters before ``*`` are arguments, those behind it options; one without a default is required.
The comment behind a parameter is its help ("NAME=VALUE: …" also says what to write). What the
function returns is printed: a generator's items one by one, a dict as JSON.
"""

import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from inspect import Parameter, cleandoc, getsource, signature
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec
from click.core import ParameterSource

from sgv_lab.errors import LabError

# type hints of parameters: whole numbers, a file or folder that is there, an object given as JSON
Count = Annotated[int, click.IntRange(1)]
NotNegative = Annotated[int, click.IntRange(0)]
Existing = Annotated[Path, click.Path(exists=True, path_type=Path)]
Folder = Annotated[Path, click.Path(exists=True, file_okay=False, path_type=Path)]
JsonObject = Annotated[dict[str, Any], lambda text: msgspec.json.decode(text, type=dict)]

_COMMENT = re.compile(r"^ +(\w+): [^#\n]*  # (?:([A-Z=]{2,}): )?(.+)$", re.MULTILINE)


def command(name: str, function: Callable[..., Any]) -> click.Command:
    """The command that calls ``function``.

    A parameter may be a dataclass with keyword-only fields: each field is then an option.
    """
    groups = {key: hint for key, hint in get_type_hints(function).items() if is_dataclass(hint)}

    def call(**given: Any) -> None:
        for key, group in groups.items():
            given[key] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        result = function(**given)
        for line in result if isinstance(result, Iterator) else [result]:
            if line is not None:
                click.echo(json.dumps(line, ensure_ascii=False) if isinstance(line, dict) else line)

    about = cleandoc(function.__doc__ or "")
    return click.Command(name, params=list(_parameters(function)), callback=call, help=about)


def _parameters(function: Callable[..., Any]) -> Iterator[click.Parameter]:
    """What can be given to a function, or for the fields of a dataclass and of its bases."""
    hints = get_type_hints(function, include_extras=True)
    texts = "".join(map(getsource, getattr(function, "__mro__", (function, object))[-2::-1]))
    said = {name: (metavar, text) for name, metavar, text in _COMMENT.findall(texts)}
    for one in signature(function).parameters.values():
        if is_dataclass(hints[one.name]):
            yield from _parameters(hints[one.name])
            continue
        (kind, many), needed = _type(hints[one.name]), one.default is Parameter.empty
        if one.kind is not Parameter.KEYWORD_ONLY:
            count = -1 if many else 1
            yield click.Argument([one.name], type=kind, nargs=count, required=needed)
            continue
        spelt = one.name.strip("_").replace("_", "-")
        metavar, text = said.get(one.name, ("", ""))
        yield click.Option(
            [f"-{spelt}" if len(spelt) == 1 else f"--{spelt}", one.name],
            type=kind,
            is_flag=kind is bool,
            multiple=many,
            required=needed,
            **({} if needed else {"default": one.default}),  # from None click 8.5 infers a value
            show_default=one.default is not False and one.default not in (None, "", ()),
            metavar=metavar or None,
            help=text,
        )


def _type(hint: Any) -> tuple[Any, bool]:
    """click's type for a type hint, and whether it may be given more than once."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is tuple:
        return _type(inner[0])[0], True
    if kind in (Union, types.UnionType):  # with None
        return _type(inner[0])
    if kind is Annotated:
        return inner[1], False
    if kind is Literal:
        return click.Choice(inner), False
    return click.Path(path_type=Path) if hint is Path else hint, False


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Names and values of an option that is given as NAME=VALUE, any number of times."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.strip()):
            raise LabError(f"cannot read {option} {text!r}", fix=f"write {option} NAME=VALUE")
        found[name.strip()] = value
    return found


def refuse_ignored(what: str, *names: str, but: tuple[str, ...] = ()) -> None:
    """Refuse those of the running command's parameters that were given and that ``what`` ignores.

    These are ``names``; with ``but``, all others than those.
    """
    context = click.get_current_context()
    given = [
        one.opts[0]
        for one in context.command.params
        if (one.name not in but if but else one.name in names)
        and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise LabError(f"{what} takes no {', '.join(given)}", fix="leave it out")
