"""``sgv-lab build-foundations``, ``abilities`` and ``study``."""

from pathlib import Path

import click


@click.command("build-foundations")
@click.argument("out", type=click.Path())
@click.option("--seed", default=0, show_default=True, help="Scenes, first weights, data order.")
def build_foundations(out: str, seed: int) -> None:
    """Build the miniature's stand-ins for CLIP, Vicuna and LLaVA in OUT; goes on after a kill."""
    from sgv_lab.study import foundations

    click.echo(f"aligned base model: {foundations.build(out, seed)}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--scenes", default=1000, show_default=True, help="Held-out scenes asked about.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the tables.")
@click.option("--seeds", default=0, help="Also fine-tune on true and on shuffled captions.")
@click.option("--ship", metavar="FAMILY", help="If the gate is passed, put it into the package.")
def abilities(model: Path, scenes: int, out: Path | None, seeds: int, ship: str | None) -> None:
    """What the miniature checkpoint MODEL can do, and whether it passes the go/no-go gate."""
    from sgv_lab.models import checkpoints
    from sgv_lab.study import foundations, gate

    loaded, processor = checkpoints.load(model)
    out = out or model / "abilities"
    passed = gate.report(loaded, processor, scenes, out, click.echo)
    click.echo("the gate is passed" if passed else "the gate is NOT passed")
    if seeds:
        click.echo(gate.directions(model, seeds, scenes // 2, out).round(1).to_string(index=False))
    if ship and passed:
        click.echo(foundations.ship(model, ship, out))


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
    from sgv_lab.study import plans, publishing, runner, tuning

    read = plans.load(plan)
    click.echo(publishing.outline(read))
    if not data_root and any(design.pretrain for design in read.designs().values()):
        # Stage 1's Share-Captioner learns from collected captions: known before hours of training.
        import openai  # noqa: F401
        import polars  # noqa: F401
    if read.profile != "paper" or models_root:
        runner.base_folder(read.family, models_root)
    if data_root:
        for line in tuning.check(runner.jobs(read, models_root, data_root)):
            click.echo(line)
    elif read.profile == "paper" and dry_run:
        click.echo("Files are not checked: that takes --models-root and --data-root.")
    if dry_run:
        click.echo(read.resolved().to_string(index=False))
        return
    out = out or Path("runs") / "studies" / read.name
    records = runner.run(read, out, models_root, data_root, workers)
    click.echo(publishing.report(read, records, out))
    if publish:
        from sgv_lab.figures.study import publish as publish_study

        for path in publish_study(read, records, out, publish):
            click.echo(path)
