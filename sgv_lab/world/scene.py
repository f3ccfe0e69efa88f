"""Scenes of the embedded world: what is where. Pictures, captions and questions derive from them.

Coordinates are shares of the picture's side, (0, 0) top left. Objects stand on a jittered 4 x 4
grid, so they never cover each other; a sign, a landmark or a character takes cells of its own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sgv_lab.world import vocabulary as v

GRID = 4
SPLITS = ("train", "eval", "novel")
_JITTER = 0.02  # two large things in neighbouring cells then just fail to touch
_CLEAR = 0.18  # two things closer than this along an axis are neither left nor right of each other


@dataclass(frozen=True)
class Difficulty:
    """Bounds of a world: small models can be given one that they can learn.

    ``facets``: any of "text" (signs), "knowledge" (landmarks, characters, art) and "light";
    a source that needs a facet left out is not drawn.
    """

    max_objects: int = 8
    facets: tuple[str, ...] = ("text", "knowledge", "light")


FULL = Difficulty()
MINIATURE = Difficulty(max_objects=3)
"""The world that the miniature models are taught and tested in."""


@dataclass(frozen=True)
class Thing:
    """An object of a scene, centred at (x, y), with radius ``SIZES[size]``."""

    kind: str
    color: str
    size: str
    pattern: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """A whole scene. ``anchor`` is the (x, y) of its sign, landmark or character, if it has one."""

    seed: int
    split: str
    source: str
    background: str
    light: str
    things: tuple[Thing, ...]
    sign: str | None = None  # a word of SIGN_WORDS
    landmark: str | None = None  # a key of LANDMARKS
    character: str | None = None  # a key of CHARACTERS
    style: str | None = None  # a key of STYLES
    anchor: tuple[float, float] | None = None
    difficulty: Difficulty = field(default=FULL, repr=False)  # the world the scene was drawn from

    @property
    def image_name(self) -> str:
        """The picture's path below the data root, in the official layout."""
        return f"{v.SOURCES[self.source].prefix}/{self.split}-{self.seed:09d}.png"

    @property
    def palette(self) -> str:
        """ "warm", "cool" or "mixed": which of the two families most objects' colours are of."""
        warm = sum(t.color in ("red", "orange", "yellow", "pink") for t in self.things)
        cool = sum(t.color in ("green", "blue", "purple") for t in self.things)
        return "warm" if warm > 2 * cool else "cool" if cool > 2 * warm else "mixed"

    @property
    def composition(self) -> str:
        """ "sparse" (one or two objects), "balanced" or "crowded" (six and more)."""
        n = len(self.things)
        return "sparse" if n <= 2 else "crowded" if n >= 6 else "balanced"

    def count(self, kind: str) -> int:
        """How many objects are of ``kind``."""
        return sum(t.kind == kind for t in self.things)


def region(x: float, y: float) -> str:
    """The name of a ninth of the picture: "top left" ... "center" ... "bottom right"."""
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"{row} {column}".strip() or "center"


def relations(a: Thing, b: Thing) -> tuple[str, ...]:
    """How ``a`` stands to ``b``: of "left of", "right of", "above" and "below", the clear ones."""
    found = []
    if abs(a.x - b.x) > _CLEAR:
        found.append("left of" if a.x < b.x else "right of")
    if abs(a.y - b.y) > _CLEAR:
        found.append("above" if a.y < b.y else "below")
    return tuple(found)


def scene(
    seed: int,
    split: str = "train",
    source: str | None = None,
    difficulty: Difficulty = FULL,
) -> Scene:
    """The scene of ``seed``: the same arguments give the same scene, always and everywhere.

    ``split``: "train" and "eval" hold no pair of HELD_OUT; every "novel" scene holds one.
    ``source``: a key of SOURCES; None draws one in the proportions of the paper's 100K.

    Raises ValueError for an unknown split or source, or a source the difficulty leaves out.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    allowed = allowed_sources(difficulty)
    if source is not None and source not in allowed:
        raise ValueError(f"unknown or excluded source {source!r}: one of {', '.join(allowed)}")
    rng = random.Random(f"sgv-lab world 1/{split}/{seed}")
    # drawn even when given, so that naming the source a seed has anyway changes nothing
    drawn = rng.choices(allowed, [v.SOURCES[s].share for s in allowed])[0]
    source = source or drawn
    cells = [(column, row) for column in range(GRID) for row in range(GRID)]
    field = v.SOURCES[source].special
    special = {field: rng.choice(v.WHOLE[field])} if field else {}
    anchor = None
    if field not in ("", "style"):
        # the sign, landmark or character is two cells wide and two high
        column, row = rng.randrange(GRID - 1), rng.randrange(GRID - 1)
        anchor = ((column + 1) / GRID, (row + 1) / GRID)
        taken = {(column + i, row + j) for i in (0, 1) for j in (0, 1)}
        cells = [c for c in cells if c not in taken]
    low, high = (min(n, difficulty.max_objects) for n in v.SOURCES[source].objects)
    things: list[Thing] = []
    for cell in rng.sample(cells, rng.randint(low, high)):
        things.append(_thing(cell, things, rng))
    background = rng.choice(v.BACKGROUNDS)
    light = rng.choice(v.LIGHTS) if "light" in difficulty.facets else "midday"
    if split == "novel":  # one thing gets a kind and colour that training never pairs
        kind, color = rng.choice(sorted(v.HELD_OUT))
        i = rng.randrange(len(things))
        things[i] = replace(things[i], kind=kind, color=color)
    return Scene(
        seed=seed,
        split=split,
        source=source,
        background=background,
        light=light,
        things=tuple(things),
        anchor=anchor,
        difficulty=difficulty,
        **special,
    )


def allowed_sources(difficulty: Difficulty) -> list[str]:
    """The sources whose facets the difficulty includes, in the order of SOURCES."""
    return [name for name, s in v.SOURCES.items() if s.facet in ("", *difficulty.facets)]


def _thing(cell: tuple[int, int], others: Sequence[Thing], rng: random.Random) -> Thing:
    """A thing in ``cell``; every third one repeats a kind already there, so that counts vary."""
    again = rng.choice(others).kind if others and rng.random() < 1 / 3 else None
    while True:
        kind, color = again or rng.choice(v.KINDS), rng.choice(v.LABELS["color"])
        if (kind, color) not in v.HELD_OUT:
            break
    column, row = cell
    return Thing(
        kind=kind,
        color=color,
        size=rng.choice(v.LABELS["size"]),
        pattern=rng.choice(v.PATTERNS),
        x=(column + 0.5) / GRID + rng.uniform(-_JITTER, _JITTER),
        y=(row + 0.5) / GRID + rng.uniform(-_JITTER, _JITTER),
    )
