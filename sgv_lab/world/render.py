"""Images of scenes, anti-aliased at any size, and their dense truth."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from sgv_lab.world import shapes
from sgv_lab.world import vocabulary as v
from sgv_lab.world.scene import Scene, Thing
from sgv_lab.world.scenery import VARIANTS, background, lit

_OVERSAMPLE = 8
_OUTLINE = 0.010  # of the image's side, outside the shape
_BOARDS = (  # sign board, lettering
    ((38, 92, 70), (250, 250, 240)),
    ((250, 246, 232), (150, 34, 40)),
    ((44, 62, 108), (252, 240, 200)),
    ((244, 206, 92), (44, 40, 46)),
)
_INK = (58, 50, 60)  # of signs, landmarks and characters
_SPECIAL = 0.235  # half the side of a landmark or character: just under a cell of the 4 x 4 grid
_TILES = 48  # of a mosaic, along each side


def render(scene: Scene, size: int = 64) -> Image.Image:
    """The (size, size) RGB image of a scene: the same scene and size give the same pixels."""
    image = background(scene.background, scene.light, scene.seed % VARIANTS, size).copy()
    if scene.sign:
        sign = _sign(scene.sign, scene.seed % len(_BOARDS), scene.light, size)
        _paste(image, sign, *scene.anchor)
    elif figure := scene.landmark or scene.character:
        _paste(image, _figure(figure, scene.light, size), *scene.anchor)
    for t in scene.things:
        _paste(image, _sprite(t.kind, t.color, t.radius, t.pattern, scene.light, size), t.x, t.y)
    return _painted(image, scene.style) if scene.style else image


def patch_truth(scene: Scene, grid: int = 4) -> dict[str, np.ndarray]:
    """Labels of a scene for dense supervision; every label is a vocabulary index + 1, 0 is none.

    "kind", "color", "size" and "pattern": (grid, grid) int64 of the object that covers the most
    of each patch, row by row from the top; with grid 4 each object has exactly one patch.
    "background", "light", "sign", "landmark", "character" and "style": () int64.
    """
    least = np.full((grid, grid), 0.05)  # of a patch must be covered
    most = np.stack([least, *(_cover(t, grid) for t in scene.things)]).argmax(0)
    truth = {}
    for field, words in v.LABELS.items():
        labels = [0] + [words.index(getattr(t, field)) + 1 for t in scene.things]
        truth[field] = np.array(labels)[most]
    for field, words in v.WHOLE.items():
        value = getattr(scene, field)
        truth[field] = np.array(0 if value is None else words.index(value) + 1)
    return truth


def _cover(thing: Thing, grid: int) -> np.ndarray:
    """(grid, grid) share of each patch that the object's silhouette covers."""
    pixels = 16  # along a patch's side
    size = grid * pixels
    mask = Image.new("L", (size, size))
    shape = _silhouette(thing.kind, thing.radius, size)
    mask.paste(shape, _corner(shape, thing.x, thing.y, size))
    return np.asarray(mask).reshape(grid, pixels, grid, pixels).mean((1, 3)) / 255


def _corner(sprite: Image.Image, x: float, y: float, size: int) -> tuple[int, int]:
    return round(x * size - sprite.width / 2), round(y * size - sprite.height / 2)


def _paste(image: Image.Image, sprite: Image.Image, x: float, y: float) -> None:
    image.paste(sprite, _corner(sprite, x, y, image.width), sprite)


