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


SECTIONS: dict[str, dict[str, Any]] = {  # notebook -> profile -> section
    "00_start_here": START_HERE,
}


def section(notebook: str, profile: str) -> Any:
    """The section of ``notebook`` at ``profile``. Raises LabError naming the nearest profile."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    if notebook not in SECTIONS:
        raise unknown("notebook section", notebook, SECTIONS)
    return SECTIONS[notebook][profile]
