"""The arms of the study: short named changes to one baseline, in the paper's terms.

``ARMS`` is the one registry: an arm's name joins its run, the paper's cell it stands for, the arms
it is compared with and its label in every plot. All arms of a plan train on as many samples, in as
many updates; they differ in what the registry says, and in nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import pandas as pd

from sgv_lab.errors import unknown

MINIATURE_RECIPE: Mapping[str, Any] = {  # a model 128 wide, for a minute: hotter and narrower
    "samples_per_update": 32,
    "learning_rate": 1e-3,
    "connector_learning_rate": 1e-3,
    "lora_rank": 16,
    "lora_alpha": 32,
    "warmup_ratio": 0.1,
    "max_length": 1024,
    "gradient_checkpointing": False,
}
STAGE1_RECIPE: Mapping[str, Any] = {  # of all weights: not as hot as adapters
    "samples_per_update": 32,
    "learning_rate": 5e-4,
    "warmup_ratio": 0.1,
    "max_length": 1024,
    "gradient_checkpointing": False,
}
PAPER_ROWS = {  # family -> its row in Figure 2
    "llava-7b": "LLaVA-7B",
    "llava-1.5-7b": "LLaVA-1.5-7B",
    "llava-1.5-13b": "LLaVA-1.5-13B",
    "qwen-vl-chat": "Qwen-VL-Chat-7B",
}
SHARES = (0, 1, 3.5, 14.5, 50, 100)  # percent of the mix; 3.5 and 14.5 are the paper's
DRAWS = 16  # of the same annotator, for A/A: 120 pairs
TOWER = (0, 25, 50, 75, 100)  # percent of the ViT's blocks trained: Table 6 from 24, 18, 12, 6, 0
CAPTIONS = {  # Figure 6, by the size of the model: the paper's numbers, and steps of four
    "paper": (0, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_200_000),
    "mini": (16, 64, 256, 1_024, 4_096),
}
SURFACE = "detail × accuracy"  # the group of the arms whose rates are set
RATES = {"omission": (0, 0.25, 0.5, 0.75), "error": (0, 0.1, 0.3, 0.5), "invention": (0.3, 0.6)}


@dataclass(frozen=True)
class Stage1:
    """Pre-training on captions, before fine-tuning: whose, of which pictures, and what is trained.

    Captions are drawn, a seed its own, from a pool of pictures that all seeds share, so that
    Share-Captioner has to caption them once; whoever captions, the pictures are the same.
    """

    by: Literal["", "blip", "share", "gpt4_vision", "oracle"] = ""  # "": no further stage
    tunes: Literal["projector", "all"] = "all"  # all: projector, language model, part of the ViT
    tower: float = 0.5  # share of the ViT's blocks trained, its last ones; -1: embeddings, too
    source: Literal["", "lcs"] = ""  # of the pictures; "": all that ShareGPT4V-PT has
    captions: int = 2_016  # different ones; 0, in official files: all
    pool: int = 4_096  # pictures
    captioner: Literal["smoke", "mini"] = "mini"  # how it learns: `stage_one.CAPTIONERS`
    updates: int | None = 63  # None: one epoch
    recipe: Mapping[str, Any] = field(default_factory=lambda: dict(STAGE1_RECIPE))


@dataclass(frozen=True)
class Design:
    """Everything that makes a fine-tuning run, but its seed, questions and base model."""

    annotator: str = "gpt4_blind"  # of the detailed captions
    omission: float | None = None  # None: the annotator's own rate
    error: float | None = None
    invention: float | None = None
    draw: int = 0  # which of the annotator's captions of a picture
    images: Literal["same", "mixed"] = "same"  # mixed: as the released file, 9K coco, 3K lcs, …
    captions: str = ""  # file of one's own captions, whose pictures are then shown (see `own`)
    edit: Literal["", "shuffled", "dropped", "padded", "truncated", "matched"] = ""
    share: float = 23_000 / 665_298  # detailed captions in the mix
    tuning: Literal["lora", "full"] = "lora"  # besides the projector
    loss: Literal["sample", "token"] = "sample"  # what weighs the same; official files: "token"
    samples: int = 2_000  # of the mix in miniature; official files have as many as they have
    updates: int | None = 63  # None: as many as the recipe's epochs take
    recipe: Mapping[str, Any] = field(default_factory=lambda: dict(MINIATURE_RECIPE))
    pretrain: Stage1 = field(default_factory=Stage1)

    def changed(self, changes: Mapping[str, Any]) -> "Design":
        """A copy with these fields changed, those of ``pretrain`` one by one."""
        stage = replace(self.pretrain, **changes.get("pretrain", {}))
        return replace(self, **{**changes, "pretrain": stage})


@dataclass(frozen=True)
class Arm:
    """A named change to the baseline. ``against``: the arms whose runs are subtracted from its."""

    name: str
    group: str  # the paper's table, or what the paper left out
    label: str
    delta: Mapping[str, Any]
    against: tuple[str, ...] = ("before",)
    ceiling: str = "oracle"  # effects are shares of ceiling − before; "": nothing bounds them
    cell: tuple[str, str, str] | None = None  # place, row, arm in `paper`; row "": the family's

    def design(self, baseline: Design) -> Design:
        """The baseline with this arm's change."""
        return baseline.changed(self.delta)


