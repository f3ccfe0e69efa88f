"""Everything that decides a run in one object, `RunConfig`, and the papers' settings by name.

A run starts from one of ``BASES``; a plan, an arm or a command line changes some values of a copy,
and the copy knows where each value came from (`RunConfig.rows`). SG = ShareGPT4Omni/ShareGPT4V@
b6f70e9, LL = haotian-liu/LLaVA@c121f04, QV = QwenLM/Qwen-VL@aa00ed0, Q3 = QwenLM/Qwen3-VL@23ec840.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from sgv_lab.errors import LabError, unknown


@dataclass(frozen=True)
class Captions:
    """Who captions, what is told, and in what words."""

    annotator: str = ""
    omission: float | None = None  # None: the annotator's own rate
    error: float | None = None
    invention: float | None = None
    untold: str = ""  # a kind of fact (`world.facts.FACETS`) that is never told
    draw: int = 0  # which of the annotator's captions of an image
    wording: int = 0  # which words for the same facts
    filler: float = 0.0  # share of words in sentences that state no fact


@dataclass(frozen=True)
class Mix(Captions):
    """Which captions a study's fine-tuning mix holds. Official files have a share and size."""

    annotator: str = "gpt4_blind"  # of the detailed captions
    images: Literal["same", "mixed"] = "same"  # mixed: as the released file, 9K coco, 3K lcs, …
    file: str = ""  # captions of one's own, whose images are then shown: see `study.own`
    edit: Literal["", "shuffled", "dropped", "questions"] = ""  # see `study.mix.build`
    share: float = 23_000 / 665_298  # detailed captions in the mix
    samples: int = 2_000  # 0: as many as the official files have


