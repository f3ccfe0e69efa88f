"""``sgv-lab study``."""

from pathlib import Path

import click


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/studies/PLAN]")
@click.option("--models-root", default="", help="Folder of FAMILY checkpoints.  [default: shipped]")
@click.option("--data-root", default="", help="The official files, for a plan of profile paper.")
@click.option("--workers", type=int, help="Runs at once.  [default: the GPUs, else the cores]")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the plan, check base and official files; run nothing.",
)
@click.option("--publish", type=click.Path(path_type=Path), help="Also write into this figures/.")
def study(
    plan: Path,
    out: Path | None,
    models_root: str,
    data_root: str,
    workers: int | None,
    dry_run: bool,
    publish: Path | None,
) -> None:
    """Run the arms and seeds of PLAN.yaml, as far as they are missing, and say what follows.

    Records go to OUT/records.jsonl as they finish. The same command goes on after a kill. With
    official files each arm's training is checked before anything runs, by --dry-run too.
    """
    from sgv_lab.study import plans, publishing, runner, sharegpt4v

    read = plans.load(plan)
    click.echo(publishing.outline(read))
    if not data_root and any(design.pretrain.by for design in read.designs().values()):
        # Stage 1's Share-Captioner learns from collected captions: known before hours of training.
        import openai  # noqa: F401
        import polars  # noqa: F401
    if read.profile != "paper" or models_root:
        runner.base_folder(read.family, models_root)
    if data_root:
        for line in sharegpt4v.check(runner.jobs(read, models_root, data_root)):
            click.echo(line)
    elif read.profile == "paper" and dry_run:
        click.echo("Files are not checked: that takes --models-root and --data-root.")
    if dry_run:
        return
    out = out or Path("runs") / "studies" / read.name
    records = runner.run(read, out, models_root, data_root, workers)
    click.echo(publishing.report(read, records, out))
    if publish:
        for path in publishing.publish(read, records, out, publish):
            click.echo(path)
