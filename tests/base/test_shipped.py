"""The miniature that comes with the package: whole, small, and it looks at the picture."""

import json

import pandas as pd
import pytest

from sgv_lab.base import abilities
from sgv_lab.errors import LabError
from sgv_lab.files import sha256
from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import ROOT, bases, shipped


def test_all_that_ships_stays_below_20_megabytes_and_is_what_its_manifest_says():
    assert sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file()) < 20e6
    folders = [path for path in ROOT.iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["weights_sha256"] == sha256(folder / "model.safetensors")


def test_a_family_that_does_not_ship_is_named():
    with pytest.raises(LabError, match=r"no miniature of 'qwen-vl-chat'.*models-root"):
        shipped("qwen-vl-chat")


def test_a_family_may_ship_several_bases_and_the_first_is_the_one_that_is_shown(
    monkeypatch, tmp_path
):
    for name in ("one", "one.1", "one.2", "one.4", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setattr("sgv_lab.models.shipped.ROOT", tmp_path)
    assert [path.name for path in bases("one")] == ["one", "one.1", "one.2"]
    assert shipped("one") == tmp_path / "one" and bases("other") == [tmp_path / "other"]
    assert bases("one", tmp_path) == bases("one")
    with pytest.raises(LabError, match="no checkpoint of two"):
        bases("two", tmp_path)


def test_it_sees_as_its_table_says_and_only_with_the_picture():
    recorded = pd.read_csv(shipped("llava-1.5-7b") / "gate.csv").set_index("ability")
    found = abilities.gate_table(*checkpoints.load(shipped("llava-1.5-7b")), scenes=60)
    found = found.set_index("ability")
    for ability, row in found.iterrows():
        # other scenes than the table's: their interval and the recorded one must meet
        assert row["low"] - 5 < recorded.loc[ability, "accuracy"] < row["high"] + 5, ability
        assert row["blind_low"] - 5 < abilities.CHANCE < row["blind_high"] + 5, ability
    assert (found["low"] > abilities.LOW).sum() >= 2  # existence and color, even with so few scenes