@dataclass(frozen=True)
class Pool(Captions):
    """Which captions a study's pre-training shows, drawn from a pool of images.

    Whoever captions, a seed's images are the same, but for those that Share-Captioner ("share")
    could not caption. Annotator "": nothing is trained before.
    """

    edit: Literal["", "shuffled"] = ""
    collection: Literal["", "coco", "lcs"] = ""  # of the images; "": all that ShareGPT4V-PT has
    samples: int = 2_016  # different captions; 0: all of the official files
    pool: int = 4_096  # images all seeds draw from: Share-Captioner has to caption them; 0: none
    captioner: Literal["smoke", "mini"] = "mini"  # how it learns: `study.share_captioner.SIZES`


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run but its seed, its records and what it starts from."""

    name: str  # of its base
    source: str  # where the base's numbers come from
    # How the data is shown. Pre-training cropped, fine-tuning padded: keep that choice in view.
    template: Literal["plain", "v1", "qwen", "chat"]
    aspect: Literal["square", "pad"]  # resize and centre crop; or pad with the mean colour
    # What is trained.
    language_model: Literal["frozen", "full", "lora"]
    projector: bool
    vision_from: int | None  # None: frozen; -1: the whole tower; k: only blocks k and later
    vision_share: float | None = None  # of the tower's blocks, its last ones: see `for_tower`
    # Whose ids stand behind </s>: today's tokenizers'. The paper's: sg4v_tf4.31_legacy_false.
    variant: str = "llava_tf4.37.2_legacy_false"
    max_length: int = 2048  # tokens, image tokens not counted before expansion
    # Optimisation (AdamW, cosine schedule after a linear warm-up).
    learning_rate: float = 2e-5
    projector_learning_rate: float | None = None  # None: the same as everything else
    samples_per_step: int = 128
    epochs: float = 1.0
    max_steps: int | None = None  # None: as many as the epochs take
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 0.0  # 0: unclipped, as LLaVA's zero2.json and zero3.json leave it
    loss: Literal["token", "sample"] = "token"  # what weighs the same, however long the sample
    # LoRA on every linear layer of the language model.
    lora_rank: int = 128
    lora_alpha: int = 256
    lora_dropout: float = 0.05
    four_bit: bool = False  # QLoRA: the frozen weights in 4 bits (needs bitsandbytes and a GPU)
    # Batches of a step, and memory; how a step is split changes a result by rounding alone.
    micro_batch: int = 8  # samples of a padded batch
    packing: bool = False
    tokens_per_batch: int = 8192  # length of a packed batch
    gradient_checkpointing: bool | Literal["selective"] = True  # see `training.kernels`
    precision: Literal["fp32", "bf16", "bf16_32", "bf16_24"] = "bf16"  # see `training.precision`
    # What a study shows, and what it trains before. The records that `train` is given follow.
    captions: Mix | Pool | None = None
    pretrain: "RunConfig | None" = None
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def changed(self, changes: Mapping[str, Any], origin: str = "") -> "RunConfig":
        """A copy with some values changed, by name; LabError for a name or value that is none.

        Values of ``captions`` go by their names alone, those of ``pretrain`` by "pretrain.NAME";
        "base" takes another base, on which whatever was changed so far stays changed. Values may
        be strings, as a command line gives them. ``origin``: who changes them.
        """
        if "base" in changes:
            rest = {name: value for name, value in changes.items() if name != "base"}
            kept = {name: getattr(self, name) for name in self.origins if name in SETTINGS}
            kept |= {n: getattr(self, n) for n in ("captions", "pretrain", "origins")}
            return dataclasses.replace(base(changes["base"]), **kept).changed(rest, origin)
        types = typing.get_type_hints(type(self.captions)) if self.captions else {}
        first = {n.removeprefix("pretrain."): v for n, v in changes.items() if "." in n}
        own = {n: v for n, v in changes.items() if n in SETTINGS}
        shown = {n: v for n, v in changes.items() if n in types and n not in own}
        if wrong := [n for n in changes if n not in own and n not in shown and "." not in n]:
            raise unknown("setting", wrong[0], [*SETTINGS, *types])
        if first and not self.pretrain:
            raise LabError("trains nothing before", where=f"recipe {self.name}", fix="set its base")
        new: dict[str, Any] = {n: _cast(n, v, SETTINGS[n]) for n, v in own.items()}
        if shown:
            typed = {n: _cast(n, v, types[n]) for n, v in shown.items()}
            new["captions"] = dataclasses.replace(self.captions, **typed)
        if first:
            new["pretrain"] = self.pretrain.changed(first, origin)
        origins = {**self.origins, **dict.fromkeys([*own, *shown], origin)}
        config = dataclasses.replace(self, **new, origins=origins)
        config._check()
        return config

    def for_tower(self, blocks: int) -> "RunConfig":
        """A copy whose ``vision_from`` is that of ``vision_share``, in a tower of ``blocks``.

        A share of 0 trains no block; -1 the whole tower, its embeddings, too. Of the paper's 24 a
        quarter begins at 18. The miniature's 3 take the halves down: half begins at 1. With
        features from layer -2 the last block gets no gradient, so there a quarter trains none.
        """
        if (share := self.vision_share) is None:
            return self
        first = -1 if share < 0 else math.floor(blocks * (1 - share)) if share else None
        return self.changed({"vision_from": first}, self.origins.get("vision_share", ""))

    def alone(self) -> "RunConfig":
        """A copy that says nothing of a study's captions and of what is trained before."""
        return dataclasses.replace(self, captions=None, pretrain=None)

    def values(self) -> dict[str, Any]:
        """All values, nested as they are, for a file; origins are no values."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del found["origins"]
        captions = dataclasses.asdict(self.captions) if self.captions else None
        return found | {"captions": captions, "pretrain": self.pretrain and self.pretrain.values()}

    def training(self) -> dict[str, Any]:
        """The values that two trainings from the same model on the same data must share."""
        left_out = ("max_steps", "micro_batch", "captions", "pretrain")
        return {name: value for name, value in self.values().items() if name not in left_out}

    def rows(self, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
        """(name, value, origin) of each value; origin: the base, who changed it, or "default"."""
        for name in SETTINGS:
            yield prefix + name, getattr(self, name), self.origins.get(name) or f"base {self.name}"
        for name, value in vars(self.captions).items() if self.captions else ():
            yield prefix + name, value, self.origins.get(name) or "default"
        if self.pretrain:
            yield from self.pretrain.rows("pretrain.")

    def table(self) -> str:
        """`rows` as lines of text."""
        return "\n".join(f"{name:<32} {value!s:<28} {of}" for name, value, of in self.rows())

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (value in the base, value here), for the settings that differ."""
        base = BASES[self.name]
        pairs = {name: (getattr(base, name), getattr(self, name)) for name in SETTINGS}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _check(self) -> None:
        lora, tower = self.language_model == "lora", self.vision_from is not None
        trained = self.language_model != "frozen" or self.projector or tower
        checks = {
            "nothing is trained": trained,
            "learning_rate must be above 0": self.learning_rate > 0,
            "samples_per_step must be at least 1": self.samples_per_step >= 1,
            "epochs must be above 0": self.epochs > 0,
            "max_steps must be at least 1": (self.max_steps or 1) >= 1,
            "warmup_ratio must lie in [0, 1)": 0 <= self.warmup_ratio < 1,
            "max_length must be at least 8": self.max_length >= 8,
            "vision_from must be -1 or a block's number": (self.vision_from or 0) >= -1,
            "lora_rank must be at least 1": self.lora_rank >= 1,
            "four_bit needs language_model=lora": not self.four_bit or lora,
        }
        for what, holds in checks.items():
            if not holds:
                raise LabError(what, where=f"recipe {self.name}", fix="change the setting")