_VISION = {"annotator": "gpt4_vision"}


def _plain() -> list[Arm]:
    fig2, control, length = "Figure 2", "controls", "length alone"
    return [
        Arm("before", fig2, "blind GPT-4 captions", {}, (), cell=("figure2", "", "before")),
        Arm("after", fig2, "GPT4-Vision captions", _VISION, cell=("figure2", "", "after")),
        Arm("oracle", control, "true and whole captions", {"annotator": "oracle"}),
        Arm("aa", control, "A/A: blind captions drawn again", {"draw": 1}),
        Arm("shuffled", control, "GPT4-Vision captions of other pictures",
            {**_VISION, "edit": "shuffled"}, ("before", "after")),
        Arm("dropped", control, "no detailed captions", {"edit": "dropped"}, ("before", "after")),
        Arm("human", "sources", "one human caption", {"annotator": "human"}),
        Arm("blip", "sources", "BLIP captions", {"annotator": "blip"}),
        Arm("own", "own captions", "captions of one's own", {"annotator": "own"}),
        Arm("mixed-before", "images × captions", "blind captions, pictures of all sources",
            {"images": "mixed"}),
        Arm("mixed", "Table 4", "GPT4-Vision captions, pictures of all sources",
            {**_VISION, "images": "mixed"}, ("before", "mixed-before", "after"),
            cell=("table4", "PT no, SFT yes", "")),
        Arm("padded", length, "blind captions made longer, no fact more", {"edit": "padded"}),
        Arm("truncated", length, "GPT4-Vision captions cut shorter",
            {**_VISION, "edit": "truncated"}, ("before", "after")),
        Arm("matched", length, "GPT4-Vision captions, fewer: as many tokens",
            {**_VISION, "edit": "matched"}, ("before", "after")),
    ]  # fmt: skip


def _triple(group: str, suffix: str, label: str, delta: Mapping[str, Any]) -> list[Arm]:
    """Before, after and oracle under another condition, compared among themselves."""
    before, oracle = f"before@{suffix}", f"oracle@{suffix}"
    return [
        Arm(before, group, f"blind, {label}", delta, ()),
        Arm(f"after@{suffix}", group, f"GPT4-Vision, {label}", {**_VISION, **delta}, (before,),
            oracle),
        Arm(oracle, group, f"oracle, {label}", {"annotator": "oracle", **delta}, (before,), oracle),
    ]  # fmt: skip


def _surface() -> list[Arm]:
    grid = [(o, e, 0.0) for o, e in product(RATES["omission"], RATES["error"])]
    grid += [(o, 0, i) for o, i in product(RATES["omission"], RATES["invention"])]
    return [
        Arm(f"o{100 * o:.0f}e{100 * e:.0f}i{100 * i:.0f}", SURFACE,
            f"{o:.0%} left out, {e:.0%} wrong, {i:.0%} made up",
            {**_VISION, "omission": float(o), "error": float(e), "invention": float(i)})
        for o, e, i in grid
    ]  # fmt: skip


def _used() -> list[Arm]:
    """Table 4, and its missing control: training end to end on captions that are not dense."""

    def stage(by: str) -> dict[str, Any]:
        return {"pretrain": {"by": by, "tunes": "all"}}

    place, top = "table4", "both-oracle"
    tuned = {**_VISION, "images": "mixed"}
    return [
        Arm("sft", "Table 4", "dense captions in fine-tuning", tuned, ("before",), top,
            (place, "PT no, SFT yes", "")),
        Arm("pt-blip", "Table 4", "stage 1 end to end on BLIP captions", stage("blip"),
            ("before", "pt"), top),
        Arm("pt", "Table 4", "dense captions in stage 1", stage("share"),
            ("before", "sft"), top, (place, "PT yes, SFT no", "")),
        Arm("both", "Table 4", "dense captions in both", {**tuned, **stage("share")},
            ("before", "pt", "sft"), top, (place, "PT yes, SFT yes", "")),
        Arm(top, "Table 4", "true and whole captions in both",
            {**tuned, "annotator": "oracle", **stage("oracle")}, ("before",), top),
    ]  # fmt: skip


