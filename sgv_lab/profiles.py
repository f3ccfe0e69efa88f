"""Every size and rate of the study in one place: ``smoke``, ``mini`` and ``paper``.

``smoke`` proves that a notebook runs (a minute at most), ``mini`` runs the study for real in the
embedded world, ``paper`` is the real thing. A notebook has one section: a frozen dataclass, and
its three instances side by side, so that a reader sees what grows between the profiles.
"""

from dataclasses import dataclass
from typing import Any

from sgv_lab.errors import unknown

PROFILES = ("smoke", "mini", "paper")


@dataclass(frozen=True)
class StartHere:
    """00: nothing to size; the map, the machine and the paper's numbers."""


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
class Benchmarks:
    """06: how large the miniature benchmarks are, and what the scripted answerer knows."""

    pictures: int  # a benchmark; MME: a subtask
    knows: float  # share of the questions it answers rightly


BENCHMARKS = {
    "smoke": Benchmarks(pictures=12, knows=0.7),
    "mini": Benchmarks(pictures=60, knows=0.7),
    "paper": Benchmarks(pictures=60, knows=0.7),
}


SECTIONS: dict[str, dict[str, Any]] = {  # notebook -> profile -> section
    "00_start_here": START_HERE,
    "01_caption_datasets": CAPTION_DATASETS,
    "06_benchmarks": BENCHMARKS,
}


def section(notebook: str, profile: str) -> Any:
    """The section of ``notebook`` at ``profile``. Raises LabError naming the nearest profile."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    if notebook not in SECTIONS:
        raise unknown("notebook section", notebook, SECTIONS)
    return SECTIONS[notebook][profile]
