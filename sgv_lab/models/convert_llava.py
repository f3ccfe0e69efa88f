"""The original LLaVA and ShareGPT4V layout, told apart and renamed.

Names and settings: haotian-liu/LLaVA@c121f04 (llava/model) and ShareGPT4Omni/ShareGPT4V@b6f70e9.
"""

import re
from functools import partial
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
from sgv_lab.models.tokenizers import llama_tokenizer
from sgv_lab.models.weights import State, read_json, refuse_settings, renamed, weight_files

_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
_CLIP_TEXT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
_PROJECTORS = {"mlp2x_gelu": "gelu", "linear": "linear"}  # kind -> activation between its layers
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_OPENAI = re.compile(r"clip-vit-(base|large)-patch(\d+)(?:-(\d+))?")
_WIDTHS = {"base": 768, "large": 1024}  # of OpenAI's towers


def read(
    source: Path, original: dict[str, Any], vision_tower: Path | None
) -> tuple[LlavaConfig, State]:
    """The new configuration and weights of the checkpoint ``source``; ``original``: its config."""
    folder = _tower(source, vision_tower, original)
    made = _config(original, source, folder)
    rename = partial(_llava, made.text_config.vocab_size - original["vocab_size"])
    state = renamed(weight_files(source), rename)
    projector = source / "mm_projector.bin"
    if projector.is_file() and not any("multi_modal_projector" in name for name in state):
        state |= renamed([projector], rename)
    if not any(name.startswith("model.vision_tower.") for name in state):
        if folder is None:
            raise LabError(
                f"has no vision tower: {original['mm_vision_tower']!r} is kept elsewhere",
                where=source,
                fix="give its folder as --vision-tower",
            )
        state |= renamed(weight_files(folder), _clip)
    return made, state


def _llava(extra: int, name: str, tensor: torch.Tensor) -> State:
    """A LLaVA checkpoint's tensor under its new name.

    The token tables get ``extra`` copies of their mean row, for the tokens LLaMA does not have. The
    mean row's logit is the mean of all logits: it never wins, and the softmax gives the new rows at
    most extra / 32,000 of its mass.
    """
    # saved from one level higher or lower, as LLaVA's own loader reads them, too
    name = re.sub(r"^model\.(?=model\.|lm_head\.)", "", name)
    name = re.sub(r"^(?=mm_projector\.|vision_tower\.)", "model.", name)
    if name.endswith(_BUFFERS):
        return {}
    if name.startswith("model.vision_tower.vision_tower."):
        return _clip(name.removeprefix("model.vision_tower.vision_tower."), tensor)
    if name.startswith("model.mm_projector."):
        new = name.replace("mm_projector", "multi_modal_projector")
        if name.removeprefix("model.mm_projector.") in ("weight", "bias"):  # one layer alone
            first, second = (new.replace("or.", f"or.linear_{i}.") for i in (1, 2))
            identity = torch.eye(len(tensor)) if tensor.ndim == 2 else torch.zeros(len(tensor))
            return {first: tensor, second: identity.to(tensor.dtype)}
        return {new.replace(".0.", ".linear_1.").replace(".2.", ".linear_2."): tensor}
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
        tensor = torch.cat([tensor, mean.expand(extra, -1)])
    return {name.replace("model.", "model.language_model.", 1): tensor}


def _clip(name: str, tensor: torch.Tensor) -> State:
    """A CLIP checkpoint's tensor under its new name: the vision part only."""
    if name.startswith(_CLIP_TEXT) or name.endswith(_BUFFERS):
        return {}
    return {"model.vision_tower." + name.removeprefix("vision_model."): tensor}


