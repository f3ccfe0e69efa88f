assert four.loc["ShareGPT4V-7B"].notna().all()
assert table["value"].between(0, 100).all()
