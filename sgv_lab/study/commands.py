"""``sgv-lab study``, ``build-foundations`` and ``abilities``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sgv_lab.models import checkpoints
from sgv_lab.study import foundations, gate, plans, publishing, runner, sharegpt4v


def build_foundations(
    out: str,
    *,
    seed: int = 0,  # Scenes, first weights, data order.
) -> str:
    """Build the miniature's stand-ins for CLIP, Vicuna and LLaVA in OUT; goes on after a kill."""
    return f"aligned base model: {foundations.build(out, seed)}"


def abilities(
    model: Path,
    *,
    scenes: int = 1000,  # Held-out scenes asked about.
    out: Path | None = None,  # Folder for the tables.
    seeds: int = 0,  # Also fine-tune on true and on shuffled captions.
    ship: str | None = None,  # FAMILY: If the gate is passed, put it into the package.
) -> Iterator[Any]:
    """What the miniature checkpoint MODEL can do, and whether it passes the go/no-go gate."""
    loaded, processor = checkpoints.load(model)
    out = out or model / "abilities"
    passed = gate.report(loaded, processor, scenes, out, click.echo)
    yield "the gate is passed" if passed else "the gate is NOT passed"
    if seeds:
        yield gate.directions(model, seeds, scenes // 2, out).round(1).to_string(index=False)
    if ship and passed:
        yield foundations.ship(model, ship, out)


def study(
    plan: Path,
    *,
    out: Path | None = None,  # Folder of the records.  [default: runs/studies/PLAN]
    models_root: str = "",  # Folder of FAMILY checkpoints.  [default: shipped]
    data_root: str = "",  # The official files, for a plan of profile paper.
    workers: int | None = None,  # Runs at once.  [default: the GPUs, else the cores]
    dry_run: bool = False,  # Show the plan, check base and official files; run nothing.
    publish: Path | None = None,  # Also write into this figures/.
) -> Iterator[Any]:
    """Run the arms and seeds of PLAN.yaml, as far as they are missing, and say what follows.

    Records go to OUT/records.jsonl as they finish. The same command goes on after a kill. With
    official files each arm's training is checked before anything runs, by --dry-run too.
    """
    read = plans.load(plan)
    yield publishing.outline(read)
    if not data_root and any(design.pretrain.by for design in read.designs().values()):
        # Stage 1's Share-Captioner learns from collected captions: known before hours of training.
        import openai  # noqa: F401
        import polars  # noqa: F401
    if read.profile != "paper" or models_root:
        runner.base_folder(read.family, models_root)
    if data_root:
        yield from sharegpt4v.check(runner.jobs(read, models_root, data_root))
    elif read.profile == "paper" and dry_run:
        yield "Files are not checked: that takes --models-root and --data-root."
    if dry_run:
        return
    out = out or Path("runs") / "studies" / read.name
    records = runner.run(read, out, models_root, data_root, workers)
    yield publishing.report(read, records, out)
    if publish:
        yield from publishing.publish(read, records, out, publish)
