"""A current Qwen-VL: transformers' Qwen3-VL, with pictures but without a video processor."""

from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

# ChatML; Qwen3-VL has no default system turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Qwen3VLPictureProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for pictures alone: the video part of the original needs torchvision."""

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
