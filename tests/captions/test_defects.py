"""Each defect is found where it is, and nowhere else."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sgv_lab.captions.convert import Captions, convert
from sgv_lab.captions.defects import check_image, defects
from sgv_lab.errors import LabError

PROSE = "A small dog runs over a green lawn. It carries a red ball in its mouth."


def captions(tmp_path: Path, texts: list[str], **more: str) -> Captions:
    rows = [
        {"id": str(i), "image": f"{i}.png", "conversations": [{"from": "gpt", "value": text}]}
        | more
        for i, text in enumerate(texts)
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    return convert(path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("empty", " \n"),
        ("over_long", PROSE + " No end is in sight." * 500),
        ("list_form", "The image shows:\n- a dog\n- a ball."),
        ("list_form", "The image shows:\n1. a dog\n2. a ball."),
        ("citation", "I found nothing[^1^][^2^] about it."),
        ("prompt_leakage", "The image does not contain any imaginary content."),
        ("refusal", "I'm sorry, but I can't help with that."),
        ("refusal", "I am unable to see an image above."),
        ("refusal", "I couldn't find any relevant information about it from my search results."),
        ("truncated", "A dog runs over a lawn. It carries a red"),
        ("truncated", "一只狗跑过草坪。它带着一个红"),
        ("unpunctuated", "a dog on a lawn"),
        ("unpunctuated", "一只狗跑过草坪"),
        ("repeated_sentence", f"{PROSE} A cat looks on from the wall. {PROSE}"),
    ],
)
def test_a_defect_is_found(tmp_path: Path, kind: str, text: str) -> None:
    found = defects(captions(tmp_path, [PROSE, text, "A cat sleeps."]))
    assert found[kind].count == 1
    assert found[kind].examples[0]["record"] == 1
    assert found[kind].examples[0]["id"] == "1"
    others = {name for name, one in found.items() if one.count} - {kind}
    assert others <= {"repeated_sentence"} if kind == "over_long" else not others


def test_sound_captions_have_none(tmp_path: Path) -> None:
    texts = [PROSE, 'A sign says "STOP."', "Is it a 3.5 m boat? It is!", "- a dash opens it.",
             "一只红色的球放在桌子上。旁边有一只猫！", "「球は赤い？」",
             "a price of ３．５ yen｡"]  # fmt: skip
    assert not any(one.count for one in defects(captions(tmp_path, texts)).values())


def test_repetition_counts_all_but_the_first(tmp_path: Path) -> None:
    found = defects(captions(tmp_path, [PROSE, PROSE, "A cat.", PROSE], id="same"))
    assert found["repeated_caption"].count == 2
    assert [e["record"] for e in found["repeated_caption"].examples] == [1, 3]
    assert found["duplicate_id"].count == 3


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_every_bad_image_is_told_apart(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(outside)
    Image.new("RGB", (64, 48), "red").save(root / "good.jpg")
    (root / "cut.jpg").write_bytes((root / "good.jpg").read_bytes()[:-200])
    (root / "zero.png").write_bytes(b"")
    (root / "text.png").write_text("no image")
    (root / "nothing.png").write_bytes(png(0, 0))
    (root / "bomb.png").write_bytes(png(60_000, 60_000))
    (root / "big.png").write_bytes(png(10_000, 10_000))
    (root / "link.png").symlink_to(outside)
    (root / "folder.png").mkdir()
    expected = {
        "good.jpg": None,
        "absent.png": "missing_image",
        "good.jpg/below.png": "missing_image",
        "cut.jpg": "corrupt_image",
        "zero.png": "corrupt_image",
        "text.png": "corrupt_image",
        "nothing.png": "corrupt_image",
        "folder.png": "corrupt_image",
        "bomb.png": "unsafe_image",
        "big.png": "unsafe_image",
        "link.png": "unsafe_image",
        "../secret.png": "unsafe_image",
        str(outside): "unsafe_image",
    }
    found = {name: check_image(root, name) for name in expected}
    assert {name: one and one[0] for name, one in found.items()} == expected
    assert "bomb" in found["bomb.png"][1]


def test_images_are_counted_by_record(tmp_path: Path) -> None:
    for i in (0, 2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    found = defects(captions(tmp_path, [PROSE, "A cat.", "A cow."]), tmp_path)
    assert found["missing_image"].count == 1
    assert found["missing_image"].examples[0] == {
        "record": 1,
        "id": "1",
        "snippet": "1.png: no such file",
    }
    with pytest.raises(LabError, match="is no folder"):
        defects(captions(tmp_path, [PROSE]), tmp_path / "0.png")


@pytest.mark.reference
def test_workers_who_saw_no_image(reference: Path) -> None:
    """COCO's own accidents, against a plain search of the official file."""
    path = reference / "data/coco/annotations/captions_val2017.json"
    found = defects(convert(path), show=99)["refusal"]
    phrases = ("unable to see", "there is no image", "there is no picture", "there is no photo")
    truth = {
        str(a["id"])
        for a in json.loads(path.read_text())["annotations"]
        if any(phrase in a["caption"].lower() for phrase in phrases)
    }
    assert found.count > 6
    assert {example["id"] for example in found.examples} == truth
