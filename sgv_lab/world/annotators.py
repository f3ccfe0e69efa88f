"""Annotators: who looks at a scene, what they miss, get wrong and make up, and how they write.

An annotator perceives a scene into a message (``phrasing.Message``), then writes it down. Three
rates per kind of fact govern the first step, each with a "default":

- ``omission``: share of what could be told that is left out;
- ``error``: share of what is told that is told wrongly (another value of the same kind);
- ``invention``: for "existence", objects made up per object mentioned; for any other kind, the
  share of what was not perceived for which a plausible value is written all the same.

Every decision has a random number of its own, so that a caption at a higher rate is the same
caption with more left out, and studies that sweep a rate compare like with like.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sgv_lab.world import phrasing
from sgv_lab.world.facts import FACETS, SPECIALS, VALUES, Fact, whole
from sgv_lab.world.phrasing import ATTRIBUTES, Mention, Message
from sgv_lab.world.scene import Scene, region, relations

Rates = Mapping[str, float]
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_PER_OBJECT = ("existence", "count", *ATTRIBUTES, "relation")


@dataclass(frozen=True)
class Annotator:
    """Someone, or something, that captions pictures. Rates: see the module's text.

    ``sees``: kinds of facts it perceives (keys of FACETS); ``style``: as in ``phrasing.write``;
    ``max_objects``: most objects it mentions; ``hears``: how many human captions of the picture
    it is given; ``remarks``: fewest and most sentences without facts.
    """

    name: str
    sees: frozenset[str]
    style: str
    max_objects: int
    omission: Rates
    error: Rates
    invention: Rates
    hears: int = 0
    remarks: tuple[int, int] = field(default=(0, 0))

    def __post_init__(self) -> None:
        unknown = sorted(set(self.sees) - set(FACETS))
        for name in ("omission", "error", "invention"):
            rates: Rates = getattr(self, name)
            unknown += sorted(set(rates) - {"default", *FACETS})
            if "default" not in rates or not all(0 <= rate <= 1 for rate in rates.values()):
                raise ValueError(f"{self.name}: {name} needs a default, and rates from 0 to 1")
        if unknown:
            raise ValueError(f"{self.name}: unknown kinds of facts {', '.join(unknown)}")

    def rate(self, of: str, kind: str) -> float:
        """The rate ``of`` "omission", "error" or "invention" for a kind of fact."""
        rates: Rates = getattr(self, of)
        return rates.get(kind, rates["default"])

    def with_rates(
        self,
        omission: Rates | float | None = None,
        error: Rates | float | None = None,
        invention: Rates | float | None = None,
    ) -> "Annotator":
        """The same annotator at other rates.

        A mapping overrides those kinds; a number replaces all of them; None keeps them.
        """
        changed: dict[str, Rates] = {}
        for name, new in (("omission", omission), ("error", error), ("invention", invention)):
            if isinstance(new, Mapping):
                changed[name] = {**getattr(self, name), **new}
            elif new is not None:
                changed[name] = {"default": float(new)}
        return replace(self, **changed)


_OBJECT_KINDS = frozenset(kind for kind, facet in FACETS.items() if facet == "object")
_KNOWLEDGE = frozenset(kind for kind, facet in FACETS.items() if facet == "knowledge")
_EVERYTHING = frozenset(FACETS)

ANNOTATORS: dict[str, Annotator] = {
    # COCO's instruction asks for the important parts in one sentence. Lengths are checked against
    # the official captions_val2017.json (52.4 characters, 10.4 words); the rates are assumed.
    "human": Annotator(
        name="human",
        sees=_OBJECT_KINDS | {"light", "text"},
        style="short",
        max_objects=2,
        omission={
            "default": 0.6, "existence": 0.1, "count": 0.2, "color": 0.45, "size": 0.75,
            "pattern": 0.85, "position": 0.95, "relation": 0.95, "scene": 0.45, "light": 0.85,
            "text": 0.5,
        },
        error={"default": 0.02, "existence": 0.01},
        invention={"default": 0.0},
    ),
    # BLIP's captions of web pictures: short, noisy; length as in Table 1 (54 characters), errors
    # as InstructBLIP's and mPLUG's CHAIRi bracket them (2.6 to 14.8 %); other rates assumed.
    "blip": Annotator(
        name="blip",
        sees=_OBJECT_KINDS | {"light", "style"},
        style="web",
        max_objects=2,
        omission={
            "default": 0.6, "existence": 0.15, "count": 0.3, "color": 0.45, "size": 0.8,
            "pattern": 0.8, "position": 0.97, "relation": 0.98, "scene": 0.45, "light": 0.85,
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
        invention={"default": 0.1, "color": 0.3, "size": 0.3, "pattern": 0.1},
        hears=5,
        remarks=(2, 4),
    ),
    # GPT4-Vision: all four facets, few errors (ShareGPT4V, section 3). Rates assumed; the error
    # of existence is of the size of the best CHAIRi published (2.6 %).
    "gpt4_vision": Annotator(
        name="gpt4_vision",
        sees=_EVERYTHING,
        style="full",
        max_objects=8,
        omission={"default": 0.1, "relation": 0.3, "count": 0.05},
        error={"default": 0.03},
        invention={"default": 0.01, "existence": 0.02},
        remarks=(1, 3),
    ),
    "oracle": Annotator(
        name="oracle",
        sees=_EVERYTHING,
        style="full",
        max_objects=99,
        omission={"default": 0.0},
        error={"default": 0.0},
        invention={"default": 0.0},
    ),
}  # fmt: skip


class _Draws:
    """Random numbers by name: each decision's is the same whatever the others are."""

    def __init__(self, scene: Scene, annotator: Annotator, seed: int) -> None:
        self.prefix = f"{scene.split}/{scene.seed}/{scene.source}/{annotator.name}/{seed}"

    def rng(self, *name: object) -> random.Random:
        return random.Random(f"{self.prefix}/{'/'.join(map(str, name))}")

    def below(self, rate: float, *name: object) -> bool:
        return rate > 0 and self.rng(*name).random() < rate


