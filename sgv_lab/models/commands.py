"""`sgv-lab models` and `sgv-lab convert`."""

from pathlib import Path

import click

from sgv_lab.models import families
from sgv_lab.models.convert import convert as convert_checkpoint


@click.command()
@click.option("--size", type=click.Choice(["paper", "mini"]), default=None, help="Only this size.")
def models(size: str | None) -> None:
    """List the model families with their parameter counts by part."""
    click.echo(f"{'family':<16}{'size':<7}{'total':>15}  parts; released as")
    for key, family in families.FAMILIES.items():
        for name in ("paper", "mini") if size is None else (size,):
            counted = families.counts(families.build(key, name, 0, device="meta"))
            parts = ", ".join(f"{part} {count:,}" for part, count in counted.items())
            released = f"; {family.hub}" if name == "paper" else ""
            click.echo(f"{key:<16}{name:<7}{sum(counted.values()):>15,}  {parts}{released}")


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--vision-tower",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the CLIP vision tower, where the checkpoint does not hold it.",
)
def convert(source: Path, target: Path, vision_tower: Path | None) -> None:
    """Convert an original LLaVA, ShareGPT4V or Qwen-VL-Chat checkpoint to Hugging Face format."""
    click.echo(f"wrote {convert_checkpoint(source, target, vision_tower=vision_tower)}")