def _tower(source: Path, vision_tower: Path | None, original: dict[str, Any]) -> Path | None:
    """The folder of the vision tower; LabError if it is not the one the model was trained with.

    In the hub's cache its place says whose it is. Elsewhere a folder is known by its name, by its
    configuration's ``_name_or_path`` or, where one of OpenAI's towers is asked for, by its sizes.
    """
    named = original["mm_vision_tower"]
    if vision_tower is None:
        return source / "vision_tower" if (source / "vision_tower").is_dir() else None
    places = {*vision_tower.absolute().parts, *vision_tower.resolve().parts}
    settings = read_json(vision_tower / "config.json")
    cached = any(place.startswith("models--") for place in places)
    known = bool(places & {Path(named).name, f"models--{named.replace('/', '--')}"})
    known = known or (not cached and settings.get("_name_or_path") == named)
    if size := _OPENAI.fullmatch(Path(named).name):
        found = _vision_config(settings, vision_tower)
        width, *wanted = _WIDTHS[size[1]], int(size[2]), int(size[3] or 224)
        fits = [found.patch_size, found.image_size] == wanted
        if found.hidden_size == width and not fits:
            what = f"is for images of {found.image_size} pixels in patches of {found.patch_size}"
            raise LabError(
                f"{what}, but the checkpoint was trained with {named!r}",
                where=vision_tower / "config.json",
                fix=f"download {named}",
            )
        known = known or (not cached and fits and found.hidden_size == width)
    if not known:
        raise LabError(
            f"the checkpoint was trained with the vision tower {named!r}, not with this one",
            where=vision_tower,
            fix=f"download {named}; if this is that tower, name its folder {Path(named).name}",
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


def _config(original: dict[str, Any], source: Path, vision_tower: Path | None) -> LlavaConfig:
    """The new configuration. LabError for settings that are missing or not known.

    What decides the sizes has to be there; the rest may be left out where it is the default.
    """
    if "vision_config" in original:
        place, settings = source, original["vision_config"]
    elif vision_tower is not None:
        place, settings = vision_tower, read_json(vision_tower / "config.json")
    else:
        raise LabError(
            "says nothing about its vision tower's size",
            where=source / "config.json",
            fix=f"give the folder of {original['mm_vision_tower']} as --vision-tower",
        )
    vision = _vision_config(settings, place)
    projector = original.get("mm_projector_type", "linear")
    known = {
        "mm_projector_type": (projector, (*_PROJECTORS, None)),
        "mm_vision_select_feature": (original.get("mm_vision_select_feature"), ("patch", None)),
        "rope_scaling": (original.get("rope_scaling"), (None,)),
        "rope_parameters": (original.get("rope_parameters"), (None,)),  # no original's
        "hidden_act": (original.get("hidden_act"), ("silu", None)),
    }
    refuse_settings(known, source / "config.json")
    known = {
        "the tower's hidden_act": (vision.hidden_act, ("quick_gelu",)),
        "the tower's layer_norm_eps": (vision.layer_norm_eps, (CLIPVisionConfig().layer_norm_eps,)),
    }
    refuse_settings(known, place / "config.json")
    rows, default = original["vocab_size"], LlamaConfig()
    theta = original.get("rope_theta") or default.rope_parameters["rope_theta"]
    text = LlamaConfig(
        **{name: original[name] for name in _SIZES},
        num_key_value_heads=original.get("num_key_value_heads"),  # None: as many
        vocab_size=-(-(rows + 2) // 64) * 64,  # <image> and <pad>, and up to a multiple
        max_position_embeddings=_context(original),
        rms_norm_eps=original.get("rms_norm_eps", default.rms_norm_eps),
        rope_parameters={"rope_type": "default", "rope_theta": float(theta)},
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        projector_hidden_act=_PROJECTORS[projector or "linear"],
        image_token_index=rows,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=original["mm_vision_select_layer"],
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def _context(original: dict[str, Any]) -> int:
    """How many tokens the language model reads."""
    default = LlamaConfig().max_position_embeddings
    return original.get("max_position_embeddings", original.get("max_sequence_length", default))


def tokenizer(source: Path, original: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``source``; LabError if it is missing."""
    added_file = source / "added_tokens.json"
    added = read_json(added_file) if added_file.is_file() else {}
    most = original.get("tokenizer_model_max_length", _context(original))
    return llama_tokenizer(source / "tokenizer.model", sorted(added, key=added.get), most)
