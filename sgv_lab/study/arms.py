"""The arms of the study: short named changes to one baseline, in the paper's terms.

All arms of a plan train on as many samples, in as many steps, or on as many tokens of captions
where numbers of captions are weighed against what they say; those of ``LONGER`` train once, but
twice as long. They differ in what the registry ``ARMS`` says, and in nothing else. What can be
changed is what `training.config.RunConfig` has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sgv_lab.errors import unknown
from sgv_lab.training import config as configs
from sgv_lab.training.config import FULL_SIZE, Mix, Pool, RunConfig, base

PAPER_ROWS = {  # family -> its row in Figure 2
    "llava-7b": "LLaVA-7B",
    "llava-1.5-7b": "LLaVA-1.5-7B",
    "llava-1.5-13b": "LLaVA-1.5-13B",
    "qwen-vl-chat": "Qwen-VL-Chat-7B",
}
_BASES = {  # family -> bases of all weights and of LoRA; any other family: LLaVA-1.5's
    "llava-7b": ("sft-v1", "sft-v1"),
    "qwen-vl-chat": ("sft-qwen", "sft-qwen-lora"),
    "qwen3-vl-8b": ("sft-qwen3", "sft-qwen3"),
}
SURFACE = "detail × accuracy"  # the group of the arms whose rates are set
TELLING = "facts untold"  # that of the arms whose true captions leave one kind of fact out
NUMBER = "number × quality"  # that of the arms that show as many tokens of captions
RATES = ("omission", "error", "invention")


def baseline(
    family: str = "llava-1.5-7b", tuning: str = "", full_size: bool = False, origin: str = ""
) -> RunConfig:
    """What the arms of a study change: the family's base, the projector always trained.

    ``tuning``: "lora" or "full", besides the projector; "": full at full size alone; "projector":
    it alone, on captions alone. ``pretrain`` is for arms that name an annotator there.
    """
    tuning = tuning or ("full" if full_size else "lora")
    alone = tuning == "projector"
    size, mix, pool = "drawn world", Mix(), Pool()
    changes = configs.DRAWN_PROJECTOR if alone else configs.DRAWN_SFT
    first = configs.DRAWN_PRETRAIN
    if full_size:
        size, mix, pool = "full size", Mix(samples=0), Pool(samples=0, pool=0)
        first = FULL_SIZE
        changes = FULL_SIZE | ({"precision": "bf16"} if tuning == "lora" else {})
    full, lora = _BASES.get(family, ("sft", "sft-lora"))
    tuned = {"language_model": tuning, "projector": True}
    own = base(full).template  # LLaVA pre-trains without one; other models read theirs alone
    reads = {} if own == "v1" else {"template": own}
    if alone:
        sft = base("projector-only", reads, f"family {family}")
    else:
        sft = base(full if tuning == "full" else lora, tuned, origin)
    before = replace(base("pretrain", first | reads, size), captions=pool)
    made = replace(sft.changed(changes, size), captions=mix, pretrain=before)
    return made.changed({"share": 1.0}, "tuning projector") if alone else made


@dataclass(frozen=True)
class Arm:
    """A named change to the baseline; runs of arms ``compared_with`` are subtracted from its."""

    name: str
    label: str
    changes: Mapping[str, Any]  # as `RunConfig.changed` takes it
    compared_with: tuple[str, ...] = ("before",)
    row: str | None = None  # of the paper's table that it stands for; "": its family's
    group: str = ""  # the paper's table, or what the paper left out
    upper_bound: str = "oracle"  # effects are shares of it − before; "": nothing bounds them

    def config(self, baseline: RunConfig, blocks: int = 3) -> RunConfig:
        """The baseline with this arm's change, ready to run, for a vision tower of ``blocks``."""
        return ready(baseline.changed(self.changes, f"arm {self.name}"), blocks)


def ready(design: RunConfig, blocks: int) -> RunConfig:
    """A design as it is run: without a pre-training that shows no captions. Both weigh alike."""
    if not design.pretrain.captions.annotator:
        return replace(design, pretrain=None)
    alike = design.pretrain.changed({"loss": design.loss}, design.origins.get("loss", ""))
    return replace(design, pretrain=alike.for_tower(blocks))


BLIND, VISION = {"annotator": "gpt4_blind"}, {"annotator": "gpt4_vision"}
BLIP, ORACLE = {"annotator": "blip"}, {"annotator": "oracle"}


