"""The original Qwen-VL-Chat layout, renamed. Source: x1ngzai/Qwen-VL-Chat-Int4@1cd721a."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config

from sgv_lab.models.qwen_vl import QwenVLConfig
from sgv_lab.models.qwen_vl_visual import QwenVLVisionConfig
from sgv_lab.models.tokenizers import qwen_vl_tokenizer
from sgv_lab.models.weights import State, refuse_settings, renamed, weight_files

_BLOCKS = {  # where blocks lie -> where they lie now, and what their parts are called
    "transformer.visual.transformer.resblocks.": (
        "model.visual.transformer.layers.",
        {
            "ln_1": "layer_norm1",
            "ln_2": "layer_norm2",
            "attn.out_proj": "self_attn.out_proj",
            "mlp.c_fc": "mlp.fc1",
            "mlp.c_proj": "mlp.fc2",
        },
    ),
    "transformer.h.": (
        "model.language_model.layers.",
        {
            "ln_1": "input_layernorm",
            "ln_2": "post_attention_layernorm",
            "attn.c_proj": "self_attn.o_proj",
            "mlp.w1": "mlp.up_proj",
            "mlp.w2": "mlp.gate_proj",
            "mlp.c_proj": "mlp.down_proj",
        },
    ),
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


def read(source: Path, original: dict[str, Any], _: Path | None) -> tuple[QwenVLConfig, State]:
    """The new configuration and weights of the checkpoint ``source``; ``original``: its config."""
    config = _config(original, source)
    heads = config.vision_config.num_attention_heads
    return config, renamed(weight_files(source), partial(rename, heads))


def rename(heads: int, name: str, tensor: torch.Tensor) -> State:
    """A Qwen-VL checkpoint's tensor under its new name; c_attn and in_proj become q, k and v.

    These three lie one behind the other, in the vision tower for each of its ``heads``.
    """
    if name.endswith("rotary_emb.inv_freq"):
        return {}
    for old, (new, names) in _BLOCKS.items():
        if name.startswith(old):
            layer, _, rest = name.removeprefix(old).partition(".")
            module, _, kind = rest.rpartition(".")
            if module not in ("attn.c_attn", "attn.in_proj"):
                return {f"{new}{layer}.{names.get(module, module)}.{kind}": tensor}
            thirds = tensor.unflatten(0, (heads if module == "attn.in_proj" else 1, 3, -1))
            parts = zip("qkv", thirds.unbind(1), strict=True)
            front = f"{new}{layer}.self_attn."
            return {f"{front}{part}_proj.{kind}": third.flatten(0, 1) for part, third in parts}
    for old, new in _OUTSIDE.items():
        if name.startswith(old):
            return {new + name.removeprefix(old): tensor}
    return {name: tensor}


def _config(original: dict[str, Any], source: Path) -> QwenVLConfig:
    """The new configuration. LabError for settings that are missing or not known."""
    original = _DEFAULTS | original
    visual, width, heads = (original[k] for k in ("visual", "hidden_size", "num_attention_heads"))
    known = {
        "no_bias": (original["no_bias"], (True,)),
        "rotary_pct": (original["rotary_pct"], (1,)),
        "kv_channels": (original["kv_channels"], (width / heads,)),
        "visual.output_dim": (visual["output_dim"], (width,)),
        "quantization_config": (original.get("quantization_config"), (None,)),
    }
    refuse_settings(known, source / "config.json")
    vision = QwenVLVisionConfig(
        image_size=visual["image_size"],
        patch_size=visual["patch_size"],
        hidden_size=visual["width"],
        num_hidden_layers=visual["layers"],
        num_attention_heads=visual["heads"],
        intermediate_size=int(visual["width"] * visual["mlp_ratio"]),  # 1664 * 4.9231: 8192, cut
        num_queries=visual["n_queries"],
        output_size=width,
    )
    text = Qwen2Config(
        vocab_size=original["vocab_size"],
        hidden_size=width,
        intermediate_size=original["intermediate_size"] // 2,  # it counts both branches
        num_hidden_layers=original["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=original["seq_length"],
        rms_norm_eps=original["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": float(original["rotary_emb_base"])},
    )
    return QwenVLConfig(
        vision_config=vision,
        text_config=text,
        image_start_id=visual["image_start_id"],
        seq_length=original["seq_length"],
    )


def tokenizer(source: Path, original: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``source``; LabError if it is missing."""
    return qwen_vl_tokenizer(source / "qwen.tiktoken", original["seq_length"])
