"""What people look at and click on in the notebooks."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as w
import polars as pl

from sgv_lab.captions.convert import Captions, captions_of
from sgv_lab.captions.sources import SOURCES
from sgv_lab.errors import LabError
from sgv_lab.files import below
from sgv_lab.plotting import COLORS


def caption_browser(
    captions: Mapping[str, Captions | None], root: str | Path, limit: int = 500
) -> w.Widget:
    """Walk through images, and see what the chosen sources say of each.

    ``limit``: how many images are listed, the first of each source. Images are read below
    ``root`` alone; one that is missing is named in its place.
    """
    there = {name: one for name, one in captions.items() if one is not None}
    heads = (
        one.rows().select(pl.col("image").drop_nulls().unique(maintain_order=True)).head(limit)
        for one in there.values()
    )
    images = pl.concat([head.collect() for head in heads])["image"].unique(maintain_order=True)
    source = w.SelectMultiple(options=list(there), value=list(there), description="sources", rows=5)
    image = w.Combobox(options=images.head(limit).to_list(), description="image",
                       value=images[0], ensure_option=True,
                       layout=w.Layout(width="28em"))  # fmt: skip
    place = w.IntSlider(min=0, max=len(image.options) - 1, description="number")
    picture, words = w.VBox(), w.VBox(layout=w.Layout(padding="0 0 0 1.5em", max_width="46em"))

    def show(_: object = None) -> None:
        said = captions_of({name: there[name] for name in source.value}, image.value)
        words.children = [_card(name, texts) for name, texts in said.items()]
        picture.children = [_picture(Path(root), image.value)]

    def go(change: dict[str, int]) -> None:
        image.value = image.options[change["new"]]

    place.observe(go, "value")
    for control in (source, image):
        control.observe(show, "value")
    show()
    return w.VBox([w.HBox([w.VBox([place, image]), source]), w.HBox([picture, words])])


def _picture(root: Path, image: str) -> w.Widget:
    try:
        return w.Image(value=below(root, image).read_bytes(), width=320)
    except (OSError, LabError):
        return w.Label(f"{image} is not there")


def _card(name: str, texts: list[str]) -> w.Widget:
    """A source's captions, escaped: nothing a file holds is taken for HTML."""
    head = f'<b style="color:{COLORS[name]}">{name}</b> by {SOURCES[name].captioned_by}'
    return w.VBox([w.HTML(head), *(w.HTML(escape(text)) for text in texts)])
