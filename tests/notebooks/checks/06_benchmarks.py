assert four.loc["ShareGPT4V-7B"].notna().all()
assert table["value"].between(0, 100).all()
assert protocol["first prompt"].str.len().gt(0).all()
assert 0 <= marks <= 100
assert unread["bare"].eq(0).all()
