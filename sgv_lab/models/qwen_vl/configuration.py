"""The numbers of a Qwen-VL model. Source: config.json of x1ngzai/Qwen-VL-Chat-Int4@1cd721a."""

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


class QwenVLVisionConfig(PreTrainedConfig):
    """The vision transformer and its resampler; the defaults are Qwen-VL-Chat's."""

    model_type = "qwen_vl_vision"
    base_config_key = "vision_config"

    image_size: int = 448
    patch_size: int = 14
    hidden_size: int = 1664
    num_hidden_layers: int = 48
    num_attention_heads: int = 16
    intermediate_size: int = 8192  # of the blocks' MLP
    num_queries: int = 256  # tokens an image becomes
    output_size: int = 4096  # width of the language model
    layer_norm_eps: float = 1e-6


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
