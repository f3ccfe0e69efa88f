"""Reads captions back: text -> the facts it states, for annotators and for trained captioners.

A small grammar rather than inverted templates. Each sentence is cut into the words that matter
(objects with what stands before and after them, places, relations, names), and these are joined
from left to right. What it takes a text to mean:

- "a red kite" and "one red kite" state no number; "two red kites" and "a single kite" do;
- a place or an adjective belongs to the object it stands next to, before or after;
- a sentence that begins with "It" or "They" speaks of the object named last;
- "no kite" states the count "0", and nothing that exists.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from sgv_lab.world import vocabulary as v
from sgv_lab.world.facts import SPECIALS, VALUES, Fact, with_implied
from sgv_lab.world.phrases import NUMBERS, SYNONYMS
from sgv_lab.world.phrasing import plural


@dataclass(frozen=True)
class Reading:
    """``facts``: what the text states; ``unparsed``: its sentences that state nothing known."""

    facts: frozenset[Fact]
    unparsed: tuple[str, ...]


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


def _words(*kinds: str) -> dict[str, tuple[str, str]]:
    """Word -> (kind of fact, value), for every value of these kinds and its synonyms."""
    return {
        word.lower(): (kind, value)
        for kind in kinds
        for value in VALUES[kind]
        for word in (value, *SYNONYMS.get(value, ()))
    }


_NAMES = _words(*SPECIALS["landmark"], *SPECIALS["character"], "style", "artist", "genre", "title")
_WHOLE = _words("scene", "light", "composition", "palette")
_ADJECTIVES = _words("color", "size", "pattern")
_NOUNS = {
    **{word: kind for kind in v.KINDS for word in (kind, plural(kind))},
    **{word: special for special in SPECIALS for word in SYNONYMS[special]},
    **dict.fromkeys(v.LANDMARKS, "landmark"),
}
_AFTER = {"stripes": "striped", "dots": "dotted", "spots": "dotted", "checks": "checked"}
_NUMBERS = {
    **{word: i for i, word in enumerate(NUMBERS) if i > 1},
    **{str(i): i for i in range(2, 10)},
    "pair of": 2, "couple of": 2, "a single": 1, "only one": 1, "exactly one": 1, "just one": 1,
    "single": 1,
}  # fmt: skip
_PLACES = {
    "top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom", "left": "left",
    "right": "right", "center": "center", "centre": "center", "middle": "center",
    "central": "center",
}  # fmt: skip
_FRAME = "(?:picture|image|scene|photo|view|frame)"
_PLACE = _alternatives(_PLACES)
_TOKEN = re.compile(
    "|".join(
        rf"(?P<{kind}>\b(?:{pattern})\b)"
        for kind, pattern in {
            "name": _alternatives(_NAMES),
            "own": r"on its (?:left|right)(?: side)?|(?:above|below|over|under) it",
            "frame": rf"(?:of|in|on|across) (?:the|this) {_FRAME}",
            "relation": rf"(?:left|right)(?: side)? of(?! (?:the|this) {_FRAME})|left from"
            r"|further (?:left|right|up|down) than|above|over|higher than"
            r"|on top of|below|under|beneath|underneath|lower than",
            "place": rf"(?:{_PLACE})(?:[ -](?:{_PLACE}))?",
            "pronoun": r"^(?:it|they|its|their)",
            "bare": r"(?:without|has no|have no) (?:a |any )?patterns?",
            "after": rf"(?:with|has|have) (?:{_alternatives(_AFTER)})",
            "whole": _alternatives(_WHOLE),
            "number": _alternatives(_NUMBERS),
            "adjective": _alternatives(_ADJECTIVES),
            "noun": _alternatives(_NOUNS),
            "negation": r"no|not|without|neither|nor|never|isn't|aren't",
            "be": r"is|are|was|were|looks?|appears?",
            "joint": r"and|but|while|whereas",
            "cut": r"the|a|an|another|one|other|of|more",
        }.items()
    )
    + r"|(?P<comma>[,;:-])"
)
_HUES = re.compile(r"\b(?:palette|colou?rs?|tones?|hues?)\b")
_QUOTED = re.compile(r'["“”]([^"“”]+)["“”]')
_SIGN = re.compile(rf"\b(?:{'|'.join(v.SIGN_WORDS)})\b")
_SENTENCE = re.compile(r'(?<=[.!?])["”]?\s+|\n+')
_UP = ("above", "over", "higher", "on top", "further up")


@dataclass
class _Sentence:
    """The state of reading one sentence from left to right."""

    facts: set[Fact] = field(default_factory=set)
    objects: list[str] = field(default_factory=list)  # subjects met so far
    adjectives: list[tuple[str, str]] = field(default_factory=list)  # not yet anybody's
    number: int = 0
    place: str = ""  # waits for the next object
    linked: bool = False  # whether a place now met belongs to the last object
    verb: bool = False  # whether a verb stood after the last object
    negated: bool = False
    relation: str = ""  # waits for the object it relates to
    front: tuple[str, str] | None = None  # (relation, object) that wait for their subject
    subject: str = ""  # of the relation that waits

    def state(self, kind: str, subject: str, value: str = "") -> None:
        self.facts.add(Fact(kind, subject, value))

    def settle(self) -> None:
        """Adjectives after a verb belong to the last object: "the kite is large and red"."""
        if self.verb and self.objects and not self.negated:
            for kind, value in self.adjectives:
                self.state(kind, self.objects[-1], value)
        self.adjectives, self.number = [], 0

    def noun(self, subject: str) -> None:
        if self.negated:
            self.state("count", subject, "0")
            self.adjectives, self.number = [], 0
            return
        self.state("existence", subject)
        for kind, value in self.adjectives:
            self.state(kind, subject, value)
        if self.number:
            self.state("count", subject, str(self.number))
        self.adjectives, self.number = [], 0
        if self.relation:
            if self.subject:
                self.relate(self.subject, self.relation, subject)
            else:
                self.front = (self.relation, subject)
            self.relation = self.subject = ""
        else:
            if self.front:
                self.relate(subject, *self.front)
                self.front = None
            if self.place:
                self.state("position", subject, self.place)
                self.place = ""
        self.objects.append(subject)
        self.linked, self.verb = True, False

    def relate(self, a: str, relation: str, b: str) -> None:
        if a != b and not {a, b} & set(SPECIALS):
            self.state("relation", a, f"{relation} {b}")

    def at(self, place: str) -> None:
        self.settle()
        if self.linked:
            self.state("position", self.objects[-1], place)
        else:
            self.place = place

    def toward(self, relation: str) -> None:
        self.settle()
        self.relation, self.subject = relation, self.objects[-1] if self.linked else ""

    def finish(self) -> set[Fact]:
        self.settle()
        if self.place and self.objects:
            self.state("position", self.objects[-1], self.place)
        if self.front and len(self.objects) > 1:
            self.relate(self.objects[-2], *self.front)
        # signs, landmarks and characters have a place; only objects have the rest
        shared = ("existence", "position", "text")
        return {f for f in self.facts if f.subject not in SPECIALS or f.kind in shared}


def _relation(words: str) -> str:
    for side in ("left", "right"):
        if side in words:
            return f"{side} of"
    return "above" if words.startswith(_UP) else "below"


def _place(words: str) -> str:
    """ "upper left" -> "top left"; "center left" -> "left"."""
    parts = {_PLACES[word] for word in re.split("[ -]", words)}
    row = next((p for p in ("top", "bottom") if p in parts), "")
    column = next((p for p in ("left", "right") if p in parts), "")
    return f"{row} {column}".strip() or "center"


def _sentence(text: str, before: str = "") -> tuple[set[Fact], str]:
    """(the facts of a sentence, the object it names last); quoted words are taken out before.

    ``before``: the object that was named last before it.
    """
    low, said = text.lower(), _Sentence()
    for match in _TOKEN.finditer(low):
        kind, words = match.lastgroup, match.group()
        if kind == "name":
            fact_kind, value = _NAMES[words]
            said.state(fact_kind, "", value)
            said.adjectives = []
            if fact_kind in SPECIALS:
                said.noun(fact_kind)
        elif kind == "whole":
            fact_kind, value = _WHOLE[words]
            if fact_kind != "palette" or _HUES.search(low):
                said.state(fact_kind, "", value)
            said.adjectives = []
        elif kind == "pronoun" and before:
            said.objects, said.linked = [before], True
        elif kind == "noun":
            said.noun(_NOUNS[words])
        elif kind == "adjective":
            said.adjectives.append(_ADJECTIVES[words])
        elif kind == "number":
            said.number = _NUMBERS[words]
        elif kind in ("after", "bare"):
            pattern = _AFTER[words.split()[-1]] if kind == "after" else "plain"
            if said.objects:
                said.state("pattern", said.objects[-1], pattern)
        elif kind == "own" and len(said.objects) > 1:
            said.relate(said.objects[-1], _relation(words), said.objects[-2])
        elif kind == "place":
            said.at(_place(words))
        elif kind == "relation":
            said.toward(_relation(words))
        elif kind == "be":
            said.verb = True
            said.linked = bool(said.objects)
        elif kind == "cut":
            said.settle()
        elif kind == "negation":
            said.settle()
            said.negated = True
        elif kind in ("joint", "comma"):
            said.linked = False
            said.negated = said.negated and kind == "comma"
    return said.finish(), said.objects[-1] if said.objects else before


def read(text: str) -> Reading:
    """The facts that ``text`` states. Any text is read; what is not understood is handed back."""
    found: set[Fact] = set()
    unparsed, last = [], ""
    for sentence in filter(None, map(str.strip, _SENTENCE.split(text))):
        words = [w.strip(" .,").upper() for w in _QUOTED.findall(sentence)]
        plain = _QUOTED.sub(" ", sentence)
        words += _SIGN.findall(plain)
        facts = {Fact("text", "sign", word) for word in words}
        stated, last = _sentence(_SIGN.sub(" ", plain).strip(), last)
        facts |= stated
        if not facts:
            unparsed.append(sentence)
        found |= facts
    return Reading(with_implied(found), tuple(unparsed))
