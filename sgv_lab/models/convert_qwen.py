"""The original Qwen-VL-Chat layout, renamed. Source: x1ngzai/Qwen-VL-Chat-Int4@1cd721a."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from sgv_lab.errors import LabError
from sgv_lab.models import architectures
from sgv_lab.models.architectures import Sizes
from sgv_lab.models.qwen_vl import QwenVLConfig
from sgv_lab.models.shards import Cut, Piece, plan, refuse_settings, same, weight_files
from sgv_lab.models.tokenizers import qwen_vl_tokenizer

MODEL_TYPES = ("qwen",)
_BUFFER = "rotary_emb.inv_freq"
_LAYER = {  # within a block of the language model; w2 is the gate
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.up_proj",
    "mlp.w2": "mlp.gate_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_DEFAULTS = {  # QWenConfig's
    **{"no_bias": True, "rotary_pct": 1.0, "rotary_emb_base": 10000},
    **{"kv_channels": 128, "layer_norm_epsilon": 1e-6},
}
_OUTSIDE = {
    "transformer.visual.": "model.visual.",
    "transformer.wte.": "model.language_model.embed_tokens.",
    "transformer.ln_f.": "model.language_model.norm.",
}


def _third(index: int) -> Cut:
    """One of the blocks q, k, v that c_attn is stacked from."""
    return lambda tensor: tensor.chunk(3)[index]


def rename(name: str) -> list[tuple[str, Cut]]:
    """New names of a Qwen-VL checkpoint's tensor; c_attn becomes three."""
    if name.endswith(_BUFFER):
        return []
    for old, new in _OUTSIDE.items():
        if name.startswith(old):
            return [(new + name.removeprefix(old), same)]
    if not name.startswith("transformer.h."):
        return [(name, same)]
    layer, _, rest = name.removeprefix("transformer.h.").partition(".")
    module, _, kind = rest.rpartition(".")
    block = f"model.language_model.layers.{layer}."
    if module == "attn.c_attn":
        return [(f"{block}self_attn.{p}_proj.{kind}", _third(i)) for i, p in enumerate("qkv")]
    return [(f"{block}{_LAYER.get(module, module)}.{kind}", same)]


def pieces(source: Path) -> dict[str, Piece]:
    """The weights of ``source`` by their new names."""
    return plan(weight_files(source), rename)


def config(original: dict[str, Any], source: Path) -> QwenVLConfig:
    """The new configuration. Raises LabError for settings that are missing or not known."""
    original = _DEFAULTS | original
    visual, width = original["visual"], original["hidden_size"]
    found = [
        ("no_bias", original["no_bias"], (True,)),
        ("rotary_pct", original["rotary_pct"], (1,)),
        ("kv_channels", original["kv_channels"], (width / original["num_attention_heads"],)),
        ("visual.output_dim", visual["output_dim"], (width,)),
        ("quantization_config", original.get("quantization_config"), (None,)),
    ]
    refuse_settings(found, source / "config.json")
    sizes = Sizes(
        image_size=visual["image_size"],
        patch_size=visual["patch_size"],
        vision_width=visual["width"],
        vision_layers=visual["layers"],
        vision_heads=visual["heads"],
        vision_mlp=int(visual["width"] * visual["mlp_ratio"]),  # 1664 * 4.9231: 8192, cut
        text_width=width,
        text_layers=original["num_hidden_layers"],
        text_heads=original["num_attention_heads"],
        text_kv_heads=original["num_attention_heads"],
        text_mlp=original["intermediate_size"] // 2,  # it counts both branches
        vocab_size=original["vocab_size"],
        context=original["seq_length"],
        image_token_id=visual["image_start_id"] + 2,
        pad_token_id=0,
        bos_token_id=None,
        rms_norm_eps=original["layer_norm_epsilon"],
        rope_theta=float(original["rotary_emb_base"]),
        queries=visual["n_queries"],
    )
    return architectures.qwen_vl_config(sizes)


def tokenizer(source: Path, original: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``source``; LabError if it is missing or its size is not the model's."""
    made = qwen_vl_tokenizer(source / "qwen.tiktoken", original["seq_length"])
    start = made.convert_tokens_to_ids("<img>")
    if start != original["visual"]["image_start_id"] or len(made) > original["vocab_size"]:
        raise LabError(
            f"{len(made)} tokens with <img> at {start}, but the model has "
            f"{original['vocab_size']} with <img> at {original['visual']['image_start_id']}",
            where=source / "qwen.tiktoken",
            fix="take the tokenizer that belongs to the model",
        )
    return made
