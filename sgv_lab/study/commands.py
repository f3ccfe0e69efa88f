"""``sgv-lab build-foundations``."""

import click


@click.command("build-foundations")
@click.argument("out", type=click.Path())
@click.option("--seed", default=0, show_default=True, help="Scenes, first weights, data order.")
@click.option(
    "--share",
    default=1.0,
    show_default=True,
    help="Share of the curriculum's pictures, records and updates (below 1: to try a change).",
)
def build_foundations(out: str, seed: int, share: float) -> None:
    """Build the miniature's stand-ins for CLIP, Vicuna and LLaVA in OUT; goes on after a kill."""
    from sgv_lab.study import foundations

    folder = foundations.build(out, seed, foundations.CURRICULUM.scaled(share))
    click.echo(f"aligned base model: {folder}")
