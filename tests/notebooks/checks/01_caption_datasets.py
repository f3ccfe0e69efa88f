assert table1["samples"].dropna().ge(table1["images"].dropna()).all()
assert counted == table1["samples"].dropna().to_dict()
assert all(table["share"].between(0, 1).all() for table in shares.values())
assert all(table["share"].sum() < 1 for table in shares.values())
assert all(table["types"].is_monotonic_increasing for table in growth.values())
assert judgement.keys() == judged.keys()
assert rates["recall"].get("ShareGPT4V", 1) > rates["recall"].get("COCO-Caption", 0)
assert side_by_side
assert len(at_hand) <= len(present)
assert all(one.count >= len(one.examples) for kinds in found.values() for one in kinds.values())
assert browser.children
