assert totals["samples"] == int((rows["caption"].notna()).sum())
assert shown["caption"].str.len().min() > 20
assert sorted(ended["index"]) == list(range(12))
assert kinds.sum() == len(found.names)
assert kept["answers"].sum() == len(bad)
