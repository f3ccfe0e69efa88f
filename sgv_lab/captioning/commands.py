"""``sgv-lab collect`` and ``caption``."""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from sgv_lab.captioning import collect as collecting
from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.errors import LabError
from sgv_lab.options import refuse_ignored


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which images ``collect`` and ``caption`` ask about, and where their run lies."""

    images: Path | None = None  # Folder, or list: JSON(L), text, Parquet.
    out: Path  # Folder of the run.
    root: Path | None = None  # Folder that names start from, as in the official layout.
    seed: int = 0

    def image_list(self) -> ImageList:
        """The images to caption."""
        if self.images is None:
            raise LabError("--images is missing", fix="give a folder or a list of images")
        return list_images(self.images, self.root)


@dataclass(frozen=True, kw_only=True)
class Captioning(collecting.Terms):
    """How a captioner is asked."""

    temperature: float = 0.0  # 0: greedy.


def collect(
    *,
    url: str,  # Of an OpenAI-compatible endpoint, up to /v1.
    model: str,  # As the endpoint calls it.
    asked: Asked,
    terms: collecting.Terms,
) -> Path:
    """Collect captions from an endpoint with the prompts for each source.

    The key is read from OPENAI_API_KEY. Give the same command again to go on; merge with
    `sgv-lab caption --merge --out OUT`.
    """
    return collecting.collect(url, model, asked.image_list(), asked.out, terms, seed=asked.seed)


def caption(
    *,
    model: str | None = None,  # Address of an endpoint, or a checkpoint's folder.
    asked: Asked,
    merge: bool = False,  # Make OUT a data set: JSON, Parquet, card.
    prompt: str = CAPTIONER,
    shard: str | None = None,  # i/n: this process's part, from 0/n. Default: torchrun's, or all.
    terms: Captioning,
    name: str | None = None,  # Endpoint: what it calls the model; default: its first.
    batch_size: int = 32,  # Checkpoint: images at once.
    static: bool = False,  # Checkpoint: key-value cache of fixed size, compiled on a GPU.
) -> Path:
    """Caption images by a served model, or by a checkpoint.

    `--model http://HOST:PORT/v1` asks vLLM, SGLang or `transformers serve`: the way at scale, as
    these take up another image whenever a caption ends. `--model FOLDER` loads a checkpoint, in
    bfloat16 on a GPU where there is one; its batches wait for their longest caption.

    Give the same command again to go on. Spread it with `--shard i/n`, a checkpoint also by
    `torchrun --nproc-per-node N --no-python sgv-lab caption …`; then `--merge`.
    """
    if merge:
        from sgv_lab.captioning import merge as merging

        refuse_ignored("--merge", but=("merge", "out"))
        return merging.merge(asked.out)
    if model is None:
        raise LabError("--model is missing", fix="give an address or a checkpoint folder")
    how = {"seed": asked.seed, "shard": parse_shard(shard)}
    if is_endpoint(model):
        refuse_ignored("an endpoint", "batch_size", "static")
        name = name or collecting.Client(model, "").first_model()
        how["ask"] = lambda image: prompt
        return collecting.collect(model, name, asked.image_list(), asked.out, terms, **how)
    theirs = {field.name for field in fields(terms)} - {"temperature", "max_tokens"}
    refuse_ignored("a checkpoint", "name", *theirs)
    from sgv_lab.captioning import bulk  # needs torch

    images = asked.image_list()
    how["decoding"] = bulk.Decoding(
        max_new_tokens=terms.max_tokens,
        do_sample=terms.temperature != 0,
        temperature=terms.temperature or 1.0,
        static=static,
    )
    how |= {"name": Path(model).name, "prompt": prompt, "batch_size": batch_size}
    return bulk.caption(*bulk.load(model), images, asked.out, **how)


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
