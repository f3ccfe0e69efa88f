"""The original LLaVA and ShareGPT4V layout, told apart and renamed.

Names and settings: haotian-liu/LLaVA@c121f04 (llava/model) and ShareGPT4Omni/ShareGPT4V@b6f70e9.
"""

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerBase,
)

from sgv_lab.errors import LabError
from sgv_lab.models import architectures
from sgv_lab.models.architectures import LlavaLinearConfig, Sizes
from sgv_lab.models.shards import Cut, Piece, plan, read_json, refuse_settings, same, weight_files
from sgv_lab.models.tokenizers import llama_tokenizer

MODEL_TYPES = ("llava", "llava_llama", "share4v")
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
_CLIP_TEXT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
_KINDS = {"mlp2x_gelu": LlavaConfig, "linear": LlavaLinearConfig}
_WIDTHS = {"base": 768, "large": 1024}  # of OpenAI's towers


def _with_rows(rows: int) -> Cut:
    """Append ``rows`` copies of the mean row, for the tokens LLaMA does not have.

    The mean row's logit is the mean of all logits: it never wins, and the softmax gives the new
    rows at most rows / 32,000 of its mass.
    """

    def cut(table: torch.Tensor) -> torch.Tensor:
        mean = table.float().mean(0, keepdim=True).to(table.dtype)
        return torch.cat([table, mean.expand(rows, -1)])

    return cut


def _clip(name: str) -> list[tuple[str, Cut]]:
    """New names of a CLIP checkpoint's tensor: the vision part only."""
    if name.startswith(_CLIP_TEXT) or name.endswith(_BUFFERS):
        return []
    return [("model.vision_tower." + name.removeprefix("vision_model."), same)]


def _llava(name: str, rows: int) -> list[tuple[str, Cut]]:
    """New names of a LLaVA checkpoint's tensor."""
    # saved from one level higher or lower, as LLaVA's own loader reads them, too
    name = re.sub(r"^model\.(?=model\.|lm_head\.)", "", name)
    name = re.sub(r"^(?=mm_projector\.|vision_tower\.)", "model.", name)
    if name.endswith(_BUFFERS):
        return []
    if name.startswith("model.vision_tower.vision_tower."):
        return _clip(name.removeprefix("model.vision_tower.vision_tower."))
    if name.startswith("model.mm_projector."):
        new = name.replace("mm_projector.0.", "mm_projector.linear_1.")
        new = new.replace("mm_projector.2.", "mm_projector.linear_2.")
        return [(new.replace("mm_projector", "multi_modal_projector"), same)]
    cut = _with_rows(rows) if name in ("model.embed_tokens.weight", "lm_head.weight") else same
    return [(name.replace("model.", "model.language_model.", 1), cut)]


def pieces(source: Path, vision_tower: Path | None, rows: int) -> dict[str, Piece]:
    """The weights of ``source``, its mm_projector.bin and its vision tower, by their new names."""
    found = plan(weight_files(source), lambda name: _llava(name, rows))
    projector = source / "mm_projector.bin"
    if projector.is_file() and not any("multi_modal_projector" in name for name in found):
        found |= plan([projector], lambda name: _llava(name, rows))
    if not any(name.startswith("model.vision_tower.") for name in found):
        if vision_tower is None:
            raise LabError(
                f"has no vision tower: {read_json(source / 'config.json').get('mm_vision_tower')!r}"
                " is kept elsewhere",
                where=source,
                fix="give its folder as --vision-tower",
            )
        found |= plan(weight_files(vision_tower), _clip)
    return found


def tower(source: Path, vision_tower: Path | None, original: dict[str, Any]) -> Path | None:
    """The folder of the vision tower; LabError if it is not the one the model was trained with.

    A folder is known by its name, or its place in the hub's cache, and by its size where the name
    is that of one of OpenAI's towers.
    """
    named = original["mm_vision_tower"]
    if vision_tower is None:
        return source / "vision_tower" if (source / "vision_tower").is_dir() else None
    names = {Path(named).name, f"models--{named.replace('/', '--')}"}
    if not names & {*vision_tower.absolute().parts, *vision_tower.resolve().parts}:
        raise LabError(
            f"the checkpoint was trained with the vision tower {named!r}, not with this one",
            where=vision_tower,
            fix=f"download {named}; if this is that tower, name its folder {Path(named).name}",
        )
    size = re.fullmatch(r"clip-vit-(base|large)-patch(\d+)(?:-(\d+))?", Path(named).name)
    if size:
        read = _vision_config(read_json(vision_tower / "config.json"), vision_tower)
        asked = (int(size[2]), int(size[3] or 224))
        if read.hidden_size == _WIDTHS[size[1]] and (read.patch_size, read.image_size) != asked:
            raise LabError(
                f"is for images of {read.image_size} pixels in patches of {read.patch_size}, but "
                f"the checkpoint was trained with {named!r}",
                where=vision_tower / "config.json",
                fix=f"download {named}",
            )
    return vision_tower


