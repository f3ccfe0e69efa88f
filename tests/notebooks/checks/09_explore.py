assert set(explore.recorded()) < set(present)
assert any(name.startswith("base ") for name in present)
assert first.scene is not None or images
assert len(said) == len(asked) and all(said)
assert page.children
assert len(at_hand) <= (len(captions) if images else 0)
