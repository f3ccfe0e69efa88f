assert contents.loc["00_start_here", "about"].startswith("what is claimed")
assert tuple(map(int, report["python"].split(".")[:2])) >= (3, 11)
assert set(report) >= {"revision", "clean", "packages", "device"}
