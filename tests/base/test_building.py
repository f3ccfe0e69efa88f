"""The base built at a size that teaches nothing: does it run, resume and repeat?"""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from sgv_lab.base import abilities, language_model, lessons, projector, vision_tower
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families
from sgv_lab.training import metrics
from sgv_lab.world.records import drill_record
from sgv_lab.world.scene import MINIATURE, allowed_sources

LESSONS = {"describe": 2, "look": 2, "check": 1, "align": 1}


def build(seed, family="llava-1.5-7b"):
    """The checkpoint after each stage, by name."""
    made = {"untrained": language_model.untrained_model(family, seed, texts=100)}
    made["tower"] = vision_tower.train_vision_tower(made["untrained"], 16, 2, seed)
    made["projector"] = projector.align_projector(made["tower"], 16, 2, seed)
    return made | language_model.train_language_model(made["projector"], LESSONS, seed)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGV_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setattr(language_model, "SAMPLES", 8)
        patch.setattr(vision_tower, "BATCH", 8)
        patch.setattr(vision_tower, "EXAMINED", 16)
        patch.setattr(projector, "BATCH", 8)
        yield patch


@pytest.fixture(scope="module")
def built(store):
    return build(5)


def weights(folder):
    return load_file(folder / "model.safetensors")


def moved(before, after):
    """The parts whose weights differ between two checkpoints."""
    old, new = weights(before), weights(after)
    parts = ("vision_tower", "multi_modal_projector", "language_model")
    changed = [name for name in new if not torch.equal(old[name], new[name])]
    return {part for part in parts if any(part in name for name in changed)}


def test_the_base_is_a_whole_checkpoint_loadable_by_transformers_alone(built):
    model, processor = checkpoints.load(built["align"])
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert processor.tokenizer.pad_token_id == model.config.text_config.pad_token_id
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert prompt.endswith("USER: <image> \nWho? ASSISTANT:")


def test_each_stage_moves_what_it_teaches_and_leaves_a_curve(built):
    assert moved(built["untrained"], built["tower"]) == {"vision_tower"}
    assert moved(built["tower"], built["projector"]) == {"multi_modal_projector"}
    taught = {"multi_modal_projector", "language_model"}
    assert moved(built["projector"], built["describe"]) == taught
    assert moved(built["describe"], built["look"]) == taught
    assert moved(built["check"], built["align"]) == {"multi_modal_projector"}
    for name in ("tower", "projector", "describe", "align"):
        curve = metrics.read(built[name] / "metrics.jsonl")
        assert curve and all({"step", "loss"} <= set(row) for row in curve)


def test_the_tower_is_examined_in_every_label(built):
    table = pd.read_csv(built["tower"] / "accuracy.csv").set_index("label")
    assert set(vision_tower.PATCHES) <= set(table.index)
    assert table["accuracy"].dropna().between(0, 100).all()


def test_another_tower_takes_its_place_and_nothing_else_changes(built):
    swapped = vision_tower.with_tower(built["check"], built["untrained"])
    assert moved(built["check"], swapped) == {"vision_tower"}
    assert "vision_tower" not in moved(built["untrained"], swapped)


def test_same_seed_same_weights_other_seed_others(built, store, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGV_STORE", str(tmp_path_factory.mktemp("another")))
        same, other = build(5), build(6)
    first, again, another = (weights(made["align"]) for made in (built, same, other))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], another[name]) for name in first)


def test_called_again_it_trains_nothing(built, monkeypatch):
    monkeypatch.setattr(language_model, "teach", lambda start, lesson, *_: built[lesson])
    monkeypatch.setattr(vision_tower, "fit", None)
    assert build(5)["align"] == built["align"]


def test_every_source_is_drawn_equally_often():
    drawn = lessons.training_scenes(70, 0, MINIATURE)
    counts = [sum(one.source == s for one in drawn) for s in allowed_sources(MINIATURE)]
    assert counts == [10] * 7
    assert all(one.split == "train" for one in drawn)


def test_attention_begins_by_matching_and_copying():
    model = families.build("llava-1.5-7b", "mini", 0)
    language_model.match_first(model)
    attention = model.model.language_model.layers[0].self_attn
    words = model.get_input_embeddings().weight[300:340]
    scores = attention.q_proj(words) @ attention.k_proj(words).T
    assert scores.argmax(1).tolist() == list(range(40))  # each word finds itself
    copied = attention.o_proj(attention.v_proj(words)) @ model.lm_head.weight[300:340].T
    assert copied.argmax(1).tolist() == list(range(40))  # and is what is said


def test_the_projector_says_what_is_in_a_patch(built):
    made = projector.align_projector(built["tower"], 64, 200, 0)
    losses = [row["loss"] for row in metrics.read(made / "metrics.jsonl")]
    assert losses[-1] < losses[0] / 2
    said = projector.words_in_patches(made, lessons.training_scenes(1, 3, MINIATURE)[0])
    assert len(said) == 16 and all(len(words.split(", ")) == 3 for words in said)


