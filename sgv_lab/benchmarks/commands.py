"""``sgv-lab score`` and ``sgv-lab evaluate``."""

import json
from pathlib import Path
from typing import Any

import click

from sgv_lab import benchmarks
from sgv_lab.benchmarks import core
from sgv_lab.errors import LabError

_KNOWN = ", ".join(benchmarks.MODULES)


@click.command()
@click.argument("benchmark")
@click.option("--predictions", required=True, type=click.Path(path_type=Path))
@click.option("--annotations", type=click.Path(path_type=Path), help="The truth; a file or folder.")
@click.option("--questions", type=click.Path(path_type=Path), help="The questions that were run.")
@click.option("--variant", default=benchmarks.OFFICIAL, help="Another tool's rule instead.")
@click.option("--judge", help="MM-Vet, LLaVA-W: let this model grade the predictions first.")
@click.option("--judge-url", help="Its OpenAI-compatible endpoint; the key is OPENAI_API_KEY.")
@click.option("--runs", default=1, show_default=True, help="How often the judge grades.")
@click.option("--table", is_flag=True, help="A table for people instead of JSON.")
def score(
    benchmark: str,
    predictions: Path,
    annotations: Path | None,
    questions: Path | None,
    variant: str,
    judge: str | None,
    judge_url: str | None,
    runs: int,
    table: bool,
) -> None:
    """Score predictions in the official format of BENCHMARK; print one JSON object.

    With --judge, PREDICTIONS are a model's answers and ANNOTATIONS the benchmark's data folder; the
    grades are kept beside the predictions, in a file or folder that names the judge.
    """
    name = benchmarks.canonical(benchmark)
    if not predictions.exists():
        raise LabError("no such file or folder", where=predictions)
    if judge is not None:
        from sgv_lab.benchmarks.judge import graded

        data = core.require(annotations, "--annotations", "the benchmark's data folder")
        predictions, annotations = graded(name, predictions, data, judge, judge_url, runs)
    scorer = benchmarks.module(name)
    if variant not in (allowed := (benchmarks.OFFICIAL, *scorer.VARIANTS)):
        fix = f"use one of {', '.join(allowed)}"
        raise LabError(f"unknown scoring variant {variant!r}", fix=fix)
    scores = scorer.score(predictions, annotations, questions, variant)
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


@click.command()
@click.option("--model", required=True, type=click.Path(path_type=Path), help="A checkpoint.")
@click.option("--benchmark", "names", required=True, multiple=True, help=f"{_KNOWN}.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The official data.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--batch-size", default=16, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
def evaluate(
    model: Path,
    names: tuple[str, ...],
    data: Path,
    out: Path,
    batch_size: int,
    device: str,
) -> None:
    """Ask MODEL each BENCHMARK; write answers, the official submission and the score.

    With several benchmarks, DATA and OUT hold one folder for each, named as the benchmark. On a
    GPU the model answers in bfloat16.
    """
    import torch

    from sgv_lab.benchmarks.evaluate import check_images
    from sgv_lab.benchmarks.evaluate import evaluate as run
    from sgv_lab.benchmarks.tasks import TASKS
    from sgv_lab.models import checkpoints

    names = tuple(map(benchmarks.canonical, names))
    places = {name: (data, out) if len(names) == 1 else (data / name, out / name) for name in names}
    for name, (questions, _) in places.items():
        check_images(TASKS[name].questions(questions), questions)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    settings = {"device": "cuda", "dtype": torch.bfloat16} if cuda else {}
    loaded = checkpoints.load(model, **settings)
    for name in names:
        scores = run(model, name, *places[name], batch_size=batch_size, loaded=loaded)
        value = {"benchmark": benchmarks.MODULES[name][1], **(scores or {})}
        click.echo(json.dumps(value, ensure_ascii=False))
