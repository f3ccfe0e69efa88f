"""Annotators: who looks at a scene, what they miss, get wrong and make up, and how they write.

An annotator perceives a scene into a message (``phrasing.Message``), then writes it down. Three
rates per kind of fact govern the first step, each with a "default":

- ``omission``: share of what could be told that is left out;
- ``error``: share of what is told that is told wrongly (another value of the same kind);
- ``invention``: for "existence", objects made up per object mentioned; for any other kind, the
  share of what is not seen, or is left out, for which a plausible value is written all the same.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sgv_lab.world import phrasing
from sgv_lab.world.facts import FACETS, Fact
from sgv_lab.world.message import Message
from sgv_lab.world.perception import Draws, Perception
from sgv_lab.world.scene import Scene

Rates = Mapping[str, float]


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
    # BLIP's captions of web pictures: short, noisy; length as in Table 1 (54 characters), errors
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
        hears=5,
        remarks=(2, 4),
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
        remarks=(1, 3),
    ),
    "oracle": Annotator(
        name="oracle",
        sees=frozenset(FACETS),
        style="full",
        max_objects=99,
        omission={"default": 0.0},
        error={"default": 0.0},
        invention={"default": 0.0},
    ),
}  # fmt: skip


def message(scene: Scene, annotator: Annotator, seed: int = 0) -> Message:
    """What ``annotator`` says about ``scene``, before it is put into words."""
    draws, human = Draws(scene, annotator, seed), ANNOTATORS["human"]
    seeds = [draws.rng("human", i).getrandbits(32) for i in range(annotator.hears)]
    often = Counter(fact for s in seeds for fact in claims(scene, human, s))
    heard = sorted(often, key=lambda fact: (-often[fact], fact))
    return Perception(scene, annotator, seed, heard).message()


def claims(scene: Scene, annotator: Annotator, seed: int = 0) -> frozenset[Fact]:
    """The facts that ``caption(scene, annotator, seed)`` states, true or not."""
    return message(scene, annotator, seed).claims()


def caption(scene: Scene, annotator: Annotator, seed: int = 0) -> str:
    """The caption that ``annotator`` writes of ``scene``: the same arguments, the same words."""
    draws = Draws(scene, annotator, seed)
    remarks = draws.rng("remarks").randint(*annotator.remarks)
    said = message(scene, annotator, seed)
    return phrasing.write(said, annotator.style, draws.rng("words"), remarks)
