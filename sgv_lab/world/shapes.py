"""Outlines of everything drawn: the 12 kinds of objects, landmarks and characters.

A drawing is a tuple of parts ``(role, points)``, painted in order; ``points`` is an (N, 2) array in
[-1, 1], y downwards. A role is an RGB colour, or one of "body" (the object's colour with its
pattern), "dark" (a darker tint), "ink" (the outline's colour) and "shine" (a lighter tint).
"""

import numpy as np

Points = np.ndarray
Role = str | tuple[int, int, int]
Drawing = tuple[tuple[Role, Points], ...]

LEAF, BARK, BEAK, SKIN = (70, 130, 75), (120, 85, 60), (225, 150, 60), (240, 200, 165)
STONE, SHADE, GLASS, ROOF = (196, 188, 176), (150, 142, 134), (74, 84, 104), (168, 92, 80)


def poly(*xy: float) -> Points:
    """(N, 2) points from x, y, x, y, ..."""
    return np.array(xy, dtype=float).reshape(-1, 2)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """(4, 2) corners."""
    return poly(x0, y0, x1, y0, x1, y1, x0, y1)


def oval(
    cx: float, cy: float, rx: float, ry: float | None = None, start: float = 0, end: float = 360
) -> Points:
    """(48, 2) points of an ellipse or of its arc from ``start`` to ``end``, clockwise degrees."""
    t = np.radians(np.linspace(start, end, 48))
    return np.stack([cx + rx * np.cos(t), cy + (ry or rx) * np.sin(t)], axis=1)


def curve(*xy: float) -> Points:
    """A smooth closed outline through the points (Catmull-Rom)."""
    p1 = poly(*xy)
    p0, p2, p3 = (np.roll(p1, k, axis=0) for k in (1, -1, -2))
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    bend = (
        t * (p2 - p0) + t**2 * (2 * p0 - 5 * p1 + 4 * p2 - p3) + t**3 * (3 * p1 - p0 - 3 * p2 + p3)
    )
    return (p1 + bend / 2).transpose(1, 0, 2).reshape(-1, 2)


def stroke(width: float, *xy: float) -> Points:
    """A line of ``width`` through the points, as an outline."""
    p = poly(*xy)
    along = np.gradient(p, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * width / 2
    return np.concatenate([p + side, (p - side)[::-1]])


def both(role: Role, points: Points) -> Drawing:
    """A part and its mirror image."""
    return ((role, points), (role, points * [-1, 1]))


def _star() -> Points:
    t = np.radians(np.arange(10) * 36 - 90)
    r = np.where(np.arange(10) % 2, 0.46, 1.06)
    return np.stack([r * np.cos(t), r * np.sin(t) + 0.08], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 72)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2], axis=1) / 15.5


def _band(outer: Points, inner: Points) -> Points:
    return np.concatenate([outer, inner[::-1]])


def _canopy() -> Points:
    scallops = [oval(x, 0.12, 1 / 3, 0.16, 0, -180) for x in (2 / 3, 0, -2 / 3)]
    return np.concatenate([oval(0, 0.12, 1, 0.98, 180, 360), *scallops])


def _petals() -> Drawing:
    t = np.radians(np.arange(6) * 60 + 30)
    centers = zip(0.42 * np.cos(t), 0.42 * np.sin(t) - 0.3, strict=True)
    return tuple(("body", oval(x, y, 0.31)) for x, y in centers)


def _person(clothes: Role, collar: Role) -> Drawing:
    return (
        (clothes, curve(-0.8, 1, -0.72, 0.62, -0.3, 0.42, 0.3, 0.42, 0.72, 0.62, 0.8, 1, 0, 1.02)),
        (collar, poly(-0.24, 0.44, 0.24, 0.44, 0, 0.8)),
        (SKIN, oval(0, 0.08, 0.42, 0.46)),
        *both((50, 45, 55), oval(0.16, 0.06, 0.055, 0.075)),
        ((190, 90, 85), oval(0, 0.26, 0.14, 0.09, 0, 180)),
    )


