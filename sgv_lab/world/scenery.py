"""Backgrounds of the drawn world: eight places in three lights, muted so that objects stand out.

Every place has VARIANTS layouts, so that no image can be told by its background alone.
"""

import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from sgv_lab.world import shapes as s

RGB = tuple[int, int, int]
VARIANTS = 6
_OVERSAMPLE = 4
_OBJECTS = {"midday": (1, 1, 1), "sunset": (1, 0.96, 0.92), "night": (0.9, 0.92, 0.98)}
_SCENERY = {"midday": (1, 1, 1), "sunset": (0.92, 0.78, 0.74), "night": (0.34, 0.39, 0.5)}
_SKIES = {  # top, horizon
    "midday": ((156, 192, 222), (198, 216, 227)),
    "sunset": ((146, 132, 166), (240, 186, 150)),
    "night": ((28, 34, 70), (66, 74, 110)),
}


def lit(rgb: RGB, light: str, factors: dict[str, tuple[float, ...]] = _OBJECTS) -> RGB:
    """An object's colour in a light: shifted little, so that it can still be named."""
    r, g, b = (round(c * f) for c, f in zip(rgb, factors[light], strict=True))
    return r, g, b


class _Place:
    """A square of scenery, drawn in shares of its side; colours are those of midday."""

    def __init__(self, pixels: int, light: str, seed: str) -> None:
        self.pixels, self.light, self.rng = pixels, light, random.Random(seed)
        self.image = Image.new("RGB", (pixels, pixels))
        self.draw = ImageDraw.Draw(self.image)

    def glow(self, rgb: RGB, points: np.ndarray) -> None:
        """A shape that shines by itself."""
        self.draw.polygon([tuple(p) for p in points * self.pixels], fill=rgb)

    def fill(self, rgb: RGB, points: np.ndarray) -> None:
        """A shape in the scene's light."""
        self.glow(self.shade(rgb), points)

    def shade(self, rgb: RGB) -> RGB:
        return lit(rgb, self.light, _SCENERY)

    def fade(self, top: RGB, bottom: RGB, y0: float, y1: float = 1.0) -> None:
        """A vertical gradient between two heights, as bright as given."""
        for row in range(round(y0 * self.pixels), round(y1 * self.pixels)):
            t = (row / self.pixels - y0) / (y1 - y0)
            rgb = tuple(round((1 - t) * a + t * b) for a, b in zip(top, bottom, strict=True))
            self.draw.line((0, row, self.pixels, row), fill=rgb)

    def ground(self, top: RGB, bottom: RGB, y0: float, y1: float = 1.0) -> None:
        """A gradient in the scene's light."""
        self.fade(self.shade(top), self.shade(bottom), y0, y1)

    def sky(self, horizon: float, clouds: int = 0) -> None:
        """Sky with clouds and a sun, or with a moon and stars."""
        self.fade(*_SKIES[self.light], 0, horizon)
        x, y = self.rng.uniform(0.15, 0.85), self.rng.uniform(0.08, 0.2)
        if self.light == "night":
            for _ in range(30):
                at = self.rng.random(), self.rng.random() * horizon
                self.glow((206, 208, 220), s.oval(*at, 0.0035))
            behind = self.image.getpixel((0, round(y * self.pixels)))
            self.glow((240, 238, 220), s.oval(x, y, 0.05))
            self.glow(behind, s.oval(x + 0.025, y - 0.012, 0.045))
        elif self.light == "sunset":
            self.glow((252, 222, 170), s.oval(x, horizon - 0.05, 0.06))
        else:
            self.glow((252, 242, 206), s.oval(x, y, 0.055))
        for _ in range(clouds):
            x, y = self.rng.random(), self.rng.uniform(0.06, 0.28)
            for dx, dy, r in ((-0.07, 1, 3), (-0.02, -1, 4.5), (0.04, 0, 3.5), (0.08, 1.5, 2.2)):
                self.fill((238, 242, 244), s.oval(x + dx, y + dy / 100, r / 77, r / 125))

    def ridge(self, rgb: RGB, height: float, swing: float, waves: float = 1.5) -> None:
        """Ground below a wavy line."""
        x, phase = np.linspace(0, 1, 64), self.rng.uniform(0, 6.3)
        wave = np.sin(2 * np.pi * waves * x + phase) + np.sin(9 * x + phase) / 3
        line = np.stack([x, height + swing * wave], axis=1)
        self.fill(rgb, np.concatenate([line, s.poly(1, 1, 0, 1)]))

    def scatter(self, rgb: RGB, n: int, top: float, width: float, height: float) -> None:
        """Small flat marks on the ground, larger towards the viewer."""
        for _ in range(n):
            y = self.rng.uniform(top, 1)
            near = 0.4 + (y - top) / (1 - top)
            self.fill(rgb, s.oval(self.rng.random(), y, width * near, height * near))


def _meadow(p: _Place) -> None:
    p.sky(0.5, clouds=2)
    p.ridge((182, 202, 178), 0.46, 0.03)
    p.ridge((170, 193, 156), 0.55, 0.03, 1)
    p.ground((168, 192, 153), (146, 174, 132), 0.62)
    p.scatter((140, 168, 126), 40, 0.62, 0.006, 0.012)
    p.scatter((228, 224, 194), 14, 0.62, 0.006, 0.006)


def _beach(p: _Place) -> None:
    p.sky(0.26, clouds=1)
    p.ground((142, 182, 196), (176, 206, 208), 0.26, 0.8)
    p.ridge((236, 240, 238), 0.725, 0.012, 1)
    p.ridge((226, 213, 182), 0.75, 0.012, 1)
    p.ground((226, 213, 182), (210, 193, 158), 0.8)
    p.scatter((198, 180, 146), 26, 0.8, 0.008, 0.004)


