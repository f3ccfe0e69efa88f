"""The captioner's stages: made once, recognised, refused in words."""

import json
from pathlib import Path

import pandas as pd
import pytest

from sgv_lab import profiles
from sgv_lab.captions import convert, sources
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini, shipped
from sgv_lab.study import cached_training, publishing, share_captioner
from sgv_lab.training.config import BASES
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.scene import MINIATURE, scene


def test_it_is_trained_once_captions_new_images_and_its_file_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    world = sources.world(12, 0, 64, difficulty=MINIATURE)
    records = sources.find(world)["ShareGPT4V"]
    texts = [
        turn["value"] for one in json.loads(records.read_text()) for turn in one["conversations"]
    ]
    processor = families.processor("llava-1.5-7b", "mini", mini.train_tokenizer(texts))
    base = checkpoints.save(families.build("llava-1.5-7b", "mini", 0), processor, tmp_path / "base")

    config = share_captioner.settings(steps=2)
    checked = cached_training.preflight(base, records, world, config)
    assert checked.obstacles == [] and checked.steps == 2 and checked.records == 12
    model = share_captioner.trained(base, records, world, config, 0)
    weights = (model / "model.safetensors").stat().st_mtime_ns
    assert share_captioner.trained(base, records, world, config, 0) == model
    assert (model / "model.safetensors").stat().st_mtime_ns == weights
    run = json.loads((model / "run.json").read_text())
    assert run["steps"] == 2 and run["recipe"]["learning_rate"] == 1e-3

    (world / json.loads(records.read_text())[0]["image"]).unlink()
    checked = cached_training.preflight(base, records, world, config)
    assert checked.obstacles == ["1 of 12 records cannot be trained on"]
    assert checked.reasons == "image missing (1)"

    new = sources.world(5, 0, 64, split="eval", difficulty=MINIATURE)
    file = share_captioner.captioned(model, new, max_new_tokens=8)
    assert sources.recognise(file) == "ShareGPT4V-PT"
    written = convert.convert(file).rows().select("image").collect()["image"].to_list()
    assert sorted(written) == sorted(p.relative_to(new).as_posix() for p in new.rglob("*.png"))


def test_at_full_size_nothing_is_taken_from_the_miniature() -> None:
    with pytest.raises(LabError, match=r"profile paper: collected is not given\. Add -p collected"):
        share_captioner.materials("paper", "some/base", "", "", 10)


def test_the_choices_told_are_the_choices_made() -> None:
    told, small = share_captioner.CHOICES, share_captioner.settings(miniature=True)
    large = share_captioner.settings(miniature=False)
    assert large == BASES["sft"]
    assert told.loc["learning rate", "here, at full size"].startswith("2e-5, cosine, 3 %")
    assert (large.learning_rate, large.warmup_ratio, large.samples_per_step) == (2e-5, 0.03, 128)
    assert told.loc["learning rate", "here, in miniature"] == "1e-3, cosine, 10 %"
    assert (small.learning_rate, small.warmup_ratio, small.samples_per_step) == (1e-3, 0.1, 32)
    assert told.loc["samples a step"].to_list() == ["not published", "128", "32"]
    assert (large.epochs, large.template, large.aspect) == (1.0, "v1", "pad")
    assert large.language_model == "full" and large.projector and large.vision_from is None
    assert profiles.section("03_share_captioner", "paper").steps == 0


@pytest.mark.parametrize("profile", share_captioner.SIZES)
def test_the_arms_share_captioner_is_the_one_that_the_notebook_makes(profile: str) -> None:
    section = profiles.section("03_share_captioner", profile)
    sizes = share_captioner.SIZES[profile]
    assert sizes == {name: getattr(section, name) for name in sizes}


def captions_file(folder: Path, told: dict[str, str]) -> Path:
    """An official file of these captions, image -> text."""
    records = [
        {"id": image, "image": image, "conversations": [{"from": "human", "value": "<image>"},
                                                        {"from": "gpt", "value": text}]}
        for image, text in told.items()
    ]  # fmt: skip
    path = folder / "share-captioner_coco_lcs_sam.json"
    path.write_text(json.dumps(records))
    return path


def test_a_student_who_says_the_same_equals_its_teacher_and_one_who_errs_does_not(
    tmp_path: Path,
) -> None:
    scenes = {
        one.image_name: one for one in (scene(i, "train", "lcs", MINIATURE) for i in range(40))
    }
    same = {name: caption(one, ANNOTATORS["gpt4_vision"]) for name, one in scenes.items()}
    found = share_captioner.beside_teacher(captions_file(tmp_path, same), raters=2, pairs=10)
    assert found["images"] == 40 and found["votes, student"] == found["votes, teacher"] == 0
    for measure in ("precision", "recall", "invented", "characters"):
        assert found[f"{measure}, student"] == found[f"{measure}, teacher"]
    others = dict(zip(same, [*list(same.values())[1:], next(iter(same.values()))], strict=True))
    worse = share_captioner.beside_teacher(captions_file(tmp_path, others), raters=2, pairs=10)
    assert worse["precision, student"] < worse["precision, teacher"] - 30
    assert worse["votes, teacher"] > 80 and worse["invented, student"] > 20


def test_what_was_recorded_has_a_row_for_every_base_of_table_5_s_studies() -> None:
    table = pd.read_csv(publishing.folder() / share_captioner.RECORDED)
    asked = [*shipped.bases("llava-1.5-7b"), *shipped.bases("llava-1.5-13b")]
    assert table["base"].to_list() == [path.name for path in asked]
    larger = share_captioner.recorded(publishing.folder(), "llava-1.5-13b")
    assert (larger["captioners"] == 3).all()
    found = share_captioner.recorded(publishing.folder())
    assert (found["captioners"] == 6).all()
    told = found.loc["precision", ["effect", "low", "high"]]
    assert told.round(1).to_list() == [-17.7, -19.4, -16.0]  # as LOG.md says
