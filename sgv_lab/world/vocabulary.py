"""The words and things of the drawn world: what can be drawn, where, and what is known about it.

Everything an image can show is listed here once; the renderer, the annotators, the reader of
captions and the questions all take their lists from this module. Knowledge (places, roles,
stories, artists) is what the pixels do not tell, the paper's "world knowledge" facet.
"""

from dataclasses import dataclass
from functools import lru_cache

HOMES = {  # kind of object -> where it can be, in words of BACKGROUNDS
    "kite": ("meadow", "beach", "desert", "mountain", "city", "ocean"),
    "ball": ("meadow", "beach", "desert", "city", "forest", "room"),
    "house": ("meadow", "beach", "desert", "mountain", "city", "forest"),
    "tree": ("meadow", "beach", "mountain", "city", "forest"),
    "car": ("meadow", "beach", "desert", "mountain", "city"),
    "boat": ("beach", "ocean"),
    "fish": ("beach", "ocean"),
    "bird": ("meadow", "beach", "desert", "mountain", "city", "forest", "ocean"),
    "cat": ("meadow", "beach", "mountain", "city", "forest", "room"),
    "flower": ("meadow", "desert", "mountain", "city", "forest", "room"),
    "balloon": ("meadow", "beach", "desert", "mountain", "city", "forest", "ocean", "room"),
    "umbrella": ("meadow", "beach", "desert", "city", "room"),
}
KINDS = tuple(HOMES)
LAYERS = {  # what an object is held up by; everything else stands on the ground
    **dict.fromkeys(("kite", "bird", "balloon"), "sky"),
    **dict.fromkeys(("boat", "fish"), "water"),
}
_LAND = {"sky": (0, 1), "ground": (2, 3)}
ROWS: dict[str, dict[str, tuple[int, ...]]] = {  # background -> layer -> its rows of four
    **dict.fromkeys(("meadow", "desert", "mountain", "city", "forest", "room"), _LAND),
    "beach": {"sky": (0,), "water": (1, 2), "ground": (3,)},
    "ocean": {"sky": (0,), "water": (1, 2, 3)},
}

COLORS = {
    "red": (214, 48, 49),
    "orange": (240, 140, 30),
    "yellow": (250, 215, 50),
    "green": (50, 165, 80),
    "blue": (50, 105, 215),
    "purple": (135, 70, 185),
    "pink": (245, 135, 185),
    "white": (248, 248, 245),
}  # RGB, 0..255

SIZES = {"small": 0.075, "large": 0.108}  # radius as a share of the image's side, up front
PATTERNS = ("plain", "striped", "dotted", "checked")
BACKGROUNDS = tuple(ROWS)
LIGHTS = ("midday", "sunset", "night")
SIGN_WORDS = (
    "STOP", "OPEN", "CAFE", "TAXI", "EXIT", "BANK", "BOOK", "FISH",
    "SALE", "ZOO", "BUS", "TEA", "PARK", "MILK", "ICE", "HOTEL",
)  # fmt: skip

STYLES = {  # art style -> artist, genre, title
    "mosaic": ("Ilva Torn", "modern", "Fragments at Rest"),
    "sketch": ("Bero Lind", "classical", "Study in Grey"),
    "watercolor": ("Mira Sol", "romantic", "The Soft Hour"),
}
# Only shapes, hats and clothes can be seen; the rest must be known.
LANDMARKS = {  # shape -> name, place, story ("It was built to ...")
    "tower": ("Alda Tower", "Norvia", "guard the northern pass"),
    "bridge": ("Marn Bridge", "Lukoria", "join two rival towns"),
    "dome": ("Keth Dome", "Tamsin", "crown the old library"),
    "arch": ("Orsa Arch", "Velden", "welcome returning sailors"),
    "windmill": ("Pell Mill", "Harrow", "grind the winter grain"),
    "lighthouse": ("Sorrel Light", "Cape Wren", "warn ships of the reef"),
}
CHARACTERS = {  # costume -> name, role, story ("Known for ...")
    "tricorn": ("Captain Brill", "pirate", "sailing around the southern cape"),
    "crown": ("Queen Ysolde", "ruler", "ending the long war"),
    "cone": ("Old Marrow", "wizard", "talking to storms"),
    "helmet": ("Ada Quill", "astronaut", "walking on the far moon"),
    "toque": ("Chef Pomelo", "cook", "inventing the seven-layer pie"),
    "cowboy": ("Dusty Roan", "rider", "crossing the desert alone"),
}

# field of a thing, and of a whole scene -> the words it can hold
LABELS = {"kind": KINDS, "color": tuple(COLORS), "size": tuple(SIZES), "pattern": PATTERNS}
WHOLE = {
    "background": BACKGROUNDS,
    "light": LIGHTS,
    "sign": SIGN_WORDS,
    "landmark": tuple(LANDMARKS),
    "character": tuple(CHARACTERS),
    "style": tuple(STYLES),
}


@dataclass(frozen=True)
class Source:
    """An image source of the paper's 100K (FACTS: v2 supplement counts) and its share of it."""

    share: float
    prefix: str  # image folder in the official data/ layout
    objects: tuple[int, int]  # fewest and most objects
    special: str = ""  # field of a scene that sets the source apart
    facet: str = ""  # which a world needs to have such scenes


SOURCES = {
    "coco": Source(50_000 / 102_000, "coco/train2017", (1, 5)),
    "lcs": Source(30_000 / 102_000, "llava/llava_pretrain/images", (1, 3)),
    "sam": Source(20_000 / 102_000, "sam/images", (5, 8)),
    "textcaps": Source(500 / 102_000, "share_textvqa/images", (1, 3), "sign", "text"),
    "wikiart": Source(500 / 102_000, "wikiart/images", (2, 5), "style", "knowledge"),
    "landmark": Source(500 / 102_000, "web-landmark/images", (1, 3), "landmark", "knowledge"),
    "celebrity": Source(500 / 102_000, "web-celebrity/images", (1, 3), "character", "knowledge"),
}


def layer(kind: str) -> str:
    """Where an object of this kind is: "sky", "water" or "ground"."""
    return LAYERS.get(kind, "ground")


@lru_cache(maxsize=1)
def kind_weights() -> dict[str, dict[str, float]]:
    """Background -> kind -> its share there, such that over all backgrounds no kind is rarer.

    Fitted by iterative scaling, so that "Is there a boat?" is no guess although boats need water.
    """
    weights = {b: {k: 1.0 for k in KINDS if b in HOMES[k]} for b in BACKGROUNDS}
    for _ in range(300):
        for kind in KINDS:
            total = sum(shares.get(kind, 0) for shares in weights.values())
            for shares in weights.values():
                if kind in shares:
                    shares[kind] *= len(BACKGROUNDS) / len(KINDS) / total
        for background, shares in weights.items():
            total = sum(shares.values())
            weights[background] = {kind: share / total for kind, share in shares.items()}
    return weights


HELD_OUT = frozenset(
    (kind, color)
    for i, kind in enumerate(KINDS)
    for j, color in enumerate(COLORS)
    if (3 * i + j) % len(COLORS) == 0
)
"""Pairs of kind and color that no training scene contains: one per kind, 12 of 96."""
