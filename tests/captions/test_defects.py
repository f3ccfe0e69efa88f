"""Each defect is found where it is, and nowhere else."""

import json
from pathlib import Path

import pytest
from image_kinds import make_broken, make_cut, make_odd, noise
from PIL import Image

from sgv_lab.captions.convert import Captions, convert
from sgv_lab.captions.defects import KINDS, defects
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


def test_images_of_every_kind_are_counted(tmp_path: Path) -> None:
    kinds = {name: f"{words.partition(':')[0]}_image"
             for name, words in (make_broken(tmp_path) | make_cut(tmp_path)).items()}  # fmt: skip
    kinds |= {name: f"{kind}_image" for name, kind in make_odd(tmp_path).items() if kind}
    noise().save(tmp_path / "good.jpg")
    names = [*kinds, "good.jpg", "phone.jpg"]
    said = [{"from": "gpt", "value": PROSE}]
    rows = [{"id": name, "image": name, "conversations": said} for name in names]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    found = defects(convert(tmp_path / "x.json"), tmp_path, show=99)
    for kind in KINDS:
        if kind.endswith("_image"):
            seen = {str(e["snippet"]).partition(":")[0] for e in found[kind].examples}
            assert seen == {name for name, own in kinds.items() if own == kind}, kind
            assert found[kind].count == len(seen) > 0


def test_images_are_counted_by_record(tmp_path: Path) -> None:
    for i in (0, 2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
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
