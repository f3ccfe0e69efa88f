"""Reads the stored outputs of the official code."""

import json
from pathlib import Path
from typing import Any

VARIANTS = (
    "sg4v_tf4.31_legacy_false",
    "sg4v_tf4.31_legacy_true",
    "llava_tf4.37.2_legacy_false",
    "llava_tf4.37.2_legacy_true",
)


def read(reference: Path, name: str) -> dict[str, Any]:
    """golden/NAME.json."""
    return json.loads((reference / "golden" / f"{name}.json").read_text())


def variant(record: dict[str, Any], name: str) -> dict[str, Any]:
    """What the official code made of a record; ``same_as`` resolved."""
    stored = record["variants"][name]
    return record["variants"][stored["same_as"]] if "same_as" in stored else stored


def lost(file: dict[str, Any], name: str) -> set[str]:
    """Ids of the records that the official code masks whole, or raises at."""
    meta = file["meta"]
    return set(meta["tokenization_mismatch"][name]) | set(meta["official_code_raises"][name])
