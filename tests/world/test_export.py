"""Export: the official layout, whole or not at all, readable by others' means."""

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.world import export as module
from sgv_lab.world import vocabulary as v
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.export import export
from sgv_lab.world.render import render
from sgv_lab.world.scene import scene


def test_images_and_truth(tmp_path):
    folder = export(tmp_path / "world", scenes=40, split="eval", size=64, seed=100)
    rows = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == list(range(100, 140))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png")) == sorted(
        row["image"] for row in rows
    )
    for row in rows:
        assert row["image"].startswith(v.SOURCES[row["source"]].prefix + "/eval-")
        s = scene(row["seed"], "eval")
        assert [t["kind"] for t in row["things"]] == [t.kind for t in s.things]
        with Image.open(folder / row["image"]) as image:
            assert image.format == "PNG"
            assert (np.asarray(image) == np.asarray(render(s, 64))).all()


def test_captions_records_and_questions(tmp_path):
    folder = export(tmp_path / "world", scenes=25, size=32)
    scenes = {s.image_name: s for s in (scene(seed) for seed in range(25))}
    for annotator, name in module.CAPTIONS.items():
        records = json.loads((folder / name).read_text())
        assert [r["image"] for r in records] == list(scenes)
        for r in records:
            human, gpt = r["conversations"]
            assert human["from"] == "human" and human["value"].count("<image>") == 1
            said = caption(scenes[r["image"]], ANNOTATORS[annotator], 0)
            assert gpt == {"from": "gpt", "value": said}

    coco = json.loads((folder / "annotations/captions_train2017.json").read_text())
    assert Counter(a["image_id"] for a in coco["annotations"]) == dict.fromkeys(range(25), 5)
    assert all((folder / image["file_name"]).is_file() for image in coco["images"])

    instruct = json.loads((folder / "instruct.json").read_text())
    assert len({r["id"] for r in instruct}) == len(instruct) == 4 * 25
    for r in instruct:
        assert ("image" in r) == ("<image>" in r["conversations"][0]["value"])
        assert [turn["from"] for turn in r["conversations"]][:2] == ["human", "gpt"]

    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert len({row["question_id"] for row in rows}) == len(rows)
    assert {row["form"] for row in rows} == {"open", "yesno", "choice"}
    assert {row["image"] for row in rows} == set(scenes)


def test_nothing_is_left_of_a_failed_export(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "render", fail)
    with pytest.raises(OSError, match="no space left"):
        export(tmp_path / "world", scenes=3)
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path):
    kept = tmp_path / "mine.txt"
    kept.write_text("mine")
    with pytest.raises(LabError, match="already there"):
        export(tmp_path, scenes=3)
    assert kept.read_text() == "mine"
    for bad in ({"scenes": 0}, {"size": 4}, {"seed": -1}, {"split": "test"}):
        with pytest.raises(LabError, match="cannot export"):
            export(tmp_path / "world", **bad)
    assert list(tmp_path.iterdir()) == [kept]


def test_command(tmp_path):
    out = tmp_path / "world"
    args = ["world", "export", str(out), "--scenes", "3", "--split", "novel", "--size", "64"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert len(list(out.rglob("novel-*.png"))) == 3
    again = CliRunner().invoke(main, args)
    assert again.exit_code == 1
    assert "already there" in again.output
