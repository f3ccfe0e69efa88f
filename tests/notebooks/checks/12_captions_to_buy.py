assert len(offers) == 2 and len(asked) == settings.pairs
assert len(shared) == counted["images"].min() == settings.drawn_images
assert {pair.captions[0][0] for pair in asked} == {"ShareGPT4V"}
assert facts["ShareGPT4V"]["precision"].item() > facts["LLaVA-23K"]["precision"].item()
assert len(beside) == 1
assert (panel["alike"] > panel["independent"]).all()
assert panel["alike"].is_monotonic_decreasing
assert (price[f"for {wanted:,}"] == wanted / 1_000 * price["per 1,000 captions"]).all()
assert (price["per 1,000 true facts"] < price["per 1,000 captions"]).all()
assert len(objects) == (len(offers) if boxes else 0)