def _desert(p: _Place) -> None:
    p.sky(0.52)
    p.ridge((218, 194, 164), 0.45, 0.025, 1)
    p.ridge((208, 180, 146), 0.55, 0.04, 0.8)
    p.ridge((196, 166, 131), 0.72, 0.04, 0.6)
    cactus = (
        s.stroke(0.03, 0, 0, 0, -0.17),
        s.stroke(0.02, 0, -0.06, 0.05, -0.07, 0.05, -0.13),
        s.stroke(0.02, 0, -0.04, -0.05, -0.05, -0.05, -0.1),
    )
    for _ in range(4):
        at, k = [p.rng.random(), p.rng.uniform(0.6, 0.95)], p.rng.uniform(0.6, 1.1)
        for part in cactus:
            p.fill((136, 152, 120), part * k + at)


def _mountain(p: _Place) -> None:
    p.sky(0.62, clouds=1)
    for middle, peak, half in ((0.2, 0.24, 0.38), (0.78, 0.2, 0.42), (0.5, 0.34, 0.34)):
        x, foot = middle + p.rng.uniform(-0.1, 0.1), 0.64
        p.fill((168, 176, 191), s.poly(x - half, foot, x, peak, x + half, foot))
        p.fill((150, 158, 175), s.poly(x, peak, x + half, foot, x + 0.06, foot))
        snow = s.poly(0, 0, 0.26, 0.26, 0.12, 0.19, 0.02, 0.28, -0.12, 0.19, -0.26, 0.26)
        p.fill((234, 238, 243), snow * [half, foot - peak] + [x, peak])
    p.ridge((162, 180, 160), 0.58, 0.02)
    p.ridge((146, 168, 146), 0.76, 0.03, 1)


def _city(p: _Place) -> None:
    p.sky(0.68)
    pane = {"midday": (198, 206, 216), "sunset": (236, 200, 150), "night": (178, 164, 116)}
    for rgb, low, high in (((184, 190, 202), 0.14, 0.36), ((162, 168, 182), 0.3, 0.48)):
        x = -0.05
        while x < 1:
            w, top = p.rng.uniform(0.1, 0.18), p.rng.uniform(low, high)
            p.fill(rgb, s.box(x, top, x + w - 0.008, 0.68))
            for row in np.arange(top + 0.04, 0.6, 0.06):
                for column in np.arange(x + 0.022, x + w - 0.03, 0.04):
                    if p.rng.random() < 0.45:
                        p.glow(pane[p.light], s.box(column, row, column + 0.016, row + 0.026))
            x += w
    p.ground((154, 156, 162), (136, 138, 146), 0.66)
    for x in np.arange(0.02, 1, 0.2):
        p.fill((214, 212, 200), s.box(x, 0.755, x + 0.1, 0.77))


def _forest(p: _Place) -> None:
    p.sky(0.5)
    layers = (((182, 202, 190), 0.5, 15), ((160, 184, 166), 0.58, 12), ((140, 166, 146), 0.67, 9))
    for rgb, base, n in layers:
        for i in range(n):
            x, h = (i + p.rng.random()) / n, p.rng.uniform(0.3, 0.44)
            for k in (0.0, 0.22, 0.44):
                w = 0.17 * h * (1.2 - k)
                p.fill(
                    rgb, s.poly(x - w, base - h * k, x, base - h * (k + 0.56), x + w, base - h * k)
                )
        p.fill(rgb, s.box(0, base - 0.1, 1, 1))
    p.ground((156, 172, 142), (138, 154, 126), 0.65)
    p.scatter((126, 144, 116), 30, 0.65, 0.012, 0.006)


def _ocean(p: _Place) -> None:
    p.sky(0.26, clouds=2)
    p.ground((138, 178, 197), (108, 147, 174), 0.26)
    for y in np.linspace(0.3, 0.97, 9):
        for _ in range(4):
            x, w = p.rng.random(), 0.03 + 0.06 * y
            crest = s.curve(x - w, y, x, y - 0.008 - 0.01 * y, x + w, y, x, y - 0.004)
            p.fill((170, 202, 214), crest)


def _room(p: _Place) -> None:
    p.ground((198, 187, 178), (186, 174, 165), 0, 0.66)
    for x in np.arange(0.03, 1, 0.125):
        p.fill((190, 178, 169), s.box(x, 0, x + 0.03, 0.64))
    x = p.rng.choice((0.1, 0.36, 0.62))
    for edges in ((x - 0.02, 0.08, x + 0.3, 0.52), (0, 0.64, 1, 0.675)):
        p.fill((222, 214, 206), s.box(*edges))
    for column in (x, x + 0.15):
        for row in (0.1, 0.31):
            p.glow(_SKIES[p.light][row == 0.31], s.box(column, row, column + 0.13, row + 0.19))
    p.ground((182, 159, 138), (164, 139, 118), 0.675)
    for y in (0.74, 0.83, 0.93):
        p.fill((154, 131, 111), s.box(0, y, 1, y + 0.005))


_DRAWN = (_meadow, _beach, _desert, _mountain, _city, _forest, _ocean, _room)
_PLACES = {place.__name__.strip("_"): place for place in _DRAWN}


@lru_cache(maxsize=8 * 3 * VARIANTS)
def background(name: str, light: str, variant: int, size: int) -> Image.Image:
    """The (size, size) RGB scenery of a place in a light. Shared: copy before drawing on it."""
    place = _Place(size * _OVERSAMPLE, light, f"{name}/{variant}")
    _PLACES[name](place)
    return place.image.resize((size, size), Image.Resampling.BOX)
