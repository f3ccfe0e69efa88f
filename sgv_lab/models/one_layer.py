"""LLaVA v1: transformers' LLaVA with one linear layer between vision tower and language model."""

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)


class LlavaLinearConfig(LlavaConfig):
    """LLaVA's configuration under a name of its own."""

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
