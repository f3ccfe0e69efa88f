assert all(needs.obstacles == [] for needs in checked.values())
assert set(said) == {sharegpt4v.LLAVA, sharegpt4v.OURS} and all(said.values())
assert len(checkpoints) == len(checked)
assert steps["loss"].notna().all()
assert (bill["tokens per second"] > 0).all()
assert bill["peak GB"].gt(0).all()
assert "recipe `sft`" in card
assert len(set(models.values())) == len(jobs)
assert len({job.config.max_steps for job in jobs.values()}) == 1
assert table["gain"].notna().all()
assert ((table["low"] <= table["gain"]) & (table["gain"] <= table["high"])).all()
assert recorded["seeds"].eq(6).all() and recorded["low"].le(recorded["effect"]).all()
