"""What is in a model, and the processors and chat templates of the study's own architectures."""

import re
from functools import cache

from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from sgv_lab.errors import LabError
from sgv_lab.models.qwen_vl import CHAT_TEMPLATE, QwenVLConfig, QwenVLProcessor, image_processor

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# Vicuna's two separators: a space after the user's turn, </s> after the assistant's. The tokenizer
# itself puts <s> in front. The space behind <image> is the one that the official code gets by
# tokenizing what follows the image apart: with it, servers that use this template ask as trained.
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
_BLOCK = re.compile(r"\.(?:layers|blocks)\.(\d+)\.")
_TAUGHT = {"llava": "v1", "qwen_vl": "qwen"}


def part(name: str) -> str:
    """The part of the model that the tensor ``name`` belongs to."""
    if name.startswith(PROJECTORS):  # which may lie inside the tower
        return "projector"
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


def passes_on(config: PreTrainedConfig, name: str) -> bool:
    """Whether the tensor ``name`` belongs to a layer that gives what it is given, and never learns.

    LLaVA v1's projector is one layer ("linear", llava/model/multimodal_projector/builder.py of
    haotian-liu/LLaVA@c121f04), llava-hf's class has two: there the second is the identity, and the
    activation between them none. So any transformers loads it.
    """
    second = name.startswith("model.multi_modal_projector.linear_2.")
    return second and config.projector_hidden_act == "linear"


@cache
def processor_class(kind: type[PreTrainedConfig]) -> type[ProcessorMixin]:
    """The processor's class for a class of configuration, for images alone.

    Video processors, which some have beside it, need torchvision.
    """
    whole = PROCESSOR_MAPPING[kind]
    parts = [part for part in whole.get_attributes() if part != "video_processor"]
    return type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: parts)})


def llava_processor(config: LlavaConfig, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """CLIP's image preparation by PIL (torchvision is not needed), tokenizer, Vicuna template."""
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


def qwen_vl_processor(config: QwenVLConfig, tokenizer: PreTrainedTokenizerFast) -> QwenVLProcessor:
    """Squeezed images, tokenizer, ChatML."""
    return QwenVLProcessor(
        image_processor=image_processor(config.vision_config.image_size),
        tokenizer=tokenizer,
        num_queries=config.vision_config.num_queries,
        chat_template=CHAT_TEMPLATE,
    )


PROCESSORS = {"llava": llava_processor, "qwen_vl": qwen_vl_processor}
