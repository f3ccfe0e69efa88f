"""Arms and their mixes: they differ in what the registry says, and the replaced ids say where."""

import json
import re

import pytest

from sgv_lab import paper
from sgv_lab.errors import LabError
from sgv_lab.study import arms, mix
from sgv_lab.study.arms import ARMS, baseline
from sgv_lab.training.config import Mix
from sgv_lab.world.reader import read
from sgv_lab.world.records import task_of

BASE, SEED = baseline().changed({"samples": 120, "share": 0.2}), 3


def words(text):
    return len(text.split())


def built(name, **changes):
    return mix.build(ARMS[name].config(BASE.changed(changes)).captions, SEED)


def captions(records):
    return [r["conversations"][1]["value"] for r in records if task_of(r) == "detail"]


BEFORE, REPLACED = built("before")


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))


def test_the_registry_is_consistent_and_its_cells_are_the_papers():
    facts = paper.facts()
    for name, arm in ARMS.items():
        assert arm.config(BASE) and set(arm.compared_with) <= set(ARMS)
        assert arm.upper_bound in {*ARMS, ""}
        assert not arm.compared_with or arm.compared_with != (name,)
        place, row, column = arms.cell_of(name, "llava-1.5-7b")
        here = (facts["place"] == place) & (facts["arm"] == column)
        assert not place or len(facts[here & (facts["row"] == row)]), name
    assert arms.cell_of("after", "llava-7b") == ("figure2", "LLaVA-7B", "after")
    assert arms.cell_of("sft", "llava-1.5-7b") == ("table4", "PT no, SFT yes", "")
    nowhere = [("sft", "llava-7b"), ("oracle", "llava-7b"), ("after", "qwen3-vl-8b")]
    assert {arms.cell_of(*pair) for pair in nowhere} == {("", "", "")}
    assert len({arm.label for arm in ARMS.values()}) == len(ARMS)
    assert sum(name.startswith("aa") and "@" not in name for name in ARMS) + 1 == 16
    with pytest.raises(LabError, match="Did you mean 'oracle'"):
        arms.arm("oracl")


@pytest.mark.parametrize("name", ["after", "oracle", "aa", "shuffled", "human", "style"])
def test_only_the_detailed_captions_differ(name):
    records, replaced = built(name)
    assert len(records) == len(BEFORE) == 120 and replaced == REPLACED
    changed = {r["id"] for r, old in zip(records, BEFORE, strict=True) if r != old}
    assert changed == {row["id"] for row in replaced} and len(changed) == 24
    for new, old in zip(records, BEFORE, strict=True):
        assert new["conversations"][0] == old["conversations"][0]
        assert new.get("image") == old.get("image")


def test_the_released_files_mix_swaps_images_too():
    records, replaced = built("sft", samples=300, share=1.0)
    sources = [re.match(r"detail-(\w+)-", row["by"])[1] for row in replaced]
    assert all(row["id"].startswith("detail-coco-") for row in replaced)
    share = {name: sources.count(name) / len(sources) for name in mix.RELEASED}
    total = sum(mix.RELEASED.values())
    assert share == pytest.approx({k: n / total for k, n in mix.RELEASED.items()}, abs=0.12)
    blind, _ = built("before", samples=300, share=1.0, images="mixed")
    assert [r["id"] for r in blind] == [r["id"] for r in records]
    assert captions(blind) != captions(records)


def test_shuffled_captions_are_the_same_ones_on_other_images():
    after, shuffled = captions(built("after")[0]), captions(built("shuffled")[0])
    assert sorted(after) == sorted(shuffled)
    assert all(a != b for a, b in zip(after, shuffled, strict=True))


def test_dropped_leaves_records_out_and_says_which():
    records, replaced = built("dropped")
    assert len(records) == 96 and not captions(records)
    assert {row["by"] for row in replaced} == {""}


def test_questions_about_the_same_images_stand_in_the_captions_places():
    records, replaced = built("questions")
    assert [row["id"] for row in replaced] == [row["id"] for row in REPLACED]
    assert len(records) == 120 and not captions(records)
    tasks = {row["by"].partition("-")[0] for row in replaced}
    assert len(tasks) > 1 and tasks <= {"conversation", "vqa", "choice", "region"}
    for new, old in zip(records, BEFORE, strict=True):
        assert new == old or (task_of(old) == "detail" and new["image"] == old["image"])


def test_style_changes_the_words_and_adds_filler_and_tells_the_same():
    texts, blind = captions(built("style")[0]), captions(BEFORE)
    found = [read(text) for text in texts]
    assert [one.facts for one in found] == [read(text).facts for text in blind]
    assert any(one.unparsed for one in found)
    assert sum(a == b for a, b in zip(texts, blind, strict=True)) < len(blind) / 4


def test_rates_and_share_arrive():
    told = captions(built("o75e0i0")[0]), captions(built("o0e0i0")[0])
    assert sum(map(words, told[0])) < 0.7 * sum(map(words, told[1]))
    assert len(captions(built("after", share=0.5)[0])) == 60
    assert not captions(built("before", share=0)[0])


def test_the_artefact_holds_records_and_replaced_ids_and_shares_images():
    before, after = (ARMS[name].config(BASE).captions for name in ("before", "after"))
    first = mix.mix_artifact(before, SEED)
    assert json.loads((first / "replaced.json").read_text()) == REPLACED
    assert mix.mix_artifact(before, SEED) == first
    assert mix.mix_artifact(after, SEED) != first
    small = [r for r in BEFORE if "image" in r][:3]
    drawn = mix.drawn_images(small, 32)
    assert sum(1 for _ in drawn.rglob("*.png")) == 3
    assert mix.drawn_images(built("after")[0][:0] + small[::-1], 32) == drawn


@pytest.mark.parametrize("kind", arms.UNTOLD)
def test_captions_without_a_kind_of_fact_tell_all_others_alike(kind):
    told, untold = (
        mix.build(Mix(annotator="oracle", untold=left, share=1.0, samples=40), 3)[0]
        for left in ("", kind)
    )
    for whole, part in zip(told, untold, strict=True):
        facts, kept = (read(mix.caption_of(one)).facts for one in (whole, part))
        assert {fact for fact in facts if fact.kind not in (kind, "relation")} <= set(kept)
        assert kind not in {fact.kind for fact in kept}
    with pytest.raises(LabError, match="colour"):
        mix.annotator(Mix(annotator="oracle", untold="colour"))


def test_an_unknown_annotator_is_named():
    with pytest.raises(LabError, match="no annotator 'gpt5'"):
        mix.annotator(Mix(annotator="gpt5"))
