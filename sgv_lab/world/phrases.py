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
from typing import Any

_TABLE: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_bytes())
NUMBERS: list[str] = _TABLE["numbers"]  # "no", "one", "two", ...
SIZES, PATTERN_AFTER, PATTERN_HAS = _TABLE["sizes"], _TABLE["patterns"], _TABLE["has"]
VERBS: dict[str, list[list[str]]] = _TABLE["verbs"]  # kind -> (of one, of several)
SPECIAL_NOUNS = _TABLE["specials"]
RELATIONS, OWNED, TO = _TABLE["relations"], _TABLE["owned"], _TABLE["to"]
SCENES, PLACES = _TABLE["scenes"], _TABLE["places"]
AT = _TABLE["at"] | SCENES
OPENINGS, POSES, NOISE = _TABLE["openings"], _TABLE["poses"], _TABLE["noise"]
SYNONYMS: dict[str, list[str]] = _TABLE["synonyms"]  # other words that captions may use
CHINESE, CHINESE_OPEN = _TABLE["chinese"]["words"], _TABLE["chinese"]["open"]
FILLER: dict[str, list[str]] = _TABLE["filler"]  # a grammar of sentences without facts

_KINDS: dict[str, dict[str, Any]] = _TABLE["kinds"]
WHOLE = {kind: forms["caption"] for kind, forms in _KINDS.items() if "caption" in forms}
OPEN = {kind: forms["open"] for kind, forms in _KINDS.items() if "open" in forms}
YES_NO = {kind: _KINDS[kind]["yesno"] for kind in OPEN}
CHOICE = {kind: _KINDS[kind].get("choice", words) for kind, words in OPEN.items()}
SAID = {kind: _KINDS[kind]["said"] for kind in OPEN}
