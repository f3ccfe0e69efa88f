"""What is true of a scene, as small facts: the common currency of captions, reader and scores.

Facts speak of kinds, not of single objects, as sentences do: ``color(star, red)`` holds where any
star is red. A count is exact, and a relation of two kinds holds where it is true of every pair.

A message is what a caption is to say, before it is put into words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from sgv_lab.world import vocabulary as v
from sgv_lab.world.scene import Scene, region, relations

FACETS = {
    **dict.fromkeys(
        ("existence", "count", "color", "size", "pattern", "position", "relation", "scene"),
        "object",
    ),
    "text": "text",
    **dict.fromkeys(
        ("landmark", "place", "landmark_story", "character", "role", "character_story",
         "artist", "title", "genre"), "knowledge",
    ),
    **dict.fromkeys(("style", "light", "palette", "composition"), "aesthetics"),
}  # fmt: skip
"""Kind of fact -> the facet of a caption it belongs to (ShareGPT4V, section 3.1)."""

SPECIALS = {  # what can stand at a scene's anchor -> the kinds of facts about it
    "sign": ("text",),
    "landmark": ("landmark", "place", "landmark_story"),
    "character": ("character", "role", "character_story"),
}
SPECIAL_OF = {kind: special for special, kinds in SPECIALS.items() for kind in kinds}
_KNOWN = (  # field of a scene, kinds of facts known of its values, what is known
    ("landmark", SPECIALS["landmark"], v.LANDMARKS),
    ("character", SPECIALS["character"], v.CHARACTERS),
    ("style", ("artist", "genre", "title"), v.STYLES),
)
ATTRIBUTES = ("color", "size", "pattern", "position")  # of an object
RELATIONS = ("left of", "right of", "above", "below")
VALUES: dict[str, tuple[str, ...]] = {
    "existence": v.KINDS,
    "count": tuple(map(str, range(1, 9))),
    "color": tuple(v.COLORS),
    "size": tuple(v.SIZES),
    "pattern": v.PATTERNS,
    "position": tuple(region(x / 6, y / 6) for y in (1, 3, 5) for x in (1, 3, 5)),
    "relation": RELATIONS,
    "scene": v.BACKGROUNDS,
    "light": v.LIGHTS,
    "palette": ("warm", "cool", "mixed"),
    "composition": ("sparse", "balanced", "crowded"),
    "text": v.SIGN_WORDS,
    "style": tuple(v.STYLES),
    **{
        kind: tuple(known[i] for known in table.values())
        for _, kinds, table in _KNOWN
        for i, kind in enumerate(kinds)
    },
}
"""Kind of fact -> every value it can take (for existence, the subjects)."""


@dataclass(frozen=True, order=True)
class Fact:
    """One statement. ``kind``: a key of FACETS.

    ``subject``: what it is about (a kind of object, or one of SPECIALS), "" for the whole image.
    ``value``: what is said: "" for existence, "2" for a count, "left of heart" for a relation.
    """

    kind: str
    subject: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(part for part in (self.subject, self.value) if part)})"


@lru_cache(maxsize=4096)
def facts(scene: Scene) -> frozenset[Fact]:
    """Everything that is true of ``scene``."""
    found = set()
    for thing in scene.things:
        found.add(Fact("count", thing.kind, str(scene.count(thing.kind))))
        found |= {Fact(of, thing.kind, getattr(thing, of)) for of in ATTRIBUTES}
    for kind, value in whole(scene).items():
        found.add(Fact(kind, "sign" if kind == "text" else "", value))
    for subject in SPECIALS:
        if getattr(scene, subject):
            found.add(Fact("position", subject, region(*scene.anchor)))
    for a, b in permutations({t.kind for t in scene.things}, 2):
        pairs = [(s, t) for s in scene.things for t in scene.things if (s.kind, t.kind) == (a, b)]
        for relation in set(RELATIONS).intersection(*(relations(s, t) for s, t in pairs)):
            found.add(Fact("relation", a, f"{relation} {b}"))
    return with_implied(found)


def holds(fact: Fact, scene: Scene) -> bool:
    """Whether ``fact`` is true of ``scene``; "there are none" is said by the count "0"."""
    if fact.kind == "count" and fact.value == "0":
        return scene.count(fact.subject) == 0
    return fact in facts(scene)


def whole(scene: Scene) -> dict[str, str]:
    """What is true of the image as a whole: kind of fact -> its one value in ``scene``."""
    found = {"scene": scene.background, "light": scene.light}
    found |= {"palette": scene.palette, "composition": scene.composition}
    if scene.sign:
        found["text"] = scene.sign
    for field, kinds, table in _KNOWN:
        if value := getattr(scene, field):
            found |= dict(zip(kinds, table[value], strict=True))
    if scene.style:
        found["style"] = scene.style
    return found


def with_implied(stated: set[Fact] | frozenset[Fact]) -> frozenset[Fact]:
    """The same facts and the existence of whatever they speak of: a red star is a star."""
    found = set(stated)
    for fact in stated:
        if fact.kind in SPECIAL_OF:
            found.add(Fact("existence", SPECIAL_OF[fact.kind]))
        elif fact.subject and (fact.kind, fact.value) != ("count", "0"):
            found.add(Fact("existence", fact.subject))
        if fact.kind == "relation":
            found.add(Fact("existence", fact.value.rsplit(" ", 1)[1]))
    return frozenset(found)


@dataclass(frozen=True)
class Mention:
    """An object as somebody would speak of it; None is left unsaid."""

    kind: str
    size: str | None = None
    color: str | None = None
    pattern: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Message:
    """What a caption is to say.

    ``counts``: kind -> how many; ``relations``: (index, relation, index) into ``mentions``;
    ``whole``: kind of fact -> value, of the image as a whole, its sign, landmark, character;
    ``specials``: "sign", "landmark" or "character" -> where, "" where that is left unsaid.
    """

    mentions: tuple[Mention, ...]
    counts: Mapping[str, int]
    relations: tuple[tuple[int, str, int], ...]
    whole: Mapping[str, str]
    specials: Mapping[str, str]

    def claims(self) -> frozenset[Fact]:
        """The facts that the message states, true or not."""
        stated = {Fact("count", kind, str(n)) for kind, n in self.counts.items()}
        for mention in self.mentions:
            stated.add(Fact("existence", mention.kind))
            told = [of for of in ATTRIBUTES if getattr(mention, of)]
            stated |= {Fact(of, mention.kind, getattr(mention, of)) for of in told}
        for a, relation, b in self.relations:
            value = f"{relation} {self.mentions[b].kind}"
            stated.add(Fact("relation", self.mentions[a].kind, value))
        for kind, value in self.whole.items():
            stated.add(Fact(kind, "sign" if kind == "text" else "", value))
        for subject, position in self.specials.items():
            stated.add(Fact("existence", subject))
            if position:
                stated.add(Fact("position", subject, position))
        return with_implied(stated)