class _Canvas:
    """A square for one drawing of ``radius`` (share of an image of ``size``), oversampled."""

    def __init__(self, radius: float, size: int) -> None:
        self.scale = radius * size * _OVERSAMPLE
        # with outline and shadow
        self.side = 2 * (int(radius * 1.1 * size) + 1 + round(0.03 * size))
        self.wide = self.side * _OVERSAMPLE
        self.line = max(1, round(_OUTLINE * size * _OVERSAMPLE))
        self.size = size

    def mask(self, points: np.ndarray, outline: bool = False) -> Image.Image:
        mask = Image.new("L", (self.wide, self.wide))
        draw = ImageDraw.Draw(mask)
        xy = [tuple(p) for p in points * self.scale + self.wide / 2]
        draw.polygon(xy, fill=255)
        if outline:
            draw.line([*xy, xy[0], xy[1]], fill=255, width=2 * self.line, joint="curve")
        return mask

    def silhouette(self, drawing: shapes.Drawing, outline: bool) -> Image.Image:
        whole = Image.new("L", (self.wide, self.wide))
        for _, points in drawing:
            whole = ImageChops.lighter(whole, self.mask(points, outline))
        return whole

    def paint(self, drawing: shapes.Drawing, paints: dict, light: str) -> Image.Image:
        """``paints`` gives an RGB colour or an image for every named role."""
        paint = Image.new("RGB", (self.wide, self.wide), paints["ink"])
        for role, points in drawing:
            fill = paints[role] if isinstance(role, str) else lit(role, light)
            paint.paste(fill, (0, 0, self.wide, self.wide), self.mask(points))
        return paint

    def finish(self, paint: Image.Image, drawing: shapes.Drawing) -> Image.Image:
        """The drawing's down-sampled RGBA sprite with a soft shadow below it."""
        small, alpha = (self.side, self.side), self.silhouette(drawing, outline=True)
        top = paint.resize(small, Image.Resampling.BOX)
        top.putalpha(alpha.resize(small, Image.Resampling.BOX))
        shadow = ImageChops.offset(top.getchannel("A"), 0, max(1, round(0.014 * self.size)))
        shadow = shadow.filter(ImageFilter.GaussianBlur(0.008 * self.size)).point(lambda a: a * 0.3)
        below = Image.new("RGBA", small, (20, 22, 40, 0))
        below.putalpha(shadow)
        return Image.alpha_composite(below, top)


def _mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round((1 - share) * p + share * q) for p, q in zip(a, b, strict=True))


@lru_cache(maxsize=8192)
def _sprite(
    kind: str, color: str, radius: float, pattern: str, light: str, pixels: int
) -> Image.Image:
    """An object's RGBA sprite for an image of ``pixels``, its centre in the middle."""
    canvas = _Canvas(radius, pixels)
    rgb = lit(v.COLORS[color], light)
    marked, dark = _mix(rgb, (18, 10, 24), 0.47), _mix(rgb, (18, 10, 24), 0.24)
    t = (np.arange(canvas.wide) + 0.5 - canvas.wide / 2) / (pixels * _OVERSAMPLE)
    marks = _pattern(pattern, *np.meshgrid(t, t))[..., None]
    height = np.clip(t / radius, -1, 1)[:, None, None]
    body = np.where(marks, marked, rgb) * (1 - 0.1 * np.maximum(height, 0))
    body += (255 - body) * 0.14 * np.maximum(-height, 0)
    paints = {
        "body": Image.fromarray(body.round().astype("uint8")),
        "dark": dark,
        "ink": _mix(rgb, (16, 12, 34), 0.78),
        "shine": _mix(rgb, (255, 255, 255), 0.6),
    }
    drawing = shapes.OBJECTS[kind]
    return canvas.finish(canvas.paint(drawing, paints, light), drawing)


