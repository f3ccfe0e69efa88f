"""``sgv-lab collect`` and ``caption``."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgv_lab.captioning import collect as collecting
from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.errors import LabError
from sgv_lab.options import refuse_ignored


@dataclass(frozen=True, kw_only=True)
class Asking(collecting.Terms):
    """What ``collect`` and ``caption`` have in common."""

    images: Path | None = None  # Folder, or list: JSON(L), text, Parquet.
    root: Path | None = None  # Folder that names start from, as in the official layout.
    out: Path  # Folder of the run.
    seed: int = 0

    def image_list(self) -> ImageList:
        """The images to caption."""
        if self.images is None:
            raise LabError("--images is missing", fix="give a folder or a list of images")
        return list_images(self.images, self.root)


@dataclass(frozen=True, kw_only=True)
class Captioning(Asking):
    """The same for a captioner."""

    temperature: float = 0.0  # 0: greedy.


def collect(
    *,
    asking: Asking,
    url: str,  # Of an OpenAI-compatible endpoint, up to /v1.
    model: str,  # As the endpoint calls it.
) -> Path:
    """Collect captions from an endpoint with the prompts for each source.

    The key is read from OPENAI_API_KEY. Give the same command again to go on; merge with
    `sgv-lab caption --merge --out OUT`.
    """
    return collecting.collect(url, model, asking.image_list(), asking.out, asking, seed=asking.seed)


def caption(
    *,
    asking: Captioning,
    model: str | None = None,  # Checkpoint folder, or address of an endpoint.
    name: str | None = None,  # What an endpoint calls the model; default: its first.
    static: bool = False,  # Key-value cache of fixed size, compiled on a GPU.
    prompt: str = CAPTIONER,
    shard: str | None = None,  # i/n: this process's part, from 0/n. Default: torchrun's, or all.
    batch_size: int = 32,
    merge: bool = False,  # Make OUT a data set: JSON, Parquet, card.
) -> Path:
    """Caption images by a model: a checkpoint in bfloat16 on a GPU where there is one.

    Give the same command again to go on. Spread it with `--shard i/n`, or
    `torchrun --nproc-per-node N --no-python sgv-lab caption …`; then `--merge`.
    """
    if merge:
        from sgv_lab.captioning import merge as merging

        refuse_ignored("--merge", but=("merge", "out"))
        return merging.merge(asking.out)
    if model is None:
        raise LabError("--model is missing", fix="give a checkpoint folder or an address")
    how = {"seed": asking.seed, "shard": parse_shard(shard)}
    if is_endpoint(model):
        refuse_ignored("an endpoint", "batch_size", "static")
        name = name or collecting.Client(model, "").first_model()
        how["ask"] = lambda image: prompt
        return collecting.collect(model, name, asking.image_list(), asking.out, asking, **how)
    asked = ("request", "connections", "per_minute", "timeout", "price_in", "price_out", "budget")
    refuse_ignored("a checkpoint", "name", *asked)
    return _by_checkpoint(model, asking, static, prompt=prompt, batch_size=batch_size, **how)


def _by_checkpoint(model: str, asking: Captioning, static: bool, **how: Any) -> Path:
    from sgv_lab.captioning import bulk

    image_list = asking.image_list()
    decoding = bulk.Decoding(
        max_new_tokens=asking.max_tokens,
        do_sample=asking.temperature != 0,
        temperature=asking.temperature or 1.0,
        static=static,
    )
    how |= {"name": Path(model).name, "decoding": decoding}
    return bulk.caption(*load(model), image_list, asking.out, **how)


def load(model: str | Path, device: str = "auto") -> tuple[Any, Any]:
    """Model and processor of a checkpoint: in bfloat16 on this process's GPU, if there is one."""
    import torch

    from sgv_lab.models import checkpoints

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return checkpoints.load(model)
    place = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return checkpoints.load(model, device=place, dtype=torch.bfloat16)


def is_endpoint(model: str) -> bool:
    """Whether a model is named by an address, and not by a folder."""
    return "://" in model or bool(not Path(model).exists() and re.match(r"[\w.-]+:\d+(/|$)", model))


def parse_shard(text: str | None) -> tuple[int, int]:
    """(i, n) of "i/n", or of torchrun's processes. Raises LabError for any other text."""
    text = text or f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
    if not re.fullmatch(r"\d+/\d+", text):
        raise LabError(f"--shard {text}", fix="write it as 0/4")
    part, parts = map(int, text.split("/"))
    return part, parts
