assert set(differences) >= {"pixels", "patches", "features", "image tokens", "logits", "attention"}
assert set(differences) >= {"loss", "loss after the step", "length of the gradient"}
assert all(difference < 1e-3 for difference in differences.values())
assert torch.equal(prompt, inputs["input_ids"])
assert said == said_by_library
assert after.item() < loss.item() < guess
assert reached.loc["vision tower, block 3", "with a gradient"] == 0
assert reached.loc["projector"].nunique() == 1
assert untouched == 0
assert same_weights and same_logits
assert int(torch.linalg.matrix_rank(change)) == rank
assert share > 3 * by_chance and len(hits) > 20
assert (counts["ShareGPT4V-7B"] == counts["LLaVA-1.5-7B"]).all()
assert counts.loc["projector", "ShareGPT4V-7B"] == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
assert learning.loc["ShareGPT4V, pre-training", "vision tower"] == 11 * 12_596_224
first = learning["all"]
assert first["ShareGPT4V, pre-training"] > 300 * first["LLaVA-1.5, pre-training"]
assert notebook.check_answer(768, in_a_patch, "") == "Right."
assert notebook.check_answer(23, used, "") == "Right."
assert notebook.check_answer(576, patches_in_the_paper, "") == "Right."
assert notebook.check_answer(5, most, "") == "Right."
assert notebook.check_answer(6.93, guess, "") == "Right."
assert notebook.check_answer(1_048_576, both, "") == "Right."