def test_no_answer_of_a_drill_gives_another_away():
    for drawn in lessons.training_scenes(100, 0, MINIATURE):
        record = drill_record(drawn, drawn.seed, lessons.DRILLED)
        asked = [turn["value"] for turn in record["conversations"][::2]]
        assert 1 <= len(asked) <= 8
        assert len(set(asked)) == len(asked)


def test_a_new_projector_has_learned_nothing(built):
    model, processor = checkpoints.load(built["check"])
    before = {n: p.clone() for n, p in model.model.multi_modal_projector.named_parameters()}
    projector.renew_projector(model, processor, 1)
    after = dict(model.model.multi_modal_projector.named_parameters())
    for name, old in before.items():
        if old.dim() == 2:
            seen = torch.corrcoef(torch.stack([old.flatten(), after[name].flatten()]))
            assert abs(seen[0, 1]) < 0.05, name


def identity_of(model):
    """Whether the second layer of a projector gives what it is given."""
    layer = model.model.multi_modal_projector.linear_2
    return torch.equal(layer.weight, torch.eye(len(layer.weight))) and not layer.bias.any()


def test_a_projector_of_one_layer_keeps_its_identity_and_learns(built):
    model, processor = checkpoints.load(built["check"])
    assert len(projector.learning_layers(model)) == 2
    start = projector.change_projector(built["check"], "llava-7b")
    aligned = projector.align_projector(start, 16, 4, 0)
    taught = language_model.teach(aligned, "align", 1, 3)
    for before, after in ((start, aligned), (aligned, taught)):
        assert moved(before, after) == {"multi_modal_projector"}
        model, _ = checkpoints.load(after)
        assert identity_of(model) and len(projector.learning_layers(model)) == 1
    projector.renew_projector(model, processor, 1)
    assert identity_of(model)
    said = model.model.multi_modal_projector(torch.randn(64, 128) * 10)
    assert 0 < said.std() < 20  # scaled to the features


def test_another_familys_base_begins_from_what_the_two_share(built):
    start = projector.change_projector(built["check"], "llava-7b")
    assert moved(built["check"], start) == {"multi_modal_projector"}
    assert checkpoints.configuration(start).projector_hidden_act == "linear"
    with pytest.raises(LabError, match=r"not the tower and language model of llava-1\.5-13b"):
        projector.change_projector(built["check"], "llava-1.5-13b")


def test_a_larger_language_model_goes_the_same_way(built, store):
    made = build(5, "llava-1.5-13b")
    model, _ = checkpoints.load(made["align"])
    text = model.config.text_config
    assert (text.hidden_size, text.num_hidden_layers) == (160, 4)
    assert moved(made["check"], made["align"]) == {"multi_modal_projector"}
    with pytest.raises(LabError, match=r"no base of qwen3-vl-8b can be taught.*qwen-vl-chat"):
        language_model.untrained_model("qwen3-vl-8b", 0)


def test_qwen_vl_chat_keeps_where_its_queries_look_and_is_tuned_to_chat(store, monkeypatch):
    made = build(5, "qwen-vl-chat")
    old, new = weights(made["untrained"]), weights(made["tower"])
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    assert changed and all("visual." in name and "attn_pool" not in name for name in changed)
    made["align"] = language_model.teach(made["check"], "align", 1, 5)
    run = json.loads((made["align"] / "run.json").read_text())
    assert run["recipe"]["template"] == "qwen"
    monkeypatch.setattr(language_model, "renew_projector", None)  # "chat" goes on with the same one
    made["chat"] = language_model.teach(made["align"], "chat", 2, 6)
    for before, after in (("check", "align"), ("align", "chat")):
        old, new = weights(made[before]), weights(made[after])
        changed = {name for name in new if not torch.equal(old[name], new[name])}
        assert changed and all("attn_pool" in name for name in changed)
    model, processor = checkpoints.load(made["check"])
    resampler = model.model.visual.attn_pool
    old = {name: weight.clone() for name, weight in resampler.named_parameters()}
    projector.renew_projector(model, processor, 1)
    renewed = {n for n, w in resampler.named_parameters() if not torch.equal(w, old[n])}
    assert renewed == {"kv_proj.weight", "attn.out_proj.weight", "attn.out_proj.bias"}


def test_a_base_that_can_answer_nothing_fails_the_gate(built):
    eyes, base = (checkpoints.load(built[name]) for name in ("check", "align"))
    (tables,) = abilities.ability_tables(eyes, [base], scenes=8)
    assert not tables["gate"]["asked"].any()
    assert not abilities.gate_passed(tables["gate"])


