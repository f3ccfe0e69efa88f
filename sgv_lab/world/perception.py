"""What an annotator perceives of a scene: what is left out, told wrongly and made up.

Every decision has a random number of its own, so that a caption at a higher rate is the same
caption with more left out, and studies that sweep a rate compare like with like.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sgv_lab.world.facts import SPECIALS, VALUES, Fact, whole
from sgv_lab.world.message import Mention, Message
from sgv_lab.world.scene import Scene, region, relations
from sgv_lab.world.vocabulary import KINDS

if TYPE_CHECKING:
    from sgv_lab.world.annotators import Annotator

_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_ATTRIBUTES = ("color", "size", "pattern", "position")  # in the order they are drawn


class Draws:
    """Random numbers by name: each decision's is the same whatever the others are."""

    def __init__(self, scene: Scene, annotator: "Annotator", seed: int) -> None:
        self.prefix = f"{scene.split}/{scene.seed}/{scene.source}/{annotator.name}/{seed}"

    def rng(self, *name: object) -> random.Random:
        """A generator for the decision of this name."""
        return random.Random(f"{self.prefix}/{'/'.join(map(str, name))}")

    def below(self, rate: float, *name: object) -> bool:
        """Whether the decision of this name is taken, as it is in a share ``rate`` of cases."""
        return rate > 0 and self.rng(*name).random() < rate


class Perception:
    """One annotator looking at one scene."""

    def __init__(
        self, scene: Scene, annotator: "Annotator", seed: int, heard: Sequence[Fact]
    ) -> None:
        self.scene, self.annotator, self.heard = scene, annotator, heard
        self.draws = Draws(scene, annotator, seed)

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
        said = {
            kind: self.tell(kind, value, VALUES[kind], "sign" if kind == "text" else "")
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
        return [kind for kind in KINDS if kind not in present]

    def _things(self) -> list[tuple[Mention, int | None]]:
        """(mention, index of the thing or None if it is made up or its kind mistaken)."""
        a, draws, things = self.annotator, self.draws, self.scene.things
        order = draws.rng("order").sample(range(len(things)), len(things))
        if a.style != "full":  # what is large catches the eye first
            order.sort(key=lambda i: things[i].size != "large")
        elif draws.below(0.5, "reading order"):
            order.sort(key=lambda i: (round(things[i].y * 4), things[i].x))
        absent, told = self._kinds_absent(), []
        order, left_out = order[: a.max_objects], a.rate("omission", "existence")
        noticed = [i for i in order if not draws.below(left_out, "omission", "existence", i)]
        if not noticed and left_out < 1:  # nobody captions a picture with nothing in it
            noticed = [max(order, key=lambda i: draws.rng("omission", "existence", i).random())]
        for i in noticed:
            key = f"{things[i].kind}#{i}"
            wrong = draws.below(a.rate("error", "existence"), "error", "existence", key) and absent
            kind = draws.rng("wrong kind", key).choice(absent) if wrong else things[i].kind
            told.append((self._mention(i, kind, key), None if wrong else i))
            if absent and draws.below(a.rate("invention", "existence"), "made up", key):
                told.append((self._made_up(draws.rng("object", key), absent), None))
        return told

    def _mention(self, i: int, kind: str, key: str) -> Mention:
        """What is said of thing ``i``, called a ``kind``."""
        thing = self.scene.things[i]
        nth = sum(t.kind == thing.kind for t in self.scene.things[:i])
        said = {}
        for of in _ATTRIBUTES:
            truth = region(thing.x, thing.y) if of == "position" else getattr(thing, of)
            said[of] = self.tell(of, truth, VALUES[of], key, nth) or None
        return Mention(kind, **said)

    def _made_up(self, rng: random.Random, absent: Sequence[str]) -> Mention:
        """An object that is not there, told in as much detail as a real one."""
        rate = self.annotator.rate
        said = {
            of: rng.choice(VALUES[of]) if rng.random() >= rate("omission", of) else None
            for of in _ATTRIBUTES
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
