import re
from collections import Counter, defaultdict

import pytest

from sgv_lab.world import phrases
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.facts import VALUES, Fact, holds, whole
from sgv_lab.world.phrases import NUMBERS
from sgv_lab.world.questions import ABILITIES, FORMS, questions
from sgv_lab.world.scene import FULL, Difficulty, scene
from sgv_lab.world.vocabulary import SOURCES

EVERY = [scene(seed, "eval", source) for seed in range(60) for source in SOURCES]
PAIRED = ("existence", "color", "size", "pattern", "position", "relation", "count", "scene")


def test_every_ability_and_form_is_asked():
    asked = {(q.ability, q.form) for one in EVERY for q in questions(one)}
    assert asked == {(ability, form) for ability in ABILITIES for form in FORMS}


def test_answers_are_true():
    """Yes-questions are checked against the facts, choices against the open answer's rule."""
    for one in EVERY:
        for q in questions(one, 3):
            if q.form != "yesno" or q.fact == "existence":
                continue
            subject, value = (*q.subjects, "")[0], q.asked
            if q.fact == "relation":
                value = f"{value} of" if value in ("left", "right") else value
                value = f"{value} {q.subjects[1]}"
            if q.fact == "count":
                value = str(NUMBERS.index(value))
            subject = "sign" if q.fact == "text" else subject
            assert holds(Fact(q.fact, subject, value), one) == (q.answer == "Yes"), (q, one)


def test_pairs_choices_and_open_answers_are_well_formed():
    for one in EVERY:
        found = questions(one, 1)
        pairs = defaultdict(list)
        for q in found:
            assert q.text.endswith(("?", "image.", f"{q.subjects[:1] and q.subjects[0]}."))
            if q.form == "yesno":
                pairs[q.ability].append(q)
            if q.form == "choice":
                right = q.options["ABCD".index(q.answer)]
                assert 2 <= len(q.options) == len(set(q.options)) <= 4
                assert q.prompt.count("\n") == len(q.options) and f"{q.answer}. {right}" in q.prompt
                if q.ability == "existence":
                    assert [one.count(kind) > 0 for kind in q.options].count(True) == 1
                if q.fact in whole(one):
                    assert right == whole(one)[q.fact]
        assert all(sorted(q.answer for q in pair) == ["No", "Yes"] for pair in pairs.values())


def test_what_is_ambiguous_is_not_asked():
    for one in EVERY:
        for q in questions(one):
            if q.ability in ("color", "size", "pattern", "position", "relation"):
                assert all(one.count(kind) == 1 for kind in q.subjects)


@pytest.mark.parametrize("difficulty", [FULL, Difficulty(max_objects=3, facets=("light",))])
def test_a_question_alone_does_not_tell_its_answer(difficulty):
    """A guesser learns from 3,000 scenes, by what is asked or by the whole question.

    On 3,000 others it must not do better than a coin: 50 %, with a standard error of at most 1.3
    points (both questions of a pair can be right together), so at most 54 %.
    """
    learnt = defaultdict(Counter)
    right, total = Counter(), Counter()
    for seed in range(6000):
        for q in questions(scene(seed, difficulty=difficulty), 5, PAIRED, ("yesno",)):
            for key in (q.asked, " ".join((q.asked, *q.subjects)), q.text):
                if seed < 3000:
                    learnt[q.ability, key][q.answer] += 1
                elif seen := learnt[q.ability, key]:
                    way = (q.ability, "text" if key == q.text else key.count(" ") > 0)
                    total[way] += 1
                    right[way] += seen.most_common(1)[0][0] == q.answer
    assert {ability for ability, _ in total} == set(PAIRED)
    shares = {way: right[way] / n for way, n in total.items() if n > 1000}
    assert len(shares) > 16 and max(shares.values()) < 0.54, shares


def test_letters_and_options_do_not_tell_the_answer():
    letters, first = defaultdict(Counter), defaultdict(Counter)
    for seed in range(3000):
        for q in questions(scene(seed), 2, PAIRED, ("choice",)):
            letters[len(q.options)][q.answer] += 1
            right = q.options["ABCD".index(q.answer)]
            if q.ability in ("position", "count") and len(q.options) == 2:
                first[q.ability, tuple(sorted(q.options))][right == min(q.options)] += 1
    for n, counts in letters.items():
        assert all(abs(c - counts.total() / n) < 4.5 * (counts.total() / n) ** 0.5
                   for c in counts.values())  # fmt: skip
    for pair, c in first.items():  # of two options shown, either is as often right
        assert abs(c[True] - c.total() / 2) < 4.5 * (c.total() / 4) ** 0.5 + 0.03 * c.total(), pair


def test_new_pairs_are_asked_about_in_half_of_the_novel_scenes():
    from sgv_lab.world.vocabulary import HELD_OUT

    answers = Counter()
    for seed in range(3000):
        for q in questions(scene(seed, "novel"), 1, ("color",), ("yesno",)):
            if (q.subjects[0], q.asked) in HELD_OUT:
                answers[q.answer] += 1
    assert abs(answers["Yes"] / answers.total() - 0.5) < 0.05, answers


def _grams(text: str, names: re.Pattern[str]) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z_]+", names.sub("_", text.lower()))
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def test_no_wording_of_a_question_occurs_in_a_caption():
    values = sorted((v for vs in VALUES.values() for v in vs if " " in v), key=len, reverse=True)
    names = re.compile("|".join(v.lower() for v in values if v not in VALUES["position"]))
    captions = set()
    for seed in range(1000):
        one = scene(seed, "train", (None, *SOURCES)[seed % 8])
        for annotator in ANNOTATORS.values():
            for sentence in caption(one, annotator).split(". "):
                assert "?" not in sentence
                captions |= _grams(sentence, names)
    asked = set().union(*(_grams(q.text, names) for one in EVERY for q in questions(one)))
    assert len(asked) > 500
    shared = asked & captions
    assert not shared, shared


def test_three_wordings_each():
    for table in (phrases.OPEN, phrases.YES_NO, phrases.CHOICE):
        assert all(len(set(words)) == 3 for words in table.values())


def test_the_same_seed_asks_the_same():
    assert questions(EVERY[0], 1) == questions(EVERY[0], 1) != questions(EVERY[0], 2)
    alone = questions(EVERY[0], 1, ("size",), ("open",))
    assert set(alone) <= set(questions(EVERY[0], 1))
