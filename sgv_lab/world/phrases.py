"""The phrases that captions and questions are made of: several for every kind of fact.

``phrases.json`` says each kind of fact as a sentence of a "caption", as an "open", a "yesno" and a
"choice" question (as the open one where nothing else is given), and as the answer to an open one,
"said" in a sentence. Captions speak of "the picture", questions of "the image": no five words in a
row of a question are ever found in a caption.

``{v}`` is the value, ``{a}`` the value with its article, ``{at}`` a place, ``{k}`` and ``{b}``
kinds of objects; in captions ``{s}`` is what the sentence is about ("the building" or its name),
``{S}`` the same as its first word.
"""

import json
from pathlib import Path

_TABLE = json.loads(Path(__file__).with_name("phrases.json").read_text(encoding="utf-8"))
_KINDS: dict[str, dict[str, list[str]]] = _TABLE["kinds"]
WHOLE = {kind: forms["caption"] for kind, forms in _KINDS.items() if "caption" in forms}
OPEN = {kind: forms["open"] for kind, forms in _KINDS.items() if "open" in forms}
YES_NO = {kind: _KINDS[kind]["yesno"] for kind in OPEN}
CHOICE = {kind: _KINDS[kind].get("choice", words) for kind, words in OPEN.items()}
SAID = {kind: _KINDS[kind]["said"] for kind in OPEN}
REMARKS, POSES, OPENINGS, NOISE = (_TABLE[k] for k in ("remarks", "poses", "openings", "noise"))

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
PATTERN_AFTER = {
    "striped": ("with stripes",), "dotted": ("with dots",), "checked": ("with checks",),
    "plain": ("without a pattern",),
}  # fmt: skip
SCENES = {
    "meadow": "in a meadow", "beach": "on a beach", "desert": "in a desert",
    "mountain": "near a mountain", "city": "in a city", "forest": "in a forest",
    "ocean": "by the ocean", "room": "in a room",
}  # fmt: skip
RELATIONS = {
    "left of": ("left of", "left of", "on the left side of", "further left than"),
    "right of": ("right of", "right of", "on the right side of", "further right than"),
    "above": ("above", "above", "over", "higher than"),
    "below": ("below", "below", "under", "lower than"),
}
OWNED = {
    "left of": "on its left", "right of": "on its right", "above": "above it", "below": "below it",
}  # fmt: skip
VERBS = ("is", "stands", "sits", "appears", "can be seen", "rests", "hangs")
SPECIAL_NOUNS = {"sign": "sign", "landmark": "building", "character": "person"}
AT = {
    "top left": "in the top left", "top": "at the top", "top right": "in the top right",
    "left": "on the left", "center": "in the center", "right": "on the right",
    "bottom left": "in the bottom left", "bottom": "at the bottom",
    "bottom right": "in the bottom right",
    **SCENES,
}  # fmt: skip
TO = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