def _pattern(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a pattern is dark; x and y as shares of the image's side, from the object's centre.

    Marks have the same width on small and large objects: about 2 pixels of 64.
    """
    if name == "striped":
        return (x + y) / 0.082 % 1 < 0.44
    if name == "dotted":
        return (x / 0.062 % 1 - 0.5) ** 2 + ((y / 0.062 + 0.5) % 1 - 0.5) ** 2 < 0.31**2
    if name == "checked":
        return (np.floor(x / 0.036) + np.floor(y / 0.036)) % 2 == 0
    return np.zeros_like(x, dtype=bool)


@lru_cache(maxsize=8192)
def _silhouette(kind: str, radius: float, pixels: int) -> Image.Image:
    canvas = _Canvas(radius, pixels)
    shape = canvas.silhouette(shapes.OBJECTS[kind], outline=False)
    return shape.resize((canvas.side, canvas.side), Image.Resampling.BOX)


@lru_cache(maxsize=256)
def _figure(name: str, light: str, size: int) -> Image.Image:
    drawing, canvas = shapes.FIGURES[name], _Canvas(_SPECIAL, size)
    return canvas.finish(canvas.paint(drawing, {"ink": lit(_INK, light)}, light), drawing)


@lru_cache(maxsize=512)
def _sign(word: str, board: int, light: str, size: int) -> Image.Image:
    """A board on a post, the word stretched to fill it: small images must stay readable."""
    canvas = _Canvas(_SPECIAL, size)
    ground, letters = (lit(c, light) for c in _BOARDS[board])
    post = shapes.COLORS["bark"]
    paints = {"ink": lit(_INK, light), "post": post, "rim": letters, "ground": ground}
    drawing = (
        ("post", shapes.box(-0.1, 0.4, 0.1, 1)),
        ("rim", shapes.box(-1.03, -0.75, 1.03, 0.5)),
        ("ground", shapes.box(-0.99, -0.71, 0.99, 0.46)),
    )
    font = ImageFont.load_default(200)
    x0, y0, x1, y1 = font.getbbox(word, stroke_width=6)
    text = Image.new("L", (int(x1 - x0), int(y1 - y0)))
    ImageDraw.Draw(text).text((-x0, -y0), word, fill=255, font=font, stroke_width=6)
    wide, high = 1.84 * canvas.scale, 0.96 * canvas.scale
    wide = min(wide, 1.3 * high * text.width / text.height)
    text = text.resize((round(wide), round(high)), Image.Resampling.LANCZOS)
    paint = canvas.paint(drawing, paints, light)
    top = round(canvas.wide / 2 - 0.125 * canvas.scale - high / 2)
    paint.paste(letters, ((canvas.wide - text.width) // 2, top), text)
    return canvas.finish(paint, drawing)


def _painted(image: Image.Image, style: str) -> Image.Image:
    """The image in an art style, in a frame."""
    size = image.width
    image = {"mosaic": _mosaic, "sketch": _sketch, "watercolor": _watercolor}[style](image)
    draw = ImageDraw.Draw(image)
    for width, rgb in ((0.032, (92, 66, 40)), (0.024, (188, 150, 84)), (0.010, (120, 88, 50))):
        draw.rectangle((0, 0, size - 1, size - 1), outline=rgb, width=max(1, round(width * size)))
    return image


def _noise(side: int) -> np.ndarray:
    """(side, side, 1) standard normal, the same every time."""
    return np.random.default_rng(7).standard_normal((side, side, 1))


def _mosaic(image: Image.Image) -> Image.Image:
    """Square tiles of uneven brightness."""
    tiles = np.asarray(image.resize((_TILES, _TILES), Image.Resampling.BOX))
    tiles = (tiles * (1 + 0.06 * _noise(_TILES))).clip(0, 255).astype("uint8")
    big = tiles.repeat(16, 0).repeat(16, 1)
    big[::16] = big[:, ::16] = big[1::16] = big[:, 1::16] = (150, 146, 140)
    return Image.fromarray(big).resize(image.size, Image.Resampling.BOX)


def _sketch(image: Image.Image) -> Image.Image:
    """Hatched pencil on paper; the tint of coloured pencil keeps colours tellable."""
    size = image.width
    color = np.asarray(image, dtype=float)
    gray = color.mean(2, keepdims=True)
    dy, dx = np.gradient(gray[..., 0])
    lines = np.clip(np.hypot(dx, dy)[..., None] / 90, 0, 1)
    y, x = np.mgrid[:size, :size] / size
    hatch = np.sin(2 * np.pi * 28 * (x + y))[..., None]
    tint = gray + 0.95 * (color - gray)
    paper = 250 - (250 - tint) * (0.84 + 0.14 * hatch)
    return Image.fromarray((paper * (1 - 0.4 * lines)).clip(0, 255).astype("uint8"))


def _watercolor(image: Image.Image) -> Image.Image:
    """Soft edges, brighter washes and the grain of paper."""
    size = image.width
    wash = image.filter(ImageFilter.ModeFilter(max(3, size // 64 | 1)))
    wash = ImageEnhance.Color(wash.filter(ImageFilter.GaussianBlur(size / 160))).enhance(1.25)
    grain = Image.fromarray((128 + 30 * _noise(64)[..., 0]).clip(0, 255).astype("uint8"))
    grain = np.asarray(grain.resize(image.size, Image.Resampling.BICUBIC), dtype=float)[..., None]
    paper = 255 - (255 - np.asarray(wash, dtype=float)) * (0.68 + grain / 900)
    return Image.fromarray(paper.clip(0, 255).astype("uint8"))
