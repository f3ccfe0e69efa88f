"""Every size and rate of the study in one place: ``smoke``, ``mini`` and ``paper``.

``smoke`` proves that a notebook runs (a minute at most), ``mini`` runs the study for real in the
embedded world, ``paper`` is the real thing. The three values of a setting stand side by side, so
that a reader sees what grows between the profiles.
"""

from types import SimpleNamespace
from typing import Any

from sgv_lab.errors import unknown

PROFILES = ("smoke", "mini", "paper")

_WHOLE = {"learning_rate": 5e-4, "connector_learning_rate": None}  # all weights, 128 wide
_ASKED = (  # benchmarks of notebooks 04 and 05
    ("mme", "mmbench"),
    ("mme", "mmbench", "seed", "qbench", "vqav2", "vizwiz"),
)
_TABLES_4_TO_6 = (
    *("before", "sft", "pt-blip", "pt", "both", "none@PT", "blip@PT", "share@PT"),
    *("tower@0%", "tower@50%", "captions@0", "captions@16", "captions@64"),
)
_FULL_TABLES = (  # the base has LLaVA-1.5's own first stage; BLIP captioned LCS only
    *("before", "sft", "pt", "both", "none@PT", "blip@PT", "share@PT"),
    *("tower@0%", "tower@25%", "tower@50%", "tower@75%", "tower@100%"),
    *("captions@0", "captions@100000", "captions@200000", "captions@400000"),
    *("captions@600000", "captions@800000", "captions@1000000", "captions@1200000"),
)


def _two_stages(samples: int, updates: int, captioner: str, **first: str) -> dict[str, Any]:
    """A plan's ``baseline``: both stages in miniature, each of as many samples."""
    pretrain = {"by": "blip", "captions": samples, "pool": samples, "updates": updates}
    pretrain |= {"captioner": captioner, **first}
    sft = {"share": 0.145, "samples": samples, "updates": updates, "tuning": "full"}
    return {**sft, "recipe": _WHOLE, "pretrain": pretrain}


SECTIONS: dict[str, dict[str, tuple[Any, Any, Any]]] = {  # notebook -> setting -> each profile's
    "00_start_here": {},
    "01_caption_datasets": {
        "pictures": (210, 2_100, 7_000),  # of the embedded world, captioned by every annotator
        "sample": (300, 2_000, 20_000),  # captions of a source that are tagged and tokenized
    },
    "02_collect_captions": {
        "pictures": (160, 2_000, 0),  # drawn ones, which 03 learns from; 0: give `images`
        "size": (64, 64, 0),  # pixels of their side
        # of the endpoint; "": a local one that answers for the drawn world
        "url": ("", "", "https://api.openai.com/v1"),
        # the paper's is retired; its version was never told
        "model": ("gpt4-vision-annotator", "gpt4-vision-annotator", "gpt-4o"),
        "connections": (8, 8, 16),
        # dollars a million tokens; gpt-4-vision-preview's list prices, remembered; your contract's
        "price_in": (10.0, 10.0, 0.0),
        "price_out": (30.0, 30.0, 0.0),
    },
    "03_share_captioner": {
        "collected": (160, 2_000, 100_000),  # captions of GPT4-Vision that it learns from
        "updates": (10, 125, 0),  # of 32 samples; 0: one epoch
        "pictures": (24, 200, 1_000),  # new ones, captioned by all
        "tokens": (160, 192, 512),  # most tokens of a caption
        "pairs": (20, 100, 100),  # judged, as Table 2's 100
        "raters": (3, 10, 10),  # as Table 2's 10
    },
    "04_sft_substitution": {
        "families": (  # those of Figure 2, and a current one
            ("llava-1.5-7b",),
            ("llava-1.5-7b",),
            ("llava-7b", "llava-1.5-7b", "llava-1.5-13b", "qwen-vl-chat", "qwen3-vl-8b"),
        ),
        "arms": (  # names in sgv_lab.study.arms
            ("before", "after", "oracle"),
            ("before", "after", "oracle"),
            ("before", "after"),
        ),
        "seeds": (2, 2, 3),  # paired: every arm has them all
        "tuning": ("lora", "lora", "full"),  # the projector is trained in both
        "benchmarks": (("exam",), ("exam",), _ASKED[1]),
        "score": ("Yes/no", "Yes/no", "MME-P"),  # the primary endpoint's
        "pictures": (8, 40, 60),  # a benchmark; MME: a subtask
        "baseline": (  # as in a plan
            {"share": 0.145, "samples": 48, "updates": 2},
            {"share": 0.145, "samples": 1_000, "updates": 32},
            {},
        ),
    },
    "05_sharegpt4v_7b": {  # at paper size the base has had LLaVA-1.5's first stage
        "seeds": (2, 3, 1),  # paired: both models have them all
        "benchmarks": (_ASKED[0], _ASKED[0], _ASKED[1]),
        "pictures": (2, 20, 60),
        "baseline": (_two_stages(64, 2, "smoke"), _two_stages(640, 20, "mini"), {}),
        # changes to the recipe of LLaVA-1.5's first stage
        "projector": ({"learning_rate": 1e-3}, {"learning_rate": 1e-3}, {}),
    },
    "06_benchmarks": {
        "pictures": (12, 60, 60),
        "knows": (0.7, 0.7, 0.7),  # share of the questions that the scripted answerer gets right
    },
    "07_ablations": {  # arms of several tables that come to the same are computed once
        "arms": (_TABLES_4_TO_6, _TABLES_4_TO_6, _FULL_TABLES),
        "seeds": (1, 1, 3),
        "benchmarks": (("mme",), ("mme", "mmbench"), ("mme", "mmbench", "seed")),
        "pictures": (1, 8, 60),
        "baseline": (
            _two_stages(64, 2, "smoke", tunes="projector"),
            _two_stages(256, 8, "mini", tunes="projector"),
            {"tuning": "full"},
        ),
    },
    "08_claims": {},
    "09_explore": {"pictures": (21, 70, 70)},  # drawn ones to pick from
    "10_how_the_miniature_learned_to_see": {  # paper: what the base that ships is taught
        "images": (256, 5_000, 20_000),  # the vision tower learns from them
        "tower_steps": (60, 400, 1_500),  # of 128 images
        "patches_of": (256, 1_000, 4_000),  # images that the projector says in words
        "projector_steps": (150, 600, 3_000),  # of 64 images
        "lessons": (  # steps of 32 records; in sgv_lab.base.lessons
            {"describe": 6, "look": 4},
            {"describe": 80, "look": 60},
            {"describe": 1_000, "look": 1_200, "check": 900},
        ),
        "align_steps": (4, 20, 200),  # of 32 of BLIP's captions
        "projectors": (1, 1, 3),  # new ones
        "scenes": (10, 40, 1_000),  # held-out ones that are asked about
    },
    "11_inside_the_model": {},
    "12_captions_to_buy": {
        "pictures": (210, 2_100, 0),  # drawn ones, captioned by two annotators; 0: give two files
        "pairs": (20, 100, 100),  # images whose two captions are judged on the page
    },
}


def section(notebook: str, profile: str) -> SimpleNamespace:
    """The settings of ``notebook`` at ``profile``. Raises LabError naming the nearest profile."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    column = PROFILES.index(profile)
    return SimpleNamespace(**{name: row[column] for name, row in SECTIONS[notebook].items()})
