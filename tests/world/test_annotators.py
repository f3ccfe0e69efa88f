import json
import random
import re
import statistics
from collections import Counter
from dataclasses import replace

import pytest

from sgv_lab.world import phrases
from sgv_lab.world.annotators import ANNOTATORS, Perception, caption, claims
from sgv_lab.world.facts import FACETS, facts, holds
from sgv_lab.world.phrasing import filler
from sgv_lab.world.reader import read
from sgv_lab.world.scene import Difficulty, scene
from sgv_lab.world.vocabulary import SOURCES

SCENES = [scene(seed, "eval") for seed in range(1000)]
MANY = SCENES[:300] + [scene(seed, "eval", source) for seed in range(20) for source in SOURCES]
SMALL = Difficulty(max_objects=3, facets=())


@pytest.mark.parametrize("name", ANNOTATORS)
def test_the_same_arguments_give_the_same_caption_and_another_seed_another(name):
    annotator = ANNOTATORS[name]
    captions = [caption(one, annotator, 1) for one in SCENES[:100]]
    assert captions == [caption(one, annotator, 1) for one in SCENES[:100]]
    others = [caption(one, annotator, 2) for one in SCENES[:100]]
    assert sum(a != b for a, b in zip(captions, others, strict=True)) > 60


def test_the_oracle_tells_only_what_is_true_and_leaves_out_nothing_but_relations():
    for one in SCENES:
        said, truth = claims(one, ANNOTATORS["oracle"]), facts(one)
        assert said <= truth
        left = {fact.kind for fact in truth - said}
        assert left <= {"relation", "count"}  # a single star need not be called the only one
        assert not any(f.kind == "count" and f.value != "1" for f in truth - said)


def test_rates_are_what_they_say():
    one_rate = ANNOTATORS["gpt4_vision"].with_rates(omission=0.3, error=0.2, invention=0.0)
    known = {"default": 0.3, "existence": 0.0}
    told = wrong = total = 0
    for one in SCENES:
        total += 4 * len(one.things)
        seeing = Perception(one, replace(one_rate, omission=known), 0)
        for mention in seeing.message().mentions:
            told += sum(getattr(mention, k) is not None
                        for k in ("color", "size", "pattern", "position"))  # fmt: skip
        kept = replace(one_rate, omission=known, error={"default": 0.2, "existence": 0.0})
        wrong += sum(f.kind in ("scene", "light") and not holds(f, one) for f in claims(one, kept))
    assert told / total == pytest.approx(0.7, abs=0.02)  # s.e. 0.004
    assert wrong / (2 * 0.7 * len(SCENES)) == pytest.approx(0.2, abs=0.04)  # s.e. 0.011


def test_inventions_are_objects_that_are_not_there():
    base = ANNOTATORS["oracle"]
    made_up = replace(base, invention={"default": 0, "existence": 0.5})
    mentioned = invented = 0
    for one in SCENES:
        kinds = Counter(mention.kind for mention in Perception(one, made_up, 0).message().mentions)
        invented += sum(n for kind, n in kinds.items() if not one.count(kind))
        mentioned += len(one.things)
    assert invented / mentioned == pytest.approx(0.5, abs=0.04)  # s.e. 0.009


def test_more_omission_only_takes_away():
    for one in SCENES[:200]:
        some, more = (ANNOTATORS["gpt4_vision"].with_rates(omission=rate, invention=0.0)
                      for rate in (0.2, 0.6))  # fmt: skip
        attributes = ("color", "size", "pattern", "position", "scene", "light", "palette")
        assert {f for f in claims(one, more) if f.kind in attributes} <= claims(one, some)


def test_the_blind_annotator_knows_colours_only_by_hearsay():
    honest = ANNOTATORS["gpt4_blind"].with_rates(invention=0.0)
    heard = Counter(f.kind for one in SCENES[:300] for f in claims(one, honest))
    assert 0 < heard["color"] < heard["position"] / 2
    deaf = replace(honest, human_captions=0)
    alone = Counter(f.kind for one in SCENES[:300] for f in claims(one, deaf))
    assert not {"color", "size", "pattern", "text", "landmark", "scene"} & set(alone)
    assert alone["existence"] and alone["position"]


def test_sources_differ_in_accuracy_as_they_should():
    def precision(name):
        said = [(one, f) for one in SCENES[:300] for f in claims(one, ANNOTATORS[name])]
        return sum(holds(f, one) for one, f in said) / len(said)

    assert precision("oracle") == 1
    assert precision("gpt4_vision") > precision("gpt4_blind")
    assert precision("human") > precision("blip")


def test_the_oracle_is_gpt4_vision_without_mistakes():
    faultless = ANNOTATORS["gpt4_vision"].with_rates(0, 0, 0)
    assert replace(ANNOTATORS["oracle"], name=faultless.name) == faultless
    seeing, knowing = (ANNOTATORS[name] for name in ("gpt4_vision", "oracle"))
    said = [[Perception(one, who, 0).message() for who in (seeing, knowing)] for one in SCENES]
    same = [one for one, (seen, known) in zip(SCENES, said, strict=True) if seen == known]
    assert len(same) > 20
    for one in same:  # the same facts, the same words
        assert caption(one, seeing) == caption(one, knowing)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_everybodys_captions_hold_the_same_share_of_filler(share):
    for name, annotator in ANNOTATORS.items():
        plain = [caption(one, annotator) for one in MANY]
        filled = [caption(one, annotator, filler=share) for one in MANY]
        words = [sum(len(text.split()) for text in texts) for texts in (plain, filled)]
        assert 1 - words[0] / words[1] == pytest.approx(share, abs=0.02), name
        for one, text in zip(MANY[:300], filled[:300], strict=True):
            assert read(text).facts == claims(one, annotator)


