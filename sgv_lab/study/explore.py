"""Images to look at, and the models at hand that can be talked to about them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open

from sgv_lab import store
from sgv_lab.errors import LabError
from sgv_lab.images import decode_image, load_image
from sgv_lab.models import shipped
from sgv_lab.study.arms import arm
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import Difficulty, Scene

RECORDED = shipped.ROOT / "pilot-a.safetensors"  # projectors of arms of a recorded study's seed
_FINISHED = {"sft": "fine-tuned", "share-captioner": "Share-Captioner"}  # not stages on the way


@dataclass(frozen=True)
class Shown:
    """An image under its name, in RGB, and the scene behind it where that is known."""

    name: str
    image: Image.Image
    scene: Scene | None = None


def picked(root: str | Path, name: str, difficulty: Difficulty | None = None) -> Shown:
    """The image ``name`` below ``root``; with ``difficulty`` it is one of that drawn world."""
    _, image = load_image(Path(root), name)
    return Shown(name, image, scene_of(name, difficulty) if difficulty else None)


def uploaded(name: str, data: bytes) -> Shown:
    """An image that someone sent. Raises LabError, in words for that person, if it is none."""
    try:
        return Shown(name, decode_image(data))
    except LabError as error:
        fix = "try another image: PNG, JPEG or WebP"
        raise LabError(str(error), where=name, fix=fix) from error


class Model:
    """A checkpoint that answers, with an arm's ``RECORDED`` weights; read when it is first asked.

    ``about``: how it was trained, in words. Pages that ask none need not wait for torch.
    """

    def __init__(self, folder: str | Path, about: str = "", recorded: str = "") -> None:
        self.folder, self.about, self._recorded = Path(folder), about, recorded

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Model and processor."""
        from safetensors.torch import load_file

        from sgv_lab.captioning import bulk
        from sgv_lab.models.checkpoints import without_bars

        with without_bars():  # pages show their own sign
            model, processor = bulk.load(self.folder)
        for key, learned in load_file(RECORDED).items() if self._recorded else ():
            name, _, weight = key.partition("/")
            if name == self._recorded:
                model.get_parameter(weight).data.copy_(learned)
        return model, processor

    def say(self, image: Image.Image, asked: Sequence[str], said: Sequence[str] = ()) -> str:
        """The greedy answer to the last of ``asked``; ``said`` are its answers to the others."""
        from sgv_lab.captioning import bulk
        from sgv_lab.training.collate import prompts

        model, processor = self.loaded
        texts = [text for pair in zip(asked, [*said, ""], strict=True) for text in pair][:-1]
        texts[0] = f"<image>\n{texts[0]}"
        turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
        aspect = bulk.usual_aspect(model)
        inputs = prompts(model.config, processor, [turns], [image], aspect)
        return bulk.decode(model, processor, inputs, bulk.Decoding())[0]["caption"]


def recorded() -> dict[str, Model]:
    """Before and after: the base without detailed captions, and each arm in `RECORDED`, by name."""
    with safe_open(RECORDED, "pt") as file:
        about = file.metadata()
    base = shipped.ROOT / about["base"]
    found = {"none": Model(base, "no detailed captions: the base as it ships")}
    for name in about["arms"].split():
        told = f"its projector learned from {arm(name).label}"
        found[name] = Model(base, f"{told}, seed {about['seed']}", name)
    return found


def models(folders: Sequence[str | Path] = ()) -> dict[str, Model]:
    """Models by name: those recorded, the given folders, those trained here, other bases."""
    found = recorded()
    found["none"] = found.pop("none")  # the page opens on the first two: before and after
    found |= {Path(folder).name: Model(folder) for folder in folders}
    for kind, told in _FINISHED.items():
        for folder in sorted((store.root() / kind).glob("*/model")):
            if (folder / "config.json").is_file():
                made = json.loads((folder.parent / store.MANIFEST).read_bytes())
                name = f"{told}, seed {made['settings']['seed']}"
                count = sum(known.partition(" (")[0] == name for known in found)
                found[f"{name} ({count + 1})" if count else name] = Model(folder)
    bases = sorted(path.parent for path in shipped.ROOT.glob("*/config.json"))
    return found | {f"base {path.name}": Model(path) for path in bases}
