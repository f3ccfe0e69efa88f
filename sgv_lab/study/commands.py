"""``sgv-lab study``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgv_lab.study import plans, publishing, runner, tuning


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
    if not data_root and any(design.pretrain for design in read.designs().values()):
        # Stage 1's Share-Captioner learns from collected captions: known before hours of training.
        import openai  # noqa: F401
        import polars  # noqa: F401
    if read.profile != "paper" or models_root:
        runner.base_folder(read.family, models_root)
    if data_root:
        yield from tuning.check(runner.jobs(read, models_root, data_root))
    elif read.profile == "paper" and dry_run:
        yield "Files are not checked: that takes --models-root and --data-root."
    if dry_run:
        yield read.resolved().to_string(index=False)
        return
    out = out or Path("runs") / "studies" / read.name
    records = runner.run(read, out, models_root, data_root, workers)
    yield publishing.report(read, records, out)
    if publish:
        from sgv_lab.figures.study import publish as publish_study

        yield from publish_study(read, records, out, publish)