def test_own_eyes_are_kept_once_a_language_model_and_are_what_it_saw_with(built, tmp_path):
    eyes, other = built["check"], built["describe"]
    file = projector.keep_eyes(eyes, tmp_path, "llava-1.5-7b")
    assert file == projector.keep_eyes(eyes, tmp_path, "llava-1.5-7b")
    assert file.stat().st_size < 70e3
    second = projector.keep_eyes(other, tmp_path, "llava-1.5-7b")
    assert [file.name, second.name] == ["eyes-1.safetensors", "eyes-2.safetensors"]
    for name, built_as in (("one", built["align"]), ("linear", eyes)):
        base = tmp_path / name
        model, processor = checkpoints.load(built_as, dtype=torch.float16)
        if name == "linear":  # a base of another family with the same language model
            changed = projector.change_projector(eyes, "llava-7b")
            model, processor = checkpoints.load(changed, dtype=torch.float16)
        checkpoints.save(model, processor, base)
        assert projector.own_eyes_file(base) == file
        seeing, _ = projector.own_eyes(base)
        whole, _ = checkpoints.load(eyes)
        pairs = zip(whole.parameters(), seeing.parameters(), strict=True)
        assert all(torch.equal(a.half(), b.half()) for a, b in pairs)
    with pytest.raises(LabError, match="own eyes are not kept"):
        projector.own_eyes(built["untrained"])


def test_the_gate_of_all_bases_asks_own_eyes_once_a_language_model(built, tmp_path, monkeypatch):
    asked, ask = [], abilities.ask

    def counted(model, processor, data, **how):
        asked.append("blind" if how.get("blind") else len(how.get("forms", "")))
        return ask(model, processor, data, **how)

    (tables,) = abilities.ability_tables(
        *(checkpoints.load(built["check"]), [checkpoints.load(built["align"])]), scenes=8
    )
    again = language_model.teach(built["check"], "align", 1, 99)  # behind another projector
    for number, (name, base) in enumerate({"one": built["align"], "one.1": again}.items()):
        which = {"family": "one", "seed": 4, "projector": number, "scenes": 8}
        language_model.ship(base, tmp_path / name, tables, **which)
        whole, half = (checkpoints.load(one)[0].parameters() for one in (base, tmp_path / name))
        assert all(torch.equal(a.half().float(), b) for a, b in zip(whole, half, strict=True))
        own = load_file(tmp_path / name / "model-00002-of-00002.safetensors")
        assert all("multi_modal_projector" in one for one in own)
    with pytest.raises(LabError, match="own eyes are not kept"):
        abilities.examine("one", tmp_path, 9)
    projector.keep_eyes(built["check"], tmp_path, "llava-1.5-7b")
    monkeypatch.setattr(abilities, "ask", counted)
    before = abilities.gates("one", tmp_path)
    found = abilities.examine("one", tmp_path, 9)
    assert asked == [1, "blind", 0, 0, 0, 0]  # own eyes; each base's two exams
    rows = found[["language model", "projector"]].drop_duplicates().to_numpy().tolist()
    assert rows == [[4, 0], [4, 1]] and not found["passed"].any()
    assert list(found) == list(before) and not found.equals(before)  # of other scenes
    manifest = json.loads((tmp_path / "one.1" / "manifest.json").read_text())
    assert manifest["made_with"] == {"family": "one", "seed": 4, "projector": 1, "scenes": 9}
    assert manifest["fingerprint"] == checkpoints.fingerprint(tmp_path / "one.1")
    assert len(list(tmp_path.glob("weights-*"))) == 1  # all but the projector is the same


def test_the_gate_holds_its_bounds():
    good = {"asked": True, "blind": 50.0, "untuned": 57.0, "open": 40.0}
    rows = pd.DataFrame([good, good, {**good, "asked": False, "untuned": 99.0}])
    assert abilities.gate_passed(rows)
    for name, value in (("blind", 52.0), ("untuned", 81.0), ("untuned", 42.0), ("open", 51.0)):
        assert not abilities.gate_passed(rows.assign(**{name: value})), name
    bounds = abilities.gate_bounds(rows.assign(blind=53.0))
    assert bounds["holds"].to_list() == [True, False, True, True]
    assert bounds["found"].to_list() == [2, 53.0, 57.0, 40.0]


def test_what_is_shipped_is_the_model_in_half_precision(built, tmp_path):
    gate = {"ability": ["color"], "asked": [True], "blind": [50.0], "untuned": [60.0]}
    tables = {"gate": pd.DataFrame({**gate, "open": [40.0]})}
    made_with = {"family": "llava-1.5-7b", "seed": 5, "projector": 0, "align_steps": 1}
    folder = language_model.ship(built["align"], tmp_path / "shipped", tables, **made_with)
    (whole, _), (half, _) = checkpoints.load(built["align"]), checkpoints.load(folder)
    pairs = zip(whole.parameters(), half.parameters(), strict=True)
    assert all(torch.equal(a.half(), b.half()) for a, b in pairs)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["made_with"] == made_with and manifest["gate_passed"]
    assert (folder / "gate.csv").is_file()
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 20e6 / 5
    with pytest.raises(LabError, match="already there"):
        language_model.ship(built["align"], folder, tables, **made_with)
