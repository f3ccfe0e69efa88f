"""What each kind of image file gives, and which links are followed."""

from pathlib import Path

import numpy as np
import pytest
from image_kinds import make_broken, make_cut, make_odd, noise
from PIL import Image

from sgv_lab import images
from sgv_lab.errors import LabError
from sgv_lab.files import files_below, sha256
from sgv_lab.images import decode_image, image_kinds, image_problem, load_image
from sgv_lab.training.preprocessing import open_image


def refusal(root: Path, name: str) -> str:
    with pytest.raises(LabError) as caught:
        load_image(root, name)
    with pytest.raises(LabError) as trained:
        open_image(root, name, "record_9")
    assert str(trained.value).startswith(f"record 'record_9', {name}: {caught.value}")
    return str(caught.value)


def problem_of(root, name):
    return image_problem(image_kinds(root, name))


def test_what_a_name_or_header_tells_is_found_without_decoding(tmp_path, monkeypatch):
    root = tmp_path / "data"
    reasons = make_broken(root)
    noise().save(tmp_path / "secret.png")
    reasons |= dict.fromkeys(
        ("../secret.png", "a/../../secret.png", str(tmp_path / "secret.png"), "", "a\0b.png",
         "..\\secret.png", "\\secret.png", "C:\\secret.png", "C:secret.png"),
        "unsafe: leads out of the root")  # fmt: skip
    reasons |= dict.fromkeys(("none.png", "page.jpg/x.png", "\ud800.png"), "missing: no such file")
    reasons |= {".": "missing: a folder", "x" * 300: "missing: "}
    for name, reason in reasons.items():
        assert refusal(root, name).startswith(reason), name
        kind = reason.partition(":")[0]
        assert list(image_kinds(root, name)) == [kind], name
    monkeypatch.setattr(Image.Image, "load", None)
    for name, reason in reasons.items():
        problem = problem_of(root, name)
        assert problem.startswith(reason) and str(tmp_path) not in problem


def test_what_pillow_warns_of_is_read_and_what_it_refuses_is_refused(tmp_path, monkeypatch):
    """Twice the size that it warns from, as for the official code."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    noise(0, (40, 50)).save(tmp_path / "large.png")
    noise(0, (40, 51)).save(tmp_path / "bomb.png")
    assert problem_of(tmp_path, "large.png") is None
    assert load_image(tmp_path, "large.png")[1].size == (40, 50)
    assert refusal(tmp_path, "bomb.png") == "unsafe: a decompression bomb"


def test_what_is_cut_short_is_found_by_decoding(tmp_path):
    for name, reason in make_cut(tmp_path).items():
        assert problem_of(tmp_path, name).startswith(reason)
        assert refusal(tmp_path, name).startswith(reason)
        assert list(image_kinds(tmp_path, name)) == ["corrupt"]


def test_all_else_is_read_as_the_official_code_reads_it_and_counted(tmp_path):
    for name, trait in make_odd(tmp_path).items():
        assert problem_of(tmp_path, name) is None
        data, image = load_image(tmp_path, name)
        assert data == (tmp_path / name).read_bytes()
        with Image.open(tmp_path / name) as official:
            expected = np.asarray(official.convert("RGB"))
        assert np.array_equal(np.asarray(image), expected), name
        assert np.array_equal(np.asarray(open_image(tmp_path, name)), expected), name
        assert np.array_equal(np.asarray(decode_image(data)), expected), name
        assert list(image_kinds(tmp_path, name)) == ([trait] if trait else []), name
        # a file that others show otherwise is sent to nobody as it is
        assert (image.format is None) == (trait in ("deep", "animated", "cmyk"))
    _, phone = load_image(tmp_path, "phone.jpg")
    assert phone.format == "JPEG" and Image.open(tmp_path / "phone.jpg").n_frames == 3


def test_a_phones_photo_whose_second_image_is_cut_is_whole(tmp_path):
    make_odd(tmp_path)
    whole = (tmp_path / "phone.jpg").read_bytes()
    (tmp_path / "phone.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    load_image(tmp_path, "phone.jpg")
    (tmp_path / "phone.jpg").write_bytes(whole[: len(whole) // 6])
    assert refusal(tmp_path, "phone.jpg").startswith("corrupt: ")


def test_sizes_at_the_limits(tmp_path, monkeypatch):
    for size, fits in {(8, 8): True, (7, 8): False, (8, 1600): True, (8, 1601): False}.items():
        Image.new("RGB", size).save(tmp_path / "a.png")
        assert (problem_of(tmp_path, "a.png") is None) == fits
    noise().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "BYTES", 100)
    assert problem_of(tmp_path, "a.png").startswith("size: 9,")
    with pytest.raises(LabError, match="size: "):
        decode_image((tmp_path / "a.png").read_bytes())


@pytest.fixture
def linked(tmp_path) -> Path:
    """A root that is a link, below it links of every kind."""
    disk, blobs, data = tmp_path / "disk", tmp_path / "hub" / "blobs", tmp_path / "data"
    for folder in (disk / "coco" / "train2017", disk / "sam", blobs, data / "own"):
        folder.mkdir(parents=True)
    for number, path in enumerate((disk / "coco" / "train2017" / "1.jpg", disk / "sam" / "2.png",
                                   data / "own" / "3.png")):  # fmt: skip
        noise(number).save(path)
    noise(4).save(blobs / "9f86d081", "PNG")
    snapshot = tmp_path / "hub" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "4.png").symlink_to("../../blobs/9f86d081")
    (data / "coco").symlink_to(disk / "coco")  # a folder
    (disk / "again").symlink_to("sam")
    (data / "sam").symlink_to(disk / "again")  # a chain
    (data / "hub").symlink_to("../hub/snapshots/main")
    (data / "own" / "5.png").symlink_to("3.png")  # a file
    (data / "own" / "up").symlink_to("..")  # in a circle
    (data / "own" / "root").symlink_to(tmp_path / "root")
    (data / "own" / "itself").symlink_to("itself")
    (tmp_path / "root").symlink_to("data")
    return tmp_path / "root"


NAMES = ["coco/train2017/1.jpg", "hub/4.png", "own/3.png", "own/5.png", "sam/2.png"]


def test_links_are_followed_wherever_an_image_is_opened(linked):
    for name in [*NAMES, "own/up/own/root/sam/2.png"]:
        assert problem_of(linked, name) is None
        assert image_kinds(linked, name) == {}
        load_image(linked, name)
        open_image(linked, name)


def test_folders_are_walked_through_links_each_once(linked):
    found = sorted(path.relative_to(linked).as_posix() for path in files_below(linked))
    assert found == sorted([*NAMES, "own/itself"])
    assert list(files_below(linked / "none")) == []
    before = sha256(linked)
    noise(7).save(linked / "sam" / "2.png")
    assert sha256(linked) != before


def test_two_links_to_each_other_end(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).mkdir()
        (tmp_path / one / "x.png").touch()
        (tmp_path / one / other).symlink_to(f"../{other}")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path))
    assert found == ["a/x.png", "b/x.png"]


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "coco").symlink_to("gone")
    assert problem_of(tmp_path, "coco/train2017/1.jpg") == (
        "missing: coco is a link that leads nowhere"
    )
    (tmp_path / "root").symlink_to("gone")
    assert problem_of(tmp_path / "root", "1.jpg") == (
        "missing: the root is a link that leads nowhere"
    )