OBJECTS: dict[str, Drawing] = {
    "star": (("body", _star()),),
    "heart": (("body", _heart()), ("shine", oval(-0.5, -0.42, 0.16, 0.12))),
    "house": (
        ("dark", box(0.38, -0.85, 0.62, -0.3)),
        ("body", box(-0.74, -0.15, 0.74, 0.95)),
        ("body", poly(-1.02, -0.08, 0, -1, 1.02, -0.08)),
        ("ink", box(-1.02, -0.14, 1.02, -0.06)),
        ("ink", box(-0.5, 0.45, -0.16, 0.95)),
        ("ink", box(0.24, 0.26, 0.5, 0.52)),
    ),
    "tree": (
        (BARK, box(-0.16, 0.5, 0.16, 1)),
        ("body", poly(-0.88, 0.68, 0, -0.3, 0.88, 0.68)),
        ("body", poly(-0.7, 0.18, 0, -0.66, 0.7, 0.18)),
        ("body", poly(-0.5, -0.3, 0, -1.02, 0.5, -0.3)),
    ),
    "car": (
        ("body", poly(-0.66, 0.1, -0.42, -0.58, 0.34, -0.58, 0.68, 0.1)),
        ("body", curve(-1, 0.45, -0.96, 0, -0.5, -0.06, 0.6, -0.06, 1, 0.1, 1, 0.45, 0.5, 0.5)),
        ("ink", poly(-0.46, -0.05, -0.3, -0.42, -0.06, -0.42, -0.06, -0.05)),
        ("ink", poly(0.08, -0.05, 0.08, -0.42, 0.28, -0.42, 0.48, -0.05)),
        *both("ink", oval(0.54, 0.45, 0.28)),
        *both((190, 190, 195), oval(0.54, 0.45, 0.12)),
    ),
    "boat": (
        ("ink", stroke(0.1, -0.04, -1, -0.04, 0.5)),
        ("body", poly(0.06, -0.95, 0.86, 0.26, 0.06, 0.26)),
        ("body", poly(-0.14, -0.7, -0.14, 0.26, -0.8, 0.26)),
        ("dark", curve(-1, 0.42, 0, 0.46, 1, 0.42, 0.8, 0.82, 0.3, 0.95, -0.4, 0.95, -0.8, 0.8)),
    ),
    "fish": (
        ("dark", curve(-0.1, -0.4, 0.1, -0.82, 0.5, -0.4, 0.2, -0.2)),
        ("body", poly(-0.4, 0, -1.02, -0.62, -0.84, 0, -1.02, 0.62)),
        ("body", oval(0.2, 0.02, 0.82, 0.56)),
        ("dark", curve(0.02, 0.1, -0.3, 0.4, 0.14, 0.36)),
        ((250, 250, 250), oval(0.62, -0.1, 0.16)),
        ("ink", oval(0.66, -0.1, 0.09)),
    ),
    "bird": (
        ("ink", stroke(0.05, -0.18, 0.5, -0.18, 1)),
        ("ink", stroke(0.05, 0.2, 0.5, 0.2, 1)),
        (BEAK, poly(0.74, -0.58, 1.08, -0.38, 0.74, -0.2)),
        ("body", poly(-0.4, 0, -1.05, -0.32, -0.98, 0.24, -0.4, 0.4)),
        ("body", oval(-0.06, 0.16, 0.66, 0.5)),
        ("body", oval(0.46, -0.42, 0.4)),
        ("dark", curve(0.16, 0, -0.1, -0.12, -0.62, 0.06, -0.3, 0.4, 0.1, 0.36)),
        ("ink", oval(0.56, -0.48, 0.1)),
    ),
    "cat": (
        *both("body", poly(0.88, 0, 0.84, -0.98, 0.2, -0.45)),
        ("body", oval(0, 0.16, 0.9, 0.74)),
        *both("dark", poly(0.72, -0.36, 0.72, -0.74, 0.42, -0.5)),
        *both("ink", oval(0.36, 0.06, 0.12, 0.18)),
        ("ink", poly(-0.11, 0.36, 0.11, 0.36, 0, 0.5)),
        *both("ink", stroke(0.03, 0.4, 0.4, 1, 0.32)),
        *both("ink", stroke(0.03, 0.4, 0.5, 0.98, 0.56)),
    ),
    "flower": (
        (LEAF, stroke(0.14, 0, 0, 0, 1)),
        (LEAF, curve(0.02, 0.85, 0.3, 0.48, 0.68, 0.46, 0.4, 0.8)),
        (LEAF, curve(-0.02, 0.95, -0.3, 0.58, -0.68, 0.56, -0.4, 0.9)),
        *_petals(),
        ("dark", oval(0, -0.3, 0.24)),
    ),
    "balloon": (
        ("ink", stroke(0.03, 0, 0.6, 0.1, 0.72, -0.08, 0.86, 0.04, 1.02)),
        ("dark", poly(0, 0.42, 0.18, 0.66, -0.18, 0.66)),
        ("body", curve(0, -1.02, 0.58, -0.82, 0.74, -0.3, 0.44, 0.24, 0, 0.52,
                       -0.44, 0.24, -0.74, -0.3, -0.58, -0.82)),
        ("shine", oval(-0.34, -0.56, 0.13, 0.2)),
    ),
    "umbrella": (
        ("ink", stroke(0.12, 0, -1.02, 0, 0.7)),
        ("ink", _band(oval(-0.2, 0.7, 0.26, 0.3, 0, 180), oval(-0.2, 0.7, 0.14, 0.17, 0, 180))),
        ("body", _canopy()),
        *both("dark", _band(oval(0, 0.12, 0.36, 0.98, 180, 270),
                            oval(0, 0.12, 0.24, 0.98, 180, 270))),
    ),
}  # fmt: skip

