"""What is in a model, and how the study's own architectures are made from the numbers of a size."""

import re
from dataclasses import dataclass
from functools import cache

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from sgv_lab.errors import LabError
from sgv_lab.models.qwen_vl import CHAT_TEMPLATE, QwenVLConfig, QwenVLProcessor, image_processor
from sgv_lab.models.qwen_vl_visual import QwenVLVisionConfig

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# Vicuna's two separators: a space after the user's turn, </s> after the assistant's. The tokenizer
# itself puts <s> in front. The space behind <image> is the one that the official code gets by
# tokenizing what follows the picture apart: with it, servers that use this template ask as trained.
VICUNA_TEMPLATE = (
    VICUNA_SYSTEM + " "
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image> \n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] | trim }}{% endfor %}"
    "{% endif %}"
    "{{ ' ' if message['role'] == 'user' else eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


# Where the parts lie in a model, by the beginnings of tensor names that transformers uses.
PROJECTORS = (
    "model.multi_modal_projector.",  # LLaVA, Gemma 3, Mistral 3
    "model.visual.attn_pool.",  # Qwen-VL
    "model.visual.merger.",  # Qwen2-VL and later
    "model.visual.deepstack_merger_list.",  # Qwen3-VL
    "model.connector.",  # Idefics 3, SmolVLM
)
TOWERS = ("model.visual.", "model.vision_tower.", "model.vision_model.")
LANGUAGE_MODELS = ("model.language_model.", "model.text_model.")
_BLOCK = re.compile(r"\.(?:layers|blocks|resblocks)\.(\d+)\.")
_TAUGHT = {"llava": "v1", "llava_linear": "v1", "qwen_vl": "qwen"}


def part(name: str) -> str:
    """The part of the model that the tensor ``name`` belongs to."""
    if name.startswith(PROJECTORS):  # which may lie inside the tower
        return "connector"
    if name.startswith(TOWERS):
        return "vision tower"
    if name.startswith("lm_head."):
        return "output head"
    return "embeddings" if "embed_tokens" in name else "language model"


def vision_block(name: str) -> int:
    """The number of the vision tower's block that the tensor ``name`` belongs to, or -1."""
    found = _BLOCK.search(name) if part(name) == "vision tower" else None
    return int(found[1]) if found else -1


def template(config: PreTrainedConfig) -> str:
    """The conversation template a model was taught in: the study's own by name, else "chat".

    Raises LabError for a model that does not take images and text.
    """
    kind = config.model_type
    if kind not in _TAUGHT and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        what = f"a {kind!r} model does not take images and text"
        raise LabError(what, fix="give an image-text-to-text checkpoint")
    return _TAUGHT.get(kind, "chat")


class LlavaLinearConfig(LlavaConfig):
    """LLaVA v1's configuration: LLaVA-1.5's under a name of its own."""

    model_type = "llava_linear"


class LlavaLinearForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA whose ``multi_modal_projector`` is one linear layer.

    Source: mm_projector_type "linear", llava/model/multimodal_projector/builder.py of
    haotian-liu/LLaVA@c121f04.
    """

    config_class = LlavaLinearConfig

    def __init__(self, config: LlavaLinearConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = nn.Linear(
            config.vision_config.hidden_size, config.text_config.hidden_size
        )
        self.post_init()


AutoConfig.register("llava_linear", LlavaLinearConfig, exist_ok=True)
AutoModelForImageTextToText.register(
    LlavaLinearConfig, LlavaLinearForConditionalGeneration, exist_ok=True
)
AutoProcessor.register(LlavaLinearConfig, LlavaProcessor, exist_ok=True)


@cache
def processor_class(kind: type[PreTrainedConfig]) -> type[ProcessorMixin]:
    """The processor's class for a class of configuration, for images alone.

    Video processors, which some have beside it, need torchvision.
    """
    whole = PROCESSOR_MAPPING[kind]
    parts = [part for part in whole.get_attributes() if part != "video_processor"]
    return type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: parts)})


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
    text_kv_heads: int
    text_mlp: int
    vocab_size: int
    context: int
    image_token_id: int
    pad_token_id: int
    bos_token_id: int | None = 1
    eos_token_id: int = 2
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    queries: int = 0  # tokens of Qwen-VL's resampler


def _text(sizes: Sizes) -> dict:
    """What the language models' configurations have in common."""
    return {
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.text_width,
        "intermediate_size": sizes.text_mlp,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_heads,
        "num_key_value_heads": sizes.text_kv_heads,
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": sizes.rms_norm_eps,
        "initializer_range": sizes.initializer_range,
        "bos_token_id": sizes.bos_token_id,
        "eos_token_id": sizes.eos_token_id,
        "pad_token_id": sizes.pad_token_id,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
    }


def llava_config(sizes: Sizes, kind: type[LlavaConfig] = LlavaConfig) -> LlavaConfig:
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
    return kind(
        vision_config=vision,
        text_config=LlamaConfig(**_text(sizes)),
        image_token_index=sizes.image_token_id,
        image_seq_length=(sizes.image_size // sizes.patch_size) ** 2,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def one_layer_config(sizes: Sizes) -> LlavaLinearConfig:
    """LLaVA v1: as LLaVA-1.5, with one linear layer as the connector."""
    return llava_config(sizes, LlavaLinearConfig)


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


def qwen_vl_config(sizes: Sizes) -> QwenVLConfig:
    """Qwen-VL-Chat; ``sizes.image_token_id`` is <imgpad>, two behind <img>."""
    vision = QwenVLVisionConfig(
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_size=sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        intermediate_size=sizes.vision_mlp,
        num_queries=sizes.queries,
        output_size=sizes.text_width,
    )
    return QwenVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**_text(sizes)),
        image_start_id=sizes.image_token_id - 2,
        seq_length=sizes.context,
    )


def qwen_vl_processor(config: QwenVLConfig, tokenizer: PreTrainedTokenizerFast) -> QwenVLProcessor:
    """Squeezed pictures, tokenizer, ChatML."""
    return QwenVLProcessor(
        image_processor=image_processor(config.vision_config.image_size),
        tokenizer=tokenizer,
        num_queries=config.vision_config.num_queries,
        chat_template=CHAT_TEMPLATE,
    )
