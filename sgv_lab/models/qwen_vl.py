"""Qwen-VL-Chat on today's transformers, without remote code: configuration, model, processor.

Images by `QwenVLVisual`, language by transformers' Qwen2: Qwen-7B's language part is a LLaMA with
a bias on q, k and v, which is what Qwen2 is. What it does beyond its trained length (log-n
attention, dynamic NTK) is not restated: such inputs are refused.
Numbers and names: x1ngzai/Qwen-VL-Chat-Int4@1cd721a.
"""

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    Cache,
    CLIPImageProcessorPil,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from sgv_lab.errors import LabError
from sgv_lab.models.qwen_vl_visual import QwenVLVisionConfig, QwenVLVisual, initialise

IMAGE_TOKEN = "<imgpad>"
# ChatML, the system's turn first; images are numbered within their turn.
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


class QwenVLConfig(PreTrainedConfig):
    """Vision part, language part (transformers' Qwen2) and the ids around an image.

    ``image_start_id`` is <img>; the next two ids are </img> and <imgpad>. ``seq_length`` is the
    length the model was trained at, in tokens.
    """

    model_type = "qwen_vl"
    sub_configs_defaults = {  # noqa: RUF012  (transformers reads it from the class)
        "vision_config": QwenVLVisionConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    image_start_id: int = 151857
    seq_length: int = 2048
    tie_word_embeddings: bool = False

    @property
    def image_end_id(self) -> int:
        """The id of </img>."""
        return self.image_start_id + 1

    @property
    def image_token_id(self) -> int:
        """The id of <imgpad>, which holds an image's place."""
        return self.image_start_id + 2


class QwenVLPreTrainedModel(PreTrainedModel):
    """What both classes below share."""

    config: QwenVLConfig
    config_class = QwenVLConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("Qwen2DecoderLayer", "CLIPEncoderLayer")
    _skip_keys_device_placement = ("past_key_values",)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        initialise(module)


class QwenVLModel(QwenVLPreTrainedModel):
    """Vision part and language part, without the output head."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__(config)
        config.vision_config._attn_implementation = config._attn_implementation
        self.visual = QwenVLVisual(config.vision_config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def image_mask(self, input_ids: torch.Tensor, images: int) -> torch.Tensor:
        """Which of the tokens (B, T) lie between <img> and </img>, as booleans (B, T).

        Raises LabError unless there are ``images`` spans, each closed and of Q tokens.
        """
        flat = input_ids.flatten()
        starts = (flat == self.config.image_start_id).nonzero().flatten()
        ends = (flat == self.config.image_end_id).nonzero().flatten()
        queries = self.config.vision_config.num_queries
        if not len(starts) == len(ends) == images or (ends - starts != queries + 1).any():
            at = f"<img> at {starts.tolist()}, </img> at {ends.tolist()}"
            raise LabError(
                f"{images} images, but {at}",
                where="Qwen-VL input",
                fix=f"give one per <img>…</img>, with {queries} tokens between, and cut none",
            )
        places = starts[:, None] + torch.arange(1, queries + 1, device=flat.device)
        inside = torch.zeros_like(flat, dtype=torch.bool)
        inside[places.flatten()] = True
        return inside.view_as(input_ids)

    def _check_length(
        self, length: int, past: Cache | None, position_ids: torch.Tensor | None
    ) -> None:
        """Refuse what the original would rescale its attention for. Packed rows may be longer."""
        total = length + (past.get_seq_length() if past is not None else 0)
        longest = self.config.seq_length
        if total > longest and (position_ids is None or int(position_ids.max()) >= longest):
            raise LabError(
                f"an input of {total} tokens; the model was trained on {longest}",
                where="Qwen-VL input",
                fix="shorten it, or ask for fewer new tokens",
            )

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, T, D) of ids (B, T) with images (N, 3, H, W) in order of appearance.

        Raises LabError for more than ``config.seq_length`` tokens, or when the images don't
        match the <img> spans.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        self._check_length(inputs_embeds.shape[1], past_key_values, position_ids)
        if pixel_values is not None:
            inside = self.image_mask(input_ids, len(pixel_values))
            features = self.visual(pixel_values).to(inputs_embeds.dtype)
            inputs_embeds = inputs_embeds.masked_scatter(inside[..., None], features)
        return self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )


class QwenVLForConditionalGeneration(QwenVLPreTrainedModel, GenerationMixin):
    """Qwen-VL with its output head."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__(config)
        self.model = QwenVLModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), and the mean loss over ``labels`` (B, T) where they are not -100.

        Takes what `QwenVLModel` takes, and raises what it raises.
        """
        outputs = self.model(input_ids=input_ids, pixel_values=pixel_values, **kwargs)
        hidden = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def image_processor(side: int) -> CLIPImageProcessorPil:
    """Images squeezed to ``side`` x ``side`` pixels (bicubic, no crop), CLIP's mean and std."""
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


AutoConfig.register("qwen_vl", QwenVLConfig, exist_ok=True)
AutoModelForImageTextToText.register(QwenVLConfig, QwenVLForConditionalGeneration, exist_ok=True)
AutoProcessor.register(QwenVLConfig, QwenVLProcessor, exist_ok=True)
