"""``sgv-lab score`` and ``sgv-lab evaluate``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sgv_lab import benchmarks
from sgv_lab.benchmarks import core
from sgv_lab.errors import LabError, unknown
from sgv_lab.options import Count, JsonObject, refuse_ignored


def score(
    benchmark: str,
    *,
    predictions: Path,
    annotations: Path | None = None,  # The truth; a file or folder.
    questions: Path | None = None,  # The questions that were run.
    variant: str = benchmarks.OFFICIAL,  # Another tool's rule instead.
    judge: str | None = None,  # MM-Vet, LLaVA-W: let this model grade the predictions first.
    judge_url: str | None = None,  # Its OpenAI-compatible endpoint; the key is OPENAI_API_KEY.
    runs: int = 1,  # How often the judge grades.
    table: bool = False,  # A table for people instead of JSON.
) -> Any:
    """Score predictions in the official format of BENCHMARK; print one JSON object.

    With --judge, PREDICTIONS are a model's answers and ANNOTATIONS the benchmark's data folder; the
    grades are kept beside the predictions, in a file or folder that names the judge.
    """
    name = benchmarks.canonical(benchmark)
    if not predictions.exists():
        raise LabError("no such file or folder", where=predictions)
    if judge is not None:
        from sgv_lab.benchmarks.judge import graded

        data = core.require(annotations, "the benchmark's data folder")
        predictions, annotations = graded(name, predictions, data, judge, judge_url, runs)
    else:
        refuse_ignored("scoring without --judge", "judge_url", "runs")
    scorer = benchmarks.module(name)
    if variant not in (known := (benchmarks.OFFICIAL, *scorer.VARIANTS)):
        raise unknown("scoring variant", variant, known)
    scores = scorer.score(predictions, annotations, questions, variant)
    value = {"benchmark": benchmarks.MODULES[name][1], "variant": variant, **scores}
    return as_table(value) if table else value


def as_table(value: dict[str, Any]) -> str:
    """The scores as aligned lines "name  value", nested names joined by a dot."""
    rows = list(_flat(value))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _flat(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{above}{name}.")
        else:
            yield above + name, _shown(item)


def _shown(item: Any) -> str:
    if isinstance(item, list):
        return "  ".join(map(_shown, item))
    return f"{item:.4f}" if isinstance(item, float) else "" if item is None else str(item)


def evaluate(
    *,
    model: str,  # Checkpoint's folder, or address of an endpoint.
    benchmark: tuple[str, ...],  # mme, mmbench, …: a misspelt name lists them all.
    data: Path,  # The official data.
    out: Path,
    shard: str | None = None,  # i/n: this process's part, from 0/n. Default: torchrun's, or all.
    name: str | None = None,  # Endpoint: what it calls the model; default: its first.
    connections: Count | None = None,  # Endpoint: requests at once.  [default: 256 locally, else 8]
    request: JsonObject | None = None,  # JSON: Endpoint: more fields of a request; null: left out.
    batch_size: int = 16,  # Checkpoint: images at once.
    device: Literal["auto", "cpu", "cuda"] = "auto",  # Checkpoint.
) -> Iterator[dict[str, Any]]:
    """Ask MODEL each BENCHMARK; write answers, the official submission and the score.

    With several benchmarks, DATA and OUT hold one folder for each, named as the benchmark. On a
    GPU a checkpoint answers in bfloat16. Processes with `--shard` of their own share OUT, and the
    last one scores. An endpoint's key is read from OPENAI_API_KEY. The card of a checkpoint made by
    `sgv-lab train` gets the scores, beside the paper's.
    """
    from sgv_lab.benchmarks import model_card
    from sgv_lab.benchmarks.evaluate import check_images, part_of
    from sgv_lab.benchmarks.evaluate import evaluate as run
    from sgv_lab.benchmarks.served import Served
    from sgv_lab.benchmarks.tasks import TASKS
    from sgv_lab.captioning import bulk
    from sgv_lab.captioning.commands import is_endpoint, parse_shard

    part, served = parse_shard(shard), is_endpoint(model)
    if served:
        refuse_ignored("an endpoint", "batch_size", "device")
    else:
        refuse_ignored("a checkpoint", "name", "connections", "request")
    names = tuple(map(benchmarks.canonical, benchmark))
    places = {one: (data, out) if len(names) == 1 else (data / one, out / one) for one in names}
    for one, (questions, _) in places.items():
        check_images(part_of(list(TASKS[one].questions(questions)), part), questions)
    asked: Any = Path(model)
    if served:
        asked, loaded = Served(model, name, connections, request), None
    else:
        loaded = bulk.load(asked, device)
    for one, (questions, answers) in places.items():
        how = {"batch_size": batch_size, "loaded": loaded, "shard": part}
        scores = run(asked, one, questions, answers, **how)
        if scores and not served:
            model_card.add_scores(asked, loaded[0].num_parameters(), one, scores, answers)
        yield {"benchmark": benchmarks.MODULES[one][1], **(scores or {})}
