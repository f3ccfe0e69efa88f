"""``sgv-lab models`` and ``sgv-lab convert``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sgv_lab.models import convert as conversion
from sgv_lab.models import families
from sgv_lab.options import Folder


def models(
    *,
    size: Literal["paper", "mini"] | None = None,  # Only this size.
) -> Iterator[str]:
    """List the model families with their parameter counts by part."""
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
    return f"wrote {conversion.convert(source, target, vision_tower=vision_tower)}"
