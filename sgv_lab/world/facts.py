"""What is true of a scene, as small facts: the common currency of captions, reader and scores.

Facts speak of kinds, not of single objects, as sentences do: ``color(star, red)`` holds where any
star is red. A count is exact, and a relation of two kinds holds where it is true of every pair.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from sgv_lab.world import vocabulary as v
from sgv_lab.world.scene import Scene, region, relations

FACETS = {
    "existence": "object",
    "count": "object",
    "color": "object",
    "size": "object",
    "pattern": "object",
    "position": "object",
    "relation": "object",
    "scene": "object",
    "text": "text",
    "landmark": "knowledge",
    "place": "knowledge",
    "landmark_story": "knowledge",
    "character": "knowledge",
    "role": "knowledge",
    "character_story": "knowledge",
    "artist": "knowledge",
    "title": "knowledge",
    "genre": "knowledge",
    "style": "aesthetics",
    "light": "aesthetics",
    "palette": "aesthetics",
    "composition": "aesthetics",
}
"""Kind of fact -> the facet of a caption it belongs to (ShareGPT4V, section 3.1)."""

SPECIALS = ("sign", "landmark", "character")  # subjects that stand at a scene's anchor
RELATIONS = ("left of", "right of", "above", "below")
REGIONS = tuple(
    f"{row} {column}".strip() or "center"
    for row in ("top", "", "bottom")
    for column in ("left", "", "right")
)
PALETTES = ("warm", "cool", "mixed")
COMPOSITIONS = ("sparse", "balanced", "crowded")


@dataclass(frozen=True, order=True)
class Fact:
    """One statement. ``kind``: a key of FACETS.

    ``subject``: what it is about (a kind of object, or one of SPECIALS), "" for the whole picture.
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
        found |= {
            Fact("existence", thing.kind),
            Fact("count", thing.kind, str(scene.count(thing.kind))),
            Fact("color", thing.kind, thing.color),
            Fact("size", thing.kind, thing.size),
            Fact("pattern", thing.kind, thing.pattern),
            Fact("position", thing.kind, region(thing.x, thing.y)),
        }
    found |= {Fact(kind, "", value) for kind, value in whole(scene).items() if kind != "text"}
    for subject in SPECIALS:
        if getattr(scene, subject):
            found |= {
                Fact("existence", subject),
                Fact("position", subject, region(*scene.anchor)),
            }
    if scene.sign:
        found.add(Fact("text", "sign", scene.sign))
    return frozenset(found | _relations(scene))


def holds(fact: Fact, scene: Scene) -> bool:
    """Whether ``fact`` is true of ``scene``; "there are none" is said by the count "0".

    Raises ValueError for an unknown kind of fact.
    """
    if fact.kind not in FACETS:
        raise ValueError(f"unknown kind of fact {fact.kind!r}: one of {', '.join(FACETS)}")
    if fact.kind == "count" and fact.value == "0":
        return scene.count(fact.subject) == 0
    return fact in facts(scene)


def whole(scene: Scene) -> dict[str, str]:
    """What is true of the picture as a whole: kind of fact -> its one value in ``scene``."""
    found = {
        "scene": scene.background,
        "light": scene.light,
        "palette": scene.palette,
        "composition": scene.composition,
    }
    if scene.sign:
        found["text"] = scene.sign
    if scene.landmark:
        known = v.LANDMARKS[scene.landmark]
        found |= {"landmark": known.name, "place": known.place, "landmark_story": known.story}
    if scene.character:
        known = v.CHARACTERS[scene.character]
        found |= {"character": known.name, "role": known.role, "character_story": known.story}
    if scene.style:
        found |= dict(
            zip(("artist", "genre", "title"), v.STYLES[scene.style], strict=True),
            style=scene.style,
        )
    return found


VALUES: dict[str, tuple[str, ...]] = {
    "existence": v.KINDS,
    "count": tuple(map(str, range(1, 9))),
    "color": tuple(v.COLORS),
    "size": tuple(v.SIZES),
    "pattern": v.PATTERNS,
    "position": REGIONS,
    "relation": RELATIONS,
    "scene": v.BACKGROUNDS,
    "light": v.LIGHTS,
    "palette": PALETTES,
    "composition": COMPOSITIONS,
    "text": v.SIGN_WORDS,
    "landmark": tuple(known.name for known in v.LANDMARKS.values()),
    "place": tuple(known.place for known in v.LANDMARKS.values()),
    "landmark_story": tuple(known.story for known in v.LANDMARKS.values()),
    "character": tuple(known.name for known in v.CHARACTERS.values()),
    "role": tuple(known.role for known in v.CHARACTERS.values()),
    "character_story": tuple(known.story for known in v.CHARACTERS.values()),
    "style": tuple(v.STYLES),
    "artist": tuple(known[0] for known in v.STYLES.values()),
    "genre": tuple(known[1] for known in v.STYLES.values()),
    "title": tuple(known[2] for known in v.STYLES.values()),
}
"""Kind of fact -> every value it can take (for existence, the subjects)."""


def _relations(scene: Scene) -> set[Fact]:
    """Relations between two kinds that are true of every pair of their objects."""
    found = set()
    for a, b in permutations(dict.fromkeys(t.kind for t in scene.things), 2):
        pairs = [(s, t) for s in scene.things for t in scene.things if (s.kind, t.kind) == (a, b)]
        for relation in set(RELATIONS).intersection(*(relations(s, t) for s, t in pairs)):
            found.add(Fact("relation", a, f"{relation} {b}"))
    return found


def with_implied(stated: set[Fact] | frozenset[Fact]) -> frozenset[Fact]:
    """The same facts and the existence of whatever they speak of: a red star is a star."""
    found = set(stated)
    for fact in stated:
        if fact.kind in _SPECIAL_OF:
            found.add(Fact("existence", _SPECIAL_OF[fact.kind]))
        elif fact.subject and (fact.kind, fact.value) != ("count", "0"):
            found.add(Fact("existence", fact.subject))
        if fact.kind == "relation":
            found.add(Fact("existence", fact.value.rsplit(" ", 1)[1]))
    return frozenset(found)


_SPECIAL_OF = {
    "text": "sign",
    **dict.fromkeys(("landmark", "place", "landmark_story"), "landmark"),
    **dict.fromkeys(("character", "role", "character_story"), "character"),
}
