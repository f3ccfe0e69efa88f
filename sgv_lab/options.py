"""Options of the command line."""

import click
from click.core import ParameterSource

from sgv_lab.errors import LabError


def refuse_ignored(path: str, *names: str) -> None:
    """Refuse those of the options that were given, where what is done (``path``) ignores them.

    ``names``: of the command's parameters.
    """
    context = click.get_current_context()
    spelt = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = [
        spelt[name]
        for name in names
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise LabError(f"{path} takes no {', '.join(given)}", fix="leave it out")
