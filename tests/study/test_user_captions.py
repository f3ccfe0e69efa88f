"""One's own captions as an arm: only they differ, and a file that cannot serve is refused first."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.study import mix, official, plans, publishing, user_captions
from sgv_lab.study.arms import ARMS, baseline
from sgv_lab.world.export import CAPTIONS, export
from sgv_lab.world.records import task_of

SEED = 3
PLAN = {"title": "own", "family": "llava-1.5-7b", "arms": ["before", "own", "after"], "seeds": 2,
        "primary": ["own", "MME-P"]}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))


def exported(folder, n=10, split="train", miniature=True):
    """(records, file): images of the world, captioned in words of one's own."""
    export(folder, scenes=n, split=split, size=32, miniature=miniature)
    records = json.loads((folder / CAPTIONS["gpt4_vision"]).read_text())
    for i, record in enumerate(records):
        record["conversations"][1]["value"] += f" Number {i}."
    return records, written(folder / "own.json", records)


def written(path, records):
    path.write_text(json.dumps(records))
    return path


def built(file, name, **changes):
    return mix.build(mixed(name, samples=120, share=0.2, file=str(file), **changes), SEED)


def mixed(name, **changes):
    return ARMS[name].config(baseline().changed(changes)).captions


def detailed(records):
    return {r["image"]: r["conversations"][1]["value"] for r in records if task_of(r) == "detail"}


def test_arms_differ_in_the_captions_of_the_files_images_alone(tmp_path):
    given, file = exported(tmp_path / "world")
    said = {r["image"]: r["conversations"][1]["value"] for r in given}
    before, replaced = built(file, "before")
    for name in ("own", "after", "oracle", "aa", "shuffled"):
        records, its = built(file, name)
        assert its == replaced and len(records) == 120
        changed = [new for new, old in zip(records, before, strict=True) if new != old]
        assert {r["image"] for r in changed} <= set(said)  # ten; the other fourteen stay blind
        for new, old in zip(records, before, strict=True):
            assert new["id"] == old["id"]
            assert new["conversations"][0] == old["conversations"][0]
    mine = built(file, "own")[0]
    shown = detailed(mine)
    assert len(shown) == 24 and {k: v for k, v in shown.items() if k in said} == said
    assert {row["id"] for row in replaced} == {r["id"] for r in mine if r.get("image") in said}


def test_more_images_than_places_are_drawn_by_seed(tmp_path):
    _, file = exported(tmp_path / "world", 60)
    one, replaced = built(file, "own")
    assert len(replaced) == 24
    other, _ = mix.build(mixed("own", samples=120, share=0.2, file=str(file)), 4)
    assert set(detailed(one)) != set(detailed(other))


def test_another_caption_is_another_mix_and_another_plan(tmp_path):
    records, file = exported(tmp_path / "world")
    shown = mixed("own", samples=60, share=0.2, file=str(file))
    (tmp_path / "plan.yaml").write_text(json.dumps({**PLAN, "captions": "world/own.json"}))
    first = mix.mix_artifact(shown, SEED), plans.load(tmp_path / "plan.yaml")
    assert mix.mix_artifact(shown, SEED) == first[0]
    assert "own.json: 10 images" in publishing.describe_plan(first[1])
    records[0]["conversations"][1]["value"] = "Another."
    written(file, records)
    second = mix.mix_artifact(shown, SEED), plans.load(tmp_path / "plan.yaml")
    assert first[0] != second[0]
    assert "Another." in (second[0] / "records.json").read_text()
    assert first[1].seeds != second[1].seeds and first[1].digest != second[1].digest


def test_a_plan_names_the_file_and_the_arm_or_neither(tmp_path):
    _, file = exported(tmp_path / "world")
    with pytest.raises(LabError, match="captions and their arm go together"):
        plans.make("p", **PLAN)
    with pytest.raises(LabError, match="captions and their arm go together"):
        plans.make("p", **{**PLAN, "arms": ["before", "after"], "primary": ["after", "MME-P"]},
                   captions=str(file))  # fmt: skip
    with pytest.raises(LabError, match="cannot be read"):
        plans.make("p", **PLAN, captions=str(tmp_path / "none.json"))
    with pytest.raises(LabError, match="unknown setting 'captions'"):
        plans.make("p", **PLAN, captions=str(file), baseline={"captions": str(file)})


def test_a_file_that_cannot_serve_is_refused(tmp_path):
    records, file = exported(tmp_path / "world")
    photo = {**records[0], "image": "coco/train2017/000000000009.jpg"}
    with pytest.raises(LabError, match=r"000000000009\.jpg is no image of the drawn world"):
        user_captions.validate_for_world(written(file, [*records, photo]))
    blank = {**records[0], "conversations": [{"from": "human", "value": "?"},
                                             {"from": "gpt", "value": " \n"}]}  # fmt: skip
    with pytest.raises(LabError, match="record 10 has no words"):
        user_captions.validate_for_world(written(file, [*records, blank]))
    nowhere = [{k: v for k, v in r.items() if k != "image"} for r in records]
    with pytest.raises(LabError, match="no caption names its image"):
        user_captions.validate_for_world(written(file, nowhere))
    _, test = exported(tmp_path / "test", split="eval")
    with pytest.raises(LabError, match="of the split eval, which the models are tested on"):
        user_captions.validate_for_world(test)


def test_captions_of_the_full_worlds_images_are_told_from_the_miniatures(tmp_path):
    _, file = exported(tmp_path / "full", 20, miniature=False)
    with pytest.raises(LabError, match="fit the full world's images"):
        user_captions.validate_for_world(file)
    done = CliRunner().invoke(
        main, ["world", "export", str(tmp_path / "mini"), "--scenes", "20", "--size", "32",
               "--miniature"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(user_captions.validate_for_world(tmp_path / "mini" / CAPTIONS["gpt4_vision"])) == 20


def test_of_the_official_mix_the_covered_captions_are_replaced(tmp_path):
    def record(key, text, image):
        turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": text}]
        return {"id": key, "image": image, "conversations": turns}

    root = tmp_path / "sharegpt4v"
    root.mkdir()
    photo = "coco/train2017/{}.jpg".format
    before = [record("a", "blind 1", photo(1)), record("b", "yes", photo(2)),
              record("c", "blind 3", photo(3))]  # fmt: skip
    for name in official.FILES.values():
        written(root / name, before[::2] if name == official.FILES["detail"] else before)
    file = written(tmp_path / "own.json", [record("x", f"mine {i}", photo(i)) for i in (3, 2, 8)])
    shown = mixed("own", file=str(file))
    made = official.official_mix(shown, tmp_path)
    told = [r["conversations"][1]["value"] for r in json.loads((made / "records.json").read_text())]
    assert told == ["blind 1", "yes", "mine 3"]  # a short answer is no caption
    assert json.loads((made / "replaced.json").read_text()) == [{"id": "c", "by": "c"}]
    written(file, [record("x", "mine", "3.jpg")])
    with pytest.raises(LabError, match=r'such as "coco/train2017/3\.jpg"'):
        official.official_mix(shown, tmp_path)


def test_several_captions_of_an_image_count_by_their_first(tmp_path):
    records, file = exported(tmp_path / "world")
    again = json.loads(json.dumps(records[0]))
    again["conversations"][1]["value"] = "Later."
    assert user_captions.validate_for_world(
        written(file, [*records, again])
    ) == user_captions.validate_for_world(written(file, records))
    coco = Path(tmp_path, "world", "annotations", "captions_train2017.json")
    assert len(user_captions.validate_for_world(coco)) == 10
