"""The miniature that comes with the package: whole, small, and answers as its tables say."""

import json

import pandas as pd
import pytest
import torch

from sgv_lab.base import abilities
from sgv_lab.base.abilities import gates
from sgv_lab.base.projector import own_eyes, own_eyes_file
from sgv_lab.errors import LabError
from sgv_lab.files import sha256
from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import HALF_TAUGHT, ROOT, bases, every, share, shipped


def test_all_that_git_holds_stays_below_30_mebibytes_and_is_what_its_manifest_says():
    files = [path for path in ROOT.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 30 * 2**20
    folders = [path.parent for path in ROOT.rglob("manifest.json")]
    assert {folder.parent for folder in folders} == {ROOT, HALF_TAUGHT}
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["fingerprint"] == checkpoints.fingerprint(folder)
        made = manifest["made_with"]
        assert folder.name.startswith(made["family"])
        assert {"seed", "projector", "align_steps", "scenes"} <= set(made)


def test_bases_of_one_language_model_share_a_file_and_no_others_do():
    held = {path.name: (path / "model-00001-of-00002.safetensors").resolve() for path in every()}
    assert set(held.values()) == set(ROOT.glob("weights-*.safetensors"))
    assert len(set(held.values())) == 5  # LLaVA-7B's has a copy of LLaVA-1.5-7B's first
    assert held["llava-1.5-7b"] == held["llava-1.5-7b.2"] != held["llava-1.5-7b.3"]
    assert all(file.name[8:20] == sha256(file)[:12] for file in held.values())
    with pytest.raises(LabError, match=r"holds no model\.safetensors"):
        share(bases("llava-7b")[1])


def test_each_base_comes_with_its_language_models_own_eyes():
    assert {own_eyes_file(folder).parent for folder in every()} == {ROOT}
    eyes, _ = own_eyes(bases("llava-1.5-7b")[0])
    behind, _ = checkpoints.load(bases("llava-1.5-7b")[0])
    old, new = (dict(model.named_parameters()) for model in (eyes, behind))
    other = {name for name in new if not torch.equal(old[name], new[name])}
    assert other == {name for name in new if "multi_modal_projector" in name}


def test_the_gates_table_has_every_base_that_ships():
    table = gates("llava-1.5-7b")
    one = pd.read_csv(bases("llava-1.5-7b")[1] / "gate.csv")
    assert len(table) == len(bases("llava-1.5-7b")) * len(one)
    which = table.groupby(["language model", "projector"]).size()
    assert len(which) == len(bases("llava-1.5-7b"))
    second = table[(table["language model"] == 0) & (table["projector"] == 1)]
    pd.testing.assert_frame_equal(second[list(one)].reset_index(drop=True), one)


def test_a_family_that_does_not_ship_is_named():
    with pytest.raises(LabError, match=r"no miniature of 'qwen3-vl-8b'.*models-root"):
        shipped("qwen3-vl-8b")


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


def test_no_text_can_say_that_a_base_passed_whose_table_says_otherwise():
    failed = {"llava-1.5-13b", *(folder.name for folder in bases("llava-1.5-7b"))}
    for folder in every():
        passed = abilities.gate_passed(pd.read_csv(folder / "gate.csv"))
        assert json.loads((folder / "manifest.json").read_text())["gate_passed"] == passed
        assert passed == (folder.name not in failed)  # as README, docs and notebook 10 say


def test_the_bounds_of_all_bases_stand_in_one_table():
    table = abilities.bounds_by_base()
    assert list(table.index) == [path.name for path in every()]
    one = abilities.gate_bounds(pd.read_csv(bases("llava-7b")[2] / "gate.csv"))
    assert list(table.loc["llava-7b.2"][:-1]) == list(one["found"])
    assert (table["gate"] == "passed").sum() == 8


def test_every_base_answers_as_its_table_says():
    for folder in every():
        recorded = pd.read_csv(folder / "gate.csv").set_index("ability")
        data = abilities.held_out(60, 64)
        answers = abilities.ask(*checkpoints.load(folder), data, forms=("yesno",))
        found = abilities.ability_table(answers).query("form == 'yesno'").set_index("ability")
        for ability, row in found.query("questions >= 60").iterrows():
            # other scenes than the table's: their interval and the recorded one must meet
            assert row["low"] - 5 < recorded.loc[ability, "untuned"] < row["high"] + 5, ability
