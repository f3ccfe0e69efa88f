"""``sgv-lab collect``, ``caption`` and ``throughput caption``."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.errors import LabError
from sgv_lab.options import refuse_ignored


@dataclass(kw_only=True)
class Asking:
    """What ``collect`` and ``caption`` have in common."""

    images: Path | None = None  # Folder, or list: JSON(L), text, Parquet.
    root: Path | None = None  # Folder that names start from, as in the official layout.
    out: Path  # Folder of the run.
    seed: int = 0
    max_tokens: int = 1024
    connections: int = 8
    per_minute: float = 0.0  # Most requests a minute; 0: any number.
    timeout: float = 120.0  # Seconds without a sign.
    request: str = "{}"  # JSON: More fields of a request; null leaves one out.

    def pictures(self) -> ImageList:
        """The images to caption."""
        if self.images is None:
            raise LabError("--images is missing", fix="give a folder or a list of pictures")
        return list_images(self.images, self.root)

    def terms(self, **more: float) -> Any:
        """How an endpoint is asked."""
        from sgv_lab.captioning.collect import Terms

        try:
            extra = dict(json.loads(self.request))
        except (TypeError, ValueError) as error:
            raise LabError("--request is no JSON object", fix='write {"top_p": 0.9}') from error
        names = ("max_tokens", "connections", "per_minute", "timeout")
        return Terms(**{name: getattr(self, name) for name in names}, extra=extra, **more)


def collect(
    *,
    asking: Asking,
    url: str,  # Of an OpenAI-compatible endpoint, up to /v1.
    model: str,  # As the endpoint calls it.
    temperature: float = 1.0,
    price_in: float = 0.0,  # Of a million tokens.
    price_out: float = 0.0,  # Of a million tokens.
    budget: float = 0.0,  # Most to spend in all; 0: no limit.
) -> Path:
    """Collect captions from an endpoint with the prompts for each source.

    The key is read from OPENAI_API_KEY. Give the same command again to go on; merge with
    `sgv-lab caption --merge --out OUT`.
    """
    from sgv_lab.captioning.collect import collect

    money = {"price_in": price_in, "price_out": price_out, "budget": budget}
    terms = asking.terms(temperature=temperature, **money)
    return collect(url, model, asking.pictures(), asking.out, terms, seed=asking.seed)


def caption(
    *,
    asking: Asking,
    model: str | None = None,  # Checkpoint folder, or address of an endpoint.
    name: str | None = None,  # What an endpoint calls the model; default: its first.
    temperature: float = 0.0,  # 0: greedy.
    static: bool = False,  # Key-value cache of fixed size, compiled on a GPU.
    prompt: str = CAPTIONER,
    shard: str | None = None,  # i/n: this process's part, from 0/n. Default: torchrun's, or all.
    batch_size: int = 32,
    merge: bool = False,  # Make OUT a data set: JSON, Parquet, card.
) -> Path:
    """Caption pictures by a model: a checkpoint in bfloat16 on a GPU where there is one.

    Give the same command again to go on. Spread it with `--shard i/n`, or
    `torchrun --nproc-per-node N --no-python sgv-lab caption …`; then `--merge`.
    """
    if merge:
        from sgv_lab.captioning import merge as merging

        refuse_ignored("--merge", but=("merge", "out"))
        return merging.merge(asking.out)
    if model is None:
        raise LabError("--model is missing", fix="give a checkpoint folder or an address")
    shared: dict[str, Any] = {"seed": asking.seed, "shard": _shard(shard)}
    place = asking.pictures(), asking.out
    if "://" in model or (not Path(model).exists() and re.match(r"[\w.-]+:\d+(/|$)", model)):
        from sgv_lab.captioning import collect

        refuse_ignored("an endpoint", "batch_size", "static")
        name = name or collect.Client(model, "").first_model()
        terms = asking.terms(temperature=temperature)
        return collect.collect(model, name, *place, terms, ask=lambda image: prompt, **shared)
    refuse_ignored("a checkpoint", "name", "connections", "per_minute", "timeout", "request")
    shared |= {"name": Path(model).name, "prompt": prompt, "batch_size": batch_size}
    decoding = {"max_new_tokens": asking.max_tokens, "static": static}
    if temperature:
        decoding |= {"do_sample": True, "temperature": temperature}
    return _with_checkpoint(model, *place, decoding, **shared)


def _with_checkpoint(
    model: str, pictures: ImageList, out: Path, decoding: dict[str, Any], **given: Any
) -> Path:
    import torch

    from sgv_lab.captioning import bulk
    from sgv_lab.models import checkpoints

    device, dtype = "cpu", torch.float32
    if torch.cuda.is_available():
        device, dtype = f"cuda:{os.environ.get('LOCAL_RANK', 0)}", torch.bfloat16
    loaded = checkpoints.load(model, device=device, dtype=dtype)
    return bulk.caption(*loaded, pictures, out, decoding=bulk.Decoding(**decoding), **given)


def _shard(text: str | None) -> tuple[int, int]:
    text = text or f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit()):
        raise LabError(f"--shard {text}", fix="write it as 0/4")
    return int(part), int(parts)


def throughput(
    *,
    model: str = "llava-1.5-7b",  # A family.
    size: Literal["paper", "mini"] = "paper",
    batches: int = 2,  # Timed per row.
    batch_size: int = 128,
    out: Path | None = None,  # CSV file to add the rows to.  [default: none]
) -> Iterator[str]:
    """Time captioning against the original's way in the same run: captions/s, and the ratio."""
    from sgv_lab.captioning import speed

    return speed.report(model, size, batches, batch_size, out)
