"""The model families of the study, each at its own (`paper`) size and in miniature.

A family is a file FAMILY.json here: where it was released, and its configuration at both sizes. Any
image-text model of transformers becomes one by such a file, with its image processor's settings
beside each configuration and its chat template.

Sources: ShareGPT4V's released configuration and scripts/sharegpt4v
(ShareGPT4Omni/ShareGPT4V@b6f70e9), LLaVA's (haotian-liu/LLaVA@c121f04; 32,000 tokens get <image>
and <pad>, and rows up to a multiple of 64, as in llava-hf/llava-1.5-7b-hf; Vicuna v1.3 is a LLaMA
1: half the context, a smaller epsilon), config.json of Qwen-VL-Chat
(x1ngzai/Qwen-VL-Chat-Int4@1cd721a) and of Qwen/Qwen3-VL-8B-Instruct. Share-Captioner's release is
an InternLM-XComposer whose training was never published; the study trains its own on the
architecture of the models it feeds.

The miniatures' initializer_range is 1 / sqrt(width): with the usual 0.02 a model this narrow hardly
learns at all. The 13B one is wider and deeper by as much as Vicuna-13B is than Vicuna-7B, behind
the same vision tower.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

from sgv_lab.errors import unknown
from sgv_lab.models.architectures import PROCESSORS, part, passes_on, processor_class, template


@dataclass(frozen=True)
class Family:
    """One architecture at two sizes, which differ in numbers only."""

    key: str
    hub: str  # the released checkpoint
    sizes: dict[str, dict[str, Any]]  # "paper", "mini" -> "config", "image_processor"
    chat_template: str | None  # of a model of transformers' own

    @property
    def template(self) -> str:
        """The conversation template it was taught in."""
        return template(config(self.key, "mini"))

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


_FOLDER = Path(__file__).parent
_FILES = {file.stem: json.loads(file.read_bytes()) for file in sorted(_FOLDER.glob("*.json"))}
FAMILIES = {
    key: Family(key, one["released"], _FILES[one.get("like", key)], one.get("chat_template"))
    for key, one in _FILES.items()
}


def family(key: str) -> Family:
    """The family named ``key``; LabError with the known names for any other."""
    if key not in FAMILIES:
        raise unknown("model family", key, FAMILIES)
    return FAMILIES[key]


def config(key: str, size: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of family ``key`` at ``size``, "paper" or "mini".

    ``changes`` by the configuration's own names, a dict for those of its parts.
    """
    known = family(key).sizes
    if size not in ("paper", "mini"):
        raise unknown("size", size, ("paper", "mini"), where=key)
    given = dict(known[size]["config"])
    for name, value in changes.items():
        given[name] = given[name] | value if isinstance(value, dict) else value
    return AutoConfig.for_model(**given)


def build(
    key: str,
    size: str,
    seed: int,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> PreTrainedModel:
    """A model of family ``key`` at ``size`` ("paper" or "mini") with random weights.

    The same ``seed`` gives the same weights; the caller's random state is left alone. ``changes``
    as `config` takes them (with another width, give ``initializer_range`` too). On
    ``device="meta"`` nothing is allocated: enough to count.
    """
    made = config(key, size, **changes)
    cuda = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(made, dtype=dtype)
        for name, parameter in model.named_parameters():
            if passes_on(made, name) and parameter.ndim == 2:
                torch.nn.init.eye_(parameter)
    return model.eval()


def processor(
    key: str, size: str, tokenizer: PreTrainedTokenizerFast, **changes: Any
) -> ProcessorMixin:
    """The processor that belongs to ``build(key, size, ...)``, around ``tokenizer``."""
    known, made = family(key), config(key, size, **changes)
    if known.chat_template is None:
        return PROCESSORS[made.model_type](made, tokenizer)
    settings = dict(known.sizes[size]["image_processor"])
    images = getattr(transformers, settings.pop("image_processor_type"))(**settings)
    return processor_class(type(made))(images, tokenizer, chat_template=known.chat_template)


def counts(model: PreTrainedModel) -> dict[str, int]:
    """Parameters by part: vision tower, projector, embeddings, language model, output head."""
    names = ("vision tower", "projector", "embeddings", "language model", "output head")
    parts = dict.fromkeys(names, 0)
    for name, parameter in model.named_parameters():
        parts[part(name)] += parameter.numel()
    return parts
