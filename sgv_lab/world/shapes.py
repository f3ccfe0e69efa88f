"""Outlines of everything drawn: the 12 kinds of objects, landmarks and characters.

``drawings.json`` holds a list of parts a drawing, painted in order: role, outline (a key of
OUTLINES, "both ..." with its mirror image), and the outline's numbers, in [-1, 1], y downwards. A
role is an RGB colour or its name, or one of "body" (the object's colour with its pattern), "dark"
(a darker tint), "ink" (the outline's colour) and "shine" (a lighter tint).
"""

import json
from pathlib import Path

import numpy as np

Points = np.ndarray
Role = str | tuple[int, int, int]
Drawing = tuple[tuple[Role, Points], ...]


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


def _band(
    cx: float, cy: float, rx: float, ry: float, rx1: float, ry1: float, start: float, end: float
) -> Points:
    inner = oval(cx, cy, rx1, ry1, start, end)
    return np.concatenate([oval(cx, cy, rx, ry, start, end), inner[::-1]])


def _canopy() -> Points:
    scallops = [oval(x, 0.12, 1 / 3, 0.16, 0, -180) for x in (2 / 3, 0, -2 / 3)]
    return np.concatenate([oval(0, 0.12, 1, 0.98, 180, 360), *scallops])


def _petal(number: int) -> Points:
    t = np.radians(number * 60 + 30)
    return oval(0.42 * np.cos(t), 0.42 * np.sin(t) - 0.3, 0.31)


def _gate() -> Points:
    opening = oval(0, 0.1, 0.4, 0.45, 360, 180)
    left, right = poly(-0.4, 1), poly(-0.85, 1, -0.85, -0.75, 0.85, -0.75, 0.85, 1, 0.4, 1)
    return np.concatenate([right, opening, left])


def _doorway() -> Points:
    return np.concatenate([oval(0, 0.7, 0.16, 0.16, 180, 360), poly(0.16, 1, -0.16, 1)])


_OURS = (poly, box, oval, curve, stroke, _band, _canopy, _petal, _gate, _doorway)
OUTLINES = {outline.__name__.strip("_"): outline for outline in _OURS}
_TABLE = json.loads(Path(__file__).with_name("drawings.json").read_text(encoding="utf-8"))
COLORS: dict[str, tuple[int, int, int]] = {k: tuple(rgb) for k, rgb in _TABLE["colors"].items()}


def _drawing(parts: list[list]) -> Drawing:
    drawn: list[tuple[Role, Points]] = []
    for role, outline, *numbers in parts:
        role = COLORS.get(role, role) if isinstance(role, str) else tuple(role)
        points = OUTLINES[outline.removeprefix("both ")](*numbers)
        drawn.append((role, points))
        if outline.startswith("both "):
            drawn.append((role, points * [-1, 1]))
    return tuple(drawn)


OBJECTS = {name: _drawing(parts) for name, parts in _TABLE["objects"].items()}
FIGURES = {name: _drawing(parts) for name, parts in _TABLE["figures"].items()}
"""Landmarks and characters."""
