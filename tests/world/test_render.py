"""Images: deterministic, any size, true to the scene, and tellable apart at 64 pixels."""

import io
import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sgv_lab.world import vocabulary as v
from sgv_lab.world.render import patch_truth, render
from sgv_lab.world.scene import Scene, Thing, scene

PALETTE = np.array(list(v.COLORS.values()), dtype=float)


def one(background="room", light="midday", seed=0, **thing) -> Scene:
    """A scene of a single object in the middle of a cell."""
    given = {"kind": "kite", "color": "red", "size": "large", "pattern": "plain", **thing}
    return Scene(seed, "eval", "coco", background, light, (Thing(x=0.375, y=0.375, **given),))


def pixels(s: Scene, size: int = 64) -> np.ndarray:
    """(size, size, 3) floats."""
    return np.asarray(render(s, size), dtype=float)


def empty(s: Scene, size: int = 64) -> np.ndarray:
    """The same image without its objects."""
    return pixels(replace(s, things=()), size)


def inside(t: Thing, size: int) -> np.ndarray:
    """(size, size) bool: the disc an object fills."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return np.hypot(x - t.x, y - t.y) < v.SIZES[t.size]


def seen_color(s: Scene, t: Thing, size: int = 64, share: float = 1 / 3) -> str:
    """The colour nearest to an object's brighter pixels: outline, marks and details are darker."""
    image = pixels(s, size)
    changed = np.abs(image - empty(s, size)).max(2) > 12
    own = image[changed & inside(t, size)]
    own = own[np.argsort(-own.max(1))][: max(1, int(share * len(own)))]
    return list(v.COLORS)[((own.mean(0) - PALETTE) ** 2).sum(1).argmin()]


@pytest.mark.parametrize("size", [32, 64, 97, 256])
def test_any_size(size):
    for seed, source in enumerate(v.SOURCES):
        image = render(scene(seed, "eval", source), size)
        assert (image.mode, image.size) == ("RGB", (size, size))


def test_sizes_show_the_same_image():
    for seed, source in enumerate(v.SOURCES):
        s = scene(seed, "train", source)
        large = render(s, 256).resize((64, 64), Image.Resampling.BOX)
        assert np.abs(np.asarray(large, dtype=float) - pixels(s)).mean() < 9, source


def test_an_image_handed_out_is_the_callers_own():
    s = one()
    before = pixels(s)
    render(s).paste((0, 0, 0), (0, 0, 64, 64))
    assert (pixels(s) == before).all()


def test_edges_are_anti_aliased():
    # a plain red thing on a wall: with hard edges there would be only a handful of colours
    assert len(np.unique(pixels(one())[16:32, 16:32].reshape(-1, 3), axis=0)) > 60


@pytest.mark.parametrize("light", v.LIGHTS)
def test_colors_can_be_told(light):
    scenes = [scene(seed, "eval", "sam") for seed in range(80)]
    plain = [
        replace(s, light=light, things=tuple(replace(t, pattern="plain") for t in s.things))
        for s in scenes
    ]
    right = [seen_color(s, t) == t.color for s in plain for t in s.things]
    assert np.mean(right) >= (0.99 if light == "midday" else 0.97), len(right)


def test_colors_can_be_told_under_patterns():
    scenes = [replace(scene(seed, "eval", "sam"), light="midday") for seed in range(80)]
    patterned = [(s, t) for s in scenes for t in s.things if t.pattern != "plain"]
    right = [seen_color(s, t, share=0.2) == t.color for s, t in patterned]
    assert np.mean(right) >= 0.95, len(right)


def test_every_object_stands_out_everywhere():
    """Every kind and colour differs clearly from every background, in every light."""
    for light, background, color in itertools.product(v.LIGHTS, v.BACKGROUNDS, v.COLORS):
        s = one(background, light, color=color, size="small", kind="ball")
        t = s.things[0]
        gap = np.abs(pixels(s) - empty(s)).max(2)[inside(t, 64)]
        assert np.quantile(gap, 0.6) > 40, (light, background, color)


@pytest.mark.parametrize("size", v.SIZES)
def test_kinds_differ_at_64_pixels(size):
    images = {k: pixels(one(kind=k, size=size))[14:34, 14:34] for k in v.KINDS}
    area = inside(one(size=size).things[0], 64).sum()
    for a, b in itertools.combinations(v.KINDS, 2):
        differing = (np.abs(images[a] - images[b]).max(2) > 40).sum()
        assert differing / area > 0.2, (a, b)


