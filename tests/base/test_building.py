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


def build(seed):
    """The checkpoint after each stage, by name."""
    made = {"untrained": language_model.untrained_model(seed, texts=100)}
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


def test_a_base_that_can_answer_nothing_fails_the_gate(built):
    eyes, base = (checkpoints.load(built[name]) for name in ("check", "align"))
    tables = abilities.ability_tables(eyes, base, scenes=8)
    assert not tables["gate"]["asked"].any()
    assert not abilities.gate_passed(tables["gate"])


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
    folder = language_model.ship(built["align"], tmp_path / "shipped", tables, {"seed": 5})
    (whole, _), (half, _) = checkpoints.load(built["align"]), checkpoints.load(folder)
    pairs = zip(whole.parameters(), half.parameters(), strict=True)
    assert all(torch.equal(a.half(), b.half()) for a, b in pairs)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["made_with"] == {"seed": 5} and manifest["gate_passed"]
    assert (folder / "gate.csv").is_file()
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 20e6 / 5
    with pytest.raises(LabError, match="already there"):
        language_model.ship(built["align"], folder, tables, {})
