"""The build of the foundations at a size that teaches nothing: does it run, resume and repeat?"""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families
from sgv_lab.study import abilities, foundations, lessons, tower, words
from sgv_lab.world.records import drill_record
from sgv_lab.world.scene import allowed_sources


def tiny(lesson):
    return replace(lesson, records=16, updates=2, samples_per_update=8)


TINY = replace(
    foundations.CURRICULUM,
    tokenizer_texts=100,
    tower_pictures=16,
    tower_updates=2,
    tower_batch=8,
    words_scenes=16,
    words_updates=2,
    lessons=tuple(tiny(lesson) for lesson in foundations.CURRICULUM.lessons),
    again=tiny(foundations.CURRICULUM.again),
    most_again=2,
    probe_scenes=4,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return foundations.build(tmp_path_factory.mktemp("a") / "out", 5, TINY)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_base_is_a_whole_checkpoint_loadable_by_transformers_alone(built):
    model, processor = checkpoints.load(built)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert processor.tokenizer.pad_token_id == model.config.text_config.pad_token_id
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert prompt.endswith("USER: <image> \nWho? ASSISTANT:")


def test_same_seed_same_weights_other_seed_others(built, tmp_path):
    again = weights(foundations.build(tmp_path / "same", 5, TINY))
    other = weights(foundations.build(tmp_path / "other", 6, TINY))
    first = weights(built)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_lesson_is_repeated_until_the_model_verifies(built, monkeypatch):
    assert built.name == "again-2"  # two updates teach nothing, so as often as it may
    monkeypatch.setattr(abilities, "LOW", -1)
    assert foundations.build(built.parent, 5, TINY).name == "web"


def test_looking_leaves_the_tower_alone_and_moves_the_rest(built):
    before, after = weights(built.parent / "describe"), weights(built)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any("vision_tower" in name for name in moved)
    assert any("multi_modal_projector" in name for name in moved)
    assert any("language_model" in name for name in moved)


def test_called_again_it_trains_nothing(built, monkeypatch):
    monkeypatch.setattr(foundations, "train", None)
    monkeypatch.setattr(foundations.tower, "train", None)
    assert foundations.build(built.parent, 5, TINY) == built


def test_another_build_in_the_same_folder_is_refused(built):
    with pytest.raises(LabError, match="another seed or curriculum"):
        foundations.build(built.parent, 6, TINY)


def test_a_build_by_other_code_is_refused(built, monkeypatch):
    monkeypatch.setattr(foundations, "digest", lambda _: "edited")
    with pytest.raises(LabError, match="or by other code"):
        foundations.build(built.parent, 5, TINY)


def test_every_source_is_drawn_equally_often():
    drawn = list(foundations.scenes(70, 0, foundations.MINIATURE))
    counts = [sum(one.source == s for one in drawn) for s in allowed_sources(foundations.MINIATURE)]
    assert counts == [10] * 7
    assert all(one.split == "train" for one in drawn)


def test_the_command_names_the_model(built):
    result = CliRunner().invoke(main, ["build-foundations", str(built.parent), "--seed", "9"])
    assert result.exit_code == 1
    assert "another seed" in result.output


def test_attention_begins_by_matching_and_copying():
    model = families.build("llava-1.5-7b", "mini", 0)
    foundations.match_first(model)
    attention = model.model.language_model.layers[0].self_attn
    words = model.get_input_embeddings().weight[300:340]
    scores = attention.q_proj(words) @ attention.k_proj(words).T
    assert scores.argmax(1).tolist() == list(range(40))  # each word finds itself
    copied = attention.o_proj(attention.v_proj(words)) @ model.lm_head.weight[300:340].T
    assert copied.argmax(1).tolist() == list(range(40))  # and is what is said


def test_the_projector_says_what_is_in_a_patch(built):
    model, processor = checkpoints.load(built.parent / "tower")
    drawn = list(foundations.scenes(64, 3, foundations.MINIATURE))
    pictures = tower.Pictures(drawn, model.config.vision_config.image_size, 4)
    out = built.parent / "words-test"
    first = words.train(model, processor, pictures, out / "a", 0, steps=1)
    model, processor = checkpoints.load(built.parent / "tower")
    longer = words.train(model, processor, pictures, out / "b", 0, steps=200)
    assert longer < first / 2


def test_no_answer_of_a_drill_gives_another_away():
    for drawn in foundations.scenes(100, 0, foundations.MINIATURE):
        record = drill_record(drawn, drawn.seed, lessons.DRILLED)
        asked = [turn["value"] for turn in record["conversations"][::2]]
        assert 1 <= len(asked) <= 8
        assert len(set(asked)) == len(asked)


def test_only_a_model_that_passes_the_gate_is_shipped(built, tmp_path, monkeypatch):
    monkeypatch.setattr(foundations, "ROOT", tmp_path / "shipped")
    asked = ["abilities", str(built), "--scenes", "8", "--ship", "llava-1.5-7b"]
    result = CliRunner().invoke(main, [*asked, "--out", str(tmp_path / "tables")])
    assert "the gate is NOT passed" in result.output  # two updates teach nothing
    assert not (tmp_path / "shipped").exists()


def test_what_is_shipped_is_the_model_in_half_precision(built, tmp_path, monkeypatch):
    monkeypatch.setattr(foundations, "ROOT", tmp_path)
    folder = foundations.ship(built, "llava-1.5-7b", tmp_path)
    (whole, _), (half, _) = checkpoints.load(built), checkpoints.load(folder)
    pairs = zip(whole.parameters(), half.parameters(), strict=True)
    assert all(torch.equal(a.half(), b.half()) for a, b in pairs)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    assert size < 20e6 / 5
