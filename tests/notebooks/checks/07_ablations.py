assert set(settings.arms) <= set(registry.ARMS)
images = told.loc[told.index.str.endswith("@PT"), "image"]
assert images.nunique() == 1  # Table 5: the same image, whoever captions
assert all(stage.obstacles == [] for stage in checked.values())
same = {record.key for record in records if record.arm in ("both", "tower@50%")}
assert len(same) == len(demo.seeds)  # two names, one run a seed
assert len(records) == len(demo.arms) * len(demo.seeds)
assert effects.means(demo, records, runner.untuned(folder)).notna().any(axis=None)
assert set(found["arm"]) <= set(demo.arms)
assert found["effect"].notna().all()
assert found["seeds"].eq(len(demo.seeds)).all()
assert len(ablations.scores_by_number(records, "MME-P"))
assert len(ablations.measured(records))
assert curve.why or len(demo.seeds) >= 3
assert publishing.conclusions().index.isin(publishing.status().index).all()
