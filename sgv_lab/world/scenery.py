"""Backgrounds of the embedded world: eight places in three lights, muted so that objects stand out.

Every place has VARIANTS layouts, so that no picture can be told by its background alone.
"""

import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from sgv_lab.world import shapes as s

VARIANTS = 6
_OVERSAMPLE = 4

LIGHTS = {  # light -> (factor on objects, factor on scenery, added to scenery), RGB
    "midday": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0, 0, 0)),
    "sunset": ((1.0, 0.95, 0.9), (0.86, 0.66, 0.6), (18, 4, 12)),
    "night": ((0.88, 0.9, 0.97), (0.3, 0.34, 0.44), (2, 4, 16)),
}

SKIES = {  # light -> (top, horizon), before the light's own factor
    "midday": ((158, 194, 222), (214, 228, 234)),
    "sunset": ((150, 150, 190), (252, 214, 176)),
    "night": ((96, 108, 160), (150, 156, 190)),
}


def lit(rgb: tuple[int, ...], light: str) -> tuple[int, int, int]:
    """An object's colour in a light."""
    r, g, b = (round(c * f) for c, f in zip(rgb, LIGHTS[light][0], strict=True))
    return r, g, b


class _Place:
    """A square of scenery, drawn in shares of its side."""

    def __init__(self, pixels: int, light: str, seed: str) -> None:
        self.pixels, self.light, self.rng = pixels, light, random.Random(seed)
        self.image = Image.new("RGB", (pixels, pixels))
        self.draw = ImageDraw.Draw(self.image)

    def fade(self, top: tuple, bottom: tuple, y0: float = 0.0, y1: float = 1.0) -> None:
        """A vertical gradient between two heights."""
        a, b = round(y0 * self.pixels), round(y1 * self.pixels)
        t = np.linspace(0, 1, b - a)[:, None]
        column = (1 - t) * top + t * np.array(bottom)
        band = Image.fromarray(column.round().astype("uint8")[:, None])
        self.image.paste(band.resize((self.pixels, b - a)), (0, a))

    def fill(self, rgb: tuple, points: np.ndarray) -> None:
        self.draw.polygon([tuple(p) for p in points * self.pixels], fill=rgb)

    def sky(self, horizon: float) -> None:
        """Sky with a sun, or with a moon and stars."""
        self.fade(*SKIES[self.light], 0, horizon)
        x, y = self.rng.uniform(0.15, 0.85), self.rng.uniform(0.08, 0.2)
        if self.light == "night":
            for _ in range(24):
                self.fill(
                    (236, 236, 240), s.oval(self.rng.random(), self.rng.random() * horizon, 0.004)
                )
            self.fill((246, 246, 240), s.oval(x, y, 0.05))
            self.fill(
                self.image.getpixel((0, round(y * self.pixels))),
                s.oval(x + 0.025, y - 0.012, 0.045),
            )
        else:
            y = y if self.light == "midday" else horizon - 0.04
            self.fill((250, 238, 196), s.oval(x, y, 0.055))

    def cloud(self, rgb: tuple = (236, 240, 242)) -> None:
        x, y = self.rng.random(), self.rng.uniform(0.06, 0.3)
        for dx, dy, r in (
            (-0.07, 0.01, 0.03),
            (-0.02, -0.01, 0.045),
            (0.04, 0, 0.035),
            (0.08, 0.015, 0.022),
        ):
            self.fill(rgb, s.oval(x + dx, y + dy, r * 1.3, r * 0.8))

    def ridge(self, rgb: tuple, height: float, swing: float, waves: float = 1.5) -> None:
        """Ground below a wavy line."""
        x = np.linspace(0, 1, 64)
        phase = self.rng.uniform(0, 6.3)
        y = (
            height
            + swing * np.sin(2 * np.pi * waves * x + phase)
            + swing / 3 * np.sin(9 * x + phase)
        )
        self.fill(rgb, np.concatenate([np.stack([x, y], axis=1), s.poly(1, 1, 0, 1)]))

    def scatter(self, rgb: tuple, n: int, top: float, width: float, height: float) -> None:
        """Small flat marks on the ground, larger towards the viewer."""
        for _ in range(n):
            y = self.rng.uniform(top, 1)
            near = 0.4 + (y - top) / (1 - top)
            self.fill(rgb, s.oval(self.rng.random(), y, width * near, height * near))


def _meadow(p: _Place) -> None:
    p.sky(0.5)
    p.cloud(), p.cloud()
    p.ridge((176, 196, 170), 0.46, 0.03)
    p.ridge((166, 190, 150), 0.55, 0.03, 1)
    p.fade((166, 190, 150), (146, 174, 132), 0.62)
    p.scatter((140, 168, 126), 40, 0.62, 0.006, 0.012)
    p.scatter((226, 222, 190), 14, 0.62, 0.006, 0.006)


def _beach(p: _Place) -> None:
    p.sky(0.36)
    p.cloud()
    p.fade((142, 182, 196), (176, 206, 208), 0.36, 0.7)
    p.ridge((236, 240, 238), 0.62, 0.02, 1)
    p.ridge((224, 210, 178), 0.645, 0.02, 1)
    p.fade((224, 210, 178), (208, 190, 154), 0.72)
    p.scatter((198, 178, 142), 26, 0.72, 0.008, 0.004)


