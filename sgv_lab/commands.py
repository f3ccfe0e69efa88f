"""``sgv-lab run``, ``study``, ``studies``, ``world``, ``models`` and ``convert``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sgv_lab import notebook, store
from sgv_lab.errors import LabError
from sgv_lab.options import Folder, pairs, refuse_ignored


def run(
    notebooks: tuple[str, ...] = (),
    *,
    profile: str = "mini",  # smoke, mini or paper.
    p: tuple[str, ...] = (),  # NAME=VALUE: A notebook's parameter.
    out: Path | None = None,  # Run folder.  [default: in runs/]
) -> Iterator[Any]:
    """Run NOTEBOOKS (such as 01 04; all, if none is named), then write one HTML report.

    The same command run again after a failure or a kill does only what is missing.
    """
    from sgv_lab import pipeline  # papermill and nbconvert take a second to import

    folder = notebook.folder()
    jobs = pipeline.plan(notebooks, profile, pairs("-p", p), folder)
    out = out or pipeline.default_out(jobs, whole=not (notebooks or p))
    yield from pipeline.run(jobs, folder, out, bars=sys.stderr.isatty())
    yield from (out / f"{job.notebook}.ipynb" for job in jobs)
    yield f"report: {out / 'report.html'}"


def study(
    plan: Path,
    *,
    out: Path | None = None,  # Folder of the records.  [default: runs/studies/PLAN]
    models_root: str = "",  # Folder of FAMILY (FAMILY.1, ...) checkpoints.  [default: shipped]
    data_root: str = "",  # The official files, for a plan of profile paper.
    workers: int | None = None,  # Runs at once.  [default: the GPUs, else the cores]
    cluster: str = "",  # tcp://HOST:PORT: A dask scheduler whose workers see the same disk.
    max_dropped: float = 0.05,  # SHARE: Of official records that may be left out.
    dry_run: bool = False,  # Show the plan, check base and official files; run nothing.
    publish: Path | None = None,  # Also write into this figures/.
    keep_models: bool = False,  # Keep the weights, to ask them more: their size is told first.
    report_to: str = "",  # Trackers of the trainings: tensorboard, trackio, wandb (by commas).
) -> Iterator[Any]:
    """Run the arms and seeds of PLAN.yaml, as far as they are missing, and say what follows.

    Records go to OUT/records.jsonl as they finish. The store keeps each run's answers and loss
    curve in arms/KEY (records name their keys), and its weights only if told so. The same command
    goes on after a kill. With official files each arm's training is checked before anything runs,
    by --dry-run too, and what each stage needs is told. A dry run also compares the records in OUT
    with what would be run today.
    """
    from sgv_lab.study import plans, publishing, runner

    if cluster:
        refuse_ignored("--cluster", "workers")
    if not data_root:
        refuse_ignored("a study without --data-root", "max_dropped")
    read = plans.load(plan)
    out = out or Path("runs") / "studies" / read.name
    yield publishing.describe_plan(read)
    given = (read, models_root, data_root, max_dropped)
    yield from _preflight(given, out, keep_models, dry_run, 1 if cluster else workers)
    if dry_run:
        yield read.resolved().to_string(index=False)
        return
    how = {"keep_models": keep_models, "max_dropped": max_dropped, "cluster": cluster}
    how["report_to"] = report_to
    records = runner.run(read, out, models_root, data_root, workers, **how)
    yield publishing.report(read, records, out)
    if publish:
        from sgv_lab.figures.study import publish as publish_study  # needs matplotlib

        yield from publish_study(read, records, out, publish)


def _preflight(
    given: tuple[Any, ...], out: Path, keep_models: bool, dry_run: bool, workers: int | None
) -> Iterator[str]:
    """What is known of a study before anything is trained; ``given`` as `runner.jobs` takes it."""
    from sgv_lab.study import run_arm, runner

    read, models_root, data_root, _ = given
    first = [one.pretrain.captions for one in read.configs().values() if one.pretrain]
    if not data_root and any(captions.annotator == "share" for captions in first):
        # Share-Captioner learns from collected captions: known before hours of training.
        import openai  # noqa: F401
        import polars  # noqa: F401
    if read.profile != "paper" or models_root:
        start = runner.bases(read, models_root)
        yield f"bases      {', '.join(path.name for path in start.values())}"
    kept = keep_models and (read.profile != "paper" or models_root)
    begun = dry_run and (out / runner.RECORDS).is_file()
    todo = runner.jobs(*given) if kept or data_root or begun else []
    if begun:
        done = runner.done_before(read, todo, out)
        yield f"records    {len(done)} of {len(read.runs())} are there"
    if kept:
        size = run_arm.check_disk(todo) / 1e9
        yield f"weights    {size:,.1f} GB of {len(read.runs())} runs, in {store.root() / 'arms'}"
    if data_root:
        yield from run_arm.check(todo, runner.at_once(workers, len(todo)))
    elif read.profile == "paper" and dry_run:
        yield "Files are not checked: that takes --models-root and --data-root."


def studies() -> Iterator[str]:
    """Show for each recorded study that its plan was committed before its records.

    Both commits are of this repository's own history: `git show COMMIT` gives them. A plan counts
    only with the text that it has today, from which its seeds and questions follow. An error names
    the studies of which this does not hold.
    """
    from sgv_lab.study import publishing

    found = publishing.commits()
    yield found.to_string()
    if wrong := list(found.index[found["wrong"] != ""]):
        raise LabError("not planned before they were recorded", where=", ".join(wrong))


def models(
    *,
    size: Literal["paper", "mini"] | None = None,  # Only this size.
) -> Iterator[str]:
    """List the model families with their parameter counts by part."""
    from sgv_lab.models import families

    yield f"{'family':<16}{'size':<7}{'total':>15}  parts; released as"
    for key, family in families.FAMILIES.items():
        for name in ("paper", "mini") if size is None else (size,):
            counted = families.counts(families.build(key, name, 0, device="meta"))
            parts = ", ".join(f"{part} {count:,}" for part, count in counted.items())
            released = f"; {family.hub}" if name == "paper" else ""
            yield f"{key:<16}{name:<7}{sum(counted.values()):>15,}  {parts}{released}"


def convert(
    source: Folder,
    target: Path,
    *,
    vision_tower: Folder | None = None,  # Folder of the CLIP vision tower, where SOURCE lacks it.
) -> str:
    """Convert an original LLaVA, ShareGPT4V or Qwen-VL-Chat checkpoint to Hugging Face format."""
    from sgv_lab.models.convert import convert

    return f"wrote {convert(source, target, vision_tower=vision_tower)}"
