"""Every size and rate of the study in one place: ``smoke``, ``mini`` and ``paper``.

``smoke`` proves that a notebook runs (a minute at most), ``mini`` runs the study for real in the
embedded world, ``paper`` is the real thing. A notebook has one section: a frozen dataclass, and
its three instances side by side, so that a reader sees what grows between the profiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgv_lab.errors import unknown

PROFILES = ("smoke", "mini", "paper")


@dataclass(frozen=True)
class StartHere:
    """00 and 08: nothing to size; the map, the paper's numbers and the ledger."""


START_HERE = {name: StartHere() for name in PROFILES}


@dataclass(frozen=True)
class CaptionDatasets:
    """01: how much of the embedded world is captioned, and how much is looked at word by word."""

    pictures: int  # of the embedded world, each captioned by every annotator
    sample: int  # captions of a source that are tagged and tokenized


CAPTION_DATASETS = {
    "smoke": CaptionDatasets(pictures=210, sample=300),
    "mini": CaptionDatasets(pictures=2_100, sample=2_000),
    "paper": CaptionDatasets(pictures=7_000, sample=20_000),
}


@dataclass(frozen=True)
class SftSubstitution:
    """04: which models are tuned on which captions, how often, and how they are asked."""

    families: tuple[str, ...]
    arms: tuple[str, ...]  # names in sgv_lab.study.arms
    seeds: int  # paired: every arm has them all
    tuning: str  # lora or full; the projector is trained in both
    benchmarks: tuple[str, ...]
    pictures: int  # a benchmark; MME: a subtask
    baseline: Mapping[str, Any]  # changes to sgv_lab.study.arms.Design


SFT_SUBSTITUTION = {
    "smoke": SftSubstitution(
        families=("llava-1.5-7b",),
        arms=("before", "after", "oracle"),
        seeds=2,
        tuning="lora",
        benchmarks=("mme", "mmbench"),
        pictures=2,
        baseline={"share": 0.145, "samples": 48, "updates": 2},
    ),
    "mini": SftSubstitution(
        families=("llava-1.5-7b",),
        arms=("before", "after", "oracle"),
        seeds=2,
        tuning="lora",
        benchmarks=("mme", "mmbench", "seed", "qbench", "vqav2", "vizwiz"),
        pictures=20,
        baseline={"share": 0.145, "samples": 1_000, "updates": 32},
    ),
    "paper": SftSubstitution(  # the families of Figure 2, and a current one
        families=("llava-7b", "llava-1.5-7b", "llava-1.5-13b", "qwen-vl-chat", "qwen3-vl-8b"),
        arms=("before", "after", "mixed"),
        seeds=3,
        tuning="full",
        benchmarks=("mme", "mmbench", "seed", "qbench", "vqav2", "vizwiz"),
        pictures=60,
        baseline={},
    ),
}


@dataclass(frozen=True)
class Benchmarks:
    """06: how large the miniature benchmarks are, and what the scripted answerer knows."""

    pictures: int  # a benchmark; MME: a subtask
    knows: float  # share of the questions it answers rightly


BENCHMARKS = {
    "smoke": Benchmarks(pictures=12, knows=0.7),
    "mini": Benchmarks(pictures=60, knows=0.7),
    "paper": Benchmarks(pictures=60, knows=0.7),
}


@dataclass(frozen=True)
class ShareCaptioner:
    """03: what the captioner learns from and for how long, what it captions and who judges."""

    collected: int  # captions of GPT4-Vision that it learns from
    updates: int  # of 32 samples; 0: one epoch
    pictures: int  # new ones, captioned by all
    tokens: int  # most tokens of a caption
    pairs: int  # judged, as Table 2's 100
    raters: int  # as Table 2's 10


SHARE_CAPTIONER = {
    "smoke": ShareCaptioner(collected=160, updates=10, pictures=24, tokens=160, pairs=20, raters=3),
    "mini": ShareCaptioner(
        collected=2_000, updates=125, pictures=200, tokens=192, pairs=100, raters=10
    ),
    "paper": ShareCaptioner(
        collected=100_000, updates=0, pictures=1_000, tokens=512, pairs=100, raters=10
    ),
}


@dataclass(frozen=True)
class TwoStages:
    """05: how long ShareGPT4V-7B and LLaVA-1.5's recipe train, how often, what they are asked."""

    seeds: int  # paired: both models have them all
    benchmarks: tuple[str, ...]
    pictures: int  # a benchmark; MME: a subtask
    baseline: Mapping[str, Any]  # changes to sgv_lab.study.arms.Design, for both models
    projector: Mapping[str, Any]  # to the recipe of LLaVA-1.5's first stage