def _in_pretraining(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {f"pretrain.{key}": value for key, value in shown.items()}


def _set_rates(*percent: int) -> dict[str, Any]:
    return VISION | {rate: of / 100 for rate, of in zip(RATES, percent, strict=True)}


ALL_SOURCES = {**VISION, "images": "mixed"}  # as the released file
# Pre-training of the projector alone; and end to end, of language model and half of the ViT, too.
PROJECTOR = {"pretrain.base": "projector-only", "pretrain.vision_share": None}
END_TO_END = {"pretrain.base": "pretrain", "pretrain.vision_share": 0.5}
ON_BLIP = END_TO_END | _in_pretraining(BLIP)
ON_BLIND = END_TO_END | _in_pretraining(BLIND)
ON_SHARE = {**END_TO_END, "pretrain.annotator": "share"}
ON_ORACLE = END_TO_END | _in_pretraining(ORACLE)
ON_VISION = END_TO_END | _in_pretraining(VISION)
TWICE = {"samples": 4_000, "max_steps": 126}  # a plan with an arm of LONGER has half as many
LONGER = ("none@4", "longer@PT")  # as many steps of fine-tuning as others take in both stages
BOTH_ORACLE = ALL_SOURCES | ON_ORACLE | ORACLE
BOTH = {**ALL_SOURCES, **ON_SHARE}  # ShareGPT4V-7B: Table 6 and Figure 6 stand on it
LCS = {**VISION, "pretrain.collection": "lcs"}  # Table 5: one fine-tuning mix, one set of images
SHUFFLED, QUESTIONS = {**VISION, "edit": "shuffled"}, {"edit": "questions"}
STYLE = {"wording": 1, "filler": 0.2}
UNTOLD = {"color": "colors", "pattern": "patterns", "size": "sizes", "count": "numbers",
            "scene": "the background"}  # fmt: skip
SHOWN_TO_TOWER = {  # captions that a tower learns from -> what pre-training shows, label
    "vision": (ON_VISION, "GPT4-Vision's"),
    "blind": (ON_BLIND, "blind"),
    "oracle": (ON_ORACLE, "true"),
}
PAID = {  # captions bought by the token -> label, changes, tokens of one (means of 300 scenes)
    "blip": ("BLIP's captions", BLIP, 15.1),
    "half": ("true captions, half left out", _set_rates(50, 0, 0), 25.8),
    "after": ("GPT4-Vision's captions", VISION, 50.3),
    "wrong": ("whole captions, 30% wrong", _set_rates(0, 30, 0), 56.6),
    "oracle": ("true and whole captions", ORACLE, 56.8),
}


def _tower(name: str, share: float, label: str, row: str | None) -> Arm:
    against = () if name == "tower@0%" else ("tower@0%",)
    return Arm(name, label, {**BOTH, "pretrain.vision_share": share}, against, row)


def _half_taught(who: str, share: float, *against: str) -> Arm:
    """An arm of Table 6 on a half-taught tower, on which no Share-Captioner could see either."""
    shown, label = SHOWN_TO_TOWER[who]
    tower = "half of the ViT" if share == 0.5 else "all of the ViT" if share else "the ViT frozen"
    changes = {**ALL_SOURCES, **shown, "pretrain.vision_share": share}
    return Arm(f"{who}@{share:.0%}", f"{tower}, {label} captions", changes, against)


def _captions(number: int, row: str | None = None) -> Arm:
    changes = {**BOTH, "pretrain.samples": number}
    return Arm(f"captions@{number}", f"{number:,} captions", changes, ("captions@0",), row)


def _alone(number: int) -> Arm:
    """So many of GPT4-Vision's captions, and nothing else; all as many steps, so one curve."""
    against = ("alone@16",) if number > 16 else ()
    label = f"{number:,} captions alone"
    return Arm(f"alone@{number}", label, {**VISION, "samples": number}, against)


def _paid(name: str, thousands: int) -> Arm:
    """Captions for so many thousand tokens: each step shows as many, whoever captions."""
    label, shown, length = PAID[name]
    rows = round(1_600 / length)
    changes = {**shown, "samples_per_step": rows, "samples": rows * 160 * thousands // 256}
    against = () if name == "blip" else (f"blip@{thousands}K",)
    fewer = {64: (f"{name}@16K",), 256: (f"{name}@64K",)}.get(thousands, ())
    return Arm(
        f"{name}@{thousands}K", f"{thousands}K tokens of {label}", changes, (*against, *fewer)
    )


def _first(
    name: str, label: str, shown: Mapping[str, Any], against: tuple[str, ...] = ("blind@P",)
) -> Arm:
    """Captions ``shown`` to the projector alone; then the baseline's fine-tuning."""
    return Arm(name, label, PROJECTOR | _in_pretraining(shown), against)


def _rates(omission: int, error: int, invention: int) -> Arm:
    """Rates in percent: o25e10i0 leaves out 25 %, gets 10 % wrong, makes nothing up."""
    label = f"{omission}% left out, {error}% wrong, {invention}% made up"
    rates = _set_rates(omission, error, invention)
    return Arm(f"o{omission}e{error}i{invention}", label, rates)


_REGISTRY = {  # (group, upper bound) -> its arms
    ("Figure 2", "oracle"): [
        Arm("before", "blind GPT-4 captions", {}, (), ""),
        Arm("after", "GPT4-Vision captions", VISION, row=""),
    ],
    ("controls", "oracle"): [
        Arm("oracle", "true and whole captions", ORACLE),
        Arm("aa", "A/A: blind captions drawn again", {"draw": 1}),
        Arm("shuffled", "GPT4-Vision captions of other images", SHUFFLED, ("before", "after")),
        Arm("dropped", "no detailed captions", {"edit": "dropped"}, ("before", "after")),
        Arm("questions", "questions in the captions' place", QUESTIONS, ("before", "after")),
        Arm("style", "same facts, other words, a fifth filler", STYLE),
        # aa-2 to aa-15: sixteen draws of one annotator are 120 pairs.
        *(Arm(f"aa-{draw}", f"A/A: draw {draw}", {"draw": draw}) for draw in range(2, 16)),
    ],
    ("style, taken apart", ""): [
        Arm("words", "blind captions in other words", {"wording": STYLE["wording"]}),
        Arm("filler", "blind captions, a fifth filler", {"filler": STYLE["filler"]}),
    ],
    ("sources", "oracle"): [
        Arm("human", "one human caption", {"annotator": "human"}),
        Arm("blip", "BLIP captions", BLIP),
    ],
    ("own captions", "oracle"): [Arm("own", "captions of one's own", {"annotator": "own"})],
    (TELLING, ""): [  # what true captions teach by telling it
        Arm(f"no-{kind}", f"true captions without {words}", ORACLE | {"untold": kind}, ("oracle",))
        for kind, words in UNTOLD.items()
    ],
    (SURFACE, "oracle"): [
        *(_rates(o, e, 0) for o in (0, 25, 50, 75) for e in (0, 10, 30, 50)),
        *(_rates(o, 0, i) for o in (0, 25, 50, 75) for i in (30, 60)),
        *(_rates(o, e, 30) for o in (0, 25, 50, 75) for e in (10, 30)),
    ],
    (NUMBER, "oracle@256K"): [_paid(name, paid) for paid in (16, 64, 256) for name in PAID],
    ("Table 4", "both-oracle"): [  # where dense captions are used, and its missing control
        Arm("sft", "dense captions in fine-tuning", ALL_SOURCES, row="PT no, SFT yes"),
        Arm("pt-blip", "pre-training end to end on BLIP captions", ON_BLIP, ("before", "pt")),
        Arm("pt", "dense captions in pre-training", ON_SHARE, ("before", "sft"), "PT yes, SFT no"),
        Arm("both", "dense captions in both", BOTH, ("before", "pt", "sft"), "PT yes, SFT yes"),
        Arm("both-oracle", "true and whole captions in both", BOTH_ORACLE),
    ],
    ("Table 4, two by two", "oracle@4"): [  # whose captions in which stage, all trained alike
        Arm("blip@4", "BLIP's in pre-training, blind ones in fine-tuning", ON_BLIP, ()),
        Arm("sft@4", "GPT4-Vision's in fine-tuning alone", ON_BLIP | VISION, ("blip@4",)),
        Arm(
            "pt@4",
            "GPT4-Vision's in pre-training alone",
            ON_VISION,
            ("sft@4", "blip@4", "none@4"),
        ),
        Arm("both@4", "GPT4-Vision's in both", ON_VISION | VISION, ("blip@4", "pt@4", "sft@4")),
        Arm("oracle@4", "true and whole ones in both", ON_ORACLE | ORACLE, ("sft@4", "blip@4")),
        Arm("none@4", "fine-tuning twice as long, no pre-training", TWICE, ("blip@4",)),
    ],
    ("Table 5", "oracle@PT"): [  # who captions pre-training's images
        Arm("none@PT", "no pre-training end to end", LCS, (), "Baseline"),
        Arm("blip@PT", "pre-training on BLIP captions", LCS | ON_BLIP, ("none@PT",), "+BLIP-558K"),
        Arm(
            "share@PT",
            "pre-training on Share-Captioner's",
            LCS | ON_SHARE,
            ("blip@PT", "none@PT"),
            "+ShareGPT4V-PT-558K",
        ),
        Arm("longer@PT", "fine-tuning twice as long instead", LCS | TWICE, ("none@PT", "share@PT")),
        Arm("oracle@PT", "pre-training on true and whole captions", LCS | ON_ORACLE, ("blip@PT",)),
        Arm("blind@PT", "pre-training on blind GPT-4's", LCS | ON_BLIND, ("blip@PT", "none@PT")),
        Arm(
            "vision@PT",
            "pre-training on GPT4-Vision's",
            LCS | ON_VISION,
            ("blip@PT", "none@PT", "share@PT"),
        ),
    ],
    ("controls", "oracle@PT"): [
        Arm(
            "aa@PT",
            "A/A: pre-training on BLIP's drawn again",
            LCS | ON_BLIP | {"pretrain.draw": 1},
            ("blip@PT",),
        ),
        Arm(
            "shuffled@PT",
            "pre-training on GPT4-Vision's of other images",
            LCS | END_TO_END | _in_pretraining(SHUFFLED),
            ("none@PT", "blip@PT", "vision@PT"),
        ),
    ],
    ("captions alone, then SFT", "oracle@P"): [  # who captions what the projector alone learns
        _first("blind@P", "the projector on blind GPT-4's", BLIND, ()),
        _first("vision@P", "the projector on GPT4-Vision's", VISION, ("blind@P", "none@P")),
        _first("blip@P", "the projector on BLIP's", BLIP),
        _first("none@P", "the projector not taught", {"annotator": ""}),
    ],
    ("controls", "oracle@P"): [
        _first("oracle@P", "the projector on true and whole ones", ORACLE),
        _first("aa@P", "A/A: the projector on blind ones drawn again", {**BLIND, "draw": 1}),
        _first("style@P", "the projector on their facts in other words", {**BLIND, **STYLE}),
        _first(
            "shuffled@P",
            "the projector on GPT4-Vision's of other images",
            SHUFFLED,
            ("none@P", "blind@P", "vision@P"),
        ),
    ],
    ("Table 6", ""): [  # how much of the ViT learns in pre-training; rows: its first block of 24
        _tower("tower@0%", 0.0, "the ViT frozen", "24"),
        _tower("tower@25%", 0.25, "25 % of the ViT's blocks", "18"),
        _tower("tower@50%", 0.5, "50 % of the ViT's blocks", "12"),
        _tower("tower@75%", 0.75, "75 % of the ViT's blocks", "6"),
        _tower("tower@100%", 1.0, "100 % of the ViT's blocks", "0"),
        _tower("tower@whole", -1.0, "the whole ViT, embeddings too", None),
    ],
    ("Table 6, a half-taught tower", "oracle@50%"): [  # one that has something to learn
        _half_taught("vision", 0.0),
        _half_taught("vision", 0.5, "vision@0%"),
        _half_taught("vision", 1.0, "vision@0%", "vision@50%"),
        _half_taught("oracle", 0.5, "vision@0%"),
        _half_taught("blind", 0.0, "vision@0%"),
        _half_taught("blind", 0.5, "blind@0%", "vision@50%"),
    ],
    ("Figure 6", ""): [  # how many different captions pre-training shows
        Arm("captions@0", "no dense captions in pre-training", ALL_SOURCES, (), "0"),
        *map(_captions, (16, 64, 256, 1_024, 4_096)),
        *map(_alone, (16, 64, 256, 1_024, 4_096, 16_384)),
        *(_captions(n, str(n)) for n in (100_000, *range(200_000, 1_200_001, 200_000))),
    ],
}
ARMS: dict[str, Arm] = {
    one.name: replace(one, group=group, upper_bound=ceiling)
    for (group, ceiling), arms in _REGISTRY.items()
    for one in arms
}


def arm(name: str, where: object = None) -> Arm:
    """The arm of this name; LabError naming the nearest for any other."""
    if name not in ARMS:
        raise unknown("arm", name, ARMS, where)
    return ARMS[name]


def cell_of(name: str, family: str) -> tuple[str, str, str]:
    """Place, row and arm in `paper` that an arm of ``family`` stands for; empty where none is."""
    one, own = arm(name), PAPER_ROWS.get(family, "")
    if one.row is None or not own or (one.row and own != "LLaVA-1.5-7B"):  # Table 4's only model
        return "", "", ""
    place = one.group.lower().replace(" ", "")
    return place, one.row or own, name if place == "figure2" else ""
