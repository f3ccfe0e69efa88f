"""Annotators: who looks at a scene, what they miss, get wrong and make up, and how they write.

An annotator perceives a scene into a message, then writes it down. Filler, sentences without facts,
is no trait of an annotator: ``caption`` adds the same share of it to anybody's text.
"""

from collections import Counter
from dataclasses import replace

from sgv_lab.world import phrasing
from sgv_lab.world.facts import FACETS, Fact, Message
from sgv_lab.world.perception import Annotator, Perception
from sgv_lab.world.scene import Scene

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


def message(scene: Scene, annotator: Annotator, seed: int = 0) -> Message:
    """What ``annotator`` says about ``scene``, before it is put into words."""
    looking, human = Perception(scene, annotator, seed), ANNOTATORS["human"]
    seeds = [looking.rng("human", i).getrandbits(32) for i in range(annotator.human_captions)]
    often = Counter(fact for s in seeds for fact in claims(scene, human, s))
    looking.heard = sorted(often, key=lambda fact: (-often[fact], fact))
    return looking.message()


def claims(scene: Scene, annotator: Annotator, seed: int = 0) -> frozenset[Fact]:
    """The facts that ``caption(scene, annotator, seed)`` states, true or not."""
    return message(scene, annotator, seed).claims()


def caption(
    scene: Scene, annotator: Annotator, seed: int = 0, filler: float = 0.0, wording: int = 0
) -> str:
    """The caption that ``annotator`` writes of ``scene``: the same arguments, the same words.

    ``filler``: share of the words, on average, that stand in sentences without facts; ``wording``:
    which words for the same facts.
    """
    looking = Perception(scene, annotator, seed)
    said, which = message(scene, annotator, seed), (wording,) if wording else ()
    text = phrasing.write(said, annotator.style, looking.rng("words", *which))
    return phrasing.with_filler(text, filler, looking.rng("filler", *which))