_NO_SETTINGS = ("name", "source", "captions", "pretrain", "origins")
SETTINGS = {n: t for n, t in typing.get_type_hints(RunConfig).items() if n not in _NO_SETTINGS}
"""Name -> type of each value that can be changed; those of ``captions`` can, too."""


@dataclass(frozen=True)
class Machine:
    """How a run is carried out, which decides nothing of its result but rounding."""

    device: str = "auto"  # "auto", "cpu" or "cuda"
    fsdp: bool = False  # shard over the processes of torchrun
    save_every: int | None = None  # steps; None: a tenth of the run, at least 50
    workers: int | None = None  # processes that load images; None: 4 beside a GPU, else none
    liger: bool = True  # Liger's kernels, on a GPU, where they are installed
    progress: bool | None = True  # None: while records are looked through, in a terminal only
    price: float = 0.0  # of one device-hour; above 0, progress tells the cost
    report_to: str = ""  # accelerate's names of trackers beside metrics.jsonl, by commas


def configured(
    config: RunConfig, given: Mapping[str, Any], origin: str = "call"
) -> tuple[RunConfig, Machine]:
    """``config`` with the settings among ``given``, and a `Machine` of what else is given."""
    own = {name: value for name, value in given.items() if name in SETTINGS}
    rest = {name: value for name, value in given.items() if name not in SETTINGS}
    return config.changed(own, origin), Machine(**rest)


def base(name: str, changes: Mapping[str, Any] | None = None, origin: str = "") -> RunConfig:
    """The base called ``name``, with ``changes``. LabError naming the nearest for another name."""
    if name not in BASES:
        raise unknown("recipe", name, BASES)
    return BASES[name].changed(changes or {}, origin)


