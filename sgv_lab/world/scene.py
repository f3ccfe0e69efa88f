"""Scenes of the drawn world: what is where. Images, captions and questions derive from them.

Coordinates are shares of the image's side, (0, 0) top left. Objects stand on a jittered 4 x 4 grid,
so they never cover each other; a sign, a landmark or a character takes cells of its own. Birds,
balloons and kites are in the sky, boats and fish in water, all else on the ground, and what is
farther away is drawn smaller.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sgv_lab.world import vocabulary as v

GRID = 4
SPLITS = ("train", "eval", "novel")
_JITTER = 0.016  # two large things in neighbouring cells then just fail to touch
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
    """An object of a scene, centered at (x, y)."""

    kind: str
    color: str
    size: str
    pattern: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        """As a share of the image's side: a twentieth less for each row that it is farther away."""
        row = 1 if v.layer(self.kind) == "sky" else GRID - 1 - int(self.y * GRID)
        return v.SIZES[self.size] * (1 - 0.05 * row)

    @property
    def position(self) -> str:
        """The ninth of the image it is in."""
        return region(self.x, self.y)


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
        """The image's path below the data root, in the official layout."""
        return f"{v.SOURCES[self.source].prefix}/{self.split}-{self.seed:09d}.png"

    @property
    def palette(self) -> str:
        """ "warm", "cool" or "mixed": which of the two families most objects' colors are of."""
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
    """The name of a ninth of the image: "top left" ... "center" ... "bottom right"."""
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
    seed: int, split: str = "train", source: str | None = None, difficulty: Difficulty = FULL
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
    rng = random.Random(f"sgv-lab world 2/{split}/{seed}")
    # drawn even when given, so that naming the source a seed has anyway changes nothing
    drawn = rng.choices(allowed, [v.SOURCES[s].share for s in allowed])[0]
    source = source or drawn
    special = v.SOURCES[source].special
    about: dict[str, Any] = {"difficulty": difficulty}
    if special:
        about[special] = rng.choice(v.WHOLE[special])
    stands = special not in ("", "style")
    background = rng.choice([b for b in v.BACKGROUNDS if not stands or "ground" in v.ROWS[b]])
    cells = {
        layer: [(column, row) for row in rows for column in range(GRID)]
        for layer, rows in v.ROWS[background].items()
    }
    if stands:  # two cells wide and two high, on the ground
        column = rng.randrange(GRID - 1)
        about["anchor"] = ((column + 1) / GRID, (GRID - 1) / GRID)
        taken = {(column + i, row) for i in (0, 1) for row in (GRID - 2, GRID - 1)}
        cells = {layer: [c for c in free if c not in taken] for layer, free in cells.items()}
    low, high = (min(n, difficulty.max_objects) for n in v.SOURCES[source].objects)
    things: list[Thing] = []
    for _ in range(rng.randint(low, high)):
        things.append(_thing(background, cells, things, rng))
    light = rng.choice(v.LIGHTS) if "light" in difficulty.facets else "midday"
    if split == "novel":
        _put_novel_pair(background, things, rng)
    return Scene(seed, split, source, background, light, tuple(things), **about)


def _put_novel_pair(background: str, things: list[Thing], rng: random.Random) -> None:
    """Give one thing a kind and color that training never pairs."""
    i, shares = rng.randrange(len(things)), v.kind_weights()[background]
    layer = v.layer(things[i].kind)
    fitting = [(k, c) for k, c in sorted(v.HELD_OUT) if k in shares and v.layer(k) == layer]
    kind, color = rng.choices(fitting, [shares[k] for k, _ in fitting])[0]
    things[i] = replace(things[i], kind=kind, color=color)


def allowed_sources(difficulty: Difficulty) -> list[str]:
    """The sources whose facets the difficulty includes, in the order of SOURCES."""
    return [name for name, s in v.SOURCES.items() if s.facet in ("", *difficulty.facets)]


def _thing(
    background: str,
    cells: dict[str, list[tuple[int, int]]],
    others: Sequence[Thing],
    rng: random.Random,
) -> Thing:
    """A thing where there is room for its kind; its cell is taken from ``cells``.

    Every third one repeats a kind already there, so that counts vary.
    """
    again = rng.choice(others).kind if others and rng.random() < 1 / 3 else None
    shares = v.kind_weights()[background]
    kinds = [kind for kind in shares if cells[v.layer(kind)]]
    kind = again if again in kinds else rng.choices(kinds, [shares[k] for k in kinds])[0]
    color = rng.choice([c for c in v.LABELS["color"] if (kind, c) not in v.HELD_OUT])
    free = cells[v.layer(kind)]
    cell = free.pop(rng.randrange(len(free)))
    size, pattern = rng.choice(v.LABELS["size"]), rng.choice(v.PATTERNS)
    x, y = ((at + 0.5) / GRID + rng.uniform(-_JITTER, _JITTER) for at in cell)
    return Thing(kind, color, size, pattern, x, y)
