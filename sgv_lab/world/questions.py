"""Questions about scenes: open, yes/no in pairs, multiple choice; their answers known.

Only what is unambiguous is asked: attributes, places and relations of kinds that a scene holds
once. Answers cannot be guessed from the question: the wrong value of a pair or a choice is drawn
so that, over many scenes and for every kind of object that a question names, every value is as
often the wrong one as the true one.
"""

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import prod

from sgv_lab.world import phrases
from sgv_lab.world import vocabulary as v
from sgv_lab.world.facts import VALUES, whole
from sgv_lab.world.phrasing import NUMBERS, article, plural, sentence
from sgv_lab.world.scene import Difficulty, Scene, Thing, relations
from sgv_lab.world.scene import scene as draw_scene

KNOWLEDGE = ("place", "landmark_story", "role", "character_story", "artist", "genre", "title")
ABILITIES = (
    "existence", "color", "size", "pattern", "position", "relation", "count", "scene", "light",
    "text", "landmark", "character", "style", "knowledge",
)  # fmt: skip
FORMS = ("open", "yesno", "choice")
LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """``form``: one of FORMS; ``answer``: "Yes" or "No", the letter of an option, or a word.

    ``options``: the choices in the order of their letters; ``fact``: the kind of fact asked for
    (as in facts.FACETS); ``subjects``: the kinds it is about; ``asked``: the value a yes/no
    question proposes, else ""; ``said``: the answer to an open question as a sentence.
    """

    ability: str
    form: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    fact: str = ""
    subjects: tuple[str, ...] = ()
    asked: str = ""
    said: str = ""

    @property
    def prompt(self) -> str:
        """The question with its options, one a line, as LLaVA's records write them."""
        lines = [f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options)]
        return "\n".join([self.text, *lines])


@dataclass(frozen=True)
class _Item:
    """Something to ask: the true value, all values with how often each is true, and slots."""

    fact: str
    truth: str
    odds: dict[str, float]
    slots: dict[str, str] = field(default_factory=dict)
    most: int = 4  # options of a choice at most


def questions(
    scene: Scene,
    seed: int = 0,
    abilities: Collection[str] = ABILITIES,
    forms: Collection[str] = FORMS,
) -> list[Question]:
    """Questions about ``scene``: at most one an ability and form, or one pair for "yesno".

    Of a pair, one answer is "Yes" and one "No", in random order, next to each other.
    """
    found: list[Question] = []
    for ability in abilities:
        for form in forms:
            key = f"{scene.split}/{scene.seed}/{scene.source}/{seed}/{ability}/{form}"
            rng = random.Random(f"question/{key}")
            item = _item(scene, ability, form, rng)
            if item and len(item.odds) > 1:
                found += _ask(ability, form, item, rng)
    return found


def _ask(ability: str, form: str, item: _Item, rng: random.Random) -> list[Question]:
    """The question, or the pair, about ``item``."""
    words = {"open": phrases.OPEN, "yesno": phrases.YES_NO, "choice": phrases.CHOICE}[form]
    text = rng.choice(words[item.fact])
    about = item.fact, tuple(item.slots[slot] for slot in ("k", "b") if slot in item.slots)
    filled = _fill(text, item, item.truth)
    if form == "open":
        said = sentence(_fill(phrases.SAID[item.fact], item, item.truth))
        return [Question(ability, form, filled, item.truth, (), *about, said=said)]
    if form == "yesno":
        wrong = distractors(item.truth, item.odds, 1, rng)[0]
        pair = [
            Question(ability, form, _fill(text, item, value), answer, (), *about, asked=value)
            for value, answer in ((item.truth, "Yes"), (wrong, "No"))
        ]
        return rng.sample(pair, 2)
    size = rng.randint(2, min(item.most, len(item.odds)))
    options = [item.truth, *distractors(item.truth, item.odds, size - 1, rng)]
    rng.shuffle(options)
    answer = LETTERS[options.index(item.truth)]
    return [Question(ability, form, filled, answer, tuple(options), *about)]


