"""The ``sgv-lab`` command. Each subcommand is imported only when it is called."""

import importlib

import click

from sgv_lab.errors import LabError

COMMANDS = {  # name -> "module:click command", listed in --help in this order
    "run": "sgv_lab.pipeline_commands:run",
    "world": "sgv_lab.pipeline_commands:world",
    "stats": "sgv_lab.captions.commands:stats",
    "figures": "sgv_lab.study.reported:figures",
    "collect": "sgv_lab.captioning.commands:collect",
    "caption": "sgv_lab.captioning.commands:caption",
    "models": "sgv_lab.models.commands:models",
    "convert": "sgv_lab.models.commands:convert",
    "inspect": "sgv_lab.training.inspect_command:inspect",
    "train": "sgv_lab.training.commands:train",
    "plan": "sgv_lab.training.commands:plan",
    "throughput": "sgv_lab.captioning.speed:throughput",
    "score": "sgv_lab.benchmarks.commands:score",
    "evaluate": "sgv_lab.benchmarks.commands:evaluate",
    "study": "sgv_lab.study.commands:study",
    "build-foundations": "sgv_lab.study.commands:build_foundations",
    "abilities": "sgv_lab.study.commands:abilities",
}


class _Lab(click.Group):
    """A group that loads subcommands on demand and prints a LabError as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LabError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Lab, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sgv-lab")
def main() -> None:
    """Re-test the claims of ShareGPT4V, in miniature and at paper size."""
