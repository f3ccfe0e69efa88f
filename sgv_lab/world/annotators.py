"""Annotators: who looks at a scene, what they miss, get wrong and make up, and how they write.

An annotator perceives a scene into a message, then writes it down. Filler, sentences without facts,
is no trait of an annotator: ``caption`` adds the same share of it to anybody's text.

Every decision has a random number of its own, so that a caption at a higher rate is the same
caption with more left out, and studies that sweep a rate compare like with like.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sgv_lab.world import phrasing
from sgv_lab.world.facts import ATTRIBUTES, FACETS, SPECIALS, VALUES, Fact, Mention, Message, whole
from sgv_lab.world.scene import Scene, region, relations
from sgv_lab.world.vocabulary import KINDS

Rates = Mapping[str, float]
RATES = ("omission", "error", "invention")
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Annotator:
    """Someone, or something, that captions images.

    ``sees``: kinds of facts it perceives (keys of FACETS); ``style``: as in ``phrasing.write``;
    ``max_objects``: most objects it mentions; ``human_captions``: how many captions by people it is
    given of each image. Three rates per kind of fact, each with a "default":

    - ``omission``: share of what could be told that is left out;
    - ``error``: share of what is told that is told wrongly (another value of the same kind);
    - ``invention``: for "existence", objects made up per object mentioned; for any other kind, the
      share of what is not seen, or is left out, for which a plausible value is written anyway.

    Raises ValueError for rates outside 0 to 1.
    """

    name: str
    sees: frozenset[str]
    style: str
    max_objects: int
    omission: Rates
    error: Rates
    invention: Rates
    human_captions: int = 0

    def __post_init__(self) -> None:
        for of in RATES:
            if not all(0 <= rate <= 1 for rate in getattr(self, of).values()):
                raise ValueError(f"{self.name}: {of} needs rates from 0 to 1")

    def rate(self, of: str, kind: str) -> float:
        """The rate ``of`` (one of RATES) for a kind of fact."""
        rates: Rates = getattr(self, of)
        return rates.get(kind, rates["default"])

    def with_rates(
        self,
        omission: float | None = None,
        error: float | None = None,
        invention: float | None = None,
    ) -> "Annotator":
        """The same annotator at other rates, each for all kinds of facts; None keeps its own."""
        given = zip(RATES, (omission, error, invention), strict=True)
        return replace(self, **{of: {"default": new} for of, new in given if new is not None})


_OBJECT_KINDS = frozenset(kind for kind, facet in FACETS.items() if facet == "object")

ANNOTATORS: dict[str, Annotator] = {
    # COCO's instruction asks for the important parts in one sentence. Lengths, and how often
    # colours, sizes, patterns, numbers, places and light are named, are fitted to the 25,014
    # captions of captions_val2017.json (a test compares them); errors are assumed.
    "human": Annotator(
        name="human",
        sees=_OBJECT_KINDS | {"light", "text"},
        style="short",
        max_objects=3,
        omission={
            "default": 0.6, "existence": 0.15, "count": 0.75, "color": 0.9, "size": 0.955,
            "pattern": 0.995, "position": 0.98, "relation": 0.98, "scene": 0.2, "light": 0.985,
            "text": 0.5,
        },
        error={"default": 0.02, "existence": 0.01},
        invention={"default": 0.0},
    ),
    # BLIP's captions of web images: short, noisy; length as in Table 1 (54 characters), errors
    # of existence within what CHAIRi finds for models of its time (2.6 to 14.8 %, POPE's caption
    # data); other rates assumed.
    "blip": Annotator(
        name="blip",
        sees=_OBJECT_KINDS | {"light", "style"},
        style="web",
        max_objects=3,
        omission={
            "default": 0.6, "existence": 0.4, "count": 0.7, "color": 0.8, "size": 0.93,
            "pattern": 0.97, "position": 0.98, "relation": 0.98, "scene": 0.3, "light": 0.95,
        },
        error={"default": 0.12, "existence": 0.06},
        invention={"default": 0.0, "existence": 0.05},
    ),
    # LLaVA's blind GPT-4: boxes tell kinds, numbers and places without fail; attributes come
    # from five human captions or from nowhere. Inventions assumed.
    "gpt4_blind": Annotator(
        name="gpt4_blind",
        sees=frozenset({"existence", "count", "position", "relation", "composition"}),
        style="full",
        max_objects=8,
        omission={"default": 0.1, "relation": 0.4, "position": 0.15, "composition": 0.5},
        error={"default": 0.01},
        invention={"default": 0.1, "existence": 0.05, "color": 0.3, "size": 0.3},
        human_captions=5,
    ),
    # GPT4-Vision: all four facets, few errors (ShareGPT4V, section 3). Rates assumed; objects
    # that are not there are as rare as in the best CHAIRi measured (2.6 %, POPE's caption data).
    "gpt4_vision": Annotator(
        name="gpt4_vision",
        sees=frozenset(FACETS),
        style="full",
        max_objects=8,
        omission={"default": 0.1, "relation": 0.3, "count": 0.05},
        error={"default": 0.03, "existence": 0.01},
        invention={"default": 0.01, "existence": 0.02},
    ),
}  # fmt: skip
# The oracle is GPT4-Vision without its mistakes, and nothing else.
ANNOTATORS["oracle"] = replace(ANNOTATORS["gpt4_vision"].with_rates(0, 0, 0), name="oracle")


class Perception:
    """One annotator looking at one scene; ``heard``: what others told it, most often told first."""

    def __init__(self, scene: Scene, annotator: Annotator, seed: int) -> None:
        self.scene, self.annotator = scene, annotator
        # by style, not by name: annotators of one style differ in what they perceive, and in no
        # choice of order or words that chance makes for them
        self.prefix = f"{scene.split}/{scene.seed}/{scene.source}/{annotator.style}/{seed}"
        seeds = [self.rng("human", i).getrandbits(32) for i in range(annotator.human_captions)]
        often = Counter(fact for s in seeds for fact in claims(scene, ANNOTATORS["human"], s))
        self.heard = sorted(often, key=lambda fact: (-often[fact], fact))

    def rng(self, *name: object) -> random.Random:
        """A generator for the decision of this name, the same whatever the others are."""
        return random.Random(f"{self.prefix}/{'/'.join(map(str, name))}")

    def _below(self, rate: float, *name: object) -> bool:
        """Whether the decision of this name is taken, as it is in a share ``rate`` of cases."""
        return rate > 0 and self.rng(*name).random() < rate

    def _happens(self, of: str, kind: str, key: object) -> bool:
        """Whether an omission, error or invention happens to one fact."""
        return self._below(self.annotator.rate(of, kind), of, kind, key)

    def _tell(self, kind: str, truth: str, values: Sequence[str], key: str, nth: int = 0) -> str:
        """What is said of one fact that is true: its value, a wrong one, or "" for nothing.

        ``nth``: which of the values heard to take, where several objects share a name.
        """
        subject = key.split("#")[0]
        heard = [f.value for f in self.heard if (f.kind, f.subject) == (kind, subject)]
        seen = kind in self.annotator.sees
        known = truth if seen else heard[nth] if nth < len(heard) else ""
        if known and not self._happens("omission", kind, key):
            others = [value for value in values if value != truth]
            if others and self._happens("error", kind, key):
                return self.rng("wrong", kind, key).choice(others)
            return known
        if self._happens("invention", kind, key):
            return self.rng("made up", kind, key).choice(values)
        return ""

    def message(self) -> Message:
        """Everything the annotator says about the scene."""
        told = self._things()
        mentions = tuple(mention for mention, _ in told)
        counts = self._counts(mentions)
        said = {}
        for kind, value in whole(self.scene).items():
            key = "sign" if kind == "text" else ""
            if heard := self._tell(kind, value, VALUES[kind], key):
                said[kind] = heard
        return Message(mentions, counts, self._relations(told, counts), said, self._specials())

    def _things(self) -> list[tuple[Mention, int | None]]:
        """(mention, index of the thing or None if it is made up or its kind mistaken)."""
        a, things = self.annotator, self.scene.things
        order = self.rng("order").sample(range(len(things)), len(things))
        if a.style != "full":  # what is large catches the eye first
            order.sort(key=lambda i: things[i].size != "large")
        elif self._below(0.5, "reading order"):
            order.sort(key=lambda i: (round(things[i].y * 4), things[i].x))
        order = order[: a.max_objects]
        noticed = [i for i in order if not self._happens("omission", "existence", i)]
        if not noticed and a.rate("omission", "existence") < 1:  # nobody captions an empty image
            noticed = [max(order, key=lambda i: self.rng("omission", "existence", i).random())]
        absent = [kind for kind in KINDS if not self.scene.count(kind)]
        told: list[tuple[Mention, int | None]] = []
        for i in noticed:
            key = f"{things[i].kind}#{i}"
            wrong = self._happens("error", "existence", key)
            kind = self.rng("wrong kind", key).choice(absent) if wrong else things[i].kind
            told.append((self._mention(i, kind, key), None if wrong else i))
            if self._below(a.rate("invention", "existence"), "made up", key):
                told.append((self._made_up(self.rng("object", key), absent), None))
        return told

    def _mention(self, i: int, kind: str, key: str) -> Mention:
        """What is said of thing ``i``, called a ``kind``."""
        thing = self.scene.things[i]
        nth = sum(t.kind == thing.kind for t in self.scene.things[:i])
        said = {}
        for of in ATTRIBUTES:
            said[of] = self._tell(of, getattr(thing, of), VALUES[of], key, nth) or None
        return Mention(kind, **said)

    def _made_up(self, rng: random.Random, absent: Sequence[str]) -> Mention:
        """An object that is not there, told in as much detail as a real one."""
        said = {}
        for of in ATTRIBUTES:
            told = rng.random() >= self.annotator.rate("omission", of)
            said[of] = rng.choice(VALUES[of]) if told else None
        return Mention(rng.choice(absent), **said)

    def _counts(self, mentions: Sequence[Mention]) -> dict[str, int]:
        """Numbers that are stated; that there is only one is said now and then."""
        counts = {}
        for kind in dict.fromkeys(mention.kind for mention in mentions):
            truth = self.scene.count(kind)
            if truth > 1 or (truth == 1 and self._below(0.1, "single", kind)):
                near = [str(n) for n in (truth, truth - 1, truth + 1) if n > 1 or n == truth]
                if said := self._tell("count", str(truth), near, kind):
                    counts[kind] = int(said)
        return counts

    def _relations(
        self, told: Sequence[tuple[Mention, int | None]], counts: Mapping[str, int]
    ) -> tuple[tuple[int, str, int], ...]:
        """Each object related to the one before it, where both are the only ones of their kind."""
        found, things = [], self.scene.things
        often = Counter(mention.kind for mention, _ in told)
        for b in range(len(told) - 1):
            i, j = told[b + 1][1], told[b][1]
            if i is None or j is None:
                continue
            kinds = (things[i].kind, things[j].kind)
            if any(k in counts or self.scene.count(k) > 1 or often[k] > 1 for k in kinds):
                continue
            key, true = "#".join(kinds), relations(things[i], things[j])
            truth = self.rng("relation", key).choice(true) if true else ""
            if said := truth and self._tell("relation", truth, (truth, _OPPOSITE[truth]), key):
                found.append((b + 1, said, b))
        return tuple(found)

    def _specials(self) -> dict[str, str]:
        """The sign, landmark or character, if noticed, and where it stands."""
        found, left_out = {}, self.annotator.rate("omission", "existence")
        for subject in SPECIALS:
            if getattr(self.scene, subject) and not self._below(left_out, "omission", subject):
                where = region(*self.scene.anchor)
                found[subject] = self._tell("position", where, VALUES["position"], subject)
        return found


def claims(scene: Scene, annotator: Annotator, seed: int = 0) -> frozenset[Fact]:
    """The facts that ``caption(scene, annotator, seed)`` states, true or not."""
    return Perception(scene, annotator, seed).message().claims()


def caption(
    scene: Scene, annotator: Annotator, seed: int = 0, filler: float = 0.0, wording: int = 0
) -> str:
    """The caption that ``annotator`` writes of ``scene``: the same arguments, the same words.

    ``filler``: share of the words, on average, that stand in sentences without facts; ``wording``:
    which words for the same facts.
    """
    looking, which = Perception(scene, annotator, seed), (wording,) if wording else ()
    text = phrasing.write(looking.message(), annotator.style, looking.rng("words", *which))
    return phrasing.with_filler(text, filler, looking.rng("filler", *which))