def _vision_config(settings: dict[str, Any], folder: Path) -> CLIPVisionConfig:
    """The tower's settings; what a file leaves out is the class's default, as for transformers."""
    try:
        if settings.keys() & {"vision_config", "vision_config_dict"}:
            return CLIPConfig(**settings).vision_config
        return CLIPVisionConfig(**settings)
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(
            f"is no configuration of a CLIP vision tower: {reason}", where=folder / "config.json"
        ) from error


def _vision_settings(
    original: dict[str, Any], source: Path, vision_tower: Path | None
) -> tuple[CLIPVisionConfig, Path]:
    """The tower's settings, and the folder whose config.json holds them."""
    if "vision_config" in original:
        return _vision_config(original["vision_config"], source), source
    if vision_tower is None:
        raise LabError(
            "says nothing about its vision tower's size",
            where=source / "config.json",
            fix=f"give the folder of {original['mm_vision_tower']} as --vision-tower",
        )
    return _vision_config(read_json(vision_tower / "config.json"), vision_tower), vision_tower


def config(original: dict[str, Any], source: Path, vision_tower: Path | None) -> LlavaConfig:
    """The new configuration. Raises LabError for settings that are missing or not known.

    What decides the sizes has to be there; the rest may be left out where it is the default.
    """
    vision, place = _vision_settings(original, source, vision_tower)
    default = LlamaConfig()
    found = [
        (name, original.get(name), known)
        for name, known in (
            ("mm_projector_type", (*_KINDS, None)),
            ("mm_vision_select_feature", ("patch", None)),
            ("rope_scaling", (None,)),
            ("hidden_act", ("silu", None)),
        )
    ]
    refuse_settings(found, source / "config.json")
    found = [
        ("the tower's hidden_act", vision.hidden_act, ("quick_gelu",)),
        ("the tower's layer_norm_eps", vision.layer_norm_eps, (CLIPVisionConfig().layer_norm_eps,)),
    ]
    refuse_settings(found, place / "config.json")
    rows = original["vocab_size"]
    sizes = Sizes(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        vision_width=vision.hidden_size,
        vision_layers=vision.num_hidden_layers,
        vision_heads=vision.num_attention_heads,
        vision_mlp=vision.intermediate_size,
        text_width=original["hidden_size"],
        text_layers=original["num_hidden_layers"],
        text_heads=original["num_attention_heads"],
        text_kv_heads=original.get("num_key_value_heads") or original["num_attention_heads"],
        text_mlp=original["intermediate_size"],
        vocab_size=-(-(rows + 2) // 64) * 64,
        context=context(original),
        image_token_id=rows,
        pad_token_id=rows + 1,
        rms_norm_eps=original.get("rms_norm_eps", default.rms_norm_eps),
        rope_theta=float(original.get("rope_theta") or default.rope_parameters["rope_theta"]),
    )
    kind = _KINDS[original.get("mm_projector_type", "linear")]
    made = architectures.llava_config(sizes, kind)
    made.vision_feature_layer = original["mm_vision_select_layer"]
    return made


def context(original: dict[str, Any]) -> int:
    """How many tokens the language model reads."""
    default = LlamaConfig().max_position_embeddings
    return original.get("max_position_embeddings", original.get("max_sequence_length", default))


def tokenizer(source: Path, original: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``source``; LabError if it is missing or its size is not the model's."""
    added_file = source / "added_tokens.json"
    added = read_json(added_file) if added_file.is_file() else {}
    most = original.get("tokenizer_model_max_length", context(original))
    made = llama_tokenizer(source / "tokenizer.model", sorted(added, key=added.get), most)
    if len(made) != original["vocab_size"] + 2:
        raise LabError(
            f"{len(made) - 2} tokens, but the model has {original['vocab_size']}",
            where=source / "tokenizer.model",
            fix="take the tokenizer that belongs to the model",
        )
    return made
