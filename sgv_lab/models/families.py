"""The model families of the study, each at its own (`paper`) size and in miniature.

A family is one architecture; its two sizes differ in numbers only. Sources: ShareGPT4V's released
configuration and scripts/sharegpt4v (ShareGPT4Omni/ShareGPT4V@b6f70e9), LLaVA's
(haotian-liu/LLaVA@c121f04), config.json of Qwen-VL-Chat (x1ngzai/Qwen-VL-Chat-Int4@1cd721a) and of
Qwen/Qwen3-VL-8B-Instruct.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from sgv_lab.errors import LabError
from sgv_lab.models import architectures, mini
from sgv_lab.models.architectures import Sizes
from sgv_lab.models.kinds import Kind, kind


@dataclass(frozen=True)
class Family:
    """One architecture: its sizes, and how configuration and processor are made from them."""

    key: str
    hub: str  # the released checkpoint
    paper: Sizes
    mini: Sizes
    make_config: Callable[[Sizes], PreTrainedConfig]
    make_processor: Callable[[PreTrainedConfig, PreTrainedTokenizerFast], ProcessorMixin]

    @property
    def kind(self) -> Kind:
        """The names of its parts, and the template it was taught in."""
        return kind(self.make_config(self.mini).model_type)

    @property
    def template(self) -> str:
        """The conversation template it was taught in."""
        return self.kind.template

    @property
    def tokenizer(self) -> str:
        """The make of its tokenizer, as `mini.train_tokenizer` takes it."""
        return "llama" if self.template == "v1" else "qwen"

    def sizes(self, size: str) -> Sizes:
        """The numbers of ``size``, "paper" or "mini"; LabError for another word."""
        if size not in ("paper", "mini"):
            raise LabError(f"no size {size!r}", where=self.key, fix='say "paper" or "mini"')
        return self.paper if size == "paper" else self.mini


MINI = Sizes(
    image_size=64,
    patch_size=16,
    vision_width=128,
    vision_layers=3,
    vision_heads=4,
    vision_mlp=512,
    text_width=128,
    text_layers=3,
    text_heads=4,
    text_kv_heads=4,
    text_mlp=352,
    vocab_size=mini.VOCAB_SIZE,
    context=mini.CONTEXT,
    image_token_id=mini.IMAGE_ID,
    pad_token_id=mini.PAD_ID,
    # 1/sqrt(width): with the usual 0.02 a model this narrow hardly learns at all.
    initializer_range=128**-0.5,
)
# Wider and deeper by as much as Vicuna-13B is than Vicuna-7B, behind the same vision tower.
MINI_13B = replace(
    MINI,
    text_width=160,
    text_layers=4,
    text_heads=5,
    text_kv_heads=5,
    text_mlp=432,
    initializer_range=160**-0.5,
)
MINI_QWEN = replace(
    MINI,
    queries=16,
    image_token_id=mini.IMGPAD_ID,
    pad_token_id=mini.ENDOFTEXT_ID,
    bos_token_id=None,
    eos_token_id=mini.IM_END_ID,
    rms_norm_eps=1e-6,
)
MINI_QWEN3 = replace(  # four 8-pixel patches become one token
    MINI_QWEN, patch_size=8, image_token_id=mini.IMAGE_PAD_ID, deepstack=(0, 1), text_kv_heads=2
)
# Vicuna-7B v1.5 with CLIP ViT-L/14-336. Its 32,000 tokens get <image> and <pad>, and rows up to
# a multiple of 64, as in llava-hf/llava-1.5-7b-hf.
LLAVA_7B = Sizes(
    image_size=336,
    patch_size=14,
    vision_width=1024,
    vision_layers=24,
    vision_heads=16,
    vision_mlp=4096,
    text_width=4096,
    text_layers=32,
    text_heads=32,
    text_kv_heads=32,
    text_mlp=11008,
    vocab_size=32064,
    context=4096,
    image_token_id=32000,
    pad_token_id=32001,
)
LLAVA_13B = replace(
    LLAVA_7B, text_width=5120, text_layers=40, text_heads=40, text_kv_heads=40, text_mlp=13824
)
# Vicuna v1.3 is a LLaMA 1: half the context, a smaller epsilon.
LLAVA_V1 = replace(LLAVA_7B, image_size=224, context=2048, rms_norm_eps=1e-6)
QWEN_VL = Sizes(
    image_size=448,
    patch_size=14,
    vision_width=1664,
    vision_layers=48,
    vision_heads=16,
    vision_mlp=8192,
    text_width=4096,
    text_layers=32,
    text_heads=32,
    text_kv_heads=32,
    text_mlp=11008,
    vocab_size=151936,
    context=2048,
    image_token_id=151859,
    pad_token_id=151643,
    bos_token_id=None,
    eos_token_id=151645,
    rms_norm_eps=1e-6,
    queries=256,
)
QWEN3_VL = replace(
    QWEN_VL,
    image_size=768,  # the side its table of 48 x 48 positions covers; pictures keep their own
    patch_size=16,
    vision_width=1152,
    vision_layers=27,
    vision_mlp=4304,
    text_layers=36,
    text_kv_heads=8,
    text_mlp=12288,
    context=262144,
    image_token_id=151655,
    deepstack=(8, 16, 24),
    rope_theta=5e6,
)


_LINEAR = (architectures.one_layer_config, architectures.llava_processor)
_MLP = (architectures.llava_config, architectures.llava_processor)
_QWEN = (architectures.qwen_vl_config, architectures.qwen_vl_processor)
_QWEN3 = (architectures.qwen3_vl_config, architectures.qwen3_vl_processor)
FAMILIES: dict[str, Family] = {
    row[0]: Family(*row)
    for row in (
        ("llava-7b", "liuhaotian/LLaVA-7b-delta-v0 (a delta)", LLAVA_V1, MINI, *_LINEAR),
        ("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", LLAVA_7B, MINI, *_MLP),
        ("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", LLAVA_13B, MINI_13B, *_MLP),
        ("sharegpt4v-7b", "Lin-Chen/ShareGPT4V-7B (original layout)", LLAVA_7B, MINI, *_MLP),
        # The released captioner is an InternLM-XComposer whose training was never published; the
        # study trains its own on the architecture of the models it feeds.
        ("share-captioner", "none of this architecture", LLAVA_7B, MINI, *_MLP),
        ("qwen-vl-chat", "Qwen/Qwen-VL-Chat (original layout)", QWEN_VL, MINI_QWEN, *_QWEN),
        ("qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", QWEN3_VL, MINI_QWEN3, *_QWEN3),
    )
}


def family(key: str) -> Family:
    """The family named ``key``; LabError with the known names for any other."""
    if key not in FAMILIES:
        raise LabError(f"no model family {key!r}", fix=f"choose from {', '.join(FAMILIES)}")
    return FAMILIES[key]


def config(key: str, size: str, **changes: float) -> PreTrainedConfig:
    """The configuration of family ``key`` at ``size``; ``changes`` override numbers of `Sizes`."""
    known = family(key)
    return known.make_config(replace(known.sizes(size), **changes))


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
    return family(key).make_processor(config(key, size, **changes), tokenizer)


def counts(key: str, model: PreTrainedModel) -> dict[str, int]:
    """Parameters by part: vision tower, connector, embeddings, language model, output head."""
    parts = dict.fromkeys(
        ("vision tower", "connector", "embeddings", "language model", "output head"), 0
    )
    where = family(key).kind
    for name, parameter in model.named_parameters():
        parts[where.part(name)] += parameter.numel()
    return parts
