"""Captions of one's own as an arm: which images of the mix they cover, and what they say there.

A plan's ``captions: FILE`` names a JSON in LLaVA's or COCO's layout. In the drawn world the mixes
of *all* its arms show that file's images; in the official mix they are there already. Any other
detailed caption stays blind GPT-4's, so arms differ in the covered ones alone.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sgv_lab.captions.quality import judge_caption
from sgv_lab.errors import LabError
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import FULL, MINIATURE

if TYPE_CHECKING:
    from sgv_lab.captions.convert import Captions

ARM = "own"  # the arm, and the annotator in its design


def read(file: str | Path) -> "Captions":
    """The file, converted. Raises LabError for a blank caption, and where none has an image."""
    import polars as pl

    from sgv_lab.captions.convert import convert

    captions = convert(file)
    blank = captions.rows().filter(pl.col("caption").str.strip_chars() == "").head(1).collect()
    if len(blank):
        fix = "write it, or leave the record out"
        raise LabError(f"record {blank['record'][0]} has no words", where=file, fix=fix)
    if not captions_by_image(captions):
        raise LabError("no caption names its image", where=file, fix='add "image" to the records')
    return captions


def summary(file: str | Path) -> str:
    """The file in words: its name, how many images it captions, how many records it spoils."""
    captions = read(file)
    bad = captions.rejected().height
    lost = f"; {bad} records cannot be used (`sgv-lab stats` says why)" if bad else ""
    return f"{captions.file.name}: {len(captions_by_image(captions)):,} images{lost}"


@cache
def captions_by_image(captions: "Captions") -> Mapping[str, str]:
    """Image -> caption; where it has several, its first."""
    import polars as pl

    rows = captions.rows().filter(pl.col("image").is_not_null()).select("image", "caption")
    return dict(rows.unique("image", keep="first", maintain_order=True).collect().iter_rows())


def validate_for_world(file: str | Path) -> Mapping[str, str]:
    """Image of the miniature's world -> caption, for a mix of the drawn world.

    Raises LabError for an image that is none of the world's or of a test split, and for captions
    that describe the images of the same names in the full world.
    """
    return _drawn(read(file))


@cache
def _drawn(captions: "Captions") -> Mapping[str, str]:
    found, file = captions_by_image(captions), captions.file
    fix = "caption images of `sgv-lab world export OUT --miniature`"
    for name in found:
        try:
            split = scene_of(name, MINIATURE).split
        except LabError as error:
            what = f"{name} is no image of the drawn world"
            raise LabError(what, where=file, fix=fix) from error
        if split != "train":
            what = f"{name} is of the split {split}, which the models are tested on"
            raise LabError(what, where=file, fix=fix)
    some = list(found.items())[:100]
    true = {world: sum(len(judge_caption(text, scene_of(name, world)).true) for name, text in some)
            for world in (MINIATURE, FULL)}  # fmt: skip
    if true[FULL] > true[MINIATURE]:  # words that the reader does not know count for neither
        what = "these captions fit the full world's images, not the miniature's of these names"
        raise LabError(what, where=file, fix=fix)
    return found
