assert totals["samples"] == int((rows["caption"].notna()).sum())
assert shown["caption"].str.len().min() > 20
assert sorted(ended["index"]) == list(range(12))
