"""Questions about scenes: open, yes/no in pairs, multiple choice; only what has one answer.

Questions say "image" where captions say "picture", and are worded unlike any caption. Nothing in a
question's words tells its answer: every yes-question has a no-question about the same picture whose
wrong value is drawn as the right one is. That is why counts are asked only where the two balance,
and why a wrong colour is never one that training withholds from that kind of object.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgv_lab.world import vocabulary as v
from sgv_lab.world.facts import VALUES, whole
from sgv_lab.world.phrasing import NUMBERS, PLURALS
from sgv_lab.world.scene import Scene, Thing, object_range, relations

FORMS = ("open", "yesno", "choice")


@dataclass(frozen=True)
class Question:
    """A question with its one answer: words for "open", "Yes"/"No", or the right option's letter.

    ``ability``: a key of WORDINGS.
    """

    ability: str
    form: str
    text: str
    answer: str
    options: tuple[str, ...] = ()


# ability -> form -> wordings; {k} a kind, {ks} its plural, {v} a value, {o} the other kind
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "existence": {
        "yesno": ("Is there a {k} in this image?", "Does this image contain a {k}?",
                  "Can a {k} be found anywhere in the image?"),
        "choice": ("Which of these objects does the image contain?",
                   "Which object can you find in this image?",
                   "Which one of the following is present in the image?"),
    },
    "color": {
        "open": ("What color is the {k}?", "What is the color of the {k}?",
                 "Which color does the {k} have?"),
        "yesno": ("Is the {k} {v}?", "Is the color of the {k} {v}?",
                  "Does the {k} have the color {v}?"),
    },
    "size": {
        "open": ("What size is the {k}?", "How big is the {k}?", "What is the size of the {k}?"),
        "yesno": ("Is the {k} {v}?", "Is the size of the {k} {v}?",
                  "Would you say that the {k} is {v}?"),
    },
    "pattern": {
        "open": ("What pattern does the {k} have?", "What is the pattern of the {k}?",
                 "Which pattern is on the {k}?"),
        "yesno": ("Is the {k} {v}?", "Is the pattern of the {k} {v}?",
                  "Does the {k} look {v} to you?"),
    },
    "position": {
        "open": ("On which side of the image is the {k}?", "Is the {k} left or right?",
                 "Which side is the {k} on?"),
        "yesno": ("Is the {k} on the {v} side of the image?", "Is the {k} located on the {v}?",
                  "Does the {k} lie in the {v} half of the image?"),
    },
    "relation": {
        "open": ("Where is the {k} relative to the {o}?",
                 "How is the {k} placed with respect to the {o}?",
                 "What is the position of the {k} compared to the {o}?"),
        "yesno": ("Is the {k} {v} the {o}?", "Is the {k} located {v} the {o}?",
                  "Can the {k} be found {v} the {o}?"),
    },
    "count": {
        "open": ("How many {ks} are in the image?", "How many {ks} can you count?",
                 "What is the number of {ks}?"),
        "yesno": ("Does the image show exactly {v} {ks}?", "Is the number of {ks} equal to {v}?",
                  "Is {v} the right number of {ks}?"),
    },
    "scene": {
        "open": ("What kind of place is this?", "Where was this image made?",
                 "What is the background of the image?"),
        "yesno": ("Is the place in this image a {v}?", "Does this image show a {v}?",
                  "Was this image made at a {v}?"),
    },
    "light": {
        "open": ("What time of day is it in the image?", "When was this image made?",
                 "Which time of day does the image show?"),
        "yesno": ("Is it {v} in this image?", "Was this image made at {v}?",
                  "Is the time of day {v}?"),
    },
    "text": {
        "open": ("What word is on the sign?", "What does the sign say?", "What can you read?"),
        "yesno": ('Is the word on the sign "{v}"?', 'Does the sign say "{v}"?',
                  'Is the word in this image "{v}"?'),
    },
    "landmark": {
        "open": ("What is the name of this building?", "What is this building called?",
                 "Which landmark is this?"),
        "yesno": ("Is this {v}?", "Is the building in this image {v}?",
                  "Is {v} the name of this building?"),
    },
    "character": {
        "open": ("Who is this person?", "What is the name of this person?",
                 "Which character is this?"),
        "yesno": ("Is this person {v}?", "Is the person in this image {v}?",
                  "Is {v} the name of this person?"),
    },
    "style": {
        "open": ("What art style is this?", "In which style was this image made?",
                 "Which technique did the artist use?"),
        "yesno": ("Is this artwork a {v}?", "Is the style of this image {v}?",
                  "Did the artist make a {v}?"),
    },
    "place": {
        "open": ("Where is this building?", "In which place does this building stand?",
                 "What place is this building in?"),
        "yesno": ("Is this building in {v}?", "Does this building belong to {v}?",
                  "Would you travel to {v} to see this building?"),
    },
    "role": {
        "open": ("What does this person do?", "What is the role of this person?",
                 "What kind of work does this person do?"),
        "yesno": ("Is this person a {v}?", "Does this person work as a {v}?",
                  "Is {v} the role of this person?"),
    },
    "artist": {
        "open": ("Who made this artwork?", "Which artist made this image?",
                 "Who is the artist here?"),
        "yesno": ("Was this artwork made by {v}?", "Is {v} the artist of this image?",
                  "Did {v} make this artwork?"),
    },
}  # fmt: skip

ABILITIES = tuple(WORDINGS)
KNOWLEDGE = ("place", "role", "artist")
"""Abilities that need more than the pixels: what is known of what is recognised."""

_SPOKEN = {"left of": "to the left of", "right of": "to the right of"}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
# a fact: ability, words to fill in, right value, wrong values
_Asked = tuple[str, dict[str, str], str, Sequence[str]]


def questions(
    scene: Scene,
    seed: int,
    abilities: Sequence[str] | None = None,
    forms: Sequence[str] = FORMS,
    wordings: Sequence[int] = (0, 1, 2),
) -> list[Question]:
    """Questions about ``scene``, at most one fact an ability but two for counts.

    ``abilities``: those to ask about (None: all); ``wordings``: which of each ability's three
    wordings may be used, so that some can be kept for evaluation. The yes-question of a pair comes
    first. Raises ValueError for an unknown ability or form.
    """
    unknown = {*(abilities or ()), *forms} - {*ABILITIES, *FORMS}
    if unknown:
        raise ValueError(f"unknown ability or form: {', '.join(sorted(unknown))}")
    rng = random.Random(f"questions/{scene.split}/{scene.seed}/{scene.source}/{seed}")
    found: list[Question] = []
    for ability, words, right, wrong in _facts(scene, rng):
        for form in FORMS:  # all are drawn, so that leaving some out changes none of the others
            asked = _ask(ability, form, words, right, wrong, wordings, rng)
            if form in forms and (abilities is None or ability in abilities):
                found += asked
    return found


def _ask(
    ability: str,
    form: str,
    words: dict[str, str],
    right: str,
    wrong: Sequence[str],
    wordings: Sequence[int],
    rng: random.Random,
) -> list[Question]:
    """One fact put as a question of one form: a pair for "yesno", nothing where it has no words."""
    known = WORDINGS[ability]
    texts = known.get(form) or (known.get("open") if form == "choice" else None)
    if not texts:
        return []
    text = texts[rng.choice(wordings)]
    if form == "open":
        return [Question(ability, form, text.format(**words), right)]
    if form == "choice":
        options = [right, *rng.sample(list(wrong), min(3, len(wrong)))]
        rng.shuffle(options)
        letter = "ABCD"[options.index(right)]
        return [Question(ability, form, text.format(**words), letter, tuple(options))]
    # an existence question has its value in the place of the kind
    pair = [(right, "Yes"), (rng.choice(list(wrong)), "No")]
    return [
        Question(ability, form, text.format(**({"k": value, "v": value} | words)), answer)
        for value, answer in pair
    ]


def _facts(scene: Scene, rng: random.Random) -> Iterator[_Asked]:
    """What can be asked about the scene without ambiguity."""
    kinds = list(dict.fromkeys(thing.kind for thing in scene.things))
    absent = [kind for kind in scene.difficulty.kinds if kind not in kinds]
    if absent:
        yield "existence", {}, rng.choice(kinds), absent
    single = [thing for thing in scene.things if scene.count(thing.kind) == 1]
    if single:
        yield from _attributes(scene, rng.choice(single), rng)
    if len(single) > 1:
        yield from _relation(*rng.sample(single, 2), rng)
    yield from _counts(scene, kinds, rng)
    truth, values = whole(scene), {**VALUES, "scene": scene.difficulty.backgrounds}
    for ability in ("scene", "light", "text", "landmark", "character", "style", *KNOWLEDGE):
        others = [value for value in values[ability] if value != truth.get(ability)]
        if (
            ability in truth
            and others
            and (ability != "light" or "light" in scene.difficulty.facets)
        ):
            yield ability, {}, truth[ability], others


def _attributes(scene: Scene, thing: Thing, rng: random.Random) -> Iterator[_Asked]:
    world, words = scene.difficulty, {"k": thing.kind}
    # outside "novel", a withheld pair is never true, so asking for it would give the answer away
    colors = [
        c for c in world.colors if scene.split == "novel" or (thing.kind, c) not in v.HELD_OUT
    ]
    for ability, values in (("color", colors), ("size", world.sizes), ("pattern", world.patterns)):
        right = getattr(thing, ability)
        others = [value for value in values if value != right]
        if others:
            yield ability, words, right, others
    if abs(thing.x - 0.5) > 0.1:
        right, wrong = ("left", "right") if thing.x < 0.5 else ("right", "left")
        yield "position", words, right, [wrong]


def _relation(a: Thing, b: Thing, rng: random.Random) -> Iterator[_Asked]:
    true = relations(a, b)
    if true:
        right = rng.choice(true)
        wrong = _OPPOSITE[right]
        words = {"k": a.kind, "o": b.kind}
        yield "relation", words, _SPOKEN.get(right, right), [_SPOKEN.get(wrong, wrong)]


def _counts(scene: Scene, kinds: Sequence[str], rng: random.Random) -> Iterator[_Asked]:
    """How many of two kinds that differ by one: each one's number is the other's wrong answer.

    And how many objects in all: numbers are drawn evenly, so wrong ones are too.
    """
    pairs = [(a, b) for a in kinds for b in kinds if scene.count(a) == scene.count(b) + 1]
    if pairs:
        for kind, other in (pair := rng.choice(pairs), pair[::-1]):
            right, wrong = NUMBERS[scene.count(kind)], NUMBERS[scene.count(other)]
            yield "count", {"ks": PLURALS.get(kind, f"{kind}s")}, right, [wrong]
    low, high = object_range(scene.source, scene.difficulty)
    others = [NUMBERS[n] for n in range(low, high + 1) if n != len(scene.things)]
    if others:
        yield "count", {"ks": "objects"}, NUMBERS[len(scene.things)], others
