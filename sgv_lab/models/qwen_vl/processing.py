"""Pictures and text for Qwen-VL-Chat."""

from transformers import (
    BatchFeature,
    CLIPImageProcessorPil,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

IMAGE_TOKEN = "<imgpad>"
# ChatML, the system's turn first; pictures are numbered within their turn.
CHAT_TEMPLATE = (
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}"
    "{{ 'Picture ' ~ loop.index ~ ': <img><imgpad></img>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def image_processor(side: int) -> CLIPImageProcessorPil:
    """Pictures squeezed to ``side`` x ``side`` pixels (bicubic, no crop), CLIP's mean and std."""
    square = {"height": side, "width": side}
    return CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=False)


class QwenVLProcessor(ProcessorMixin):
    """Image processor and tokenizer; one <imgpad> in the text becomes as many as an image needs."""

    def __init__(
        self,
        image_processor: CLIPImageProcessorPil | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_queries: int = 256,
        chat_template: str | None = None,
        **kwargs: object,
    ) -> None:
        self.num_queries = num_queries
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: BatchFeature, image_idx: int, **kwargs) -> str:
        """The text that holds the place of one image."""
        return self.image_token * self.num_queries
