"""Every size and rate of the study in one place: ``smoke``, ``mini`` and ``paper``.

``smoke`` proves that a notebook runs (a minute at most), ``mini`` runs the study for real in the
drawn world, ``paper`` is the real thing. In profiles.yaml the three values of a setting stand side
by side.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from sgv_lab.errors import unknown

PROFILES = ("smoke", "mini", "paper")
SECTIONS: dict[str, dict[str, tuple[Any, Any, Any]]] = yaml.safe_load(  # notebook -> settings
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)


def section(notebook: str, profile: str) -> SimpleNamespace:
    """The settings of ``notebook`` at ``profile``. Raises LabError naming the nearest profile."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    column = PROFILES.index(profile)
    return SimpleNamespace(**{name: row[column] for name, row in SECTIONS[notebook].items()})
