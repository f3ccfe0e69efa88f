"""The model families of the study, each at its own (`paper`) size and in miniature.

A family is one architecture; its two sizes differ in numbers only. The study's own stand in
sizes.csv: ShareGPT4V's released configuration and scripts/sharegpt4v
(ShareGPT4Omni/ShareGPT4V@b6f70e9), LLaVA's (haotian-liu/LLaVA@c121f04; 32,000 tokens get <image>
and <pad>, and rows up to a multiple of 64, as in llava-hf/llava-1.5-7b-hf; Vicuna v1.3 is a LLaMA
1: half the context, a smaller epsilon), config.json of Qwen-VL-Chat
(x1ngzai/Qwen-VL-Chat-Int4@1cd721a). The miniatures' initializer_range is 1 / sqrt(width): with the
usual 0.02 a model this narrow hardly learns at all. The 13B one is wider and deeper by as much as
Vicuna-13B is than Vicuna-7B, behind the same vision tower.

Any other image-text model of transformers is a family by a file FAMILY.json here: its
configuration and image processor at both sizes, its chat template, the make of its tokenizer.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from sgv_lab.errors import LabError
from sgv_lab.models import architectures
from sgv_lab.models.architectures import Sizes, part, processor_class, template

_HERE = Path(__file__).parent
Maker = Callable[[PreTrainedConfig, PreTrainedTokenizerFast], ProcessorMixin]


@dataclass(frozen=True)
class Family:
    """One architecture, and how configuration and processor are made at a size."""

    key: str
    hub: str  # the released checkpoint
    make_config: Callable[..., PreTrainedConfig]  # (size, **changes)
    make_processor: Callable[..., ProcessorMixin]  # (configuration, tokenizer, size)

    @property
    def template(self) -> str:
        """The conversation template it was taught in."""
        return template(self.make_config("mini"))

    @property
    def tokenizer(self) -> str:
        """The make of its tokenizer, as `mini.train_tokenizer` takes it."""
        return "llama" if self.template == "v1" else "qwen"

    @property
    def image_size(self) -> int:
        """Pixels of the side at which its miniature takes an image."""
        vision = config(self.key, "mini").vision_config
        if hasattr(vision, "image_size"):
            return vision.image_size
        return int(vision.num_position_embeddings**0.5) * vision.patch_size


def _check_size(key: str, size: str) -> None:
    if size not in ("paper", "mini"):
        raise LabError(f"no size {size!r}", where=key, fix='say "paper" or "mini"')


def _own(
    key: str, hub: str, numbers: str, make_config: Callable[..., Any], make_processor: Maker
) -> Family:
    """A family whose two sizes stand in sizes.csv as ``numbers``."""

    def configured(size: str, **changes: float) -> PreTrainedConfig:
        _check_size(key, size)
        return make_config(replace(_sizes()[numbers, size], **changes))

    return Family(key, hub, configured, lambda made, tokenizer, _: make_processor(made, tokenizer))


@cache
def _sizes() -> dict[tuple[str, str], Sizes]:
    """The table sizes.csv; an empty cell is the usual value."""
    found = {}
    with (_HERE / "sizes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row.pop("family"), row.pop("size")
            known = {name: value for name, value in row.items() if value}
            found[key] = msgspec.convert(known, Sizes, strict=False)
    return found


def _current(file: Path) -> Family:
    """A family that is transformers' own, from a file."""
    given = json.loads(file.read_text(encoding="utf-8"))

    def configured(size: str, **changes: float) -> PreTrainedConfig:
        _check_size(file.stem, size)
        if changes:
            raise LabError(f"cannot change {', '.join(changes)}", where=file.stem)
        return AutoConfig.for_model(**given[size]["config"])

    def processed(
        made: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, size: str
    ) -> ProcessorMixin:
        settings = dict(given[size]["image_processor"])
        images = getattr(transformers, settings.pop("image_processor_type"))(**settings)
        kind = processor_class(type(made))
        return kind(images, tokenizer, chat_template=given["chat_template"])

    return Family(file.stem, given["released"], configured, processed)


_LINEAR = (architectures.one_layer_config, architectures.llava_processor)
_MLP = (architectures.llava_config, architectures.llava_processor)
_QWEN = (architectures.qwen_vl_config, architectures.qwen_vl_processor)
FAMILIES: dict[str, Family] = {
    one.key: one
    for one in (
        _own("llava-7b", "liuhaotian/LLaVA-7b-delta-v0 (a delta)", "llava-7b", *_LINEAR),
        _own("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "llava-1.5-7b", *_MLP),
        _own("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", "llava-1.5-13b", *_MLP),
        _own("sharegpt4v-7b", "Lin-Chen/ShareGPT4V-7B (original layout)", "llava-1.5-7b", *_MLP),
        # The released captioner is an InternLM-XComposer whose training was never published; the
        # study trains its own on the architecture of the models it feeds.
        _own("share-captioner", "none of this architecture", "llava-1.5-7b", *_MLP),
        _own("qwen-vl-chat", "Qwen/Qwen-VL-Chat (original layout)", "qwen-vl-chat", *_QWEN),
        *map(_current, sorted(_HERE.glob("*.json"))),
    )
}


def family(key: str) -> Family:
    """The family named ``key``; LabError with the known names for any other."""
    if key not in FAMILIES:
        raise LabError(f"no model family {key!r}", fix=f"choose from {', '.join(FAMILIES)}")
    return FAMILIES[key]


def config(key: str, size: str, **changes: float) -> PreTrainedConfig:
    """The configuration of family ``key`` at ``size``; ``changes`` override numbers of `Sizes`."""
    return family(key).make_config(size, **changes)


def build(
    key: str,
    size: str,
    seed: int,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **changes: float,
) -> PreTrainedModel:
    """A model of family ``key`` at ``size`` ("paper" or "mini") with random weights.

    The same ``seed`` gives the same weights; the caller's random state is left alone. ``changes``
    override numbers of `Sizes` (with another ``text_width``, give ``initializer_range`` too). On
    ``device="meta"`` nothing is allocated: enough to count.
    """
    made = config(key, size, **changes)
    cuda = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(made, dtype=dtype)
    return model.eval()


def processor(
    key: str, size: str, tokenizer: PreTrainedTokenizerFast, **changes: float
) -> ProcessorMixin:
    """The processor that belongs to ``build(key, size, ...)``, around ``tokenizer``."""
    return family(key).make_processor(config(key, size, **changes), tokenizer, size)


def counts(model: PreTrainedModel) -> dict[str, int]:
    """Parameters by part: vision tower, connector, embeddings, language model, output head."""
    parts = dict.fromkeys(
        ("vision tower", "connector", "embeddings", "language model", "output head"), 0
    )
    for name, parameter in model.named_parameters():
        parts[part(name)] += parameter.numel()
    return parts
