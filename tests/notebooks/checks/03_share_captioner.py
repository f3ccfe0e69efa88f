assert checked.obstacles == []
assert steps["loss"].notna().all()
assert lengths["samples"]["ShareGPT4V-PT"] > 0
assert shown.axes
assert all(table["precision"].between(0, 1).all() for table in truth.values())
assert set(facets) <= set(truth) and len(facets) in (0, 2)
assert all(table["share"].between(0, 1).all() for table in shares.values())
assert all(texts.values()) and tagged.keys() == texts.keys()
assert (tested["low"] < 0).all() and (tested["high"] > 5).all()
assert grid["detectable"].gt(2 * lead).all()
assert page.children
assert human["preferred"].isin([*names, judging.COMPARABLE]).all()
assert len(scripted) == len(asked) * settings.raters
assert scripted["rater"].str.startswith("knows the truth").all()
assert len(result) or not len(scripted)
