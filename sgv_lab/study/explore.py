"""Pictures to look at, and the models at hand that can be talked to about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sgv_lab import store
from sgv_lab.captions.sources import scene_of
from sgv_lab.errors import LabError
from sgv_lab.images import decode_image, load_image
from sgv_lab.models import shipped
from sgv_lab.world.scene import Difficulty, Scene

if TYPE_CHECKING:  # torch is imported when a model is asked: pages without one need not wait for it
    from transformers import PreTrainedModel, ProcessorMixin


@dataclass(frozen=True)
class Shown:
    """A picture under its name, in RGB, and the scene behind it where that is known."""

    name: str
    image: Image.Image
    scene: Scene | None = None


def picked(root: str | Path, name: str, difficulty: Difficulty | None = None) -> Shown:
    """The picture ``name`` below ``root``; with ``difficulty`` it is one of that drawn world."""
    _, image = load_image(Path(root), name)
    return Shown(name, image, scene_of(name, difficulty) if difficulty else None)


def uploaded(name: str, data: bytes) -> Shown:
    """A picture someone sent. Raises LabError, in words for that person, if it is none."""
    try:
        return Shown(name, decode_image(data))
    except LabError as error:
        fix = "try another picture: PNG, JPEG or WebP"
        raise LabError(str(error), where=name, fix=fix) from error


class Model:
    """A checkpoint that answers; it is read when it is first asked."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def loaded(self) -> "tuple[PreTrainedModel, ProcessorMixin]":
        """Model and processor."""
        from sgv_lab.models import checkpoints

        return checkpoints.load(self.folder)

    def say(self, image: Image.Image, asked: Sequence[str], said: Sequence[str] = ()) -> str:
        """The greedy answer to the last of ``asked``; ``said`` are its answers to the others."""
        from sgv_lab.captioning import bulk

        model, processor = self.loaded
        texts = [text for pair in zip(asked, [*said, ""], strict=True) for text in pair][:-1]
        texts[0] = f"<image>\n{texts[0]}"
        turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
        aspect = bulk.usual_aspect(model)
        inputs = bulk.prepare(model.config, processor, [image], turns, aspect)
        return bulk.decode(model, processor, inputs, bulk.Decoding())[0]["caption"]


def models(folders: Sequence[str | Path] = ()) -> dict[str, Model]:
    """Models by name: the given checkpoint folders, those trained here, those that are shipped."""
    trained = sorted(path.parent for path in store.root().glob("*/*/model/config.json"))
    ships = sorted(path.parent for path in shipped.ROOT.glob("*/config.json"))
    found = {Path(folder).name: Model(folder) for folder in folders}
    found |= {f"{p.parts[-3]} {p.parts[-2][:6]}": Model(p) for p in trained}
    return found | {f"{path.name}, shipped": Model(path) for path in ships}
