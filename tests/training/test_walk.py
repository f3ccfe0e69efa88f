"""CONTRIBUTING.md walks one caption from its file to the loss: a training passes all it names."""

import json
import re
import sys
from pathlib import Path

from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import shipped
from sgv_lab.training.config import base
from sgv_lab.training.trainer import train
from sgv_lab.world.records import caption_record
from sgv_lab.world.render import render
from sgv_lab.world.scene import MINIATURE, scene

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def named() -> list[str]:
    """The functions and classes of the walk, by their whole names."""
    part = PAGE.read_text().split("### One caption")[1].split("\n## ")[0]
    found = []
    for name in re.findall(r"`([\w.]+)`", part):
        found.append(name if "." in name else f"{found[-1].rpartition('.')[0]}.{name}")
    return found


def test_a_training_passes_all_that_the_walk_names(tmp_path):
    drawn = scene(3, "train", "coco", MINIATURE)
    record = caption_record(drawn, "gpt4_vision")
    (tmp_path / record["image"]).parent.mkdir(parents=True)
    render(drawn, 64).save(tmp_path / record["image"])
    (tmp_path / "records.json").write_text(json.dumps([record]))
    passed = set()

    def note(frame, event, _):
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            passed.add(f"{module}.{frame.f_code.co_qualname}")

    model, processor = checkpoints.load(shipped("llava-1.5-7b"))
    recipe = base("sft", {"max_steps": 1, "samples_per_step": 1, "precision": "fp32"})
    sys.setprofile(note)
    try:
        train(model, processor, tmp_path / "records.json", tmp_path, recipe, tmp_path / "out", 0,
              workers=0, progress=False)  # fmt: skip
    finally:
        sys.setprofile(None)
    steps = named()
    assert 10 <= len(steps) <= 12
    assert [one for one in steps if not any(f"{p}.".startswith(f"{one}.") for p in passed)] == []
