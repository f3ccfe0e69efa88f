"""Arms and their mixes: they differ in what the registry says, and the replaced ids say where."""

import json
import re
from dataclasses import fields, replace

import pytest

from sgv_lab import paper
from sgv_lab.errors import LabError
from sgv_lab.study import arms, mix
from sgv_lab.study.arms import ARMS, Design
from sgv_lab.world.records import task_of

BASE, SEED = Design(samples=120, share=0.2), 3


def words(text):
    return len(text.split())


def built(name, **changes):
    return mix.build(ARMS[name].design(replace(BASE, **changes)), SEED, words)


def captions(records):
    return [r["conversations"][1]["value"] for r in records if task_of(r) == "detail"]


BEFORE, REPLACED = built("before")


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))


def test_the_registry_is_consistent_and_its_cells_are_the_papers():
    names = {f.name for f in fields(Design)}
    facts = paper.facts()
    for name, arm in ARMS.items():
        assert set(arm.delta) <= names and set(arm.against) <= set(ARMS)
        assert arm.ceiling in {*ARMS, ""}
        assert not arm.against or arm.against != (name,)
        if arm.cell:
            place, row, column = arm.cell
            here = (facts["place"] == place) & (facts["arm"] == column)
            found = facts[here & (facts["row"] == (row or "LLaVA-1.5-7B"))]
            assert len(found), name
    assert arms.cell_of("after", "llava-7b") == ("figure2", "LLaVA-7B", "after")
    assert arms.cell_of("mixed", "llava-1.5-7b") == ("table4", "PT no, SFT yes", "")
    nowhere = [("mixed", "llava-7b"), ("oracle", "llava-7b"), ("after", "qwen3-vl-8b")]
    assert {arms.cell_of(*pair) for pair in nowhere} == {("", "", "")}
    assert len({arm.label for arm in ARMS.values()}) == len(ARMS)
    assert sum(name.startswith("aa") for name in ARMS) + 1 == arms.DRAWS
    with pytest.raises(LabError, match="Did you mean 'oracle'"):
        arms.arm("oracl")


@pytest.mark.parametrize("name", ["after", "oracle", "aa", "shuffled", "padded", "truncated"])
def test_only_the_detailed_captions_differ(name):
    records, replaced = built(name)
    assert len(records) == len(BEFORE) == 120 and replaced == REPLACED
    changed = {r["id"] for r, old in zip(records, BEFORE, strict=True) if r != old}
    assert changed == {row["id"] for row in replaced} and len(changed) == 24
    for new, old in zip(records, BEFORE, strict=True):
        assert new["conversations"][0] == old["conversations"][0]
        assert new.get("image") == old.get("image")


def test_the_released_files_mix_swaps_pictures_too():
    records, replaced = built("mixed", samples=300, share=1.0)
    sources = [re.match(r"detail-(\w+)-", row["by"])[1] for row in replaced]
    assert all(row["id"].startswith("detail-coco-") for row in replaced)
    share = {name: sources.count(name) / len(sources) for name in mix.RELEASED}
    total = sum(mix.RELEASED.values())
    assert share == pytest.approx({k: n / total for k, n in mix.RELEASED.items()}, abs=0.12)
    blind, _ = built("mixed-before", samples=300, share=1.0)
    assert [r["id"] for r in blind] == [r["id"] for r in records]
    assert captions(blind) != captions(records)


def test_shuffled_captions_are_the_same_ones_on_other_pictures():
    after, shuffled = captions(built("after")[0]), captions(built("shuffled")[0])
    assert sorted(after) == sorted(shuffled)
    assert all(a != b for a, b in zip(after, shuffled, strict=True))


def test_dropped_and_matched_leave_records_out_and_say_which():
    records, replaced = built("dropped")
    assert len(records) == 96 and not captions(records)
    assert {row["by"] for row in replaced} == {""}
    # captions half as long can all stay; longer ones must be fewer, and fill the same budget
    long = {"annotator": "gpt4_vision", "edit": "matched"}
    budget = sum(map(words, captions(BEFORE)))
    count = [0]

    def twice(text):
        count[0] += 1
        return words(text) if count[0] <= 24 else 2 * words(text)

    records, replaced = mix.build(replace(BASE, **long), SEED, twice)
    kept = captions(records)
    assert 0 < len(kept) < 16 and sum(row["by"] == "" for row in replaced) == 24 - len(kept)
    assert budget - 200 < 2 * sum(map(words, kept)) <= budget


def test_padding_adds_words_and_no_fact_truncating_takes_whole_sentences():
    after = captions(built("after")[0])
    padded, truncated = captions(built("padded")[0]), captions(built("truncated")[0])
    longer = sum(map(words, padded)) / sum(map(words, captions(BEFORE)))
    assert longer > 1.3
    for short, whole in zip(truncated, after, strict=True):
        assert whole.startswith(short.rstrip(".")) and short.endswith(".")
    assert sum(map(words, truncated)) < 0.75 * sum(map(words, after))


def test_rates_and_share_arrive():
    told = captions(built("o75e0i0")[0]), captions(built("o0e0i0")[0])
    assert sum(map(words, told[0])) < 0.7 * sum(map(words, told[1]))
    assert len(captions(built("after@50%")[0])) == 60 and not captions(built("before@0%")[0])


def test_the_artefact_holds_records_and_replaced_ids_and_shares_pictures():
    before, after = (ARMS[name].design(BASE) for name in ("before", "after"))
    first = mix.stage(before, SEED, words, "words")
    assert json.loads((first / "replaced.json").read_text()) == REPLACED
    assert mix.stage(before, SEED, words, "others") == first  # no token was counted
    assert mix.stage(after, SEED, words, "words") != first
    small = [r for r in BEFORE if "image" in r][:3]
    drawn = mix.pictures(small, 32)
    assert sum(1 for _ in drawn.rglob("*.png")) == 3
    assert mix.pictures(built("after")[0][:0] + small[::-1], 32) == drawn


def test_an_unknown_annotator_is_named():
    with pytest.raises(LabError, match="no annotator 'gpt5'"):
        mix.annotator(Design(annotator="gpt5"))