FIGURES: dict[str, Drawing] = {  # landmarks and characters
    "tower": (
        (STONE, poly(-0.42, 1, -0.32, -0.5, 0.32, -0.5, 0.42, 1)),
        (STONE, box(-0.48, -0.82, 0.48, -0.5)),
        *((STONE, box(x, -1, x + 0.2, -0.8)) for x in (-0.48, -0.1, 0.28)),
        (SHADE, poly(0.12, -0.5, 0.32, -0.5, 0.42, 1, 0.16, 1)),
        (GLASS, box(-0.1, -0.3, 0.1, 0.05)),
        (GLASS, np.concatenate([oval(0, 0.7, 0.16, 0.16, 180, 360), poly(0.16, 1, -0.16, 1)])),
    ),
    "bridge": (
        (SHADE, box(-1, 0.1, 1, 0.3)),
        *both(ROOF, box(0.42, -0.75, 0.58, 0.95)),
        *both(ROOF, stroke(0.05, 0.5, -0.7, 0.75, -0.2, 1, 0.1)),
        (ROOF, stroke(0.06, -0.5, -0.7, -0.3, -0.2, 0, 0.02, 0.3, -0.2, 0.5, -0.7)),
        *((ROOF, stroke(0.03, x, -0.2, x, 0.1)) for x in (-0.75, -0.3, 0.3, 0.75)),
    ),
    "dome": (
        (STONE, box(-0.9, 0.3, 0.9, 1)),
        ((120, 160, 160), oval(0, 0.3, 0.66, 0.86, 180, 360)),
        ((120, 160, 160), box(-0.08, -0.85, 0.08, -0.5)),
        (BEAK, stroke(0.06, 0, -1, 0, -0.8)),
        (SHADE, box(-0.98, 0.26, 0.98, 0.4)),
        *((GLASS, box(x, 0.52, x + 0.18, 1)) for x in (-0.72, -0.4, -0.09, 0.22, 0.54)),
    ),
    "arch": (
        (STONE, np.concatenate([poly(-0.85, 1, -0.85, -0.75, 0.85, -0.75, 0.85, 1, 0.4, 1),
                                oval(0, 0.1, 0.4, 0.45, 360, 180), poly(-0.4, 1)])),
        (SHADE, box(-0.95, -0.95, 0.95, -0.72)),
        (SHADE, box(-0.85, -0.5, 0.85, -0.42)),
        *both(SHADE, box(0.55, -0.25, 0.72, 0.9)),
    ),
    "windmill": (
        (STONE, poly(-0.42, 1, -0.26, -0.2, 0.26, -0.2, 0.42, 1)),
        (ROOF, oval(0, -0.2, 0.3, 0.34, 180, 360)),
        (GLASS, box(-0.12, 0.66, 0.12, 1)),
        (GLASS, box(-0.08, 0.15, 0.08, 0.38)),
        *both((250, 245, 235), poly(0, -0.3, 0.78, -1, 0.98, -0.8, 0.1, -0.2)),
        *both((250, 245, 235), poly(0, -0.2, 0.78, 0.5, 0.98, 0.3, 0.1, -0.3)),
        (BARK, oval(0, -0.25, 0.1)),
    ),
    "lighthouse": (
        ((245, 240, 235), poly(-0.4, 1, -0.24, -0.45, 0.24, -0.45, 0.4, 1)),
        ((200, 70, 65), poly(-0.284, -0.05, -0.244, -0.4, 0.244, -0.4, 0.284, -0.05)),
        ((200, 70, 65), poly(-0.36, 0.65, -0.32, 0.28, 0.32, 0.28, 0.36, 0.65)),
        (GLASS, box(-0.32, -0.52, 0.32, -0.42)),
        ((255, 230, 140), box(-0.17, -0.76, 0.17, -0.52)),
        ((200, 70, 65), poly(-0.26, -0.76, 0, -1.02, 0.26, -0.76)),
        *both((255, 240, 180), poly(0.24, -0.68, 1, -0.9, 1, -0.5, 0.24, -0.62)),
    ),
    "tricorn": (
        *_person((95, 40, 45), (235, 225, 205)),
        ((40, 38, 48), curve(-0.95, -0.2, -0.5, -0.5, -0.3, -0.85,
                              0.3, -0.85, 0.5, -0.5, 0.95, -0.2, 0, -0.1)),
        ((245, 245, 240), oval(0, -0.48, 0.15, 0.14)),
        ((40, 38, 48), oval(0.16, 0.06, 0.13, 0.11)),
        ((40, 38, 48), stroke(0.05, -0.4, -0.1, 0.42, 0.1)),
    ),
    "crown": (
        ((110, 70, 45), oval(0, 0.12, 0.56, 0.56)),
        *_person((150, 50, 110), (245, 240, 235)),
        ((235, 190, 60), poly(-0.5, -0.2, -0.6, -0.9, -0.26, -0.56, 0, -1,
                               0.26, -0.56, 0.6, -0.9, 0.5, -0.2)),
        ((200, 50, 70), oval(0, -0.36, 0.09)),
        *both((60, 110, 190), oval(0.32, -0.34, 0.07)),
    ),
    "cone": (
        *_person((70, 60, 130), (70, 60, 130)),
        ((235, 235, 235), poly(-0.4, 0.2, 0.4, 0.2, 0.2, 0.7, 0, 0.98, -0.2, 0.7)),
        ((190, 90, 85), oval(0, 0.3, 0.12, 0.07, 0, 180)),
        ((70, 60, 130), poly(-0.5, -0.18, 0.08, -1.06, 0.5, -0.18)),
        ((70, 60, 130), oval(0, -0.18, 0.78, 0.13)),
        ((245, 215, 90), oval(-0.06, -0.45, 0.1)),
    ),
    "helmet": (
        *_person((225, 228, 235), (190, 195, 205)),
        ((225, 228, 235), oval(0, -0.02, 0.72, 0.74)),
        ((60, 80, 110), oval(0, 0.02, 0.54, 0.5)),
        (SKIN, oval(0, 0.1, 0.36, 0.38)),
        *both((50, 45, 55), oval(0.14, 0.08, 0.05, 0.07)),
        ((215, 70, 60), box(0.2, 0.68, 0.46, 0.86)),
    ),
    "toque": (
        *_person((245, 245, 245), (200, 60, 60)),
        ((250, 250, 250), box(-0.42, -0.6, 0.42, -0.16)),
        ((250, 250, 250), curve(-0.5, -0.5, -0.74, -0.8, -0.36, -1.02, 0, -0.98,
                                0.36, -1.02, 0.74, -0.8, 0.5, -0.5)),
        ((90, 60, 45), curve(-0.26, 0.2, 0, 0.15, 0.26, 0.2, 0, 0.24)),
    ),
    "cowboy": (
        *_person((75, 105, 150), (200, 60, 60)),
        ((140, 95, 60), curve(-0.4, -0.2, -0.42, -0.8, -0.1, -0.78,
                               0.1, -0.78, 0.42, -0.8, 0.4, -0.2)),
        ((140, 95, 60), curve(-1, -0.42, -0.5, -0.2, 0.5, -0.2, 1, -0.42, 0.6, -0.04, -0.6, -0.04)),
        ((70, 45, 35), box(-0.42, -0.36, 0.42, -0.24)),
    ),
}  # fmt: skip
