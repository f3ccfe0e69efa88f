"""Configuration and processor of each architecture, made from the numbers of one size."""

from dataclasses import dataclass

from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
)

from sgv_lab.models import qwen3_vl
from sgv_lab.models.one_layer import LlavaLinearConfig
from sgv_lab.models.qwen3_vl import Qwen3VLPictureProcessor
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
    deepstack: tuple[int, ...] = ()  # Qwen3-VL: vision layers whose output the text layers see


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


def qwen3_vl_config(sizes: Sizes) -> Qwen3VLConfig:
    """Qwen3-VL; <|vision_start|>, <|vision_end|>, <|image_pad|> and <|video_pad|> as in Qwen's."""
    head = sizes.text_width // sizes.text_heads
    text = _text(sizes) | {"head_dim": head}
    # 24, 20, 20 at a head of 128: frequencies for time, height and width.
    sections = [head * 3 // 16, head * 5 // 32, head * 5 // 32]
    text["rope_parameters"] |= {"mrope_interleaved": True, "mrope_section": sections}
    vision = {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_width,
        "intermediate_size": sizes.vision_mlp,
        "num_heads": sizes.vision_heads,
        "patch_size": sizes.patch_size,
        "out_hidden_size": sizes.text_width,
        "num_position_embeddings": (sizes.image_size // sizes.patch_size) ** 2,
        "deepstack_visual_indexes": list(sizes.deepstack),
        "initializer_range": sizes.initializer_range,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=sizes.image_token_id - 3,
        vision_end_token_id=sizes.image_token_id - 2,
        image_token_id=sizes.image_token_id,
        video_token_id=sizes.image_token_id + 1,
        tie_word_embeddings=False,
    )


def qwen3_vl_processor(
    config: Qwen3VLConfig, tokenizer: PreTrainedTokenizerFast
) -> Qwen3VLPictureProcessor:
    """Pictures at their own shape, between 256 tokens and the area of the position table."""
    vision = config.vision_config
    token = vision.patch_size * vision.spatial_merge_size
    most = vision.num_position_embeddings * vision.patch_size**2
    return Qwen3VLPictureProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.spatial_merge_size,
            size={"shortest_edge": min(256 * token**2, most), "longest_edge": most},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        tokenizer=tokenizer,
        chat_template=qwen3_vl.CHAT_TEMPLATE,
    )
