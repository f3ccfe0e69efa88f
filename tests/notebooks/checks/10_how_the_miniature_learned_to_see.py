assert seen["accuracy"].dropna().between(0, 100).all()
assert len(words) == 16 and all(words)
assert steps["loss"].notna().all()
assert set(first) == set(LESSONS)
assert {"gate", "abilities", "captions"} <= set(tables)
assert tables["gate"]["ceiling"].dropna().between(0, 100).all()
assert recorded.loc[recorded["asked"], "ceiling"].ge(CEILING).all() and recorded["asked"].any()
assert not gate_passed(recorded) and not gate_bounds(recorded)["holds"].all()
assert found["pilot-a-llava-1.5-7b"]["holds"].eq(6).all() and len(found) == 2
