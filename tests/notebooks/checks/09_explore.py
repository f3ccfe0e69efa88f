assert any(name.endswith(", shipped") for name in present)
assert len(said) == len(asked) and all(said)
assert page.children
