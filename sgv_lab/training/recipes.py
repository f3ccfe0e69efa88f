"""What is trained, on which view of the data, and how fast: the papers' settings by name.

Sources, abbreviated below: SG = ShareGPT4Omni/ShareGPT4V@b6f70e9, LL = haotian-liu/LLaVA@c121f04,
QV = QwenLM/Qwen-VL@aa00ed0, Q3 = QwenLM/Qwen3-VL@23ec840.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sgv_lab.errors import LabError, unknown


@dataclass(frozen=True)
class Recipe:
    """One way to train a model; every field can be overridden by name with ``override``."""

    name: str
    source: str  # where the numbers come from
    # What is trained.
    language_model: Literal["frozen", "full", "lora"]
    connector: bool
    vision_from: int | None  # None: frozen; -1: the whole tower; k: only blocks k and later
    # How the data is shown. Pre-training cropped, fine-tuning padded: keep that choice in view.
    template: Literal["plain", "v1", "qwen", "chat"]
    # square: resize and centre crop; pad: to a square, mean colour.
    aspect: Literal["square", "pad"]
    # Whose ids stand behind </s>: today's tokenizers'. The paper's: sg4v_tf4.31_legacy_false.
    variant: str = "llava_tf4.37.2_legacy_false"
    max_length: int = 2048  # tokens, image tokens not counted before expansion
    # Optimisation (AdamW, cosine schedule after a linear warm-up).
    learning_rate: float = 2e-5
    connector_learning_rate: float | None = None  # None: the same as everything else
    samples_per_update: int = 128
    epochs: float = 1.0
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    # LoRA on every linear layer of the language model.
    lora_rank: int = 128
    lora_alpha: int = 256
    lora_dropout: float = 0.05
    four_bit: bool = False  # QLoRA: the frozen weights in 4 bits (needs bitsandbytes and a GPU)
    # Memory.
    gradient_checkpointing: bool = True
    precision: Literal["bf16", "fp32"] = "bf16"  # bf16: autocast over weights as they were loaded

    def override(self, changes: Mapping[str, Any]) -> "Recipe":
        """A copy with some fields changed. Values may be strings, as a command line gives them.

        Raises LabError for an unknown field (naming the nearest), a wrong type or a value that
        makes no sense.
        """
        types = typing.get_type_hints(Recipe)
        new = {}
        for field, value in changes.items():
            if field not in types or field in ("name", "source"):
                raise unknown("setting", field, [t for t in types if t not in ("name", "source")])
            new[field] = _cast(field, value, types[field])
        recipe = dataclasses.replace(self, **new)
        recipe._check()
        return recipe

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Field -> (value in the named recipe, value here), for the fields that differ."""
        original, own = dataclasses.asdict(RECIPES[self.name]), dataclasses.asdict(self)
        return {name: (original[name], own[name]) for name in own if original[name] != own[name]}

    def _check(self) -> None:
        trained = self.language_model != "frozen" or self.connector or self.vision_from is not None
        checks = {
            "nothing is trained": trained,
            "learning_rate must be above 0": self.learning_rate > 0,
            "samples_per_update must be at least 1": self.samples_per_update >= 1,
            "epochs must be above 0": self.epochs > 0,
            "warmup_ratio must lie in [0, 1)": 0 <= self.warmup_ratio < 1,
            "max_length must be at least 8": self.max_length >= 8,
            "vision_from must be -1 or a block's number": (self.vision_from or 0) >= -1,
            "lora_rank must be at least 1": self.lora_rank >= 1,
            "four_bit needs language_model=lora": not self.four_bit
            or self.language_model == "lora",
        }
        for what, holds in checks.items():
            if not holds:
                raise LabError(what, where=f"recipe {self.name}", fix="change the setting")


@dataclass(frozen=True)
class Run:
    """How a recipe is run: everything that is no part of the recipe. Lengths in tokens."""

    max_steps: int | None = None  # None: as many as the recipe's epochs take
    loss: Literal["token", "sample"] = "token"  # what weighs the same, however long the sample
    micro_batch: int = 8  # rows of a padded batch
    packing: bool = False
    tokens_per_batch: int = 8192  # length of a packed batch
    device: str = "auto"  # "auto", "cpu" or "cuda"
    fsdp: bool = False  # shard over the processes of torchrun
    save_every: int | None = None  # steps; None: a tenth of the run, at least 50
    workers: int = 0  # processes that load images
    progress: bool | None = True  # None: while records are looked through, in a terminal only
    price: float = 0.0  # of one device-hour; above 0, progress tells the cost


def recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe called ``name``, with ``changes`` applied. Raises LabError naming the nearest."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name].override(changes or {})


def _cast(field: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind`` (a type, a Literal, or one of them or None); strings are parsed."""
    try:
        return msgspec.convert(None if value in ("none", "None", "") else value, kind, strict=False)
    except msgspec.ValidationError:
        options = [getattr(o, "__name__", repr(o)) for o in typing.get_args(kind) or (kind,)]
        wrong = "is none of" if typing.get_origin(kind) is Literal else "is not of type"
        raise LabError(
            f"{field} = {value!r} {wrong} {', '.join(options)}",
            where="recipe",
            fix="change the setting",
        ) from None


_PRETRAIN = Recipe(  # SG scripts/sharegpt4v/slurm_pretrain_7b.sh; 16 x 16 GPUs = 256
    name="pretrain",
    source="ShareGPT4V section 4.2; SG scripts/sharegpt4v/slurm_pretrain_7b.sh",
    language_model="full",
    connector=True,
    vision_from=12,
    template="plain",
    aspect="square",
    samples_per_update=256,
)
_SFT = Recipe(  # SG scripts/sharegpt4v/slurm_finetune_7b.sh; 8 x 16 GPUs = 128
    name="sft",
    source="ShareGPT4V section 4.2; SG scripts/sharegpt4v/slurm_finetune_7b.sh",
    language_model="full",
    connector=True,
    vision_from=None,
    template="v1",
    aspect="pad",
)
_PROJECTOR = Recipe(  # LL scripts/v1_5/pretrain.sh
    name="projector-only",
    source="LLaVA-1.5; LL scripts/v1_5/pretrain.sh",
    language_model="frozen",
    connector=True,
    vision_from=None,
    template="plain",
    aspect="square",
    learning_rate=1e-3,
    samples_per_update=256,
)
_LORA = dataclasses.replace(
    _SFT,
    name="sft-lora",
    source="LL scripts/v1_5/finetune_lora.sh",
    language_model="lora",
    learning_rate=2e-4,
    connector_learning_rate=2e-5,
)
_QWEN = dataclasses.replace(  # which recipe ShareGPT4V used for Qwen-VL-Chat is not stated
    _SFT,
    name="sft-qwen",
    source="QV finetune/finetune_ds.sh, --fix_vit True (the resampler is trained)",
    template="qwen",
    aspect="square",
    learning_rate=1e-5,
    epochs=5.0,
    weight_decay=0.1,
    adam_beta2=0.95,
    warmup_ratio=0.01,
)
_QWEN3 = dataclasses.replace(  # the paper has no such model; its README names these values
    _SFT,
    name="sft-qwen3",
    source="Q3 qwen-vl-finetune/README.md, the merger trained too",
    template="chat",
    aspect="square",
    max_length=4096,
    learning_rate=2e-7,
    connector_learning_rate=1e-5,
    epochs=3.0,
    weight_decay=0.01,
)

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        _PROJECTOR,
        _PRETRAIN,
        _SFT,
        dataclasses.replace(
            _SFT,
            name="sft-v1",
            source="LLaVA v1 README, fine-tuning on LLaVA-Instruct-158K",
            aspect="square",
            samples_per_update=32,
            epochs=3.0,
        ),
        _LORA,
        dataclasses.replace(_LORA, name="sft-qlora", four_bit=True),
        _QWEN,
        dataclasses.replace(  # the official one trains adapters only, the resampler stays frozen
            _QWEN,
            name="sft-qwen-lora",
            source="QV finetune/finetune_lora_ds.sh; rank, alpha, dropout from finetune.py",
            language_model="lora",
            connector=False,
            lora_rank=64,
            lora_alpha=16,
        ),
        _QWEN3,
    )
}