@pytest.mark.parametrize("size", v.SIZES)
def test_patterns_differ_at_64_pixels(size):
    for kind, color in itertools.product(v.KINDS, v.COLORS):
        shown = [pixels(one(kind=kind, color=color, size=size, pattern=p)) for p in v.PATTERNS]
        for a, b in itertools.combinations(shown, 2):
            assert (np.abs(a - b).max(2) > 25).sum() >= 5, (kind, color)


def test_backgrounds_and_lights_differ_in_every_variant():
    seen = {
        (b, light, seed): empty(one(b, light, seed))
        for b in v.BACKGROUNDS
        for light in v.LIGHTS
        for seed in range(3)
    }
    for (k1, a), (k2, b) in itertools.combinations(seen.items(), 2):
        if k1[:2] != k2[:2]:
            assert np.abs(a - b).mean() > 5, (k1, k2)


def test_words_on_signs_differ_at_64_pixels():
    s = scene(0, "eval", "textcaps")
    signs = {w: pixels(replace(s, sign=w, things=())) for w in v.SIGN_WORDS}
    for a, b in itertools.combinations(v.SIGN_WORDS, 2):
        assert (np.abs(signs[a] - signs[b]).max(2) > 80).sum() > 20, (a, b)


@pytest.mark.parametrize(
    ("source", "field", "values"),
    [
        ("landmark", "landmark", tuple(v.LANDMARKS)),
        ("celebrity", "character", tuple(v.CHARACTERS)),
        ("wikiart", "style", tuple(v.STYLES)),
    ],
)
def test_special_things_differ_at_64_pixels(source, field, values):
    s = scene(3, "eval", source)
    shown = [pixels(replace(s, **{field: value})) for value in values]
    for a, b in itertools.combinations(shown, 2):
        assert (np.abs(a - b).max(2) > 30).sum() > 80


@pytest.mark.parametrize("source", v.SOURCES)
def test_patch_truth_agrees_with_the_scene(source):
    for seed in range(60):
        s = scene(seed, "eval", source)
        truth = patch_truth(s)
        expected = {f: np.zeros((4, 4), int) for f in ("kind", "color", "size", "pattern")}
        for t in s.things:
            at = int(t.y * 4), int(t.x * 4)
            expected["kind"][at] = v.KINDS.index(t.kind) + 1
            expected["color"][at] = list(v.COLORS).index(t.color) + 1
            expected["size"][at] = list(v.SIZES).index(t.size) + 1
            expected["pattern"][at] = v.PATTERNS.index(t.pattern) + 1
        for field, labels in expected.items():
            assert truth[field].dtype == np.int64
            assert (truth[field] == labels).all(), (seed, field)
        assert truth["background"] == v.BACKGROUNDS.index(s.background) + 1
        assert truth["light"] == v.LIGHTS.index(s.light) + 1
        assert truth["sign"] == (v.SIGN_WORDS.index(s.sign) + 1 if s.sign else 0)
        assert truth["landmark"] == (list(v.LANDMARKS).index(s.landmark) + 1 if s.landmark else 0)
        assert truth["character"].shape == truth["style"].shape == ()


def test_fine_patch_truth_follows_the_pixels():
    """Where a fine patch is labelled, its pixels differ from the empty scene, and the reverse."""
    agree = []
    for seed in range(40):
        s = replace(scene(seed, "eval", "sam"), light="midday")
        changed = np.abs(pixels(s, 128) - empty(s, 128)).max(2) > 25
        share = changed.reshape(8, 16, 8, 16).mean((1, 3))
        labelled = patch_truth(s, 8)["kind"] > 0
        sure = (share > 0.3) | (share < 0.01)
        agree += list((labelled == (share > 0.3))[sure])
    assert np.mean(agree) > 0.99


def test_fast_enough_to_render_while_training():
    """Warm, an image and its truth cost no more than a few decodings of a PNG of that size."""
    scenes = [scene(seed) for seed in range(200)]
    files = []
    for s in scenes:
        file = io.BytesIO()
        render(s).save(file, "PNG")
        files.append(file.getvalue())
        patch_truth(s)

    def best(work) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    decoding = best(lambda: [Image.open(io.BytesIO(f)).convert("RGB") for f in files])
    drawing = best(lambda: [(render(s), patch_truth(s)) for s in scenes])
    print(f"drawing / decoding: {drawing / decoding:.2f}")
    assert drawing < 6 * decoding