def _fill(text: str, item: _Item, value: str) -> str:
    slots = {"v": value, "a": article(value), "at": phrases.AT.get(value, ""), **item.slots}
    if item.fact == "relation":
        slots["to"] = phrases.TO[value]
    if item.fact == "count":
        one = value == "one"
        slots |= {"n": "only one" if one else value, "Are": "Is" if one else "Are"}
        slots["are"] = slots["Are"].lower()
        slots["ks"] = item.slots["k"] if one and "{n}" in text else item.slots["ks"]
    return text.format(**slots)


def distractors(truth: str, odds: dict[str, float], n: int, rng: random.Random) -> tuple[str, ...]:
    """``n`` wrong values such that who is true among truth and wrong ones cannot be guessed.

    ``odds``: how often each value is the true one. Of a set of values, each is then the true one
    equally often: P(set | truth) x P(truth) is the same for every member of the set.
    """
    others = [value for value in odds if value != truth]
    if len(set(odds.values())) == 1:
        return tuple(rng.sample(others, n))
    pull = dict(zip(odds, _pulls(tuple(odds.values()), n + 1), strict=True))
    sets = list(combinations(others, n))
    return rng.choices(sets, [prod(pull[value] for value in s) for s in sets])[0]


@lru_cache(maxsize=256)
def _pulls(odds: tuple[float, ...], size: int) -> tuple[float, ...]:
    """Weights r such that sets of ``size`` drawn by the product of their r hold i as by odds.

    Fitted by iterative scaling; exact where no value is true in more than 1 of ``size`` cases.
    """
    total, indices = sum(odds), range(len(odds))
    r = [1.0] * len(odds)
    sets = list(combinations(indices, size))
    for _ in range(200):
        weights = [prod(r[i] for i in s) for s in sets]
        whole_weight = sum(weights)
        for i in indices:
            share = sum(w for w, s in zip(weights, sets, strict=True) if i in s) / whole_weight
            r[i] *= size * odds[i] / total / share
    return tuple(r)


def _even(values: Collection[str]) -> dict[str, float]:
    return dict.fromkeys(values, 1.0)


def _item(scene: Scene, ability: str, form: str, rng: random.Random) -> _Item | None:
    """What to ask about ``scene``, or None where nothing unambiguous can be asked."""
    once = [t for t in scene.things if scene.count(t.kind) == 1]
    if ability == "existence":
        return _existence(scene, form, rng)
    if ability == "count":
        return _count(scene, rng)
    if ability in ("color", "size", "pattern", "position"):
        return _attribute(scene, ability, once, rng) if once else None
    if ability == "relation":
        return _relation(once, form, rng)
    if ability == "light" and "light" not in scene.difficulty.facets:
        return None
    true = whole(scene)
    kinds = [kind for kind in (KNOWLEDGE if ability == "knowledge" else (ability,)) if kind in true]
    if not kinds:
        return None
    kind = rng.choice(kinds)
    return _Item(kind, true[kind], _even(VALUES[kind]))


def _existence(scene: Scene, form: str, rng: random.Random) -> _Item | None:
    if form == "open":  # what is in a part of the image that holds one object only
        places = Counter(t.position for t in scene.things)
        alone = [t for t in scene.things if places[t.position] == 1]
        if not alone or scene.anchor:
            return None
        thing = rng.choice(alone)
        at = phrases.AT[thing.position]
        return _Item("existence", thing.kind, _even(v.KINDS), {"at": at})
    present = list(dict.fromkeys(t.kind for t in scene.things))
    truth = rng.choice(present)
    odds = _odds(scene.difficulty, scene.split).kinds
    return _Item("existence", truth, {k: odds[k] for k in odds if k == truth or k not in present})