class _Perception:
    """One annotator looking at one scene."""

    def __init__(self, scene: Scene, annotator: Annotator, seed: int) -> None:
        self.scene, self.annotator = scene, annotator
        self.draws = _Draws(scene, annotator, seed)
        human = ANNOTATORS["human"]
        seeds = [self.draws.rng("human", i).getrandbits(32) for i in range(annotator.hears)]
        heard = Counter(fact for s in seeds for fact in claims(scene, human, s))
        self.heard = sorted(heard, key=lambda fact: (-heard[fact], fact))

    def tell(self, kind: str, truth: str, values: Sequence[str], key: str, nth: int = 0) -> str:
        """What is said of one fact that is true: its value, a wrong one, or "" for nothing.

        ``nth``: which of the values heard to take, where several objects share a name.
        """
        a, draws = self.annotator, self.draws
        subject = key.split("#")[0]
        heard = [f.value for f in self.heard if (f.kind, f.subject) == (kind, subject)]
        known = truth if kind in a.sees else heard[nth] if nth < len(heard) else ""
        if known and not draws.below(a.rate("omission", kind), "omission", kind, key):
            others = [value for value in values if value != truth]
            if others and draws.below(a.rate("error", kind), "error", kind, key):
                return draws.rng("wrong", kind, key).choice(others)
            return known
        if draws.below(a.rate("invention", kind), "invention", kind, key):
            return draws.rng("made up", kind, key).choice(values)
        return ""

    def message(self) -> Message:
        """Everything the annotator says about the scene."""
        told = self._things()
        counts = self._counts([mention for mention, _ in told])
        mentions = tuple(mention for mention, _ in told)
        values = {**VALUES, "scene": self.scene.difficulty.backgrounds}
        said = {
            kind: self.tell(kind, value, values[kind], "sign" if kind == "text" else "")
            for kind, value in whole(self.scene).items()
        }
        return Message(
            mentions=mentions,
            counts=counts,
            relations=self._relations(told, counts),
            whole={kind: value for kind, value in said.items() if value},
            specials=self._specials(),
        )

    def _kinds_absent(self) -> list[str]:
        present = {t.kind for t in self.scene.things}
        return [kind for kind in self.scene.difficulty.kinds if kind not in present]

    def _things(self) -> list[tuple[Mention, int | None]]:
        """(mention, index of the thing or None if it is made up or its kind mistaken)."""
        a, draws, things = self.annotator, self.draws, self.scene.things
        order = draws.rng("order").sample(range(len(things)), len(things))
        if a.style != "full":  # what is large catches the eye first
            order.sort(key=lambda i: things[i].size != "large")
        elif draws.below(0.5, "reading order"):
            order.sort(key=lambda i: (round(things[i].y * 4), things[i].x))
        absent, told = self._kinds_absent(), []
        for i in order[: a.max_objects]:
            key = f"{things[i].kind}#{i}"
            if draws.below(a.rate("omission", "existence"), "omission", "existence", key):
                continue
            wrong = draws.below(a.rate("error", "existence"), "error", "existence", key) and absent
            kind = draws.rng("wrong kind", key).choice(absent) if wrong else things[i].kind
            told.append((self._mention(i, kind, key), None if wrong else i))
            if absent and draws.below(a.rate("invention", "existence"), "made up", key):
                told.append((self._made_up(draws.rng("object", key), absent), None))
        return told

    def _mention(self, i: int, kind: str, key: str) -> Mention:
        """What is said of thing ``i``, called a ``kind``."""
        thing, world = self.scene.things[i], self.scene.difficulty
        nth = sum(t.kind == thing.kind for t in self.scene.things[:i])
        values = {"color": world.colors, "size": world.sizes, "pattern": world.patterns,
                  "position": VALUES["position"]}  # fmt: skip
        truth = {"color": thing.color, "size": thing.size, "pattern": thing.pattern,
                 "position": region(thing.x, thing.y)}  # fmt: skip
        said = {k: self.tell(k, truth[k], values[k], key, nth) or None for k in truth}
        return Mention(kind, **said)

    def _made_up(self, rng: random.Random, absent: Sequence[str]) -> Mention:
        """An object that is not there, told in as much detail as a real one."""
        world, omission = self.scene.difficulty, self.annotator.rate
        values = {"color": world.colors, "size": world.sizes, "pattern": world.patterns,
                  "position": VALUES["position"]}  # fmt: skip
        said = {
            kind: rng.choice(options) if rng.random() >= omission("omission", kind) else None
            for kind, options in values.items()
        }
        return Mention(rng.choice(absent), **said)

    def _counts(self, mentions: Sequence[Mention]) -> dict[str, int]:
        """Numbers that are stated; that there is only one is said now and then."""
        counts = {}
        for kind in dict.fromkeys(mention.kind for mention in mentions):
            truth = self.scene.count(kind)
            if truth > 1 or (truth == 1 and self.draws.below(0.1, "single", kind)):
                wrong = [str(n) for n in (truth - 1, truth + 1) if n > 1]
                said = self.tell("count", str(truth), [str(truth), *wrong], kind)
                if said:
                    counts[kind] = int(said)
        return counts

    def _relations(
        self, told: Sequence[tuple[Mention, int | None]], counts: Mapping[str, int]
    ) -> tuple[tuple[int, str, int], ...]:
        """Each object related to the one before it, where both are the only ones of their kind."""
        found, things = [], self.scene.things
        often = Counter(mention.kind for mention, _ in told)
        for b, a in zip(range(len(told)), range(1, len(told)), strict=False):
            i, j = told[a][1], told[b][1]
            if i is None or j is None or {things[i].kind, things[j].kind} & set(counts):
                continue
            if any(self.scene.count(things[k].kind) > 1 or often[things[k].kind] > 1
                   for k in (i, j)):  # fmt: skip
                continue
            key = f"{things[i].kind}#{things[j].kind}"
            true = relations(things[i], things[j])
            truth = self.draws.rng("relation", key).choice(true) if true else ""
            said = truth and self.tell("relation", truth, (truth, _OPPOSITE[truth]), key)
            if said:
                found.append((a, said, b))
        return tuple(found)

    def _specials(self) -> dict[str, str]:
        """The sign, landmark or character, if noticed, and where it stands."""
        found, a = {}, self.annotator
        for subject in SPECIALS:
            if not getattr(self.scene, subject):
                continue
            if self.draws.below(a.rate("omission", "existence"), "omission", subject):
                continue
            where = region(*self.scene.anchor)
            found[subject] = self.tell("position", where, VALUES["position"], subject)
        return found


def message(scene: Scene, annotator: Annotator, seed: int = 0) -> Message:
    """What ``annotator`` says about ``scene``, before it is put into words."""
    return _Perception(scene, annotator, seed).message()


def claims(scene: Scene, annotator: Annotator, seed: int = 0) -> frozenset[Fact]:
    """The facts that ``caption(scene, annotator, seed)`` states, true or not."""
    return message(scene, annotator, seed).claims()


def caption(scene: Scene, annotator: Annotator, seed: int = 0) -> str:
    """The caption that ``annotator`` writes of ``scene``: the same arguments, the same words."""
    draws = _Draws(scene, annotator, seed)
    remarks = draws.rng("remarks").randint(*annotator.remarks)
    said = message(scene, annotator, seed)
    return phrasing.write(said, annotator.style, draws.rng("words"), remarks)