_WHOLE = {"learning_rate": 5e-4, "connector_learning_rate": None}  # all weights, 128 wide
TWO_STAGES = {
    "smoke": TwoStages(
        seeds=2,
        benchmarks=("mme", "mmbench"),
        pictures=2,
        baseline={
            "share": 0.145,
            "samples": 64,
            "updates": 2,
            "recipe": _WHOLE,
            "pretrain": {
                "by": "blip", "captions": 64, "pool": 64, "updates": 2, "captioner": "smoke",
            },
        },
        projector={"learning_rate": 1e-3},
    ),
    "mini": TwoStages(
        seeds=3,
        benchmarks=("mme", "mmbench"),
        pictures=20,
        baseline={
            "share": 0.145,
            "samples": 640,
            "updates": 20,
            "recipe": _WHOLE,
            "pretrain": {
                "by": "blip", "captions": 640, "pool": 640, "updates": 20, "captioner": "mini",
            },
        },
        projector={"learning_rate": 1e-3},
    ),
    "paper": TwoStages(  # the base has had LLaVA-1.5's first stage; both recipes as published
        seeds=1,
        benchmarks=("mme", "mmbench", "seed", "qbench", "vqav2", "vizwiz"),
        pictures=60,
        baseline={},
        projector={},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Ablations:
    """07: which arms of Tables 4 to 6 and Figure 6 are run, how often, and how they are asked.

    Arms of several tables that come to the same are computed once.
    """

    arms: tuple[str, ...]  # names in sgv_lab.study.arms
    seeds: int
    benchmarks: tuple[str, ...]
    pictures: int  # a benchmark; MME: a subtask
    baseline: Mapping[str, Any]  # changes to sgv_lab.study.arms.Design


_TABLES_4_TO_6 = (
    *("before", "sft", "pt-blip", "pt", "both", "none@PT", "blip@PT", "share@PT"),
    *("tower@0%", "tower@50%", "captions@0", "captions@16", "captions@64"),
)
_ALL_WEIGHTS = {"share": 0.145, "tuning": "full", "recipe": _WHOLE}
_ALIGNED = {"by": "blip", "tunes": "projector"}  # every arm's first stage, but for what it changes
ABLATIONS = {
    "smoke": Ablations(
        arms=_TABLES_4_TO_6,
        seeds=1,
        benchmarks=("mme",),
        pictures=1,
        baseline={**_ALL_WEIGHTS, "samples": 64, "updates": 2, "pretrain": {
            **_ALIGNED, "captions": 64, "pool": 64, "updates": 2, "captioner": "smoke",
        }},
    ),
    "mini": Ablations(
        arms=_TABLES_4_TO_6,
        seeds=1,
        benchmarks=("mme", "mmbench"),
        pictures=8,
        baseline={**_ALL_WEIGHTS, "samples": 256, "updates": 8, "pretrain": {
            **_ALIGNED, "captions": 256, "pool": 256, "updates": 8, "captioner": "mini",
        }},
    ),
    "paper": Ablations(  # the base has LLaVA-1.5's own first stage; BLIP captioned LCS only
        arms=(
            *("before", "sft", "pt", "both", "none@PT", "blip@PT", "share@PT"),
            *("tower@0%", "tower@25%", "tower@50%", "tower@75%", "tower@100%"),
            *("captions@0", "captions@100000", "captions@200000", "captions@400000"),
            *("captions@600000", "captions@800000", "captions@1000000", "captions@1200000"),
        ),
        seeds=3,
        benchmarks=("mme", "mmbench", "seed"),
        pictures=60,
        baseline={"tuning": "full"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Explore:
    """09: how many drawn pictures there are to pick from."""

    pictures: int


EXPLORE = {
    "smoke": Explore(pictures=21),
    "mini": Explore(pictures=70),
    "paper": Explore(pictures=70),
}


@dataclass(frozen=True)
class CollectCaptions:
    """02: which pictures an endpoint is asked about, and what it costs."""

    pictures: int  # drawn ones; 0: give `images`
    size: int  # pixels of their side
    url: str  # of the endpoint; "": a local one that answers for the drawn world
    model: str
    connections: int
    price_in: float  # dollars a million tokens; gpt-4-vision-preview's list prices, remembered
    price_out: float


_ANNOTATOR = {"url": "", "model": "gpt4-vision-annotator", "price_in": 10.0, "price_out": 30.0}
COLLECT_CAPTIONS = {  # the drawn ones are the captions that 03 learns from
    "smoke": CollectCaptions(pictures=160, size=64, connections=8, **_ANNOTATOR),
    "mini": CollectCaptions(pictures=2_000, size=64, connections=8, **_ANNOTATOR),
    "paper": CollectCaptions(
        pictures=0,
        size=0,
        url="https://api.openai.com/v1",
        model="gpt-4o",  # the paper's is retired; its version was never told
        connections=16,
        price_in=0.0,  # your contract's
        price_out=0.0,
    ),
}


SECTIONS: dict[str, dict[str, Any]] = {  # notebook -> profile -> section
    "00_start_here": START_HERE,
    "01_caption_datasets": CAPTION_DATASETS,
    "02_collect_captions": COLLECT_CAPTIONS,
    "03_share_captioner": SHARE_CAPTIONER,
    "04_sft_substitution": SFT_SUBSTITUTION,
    "05_sharegpt4v_7b": TWO_STAGES,
    "06_benchmarks": BENCHMARKS,
    "07_ablations": ABLATIONS,
    "08_claims": START_HERE,
    "09_explore": EXPLORE,
}


def section(notebook: str, profile: str) -> Any:
    """The section of ``notebook`` at ``profile``. Raises LabError naming the nearest profile."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    if notebook not in SECTIONS:
        raise unknown("notebook section", notebook, SECTIONS)
    return SECTIONS[notebook][profile]
