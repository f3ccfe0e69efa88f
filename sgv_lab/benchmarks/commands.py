"""``sgv-lab score`` and ``sgv-lab evaluate``."""

import json
from pathlib import Path
from typing import Any

import click

from sgv_lab import benchmarks
from sgv_lab.errors import LabError


@click.command()
@click.argument("benchmark")
@click.option("--predictions", required=True, type=click.Path(path_type=Path))
@click.option("--annotations", type=click.Path(path_type=Path), help="The truth; a file or folder.")
@click.option("--questions", type=click.Path(path_type=Path), help="The questions that were run.")
@click.option("--variant", default=benchmarks.OFFICIAL, help="Another tool's rule instead.")
@click.option("--table", is_flag=True, help="A table for people instead of JSON.")
def score(
    benchmark: str,
    predictions: Path,
    annotations: Path | None,
    questions: Path | None,
    variant: str,
    table: bool,
) -> None:
    """Score predictions in the official format of BENCHMARK; print one JSON object."""
    name = benchmarks.canonical(benchmark)
    if not predictions.exists():
        raise LabError("no such file or folder", where=predictions)
    scores = benchmarks.module(name).score(predictions, annotations, questions, variant)
    value = {"benchmark": benchmarks.MODULES[name][1], "variant": variant, **scores}
    click.echo(as_table(value) if table else json.dumps(value, ensure_ascii=False))


def as_table(value: dict[str, Any]) -> str:
    """The scores as aligned lines "name  value", nested names joined by a dot."""
    rows = list(_flat(value))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _flat(value: dict[str, Any], above: str = "") -> Any:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{above}{name}.")
        elif isinstance(item, list):
            yield above + name, "  ".join(_shown(part) for part in item)
        else:
            yield above + name, _shown(item)


def _shown(item: Any) -> str:
    return f"{item:.4f}" if isinstance(item, float) else "" if item is None else str(item)
