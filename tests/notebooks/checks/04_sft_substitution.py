assert len(at_hand) <= (2 if data_root else 0)
assert checked.obstacles == []
for plan in demo:
    assert len(records[plan.family]) == len(plan.arms) * len(plan.seeds)
    assert {record.seed for record in records[plan.family]} == set(plan.seeds)
assert set(means) == {plan.family for plan in demo}
assert pd.concat(found)["effect"].notna().all()
assert len(sft_runs) == len(sft.arms) * len(sft.seeds)
assert set(gains["plan"]) == set(recorded["plan"]) and len(recorded) > 15
assert set(gains.groupby("plan").size()) == {len(scores)} and none.notna().all(axis=None)
assert {"LLaVA-W", "MM-Vet"}.isdisjoint(pd.concat(found)["score"])
assert set(said) == set(mixes)
assert profile == "paper" or overlap.sum().drop("images").sum() == 0
