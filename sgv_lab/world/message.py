"""What a caption is to say, before it is put into words."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sgv_lab.world.facts import Fact, with_implied

ATTRIBUTES = ("size", "color", "pattern", "position")  # in the order they are said


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
    ``whole``: kind of fact -> value, of the picture as a whole, its sign, landmark, character;
    ``specials``: "sign", "landmark" or "character" -> where, "" where that is left unsaid.
    """

    mentions: tuple[Mention, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    relations: tuple[tuple[int, str, int], ...] = ()
    whole: Mapping[str, str] = field(default_factory=dict)
    specials: Mapping[str, str] = field(default_factory=dict)

    def claims(self) -> frozenset[Fact]:
        """The facts that the message states, true or not."""
        stated = {Fact("count", kind, str(n)) for kind, n in self.counts.items()}
        for mention in self.mentions:
            stated.add(Fact("existence", mention.kind))
            for kind in ATTRIBUTES:
                if getattr(mention, kind):
                    stated.add(Fact(kind, mention.kind, getattr(mention, kind)))
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