def _desert(p: _Place) -> None:
    p.sky(0.5)
    p.ridge((216, 190, 158), 0.45, 0.025, 1)
    p.ridge((206, 176, 140), 0.58, 0.05, 0.8)
    p.ridge((194, 162, 126), 0.76, 0.05, 0.6)
    for _ in range(4):
        x, y, k = p.rng.random(), p.rng.uniform(0.5, 0.9), p.rng.uniform(0.5, 1)
        for part in (s.stroke(0.03, 0, 0, 0, -0.17), s.stroke(0.02, 0, -0.06, 0.05, -0.07, 0.05, -0.13),
                     s.stroke(0.02, 0, -0.04, -0.05, -0.05, -0.05, -0.1)):  # fmt: skip
            p.fill((132, 150, 116), part * k + [x, y])


def _mountain(p: _Place) -> None:
    p.sky(0.66)
    p.cloud()
    for x, peak, half in ((0.2, 0.24, 0.38), (0.78, 0.2, 0.42), (0.5, 0.34, 0.34)):
        x += p.rng.uniform(-0.1, 0.1)
        p.fill((164, 172, 188), s.poly(x - half, 0.72, x, peak, x + half, 0.72))
        p.fill((146, 154, 172), s.poly(x, peak, x + half, 0.72, x + 0.06, 0.72))
        k = 0.26
        drop = peak + (0.72 - peak) * k
        p.fill((230, 234, 240), s.poly(x, peak, x + half * k, drop, x + half * 0.08, drop - 0.03,
                                       x, drop + 0.02, x - half * 0.1, drop - 0.03, x - half * k, drop))  # fmt: skip
    p.ridge((158, 176, 156), 0.68, 0.02)
    p.ridge((142, 164, 142), 0.82, 0.03, 1)


def _city(p: _Place) -> None:
    p.sky(0.74)
    glow = (188, 196, 206) if p.light == "midday" else (250, 226, 160)
    for rgb, low, high in (((178, 184, 196), 0.2, 0.45), ((156, 162, 176), 0.4, 0.6)):
        x = -0.05
        while x < 1:
            w, top = p.rng.uniform(0.1, 0.18), p.rng.uniform(low, high)
            p.fill(rgb, s.box(x, top, x + w - 0.01, 0.8))
            for row in np.arange(top + 0.04, 0.74, 0.06):
                for column in np.arange(x + 0.022, x + w - 0.035, 0.04):
                    if p.rng.random() < 0.5:
                        p.fill(glow, s.box(column, row, column + 0.016, row + 0.026))
            x += w
    p.fade((150, 152, 158), (132, 134, 142), 0.78)
    for x in np.arange(0.02, 1, 0.2):
        p.fill((214, 212, 200), s.box(x, 0.885, x + 0.1, 0.9))


def _forest(p: _Place) -> None:
    p.sky(0.6)
    for rgb, base, n in (
        ((170, 192, 176), 0.56, 13),
        ((148, 174, 154), 0.66, 10),
        ((130, 158, 136), 0.78, 7),
    ):
        for i in range(n):
            x, h = (i + p.rng.random()) / n, p.rng.uniform(0.28, 0.42)
            for k in (0, 0.26, 0.5):
                p.fill(
                    rgb,
                    s.poly(
                        x - 0.3 * h * (1 - k),
                        base - h * k,
                        x,
                        base - h * (k + 0.5),
                        x + 0.3 * h * (1 - k),
                        base - h * k,
                    ),
                )
        p.fill(rgb, s.box(0, base - 0.02, 1, 1))
    p.fade((150, 166, 134), (134, 150, 120), 0.78)
    p.scatter((124, 142, 112), 30, 0.78, 0.012, 0.006)


def _ocean(p: _Place) -> None:
    p.sky(0.3)
    p.cloud(), p.cloud()
    p.fade((132, 172, 192), (104, 142, 170), 0.3)
    for y in np.linspace(0.34, 0.97, 9):
        for _ in range(4):
            x, w = p.rng.random(), 0.03 + 0.06 * y
            p.fill(
                (168, 200, 212), s.curve(x - w, y, x, y - 0.008 - 0.01 * y, x + w, y, x, y - 0.004)
            )


def _room(p: _Place) -> None:
    p.fade((214, 204, 194), (202, 190, 180), 0, 0.72)
    for x in np.arange(0.03, 1, 0.125):
        p.fill((206, 195, 185), s.box(x, 0, x + 0.03, 0.7))
    x = p.rng.choice((0.1, 0.36, 0.62))
    p.fill((232, 226, 218), s.box(x - 0.02, 0.1, x + 0.3, 0.5))
    p.fill(
        SKIES[p.light][0] if p.light != "sunset" else SKIES[p.light][1],
        s.box(x, 0.12, x + 0.28, 0.48),
    )
    p.fill((232, 226, 218), s.box(x + 0.13, 0.1, x + 0.15, 0.5))
    p.fill((232, 226, 218), s.box(x, 0.29, x + 0.28, 0.31))
    p.fill((232, 226, 218), s.box(0, 0.7, 1, 0.735))
    p.fade((178, 154, 132), (160, 134, 112), 0.735)
    for y in (0.8, 0.87, 0.95):
        p.fill((150, 126, 106), s.box(0, y, 1, y + 0.005))


PLACES = {
    "meadow": _meadow, "beach": _beach, "desert": _desert, "mountain": _mountain,
    "city": _city, "forest": _forest, "ocean": _ocean, "room": _room,
}  # fmt: skip


@lru_cache(maxsize=8 * 3 * VARIANTS)
def background(name: str, light: str, variant: int, size: int) -> Image.Image:
    """The (size, size) RGB scenery of a place in a light. Shared: copy before drawing on it."""
    place = _Place(size * _OVERSAMPLE, light, f"{name}/{variant}")
    PLACES[name](place)
    small = place.image.resize((size, size), Image.Resampling.BOX)
    _, factor, added = LIGHTS[light]
    pixels = np.asarray(small) * np.array(factor) + added
    return Image.fromarray(pixels.clip(0, 255).round().astype("uint8"))
