import json
from collections import Counter

import pytest

from sgv_lab.errors import LabError
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.facts import holds
from sgv_lab.world.reader import read
from sgv_lab.world.records import (
    DESCRIBE,
    LETTER,
    MIX,
    SHORT,
    caption_record,
    choice_record,
    conversation_record,
    instruct_mix,
    scene_of,
    task_of,
    text_record,
    vqa_record,
)
from sgv_lab.world.scene import Difficulty, scene

SMALL = Difficulty(max_objects=3, facets=())


@pytest.fixture(scope="module")
def mix():
    return instruct_mix(2000, seed=4)


def _well_formed(record):
    turns = record["conversations"]
    assert turns and len(turns) % 2 == 0
    assert [t["from"] for t in turns] == ["human", "gpt"] * (len(turns) // 2)
    assert all(t["value"].strip() for t in turns)
    images = sum(t["value"].count("<image>") for t in turns)
    assert images == ("image" in record) == turns[0]["value"].count("<image>")
    if images:
        first = turns[0]["value"]
        assert first.startswith("<image>\n") or first.endswith("\n<image>")
    assert json.loads(json.dumps(record)) == record


def test_records_are_llava_s_format(mix):
    for record in mix:
        _well_formed(record)


def test_shares_are_mix665k_s(mix):
    assert sum(MIX.values()) == 665_298  # 5,198 steps of 128, LLaVA issue 601
    counts = Counter(map(task_of, mix))
    assert set(counts) == set(MIX)
    for task, count in counts.items():
        assert abs(count - 2000 * MIX[task] / 665_298) < 1
    assert sum("image" not in record for record in mix) == counts["text"]
    assert counts["detail"] == 69  # 3.5 % of 2,000


def test_ids_are_unique_and_tell_the_scene(mix):
    assert len({record["id"] for record in mix}) == len(mix)
    for record in mix[:300]:
        one = scene_of(record["id"])
        assert one.split == "train"
        if "image" in record:
            assert record["image"] == one.image_name and scene_of(record["image"]) == one


def test_only_the_detail_records_depend_on_their_annotator(mix):
    others = {
        "annotator": instruct_mix(2000, seed=4, detail="oracle"),
        "draw": instruct_mix(2000, seed=4, draw=1),
    }
    for other in others.values():
        changed = [(a, b) for a, b in zip(mix, other, strict=True) if a != b]
        assert {task_of(a) for a, _ in changed} == {"detail"} and len(changed) > 60
        for a, b in changed:
            a_prompt, a_answer = a["conversations"]
            b_prompt, b_answer = b["conversations"]
            assert a_prompt == b_prompt and a["id"] == b["id"] and a_answer != b_answer


def test_the_share_of_details_and_the_world_can_be_chosen():
    counts = Counter(map(task_of, instruct_mix(1000, detail_share=0.145)))
    assert counts["detail"] == 145
    small = instruct_mix(1000, difficulty=SMALL)
    assert not {"ocr", "knowledge", "brief"} & set(map(task_of, small))
    assert all(len(scene_of(r["id"], SMALL).things) <= 3 for r in small)
    assert Counter(map(task_of, instruct_mix(50, detail_share=1.0))) == {"detail": 50}


def test_mixes_of_other_seeds_share_no_scene(mix):
    scenes = {record["id"].split("-", 1)[1] for record in mix}
    other = instruct_mix(500, seed=5)
    assert not scenes & {record["id"].split("-", 1)[1] for record in other}


def test_answers_in_words_are_true():
    """The reader, which shares nothing with the questions, reads the answers of conversations."""
    checked = 0
    for seed in range(300):
        record = conversation_record(scene(seed, "eval"), seed)
        for answer in record["conversations"][1::2]:
            stated = read(answer["value"]).facts
            checked += len(stated)
            assert stated and all(holds(fact, scene_of(record["id"])) for fact in stated), answer
    assert checked > 600


def test_short_answers_ask_for_them_once_and_choices_for_a_letter():
    for seed in range(100):
        one = scene(seed)
        humans = [t["value"] for t in vqa_record(one, seed)["conversations"][::2]]
        assert SHORT in humans[0] and not any(SHORT in turn for turn in humans[1:])
        question, answer = (t["value"] for t in choice_record(one, seed)["conversations"])
        assert LETTER in question and f"\n{answer}. " in question


def test_a_description_in_text_tells_the_answer():
    """A second route: relations asked about stand in the text, and the text is the oracle's."""
    for seed in range(200):
        one = scene(seed)
        record = text_record(one, seed)
        text, question = record["conversations"][0]["value"].split("\n")[:2]
        assert text == caption(one, ANNOTATORS["oracle"], seed)
        assert "image" not in record
        if any(word in question for word in ("seen from", "On which side", "with respect")):
            assert any(fact.kind == "relation" for fact in read(text).facts)


def test_captions_follow_the_same_prompt_whoever_writes_them():
    for one in map(scene, range(50)):
        blip, oracle = (caption_record(one, name) for name in ("blip", "oracle"))
        _well_formed(blip)
        question, answer = (turn["value"] for turn in blip["conversations"])
        assert question == oracle["conversations"][0]["value"]
        assert question.replace("<image>", "").strip() in DESCRIBE
        assert answer == caption(one, ANNOTATORS["blip"], 0)


def test_bad_arguments_are_refused():
    with pytest.raises(LabError, match="neither a record's id"):
        scene_of("coco/train2017/000000000009.jpg")
    with pytest.raises(ValueError, match="detail_share is 2"):
        instruct_mix(10, detail_share=2)
