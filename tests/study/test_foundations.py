"""The build of the foundations at a size that teaches nothing: does it run, resume and repeat?"""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.study import foundations
from sgv_lab.world.annotators import claims
from sgv_lab.world.questions import questions
from sgv_lab.world.scene import allowed_sources

TINY = replace(
    foundations.CURRICULUM.scaled(0),
    tower_pictures=16,
    tower_batch=8,
    lessons=tuple(
        replace(lesson, records=16, updates=2, samples_per_update=8)
        for lesson in foundations.CURRICULUM.lessons
    ),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return foundations.build(tmp_path_factory.mktemp("a") / "out", 5, TINY, progress=False)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_base_is_a_whole_checkpoint_loadable_by_transformers_alone(built):
    model, processor = checkpoints.load(built)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert processor.tokenizer.pad_token_id == model.config.text_config.pad_token_id
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert prompt.endswith("USER: <image>\nWho? ASSISTANT:")


def test_same_seed_same_weights_other_seed_others(built, tmp_path):
    again = weights(foundations.build(tmp_path / "same", 5, TINY, progress=False))
    other = weights(foundations.build(tmp_path / "other", 6, TINY, progress=False))
    first = weights(built)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_looking_leaves_the_tower_alone_and_moves_the_rest(built):
    before, after = weights(built.parent / "read-full"), weights(built)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any("vision_tower" in name for name in moved)
    assert any("multi_modal_projector" in name for name in moved)
    assert any("language_model" in name for name in moved)


def test_called_again_it_trains_nothing(built, monkeypatch):
    monkeypatch.setattr(foundations, "train", None)
    monkeypatch.setattr(foundations.tower, "train", None)
    assert foundations.build(built.parent, 5, TINY, progress=False) == built


def test_another_build_in_the_same_folder_is_refused(built):
    with pytest.raises(LabError, match="another seed or curriculum"):
        foundations.build(built.parent, 6, TINY, progress=False)


def test_every_source_is_drawn_equally_often():
    drawn = list(foundations.scenes(70, 0, foundations.MINIATURE))
    counts = [sum(one.source == s for one in drawn) for s in allowed_sources(foundations.MINIATURE)]
    assert counts == [10] * 7
    assert all(one.split == "train" for one in drawn)


def test_the_command_names_the_model(built):
    result = CliRunner().invoke(main, ["build-foundations", str(built.parent), "--seed", "9"])
    assert result.exit_code == 1
    assert "another seed" in result.output


def test_brief_descriptions_tell_all_that_is_asked_about_them():
    asked, told = set(), set()
    for drawn in foundations.scenes(200, 0, foundations.EASY):
        asked |= {q.fact for q in questions(drawn, 0, forms=("open", "yesno"))}
        told |= {fact.kind for fact in claims(drawn, foundations.BRIEF, drawn.seed)}
    assert asked - told == {"relation"}  # text_record leaves those out that are not told