def _cast(name: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind`` (a type, a Literal, or one of them or None); strings are parsed."""
    if type(None) in typing.get_args(kind) and value in ("none", "None", ""):
        return None
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        options = [getattr(o, "__name__", repr(o)) for o in typing.get_args(kind) or (kind,)]
        wrong = "is none of" if typing.get_origin(kind) is Literal else "is not of type"
        what = f"{name} = {value!r} {wrong} {', '.join(options)}"
        raise LabError(what, where="recipe", fix="change the setting") from None


PRETRAIN = RunConfig(  # pre-training of ShareGPT4V; 16 x 16 GPUs = 256
    name="pretrain",
    source="ShareGPT4V section 4.2; SG scripts/sharegpt4v/slurm_pretrain_7b.sh",
    language_model="full",
    projector=True,
    vision_from=12,
    template="plain",
    aspect="square",
    samples_per_step=256,
)
PROJECTOR = dataclasses.replace(  # pre-training of LLaVA-1.5: the projector alone
    PRETRAIN,
    name="projector-only",
    source="LLaVA-1.5; LL scripts/v1_5/pretrain.sh",
    language_model="frozen",
    vision_from=None,
    learning_rate=1e-3,
)
SFT = RunConfig(  # 8 x 16 GPUs = 128
    name="sft",
    source="ShareGPT4V section 4.2; SG scripts/sharegpt4v/slurm_finetune_7b.sh",
    language_model="full",
    projector=True,
    vision_from=None,
    template="v1",
    aspect="pad",
)
SFT_V1 = dataclasses.replace(
    SFT,
    name="sft-v1",
    source="LLaVA v1 README, fine-tuning on LLaVA-Instruct-158K",
    aspect="square",
    samples_per_step=32,
    epochs=3.0,
)
SFT_LORA = dataclasses.replace(
    SFT,
    name="sft-lora",
    source="LL scripts/v1_5/finetune_lora.sh",
    language_model="lora",
    learning_rate=2e-4,
    projector_learning_rate=2e-5,
)
SFT_QLORA = dataclasses.replace(SFT_LORA, name="sft-qlora", four_bit=True)
SFT_QWEN = dataclasses.replace(  # which recipe ShareGPT4V used for Qwen-VL-Chat is not stated
    SFT,
    name="sft-qwen",
    source="QV finetune/finetune_ds.sh, --fix_vit True (the resampler is trained)",
    template="qwen",
    aspect="square",
    learning_rate=1e-5,
    epochs=5.0,
    weight_decay=0.1,
    adam_beta2=0.95,
    max_grad_norm=1.0,  # its ds_config_zero2.json says "auto"
    warmup_ratio=0.01,
)
SFT_QWEN_LORA = dataclasses.replace(  # official: adapters only, the resampler stays frozen
    SFT_QWEN,
    name="sft-qwen-lora",
    source="QV finetune/finetune_lora_ds.sh; rank, alpha, dropout from finetune.py",
    language_model="lora",
    projector=False,
    lora_rank=64,
    lora_alpha=16,
)
SFT_QWEN3 = dataclasses.replace(  # the paper has no such model; its README names these values
    SFT,
    name="sft-qwen3",
    source="Q3 qwen-vl-finetune/README.md, the merger trained too",
    template="chat",
    aspect="square",
    max_length=4096,
    learning_rate=2e-7,
    projector_learning_rate=1e-5,
    max_grad_norm=1.0,
    epochs=3.0,
    weight_decay=0.01,
)
_ALL = (PROJECTOR, PRETRAIN, SFT, SFT_V1, SFT_LORA, SFT_QLORA, SFT_QWEN, SFT_QWEN_LORA, SFT_QWEN3)
BASES: dict[str, RunConfig] = {one.name: one for one in _ALL}

# The drawn world's changes to a base: a model 128 wide, for a minute. An answer weighs the same
# however long, so that longer captions are not louder ones, too. No dropout: the paper has none.
_SMALL = {"samples_per_step": 32, "warmup_ratio": 0.1, "gradient_checkpointing": False,
          "max_grad_norm": 1.0}  # fmt: skip
_DRAWN = {**_SMALL, "max_steps": 63, "max_length": 1024, "loss": "sample", "micro_batch": 16}
_HOT = {"learning_rate": 1e-3, "projector_learning_rate": 1e-3}  # adapters and projector
DRAWN_SFT = {**_DRAWN, **_HOT, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0}
DRAWN_PROJECTOR = {**_DRAWN, "learning_rate": 2e-3}  # a new one, which has nothing to forget
DRAWN_PRETRAIN = {**_DRAWN, "learning_rate": 5e-4}  # all weights: not as hot as adapters
DRAWN_CAPTIONER = {**_SMALL, "learning_rate": 1e-3}  # Share-Captioner's, from base sft
FULL_SIZE = {"packing": True, "gradient_checkpointing": "selective", "precision": "bf16_24"}
