assert seen["accuracy"].dropna().between(0, 100).all()
assert len(words) == 16 and all(words)
assert pd.read_json(bases[0] / "metrics.jsonl", lines=True)["loss"].notna().all()
assert set(first) == set(LESSONS)
assert all({"gate", "abilities", "captions"} <= set(one) for one in tables)
assert tables[0]["gate"]["ceiling"].dropna().between(0, 100).all()
assert recorded.loc[recorded["asked"], "ceiling"].ge(85).all() and recorded["asked"].any()
assert every.groupby(["language model", "projector"]).size().ge(1).all()
assert list(bounds_by_base()["gate"]).count("passed") == 8
assert found["pilot A"]["holds"].eq(6).all() and len(found) == 6
assert len(half_tables) == len(half_bases) == len(bases)
assert both["half-taught"]["accuracy"].notna().any()
