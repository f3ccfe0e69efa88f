assert checked.obstacles == []
for plan in demo:
    assert len(records[plan.family]) == len(plan.arms) * len(plan.seeds)
    assert {record.seed for record in records[plan.family]} == set(plan.seeds)
assert set(means) == {plan.family for plan in demo}
assert pd.concat(found)["effect"].notna().all()
for plan in demo:
    sentence = conclusions.primary_conclusion(plan, found[plan.family])
    assert ("resolve nothing" in sentence) == (len(plan.seeds) < effects.RESOLVES)
assert len(sft_runs) == len(sft.arms) * len(sft.seeds)
assert scores["seeds"].eq(10).all()
assert set(plans.JUDGED).isdisjoint(pd.concat(found)["score"])
