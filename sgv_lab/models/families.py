"""The model families of the study, each at its own (`paper`) size and in miniature.

A family is one architecture; its two sizes differ in numbers only. Sources: ShareGPT4V's released
configuration and scripts/sharegpt4v (ShareGPT4Omni/ShareGPT4V@b6f70e9), LLaVA's
(haotian-liu/LLaVA@c121f04).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from sgv_lab.errors import LabError
from sgv_lab.models import mini

VICUNA_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# Vicuna's two separators: a space after the user's turn, </s> after the assistant's. The tokenizer
# itself puts <s> in front.
VICUNA_TEMPLATE = (
    VICUNA_V1 + " "
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ ' ' if message['role'] == 'user' else eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class Sizes:
    """The numbers in which two sizes of one family differ. Widths in channels, sides in pixels."""

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp: int
    vocab_size: int
    context: int
    image_token_id: int
    pad_token_id: int
    initializer_range: float = 0.02


@dataclass(frozen=True)
class Family:
    """One architecture: its sizes, and how configuration and processor are made from them."""

    key: str
    hub: str  # the released checkpoint
    template: str  # conversation template it was taught in
    aspect: str  # how pictures are made square: "pad" or "square" (centre crop)
    paper: Sizes
    mini: Sizes
    make_config: Callable[[Sizes], PreTrainedConfig]
    model_class: type[PreTrainedModel]
    make_processor: Callable[[PreTrainedConfig, PreTrainedTokenizerFast], ProcessorMixin]

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
    text_mlp=352,
    vocab_size=mini.VOCAB_SIZE,
    context=mini.CONTEXT,
    image_token_id=mini.IMAGE_ID,
    pad_token_id=mini.PAD_ID,
    # 1/sqrt(width): with the usual 0.02 a model this narrow hardly learns at all.
    initializer_range=128**-0.5,
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
    text_mlp=11008,
    vocab_size=32064,
    context=4096,
    image_token_id=32000,
    pad_token_id=32001,
)


def llava_config(sizes: Sizes) -> LlavaConfig:
    """LLaVA-1.5: CLIP's last layer but one, patches without the class token, 2-layer GELU MLP."""
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_mlp,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        projection_dim=sizes.vision_width * 3 // 4,
        hidden_act="quick_gelu",
        initializer_range=sizes.initializer_range,
    )
    text = LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_mlp,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        num_key_value_heads=sizes.text_heads,
        max_position_embeddings=sizes.context,
        rms_norm_eps=1e-5,
        initializer_range=sizes.initializer_range,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=sizes.pad_token_id,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=sizes.image_token_id,
        image_seq_length=(sizes.image_size // sizes.patch_size) ** 2,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_processor(config: LlavaConfig, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """CLIP's picture preparation by PIL (torchvision is not needed), tokenizer, Vicuna template."""
    side = config.vision_config.image_size
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=VICUNA_TEMPLATE,
    )


def _llava(key: str, hub: str, paper: Sizes) -> Family:
    return Family(
        key=key,
        hub=hub,
        template="v1",
        aspect="pad",
        paper=paper,
        mini=MINI,
        make_config=llava_config,
        model_class=LlavaForConditionalGeneration,
        make_processor=llava_processor,
    )


FAMILIES: dict[str, Family] = {
    family.key: family for family in (_llava("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", LLAVA_7B),)
}


def family(key: str) -> Family:
    """The family named ``key``; LabError with the known names for any other."""
    if key not in FAMILIES:
        raise LabError(f"no model family {key!r}", fix=f"choose from {', '.join(FAMILIES)}")
    return FAMILIES[key]


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
    override numbers of `Sizes` (a changed ``text_width`` sets ``initializer_range`` with it if
    that is given too). On ``device="meta"`` nothing is allocated: enough to count.
    """
    known = family(key)
    config = known.make_config(replace(known.sizes(size), **changes))
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(device):
        torch.manual_seed(seed)
        model = known.model_class(config).to(dtype)
    return model.eval()


def processor(key: str, size: str, tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    """The processor that belongs to ``build(key, size, ...)``, around ``tokenizer``."""
    known = family(key)
    return known.make_processor(known.make_config(known.sizes(size)), tokenizer)