def test_another_wording_tells_the_same_in_other_words():
    for name, annotator in ANNOTATORS.items():
        plain, other = ([caption(one, annotator, wording=n) for one in MANY[:300]] for n in (0, 1))
        assert plain == [caption(one, annotator) for one in MANY[:300]]
        assert sum(map(str.__eq__, plain, other)) < 75, name  # a short one may come out alike
        for one, text in zip(MANY, other, strict=False):
            assert read(text).facts == claims(one, annotator)


def test_filler_is_much_and_states_nothing():
    said = {filler(random.Random(seed)) for seed in range(20_000)}
    assert len(said) > 1_500
    assert {
        one for one in said if read(f"There is a cat. {one}").facts != read("There is a cat.").facts
    } == set()


def test_captions_read_as_english_sentences():
    for name in ("human", "gpt4_blind", "gpt4_vision", "oracle"):
        for one in SCENES[:400]:
            text = caption(one, ANNOTATORS[name])
            assert text[0].isupper() and text.endswith(".") and "  " not in text
            assert not re.search(r"\b(a) [aeio]|\ban [^aeiou]|[ ,]\.|\.\.|[{}]|None", text), text


def test_small_scenes_are_described_in_eighty_words():
    words = [len(caption(scene(seed, difficulty=SMALL), ANNOTATORS["oracle"]).split())
             for seed in range(1000)]  # fmt: skip
    assert sorted(words)[989] <= 75 and max(words) <= 85


def test_the_vocabulary_is_small_and_every_fact_has_five_phrasings():
    words = {word for one in MANY for annotator in ANNOTATORS.values()
             for word in re.findall("[a-z]+", caption(one, annotator).lower())}  # fmt: skip
    assert 250 < len(words) < 450
    assert all(len(set(said)) >= 5 for said in phrases.WHOLE.values())
    assert set(phrases.WHOLE) == {k for k in FACETS if FACETS[k] != "object"} | {"scene"}
    openings = Counter(caption(one, ANNOTATORS["oracle"]).split()[0] for one in SCENES)
    assert len(openings) > 10


def test_bad_annotators_are_refused():
    with pytest.raises(ValueError, match="rates from 0 to 1"):
        ANNOTATORS["human"].with_rates(error=1.5)
    for annotator in ANNOTATORS.values():
        for rates in (annotator.omission, annotator.error, annotator.invention):
            assert "default" in rates and set(rates) <= {"default", *FACETS}


NAMED = {
    "color": "red|orange|yellow|green|blue|purple|pink|white|black|brown|gray|grey",
    "size": "small|little|tiny|large|big|huge",
    "pattern": "striped|plaid|checkered|spotted|patterned|polka|stripes|checked|dotted|plain",
    "count": "two|three|four|five|six|several|couple|pair",
    "position": "left|right|top|bottom|corner|center|middle",
    "light": "night|sunset|evening|day|dusk|sunny",
}


@pytest.mark.reference
def test_human_captions_are_like_cocos(reference):
    path = reference / "data" / "coco" / "annotations" / "captions_val2017.json"
    real = [a["caption"].lower() for a in json.loads(path.read_text())["annotations"]]
    ours = [caption(scene(i), ANNOTATORS["human"]).lower() for i in range(2000)]
    assert statistics.mean(map(len, real)) == pytest.approx(52.42, abs=0.01)
    for length in (len, lambda text: len(text.split())):  # within 5 %
        known = statistics.mean(map(length, real))
        assert statistics.mean(map(length, ours)) == pytest.approx(known, rel=0.05)

    def named(captions, kind):
        return sum(len(re.findall(rf"\b(?:{NAMED[kind]})\b", c)) for c in captions) / len(captions)

    for kind in NAMED:  # words of this kind a caption
        assert named(ours, kind) == pytest.approx(named(real, kind), abs=0.03), kind


def test_web_captions_are_as_long_as_blips():
    # ShareGPT4V, Table 1: 54 characters
    lengths = [len(caption(one, ANNOTATORS["blip"])) for one in SCENES]
    assert statistics.mean(lengths) == pytest.approx(54, rel=0.05)


def test_long_captions_are_long_on_full_scenes():
    full = [scene(seed, "eval", "sam") for seed in range(150)]
    means = {name: statistics.mean(len(caption(one, ANNOTATORS[name])) for one in full)
             for name in ANNOTATORS}  # fmt: skip
    # 942 and 609 characters in the paper: here, too, what is seen and told makes the difference
    assert 1.3 < means["gpt4_vision"] / means["gpt4_blind"] < 942 / 609 + 0.1
    assert min(means["gpt4_vision"], means["gpt4_blind"]) > 6 * max(means["human"], means["blip"])
