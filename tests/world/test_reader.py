import pytest

from sgv_lab.world.annotators import ANNOTATORS, caption, claims
from sgv_lab.world.reader import read
from sgv_lab.world.scene import scene
from sgv_lab.world.vocabulary import SOURCES


@pytest.mark.parametrize("name", ANNOTATORS)
def test_what_annotators_meant_is_read_back(name):
    """Recovery and precision against the messages, which know nothing of the words."""
    claimed = recovered = read_in = 0
    scenes = [scene(seed, "eval", (None, *SOURCES)[seed % 8]) for seed in range(2000)]
    for one in scenes[: 800 if name == "gpt4_blind" else 2000]:
        meant, found = claims(one, ANNOTATORS[name], 7), read(caption(one, ANNOTATORS[name], 7))
        claimed += len(meant)
        recovered += len(meant & found.facts)
        read_in += len(found.facts)
    assert recovered / claimed >= 0.99
    assert recovered / read_in >= 0.99


CASES = {
    # attributes before, after, and around
    "A huge crimson and blue kite.": {"existence(kite)", "size(kite, large)", "color(kite, blue)"},
    "The kite, which is red, floats.": {"existence(kite)", "color(kite, red)"},
    "In the top left, a large red striped kite hangs.": {
        "existence(kite)", "size(kite, large)", "color(kite, red)", "pattern(kite, striped)",
        "position(kite, top left)"},
    "The house is large and checked and it is yellow": {
        "existence(house)", "size(house, large)", "pattern(house, checked)",
        "color(house, yellow)"},
    # places before and after, next to others
    "There is a cat on the left and a fish in the lower right.": {
        "existence(cat)", "position(cat, left)", "existence(fish)", "position(fish, bottom right)"},
    "In the middle of the picture sits a tree, and at the top a bird flies.": {
        "existence(tree)", "position(tree, center)", "existence(bird)", "position(bird, top)"},
    "On the left side of the image is a boat.": {"existence(boat)", "position(boat, left)"},
    # relations
    "A cat sits to the left of a tree.": {
        "existence(cat)", "existence(tree)", "relation(cat, left of tree)"},
    "To the right of the tree, a red car is parked.": {
        "existence(car)", "existence(tree)", "color(car, red)", "relation(car, right of tree)"},
    "The balloon floats above the umbrella.": {
        "existence(balloon)", "existence(umbrella)", "relation(balloon, above umbrella)"},
    "Underneath the umbrella there are two balls": {
        "existence(umbrella)", "existence(ball)", "count(ball, 2)",
        "relation(ball, below umbrella)"},
    # numbers
    "3 fish swim.": {"existence(fish)", "count(fish, 3)"},
    "Two of the kites are red.": {"existence(kite)", "color(kite, red)"},
    "There is only one flower.": {"existence(flower)", "count(flower, 1)"},
    "One kite is red and another kite is blue.": {
        "existence(kite)", "color(kite, red)", "color(kite, blue)"},
    "There is a cat. It sits in the top left.": {
        "existence(cat)", "position(cat, top left)"},
    "A cat is near a red car. It has dots and is large.": {
        "color(car, red)", "pattern(car, dotted)", "size(car, large)", "existence(cat)",
        "existence(car)"},
    "There are two boats. They are white.": {
        "existence(boat)", "count(boat, 2)", "color(boat, white)"},
    # what is not there
    "There is no kite in the picture.": {"count(kite, 0)"},
    "There are no cats or birds, but a blue fish.": {
        "count(cat, 0)", "count(bird, 0)", "existence(fish)", "color(fish, blue)"},
    "The kite is not red.": {"existence(kite)"},
    # the whole picture, text and names
    'A sign says "STOP" near the sea at dusk.': {
        "existence(sign)", "text(sign, STOP)", "scene(ocean)", "light(sunset)"},
    "Alda Tower in Norvia was built to guard the northern pass.": {
        "existence(landmark)", "landmark(Alda Tower)", "place(Norvia)",
        "landmark_story(guard the northern pass)"},
    "The pirate Captain Brill stands at the top.": {
        "existence(character)", "character(Captain Brill)", "role(pirate)",
        "position(character, top)"},
    "A watercolor by Mira Sol, mostly in warm colors": {
        "style(watercolor)", "artist(Mira Sol)", "palette(warm)"},
}  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_sentences_no_annotator_writes(text):
    assert {str(fact) for fact in read(text).facts} == CASES[text]


def test_sentences_that_state_nothing_are_handed_back():
    reading = read("What a lovely afternoon this was. There is a red kite. Nobody knows.")
    assert reading.unparsed == ("What a lovely afternoon this was.", "Nobody knows.")
    assert len(reading.facts) == 2
    assert read("") == read("  \n") and not read("").facts


def test_any_text_is_read():
    for text in ("<unk> 7 \x00 ...", '"', "left of left of the the", "kite " * 2000, "no no no"):
        assert isinstance(read(text).facts, frozenset)


def test_every_sentence_of_an_annotator_states_something():
    for seed in range(300):
        for name, annotator in ANNOTATORS.items():
            assert not read(caption(scene(seed), annotator)).unparsed, name