def _same_pictures() -> list[Arm]:
    """Table 5: who captions stage 1's pictures, which are LCS's; one fine-tuning mix for all."""

    def arm(who: str, label: str, against: tuple[str, ...], row: str = "", **more: Any) -> Arm:
        delta = {**_VISION, "pretrain": {"source": "lcs", **more}}
        cell = ("table5", row, "") if row else None
        return Arm(f"{who}@PT", "Table 5", label, delta, against, "oracle@PT", cell)

    first = {"tunes": "all"}
    return [
        arm("none", "no stage 1 end to end", (), "Baseline"),
        arm("blip", "stage 1 on BLIP captions", ("none@PT",), "+BLIP-558K", by="blip", **first),
        arm("share", "stage 1 on Share-Captioner's", ("blip@PT", "none@PT"),
            "+ShareGPT4V-PT-558K", by="share", **first),
        arm("oracle", "stage 1 on true and whole captions", ("blip@PT",), by="oracle", **first),
    ]  # fmt: skip


def _both(**more: Any) -> dict[str, Any]:
    """Table 4's last row with changes to its first stage, on which Table 6 and Figure 6 stand."""
    return {**_VISION, "images": "mixed", "pretrain": {"by": "share", "tunes": "all", **more}}


def _towers() -> list[Arm]:
    """Table 6: how much of the ViT learns in stage 1, besides projector and language model."""
    frozen, group, arms = "tower@0%", "Table 6", []
    for share in TOWER:
        label = f"{share} % of the ViT's blocks" if share else "the ViT frozen"
        cell = ("table6", str(round(24 * (1 - share / 100))), "")
        against = (frozen,) if share else ()
        delta = _both(tower=share / 100)
        arms.append(Arm(f"tower@{share}%", group, label, delta, against, "", cell))
    label = "the whole ViT, embeddings too"
    return [*arms, Arm("tower@whole", group, label, _both(tower=-1.0), (frozen,), "")]


def _numbers() -> list[Arm]:
    """Figure 6: how many different captions stage 1 shows."""
    none, group = "captions@0", "Figure 6"
    tuned = {**_VISION, "images": "mixed"}
    arms = [Arm(none, group, "no dense captions in stage 1", tuned, (), "", ("figure6", "0", ""))]
    for number in sorted({*CAPTIONS["mini"], *CAPTIONS["paper"][1:]}):
        cell = ("figure6", str(number), "") if number in CAPTIONS["paper"] else None
        delta = _both(captions=number)
        name, label = f"captions@{number}", f"{number:,} captions"
        arms.append(Arm(name, group, label, delta, (none,), "", cell))
    return arms


def _all() -> list[Arm]:
    arms = _plain()
    for draw in range(2, DRAWS):
        arms.append(Arm(f"aa-{draw}", "controls", f"A/A: draw {draw}", {"draw": draw}))
    for share in SHARES:
        arms += _triple("share replaced", f"{share:g}%", f"{share:g} %", {"share": share / 100})
    arms += _triple("tuning", "full", "all weights", {"tuning": "full"})
    return [*arms, *_surface(), *_used(), *_same_pictures(), *_towers(), *_numbers()]


ARMS: dict[str, Arm] = {arm.name: arm for arm in _all()}


def arm(name: str, where: object = None) -> Arm:
    """The arm of this name; LabError naming the nearest for any other."""
    if name not in ARMS:
        raise unknown("arm", name, ARMS, where)
    return ARMS[name]


def cell_of(name: str, family: str) -> tuple[str, str, str]:
    """Place, row and arm in `paper` that an arm of ``family`` stands for; empty where none is."""
    place, row, column = arm(name).cell or ("", "", "")
    own = PAPER_ROWS.get(family, "")
    if not own or (row and own != "LLaVA-1.5-7B"):  # Table 4 is about that model alone
        return "", "", ""
    return place, row or (own if place else ""), column


def _said(delta: Mapping[str, Any]) -> str:
    stage = {f"pretrain {key}": value for key, value in delta.get("pretrain", {}).items()}
    plain = {key: value for key, value in delta.items() if key != "pretrain"}
    return ", ".join(f"{key} {value}" for key, value in {**plain, **stage}.items())


def table() -> pd.DataFrame:
    """The registry: arm, group, label, what it changes, what it is compared with, paper's cell."""
    rows = {
        name: (
            arm.group,
            arm.label,
            _said(arm.delta) or "nothing",
            ", ".join(arm.against) or "–",
            " ".join(filter(None, arm.cell or ("–",))),
        )
        for name, arm in ARMS.items()
    }
    columns = ["group", "label", "changes", "against", "paper"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")