def _attribute(scene: Scene, ability: str, once: list[Thing], rng: random.Random) -> _Item:
    thing, odds, most = rng.choice(once), _even(VALUES[ability]), 4
    if ability == "position":
        odds = _odds(scene.difficulty, scene.split).places[thing.kind]
    elif ability == "color" and scene.split != "novel":
        odds = _even([c for c in v.COLORS if (thing.kind, c) not in v.HELD_OUT])
    elif ability == "color":
        # the new pair is asked about in half of the scenes, and is the wrong one in the other half
        new = [t for t in once if (t.kind, t.color) in v.HELD_OUT]
        old = [t for t in once if t not in new]
        if new and old:  # with the scenes that leave no choice, half of all (a test counts them)
            thing = rng.choice(new if rng.random() < 0.36 else old)
        if thing in old:
            known = [c for c in v.COLORS if c == thing.color or (thing.kind, c) in v.HELD_OUT]
            odds = _even(known)
        most = 2
    return _Item(ability, getattr(thing, ability), odds, {"k": thing.kind}, most)


def _relation(once: list[Thing], form: str, rng: random.Random) -> _Item | None:
    """Left or right of any two; above or below of two in the sky, in water or on the ground.

    That a bird is above a house can be known without looking.
    """
    pairs = [(a, b, r) for a in once for b in once if a is not b for r in relations(a, b)]
    if form != "yesno":  # one answer only: the two stand apart along one axis
        pairs = [(a, b, r) for a, b, r in pairs if len(relations(a, b)) == 1]
    sides = ("left of", "right of")
    pairs = [p for p in pairs if p[2] in sides or v.layer(p[0].kind) == v.layer(p[1].kind)]
    if not pairs:
        return None
    a, b, truth = rng.choice(pairs)
    truth = truth.removesuffix(" of")
    axis = ("left", "right") if truth in ("left", "right") else ("above", "below")
    return _Item("relation", truth, _even(axis), {"k": a.kind, "b": b.kind})


def _count(scene: Scene, rng: random.Random) -> _Item | None:
    """Numbers of a kind there are several of; "one" as often as "two", so seldom."""
    several = [k for k in dict.fromkeys(t.kind for t in scene.things) if scene.count(k) > 1]
    kind = rng.choice(several) if several else scene.things[0].kind
    odds, accepted = _odds(scene.difficulty, scene.split).counts[kind]
    if not several and rng.random() >= accepted:
        return None
    slots = {"k": kind, "ks": plural(kind)}
    return _Item("count", NUMBERS[scene.count(kind)], odds, slots, most=2)


@dataclass(frozen=True)
class _Odds:
    """How often each answer is true in a world; ``counts``: kind -> (odds, share of "one" asked).

    "One" is asked as often as "two", of the scenes without any kind twice.
    """

    kinds: dict[str, float]
    places: dict[str, dict[str, float]]
    counts: dict[str, tuple[dict[str, float], float]]


@lru_cache(maxsize=64)
def _odds(difficulty: Difficulty, split: str) -> _Odds:
    """The odds of a world, by drawing scenes of it."""
    kinds: Counter[str] = Counter()
    places = {kind: Counter[str]() for kind in v.KINDS}
    numbers = {kind: Counter[str]() for kind in v.KINDS}
    for seed in range(12_000):
        things = draw_scene(seed, split, difficulty=difficulty).things
        count = Counter(t.kind for t in things)
        for kind in count:
            kinds[kind] += 1 / len(count)
        for thing in things:
            if count[thing.kind] == 1:
                places[thing.kind][thing.position] += 1
        several = [kind for kind in count if count[kind] > 1]
        for kind in several:
            numbers[kind][NUMBERS[count[kind]]] += 1 / len(several)
        if not several:
            numbers[things[0].kind]["one"] += 1
    return _Odds(
        {kind: kinds[kind] for kind in v.KINDS},
        {kind: dict(seen) for kind, seen in places.items()},
        {kind: _with_few_ones(seen) for kind, seen in numbers.items()},
    )


def _with_few_ones(seen: Counter[str]) -> tuple[dict[str, float], float]:
    """The odds of each number where "one" is asked as often as "two", and the share asked."""
    if not seen["two"]:
        return {}, 0.0
    accepted = min(1.0, seen["two"] / max(1.0, seen["one"]))
    shares = {number: seen[number] for number in NUMBERS if seen[number]}
    return {**shares, "one": accepted * seen["one"]}, accepted
