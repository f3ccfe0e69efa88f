from sgv_lab.world import vocabulary as v
from sgv_lab.world.facts import FACETS, VALUES, Fact, facts, holds, whole, with_implied
from sgv_lab.world.scene import Scene, Thing, scene


def _scene(*things: Thing, **special) -> Scene:
    return Scene(0, "train", "coco", "beach", "night", things, **special)


RED = Thing("kite", "red", "large", "striped", 0.125, 0.125)
BLUE = Thing("kite", "blue", "small", "plain", 0.875, 0.125)
BALL = Thing("ball", "red", "small", "dotted", 0.625, 0.625)


def test_the_facts_of_a_hand_made_scene():
    stated = {str(f) for f in facts(_scene(RED, BALL))}
    assert stated == {
        "existence(kite)", "count(kite, 1)", "color(kite, red)", "size(kite, large)",
        "pattern(kite, striped)", "position(kite, top left)", "relation(kite, left of ball)",
        "relation(kite, above ball)", "existence(ball)", "count(ball, 1)", "color(ball, red)",
        "size(ball, small)", "pattern(ball, dotted)", "position(ball, center)",
        "relation(ball, right of kite)", "relation(ball, below kite)", "scene(beach)",
        "light(night)", "palette(warm)", "composition(sparse)",
    }  # fmt: skip


def test_a_relation_holds_only_if_it_is_true_of_every_pair():
    both = _scene(RED, BLUE, BALL)
    assert holds(Fact("relation", "kite", "above ball"), both)
    assert not holds(Fact("relation", "kite", "left of ball"), both)  # one is right of it
    assert holds(Fact("color", "kite", "blue"), both)  # any kite
    assert holds(Fact("count", "kite", "2"), both) and not holds(Fact("count", "kite", "1"), both)
    assert holds(Fact("count", "cat", "0"), both) and not holds(Fact("count", "kite", "0"), both)


def test_every_relation_agrees_with_the_coordinates():
    for seed in range(300):
        one = scene(seed, "eval")
        for fact in (f for f in facts(one) if f.kind == "relation"):
            relation, other = fact.value.rsplit(" ", 1)
            pairs = [(a, b) for a in one.things for b in one.things
                     if (a.kind, b.kind) == (fact.subject, other)]  # fmt: skip
            signs = {"left of": lambda a, b: a.x < b.x, "right of": lambda a, b: a.x > b.x,
                     "above": lambda a, b: a.y < b.y, "below": lambda a, b: a.y > b.y}  # fmt: skip
            assert pairs and all(signs[relation](a, b) for a, b in pairs)


def test_special_scenes_state_text_knowledge_and_style():
    one = scene(1, "train", "landmark")
    known = v.LANDMARKS[one.landmark]
    assert {Fact("landmark", "", known[0]), Fact("place", "", known[1]),
            Fact("existence", "landmark")} <= facts(one)  # fmt: skip
    assert Fact("text", "sign", scene(1, "train", "textcaps").sign) in facts(
        scene(1, "train", "textcaps")
    )
    assert {"artist", "genre", "title", "style"} <= whole(scene(1, "train", "wikiart")).keys()
    assert {"character", "role"} <= whole(scene(1, "train", "celebrity")).keys()


def test_all_four_facets_and_no_value_outside_the_lists():
    assert set(FACETS.values()) == {"object", "text", "knowledge", "aesthetics"}
    assert set(FACETS) == set(VALUES)
    for seed in range(200):
        for fact in facts(scene(seed)):
            if fact.kind not in ("existence", "relation"):
                assert fact.value in VALUES[fact.kind]


def test_what_is_spoken_of_exists_unless_there_are_none():
    stated = {Fact("color", "kite", "red"), Fact("text", "sign", "STOP"),
              Fact("relation", "cat", "above fish"), Fact("count", "boat", "0")}  # fmt: skip
    existing = {f.subject for f in with_implied(stated) if f.kind == "existence"}
    assert existing == {"kite", "sign", "cat", "fish"}
