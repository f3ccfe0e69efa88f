"""What models of one class have in common, whatever their size: template, names of their parts."""

from dataclasses import dataclass

from sgv_lab.errors import LabError


@dataclass(frozen=True)
class Kind:
    """A model class: the conversation template it was taught in, and prefixes of tensor names."""

    template: str
    vision: str
    connector: tuple[str, ...]  # may lie inside the vision part
    blocks: str  # the vision tower's list of blocks, below ``vision``
    language: str = "model.language_model."

    def part(self, name: str) -> str:
        """Which part of the model the tensor ``name`` belongs to."""
        if name.startswith(self.connector):
            return "connector"
        if name.startswith(self.vision):
            return "vision tower"
        if name.startswith("lm_head."):
            return "output head"
        return "embeddings" if "embed_tokens" in name else "language model"


_LLAVA = Kind("v1", "model.vision_tower.", ("model.multi_modal_projector.",), "encoder.layers.")
KINDS: dict[str, Kind] = {  # config.model_type -> kind
    "llava": _LLAVA,
    "llava_linear": _LLAVA,
    "qwen_vl": Kind(
        "qwen", "model.visual.", ("model.visual.attn_pool.",), "transformer.resblocks."
    ),
    "qwen3_vl": Kind(
        "qwen3",
        "model.visual.",
        ("model.visual.merger.", "model.visual.deepstack_merger_list."),
        "blocks.",
    ),
}


def kind(model_type: str) -> Kind:
    """The kind of models whose configuration says ``model_type``; LabError for another."""
    if model_type not in KINDS:
        raise LabError(
            f"don't know the parts of a {model_type!r} model", fix=f"use one of {', '.join(KINDS)}"
        )
    return KINDS[model_type]
