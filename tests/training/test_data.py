import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from sgv_lab.errors import LabError
from sgv_lab.training.data import RecordDataset, survey
from sgv_lab.training.images import prepare
from sgv_lab.training.recipes import recipe
from sgv_lab.training.stream import IGNORED, IMAGE_ID
from sgv_lab.training.tokenizers import TextTokenizer, load_tokenizer

PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
RECORDS = [
    made_up.record("<image>\nWhat is it?", "A cat.", image="coco/a.png", name="one"),
    made_up.record("What is on the mat?", "Nothing.", image=None, name="two"),
    made_up.record("Is it red?\n<image>", "No. " * 30, image="coco/a.png", name="three"),
]


def _dataset(
    records: Any, root: Path, tokenizer: TextTokenizer, template: str = "v1", aspect: str = "pad",
    **changes: Any,
) -> RecordDataset:  # fmt: skip
    processor = SimpleNamespace(tokenizer=tokenizer, image_processor=PROCESSOR)
    changes |= {"template": template, "aspect": aspect}
    return RecordDataset(records, root, processor, recipe("sft", changes))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load_tokenizer(made_up.sentencepiece_model(tmp_path_factory.mktemp("sp")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "coco").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "coco/a.png")
    return tmp_path


def _written(folder: Path, kind: str) -> Path:
    path = folder / f"records.{kind}"
    if kind == "json":
        # As the official files: a number for an id, a further key.
        path.write_text(json.dumps([{**record, "model": ""} for record in RECORDS]))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    else:
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_a_file_is_read_as_the_list_it_holds(
    root: Path, tokenizer: TextTokenizer, kind: str
) -> None:
    dataset = _dataset(_written(root, kind), root, tokenizer)
    assert [dataset.record(i) for i in range(len(dataset))] == RECORDS
    assert _dataset([{**RECORDS[1], "id": 7}], root, tokenizer).record(0)["id"] == "7"


def test_items(root: Path, tokenizer: TextTokenizer) -> None:
    dataset = _dataset(RECORDS, root, tokenizer, aspect="square")
    first, text_only = dataset[0], dataset[1]
    assert first["id"] == "one" and first["input_ids"].count(IMAGE_ID) == 1
    with Image.open(root / "coco/a.png") as picture:
        assert (first["images"][0] == prepare(picture, PROCESSOR, "square")).all()
    assert text_only["images"] == [] and IMAGE_ID not in text_only["input_ids"]
    assert len(text_only["labels"]) == len(text_only["input_ids"])


def test_an_image_behind_the_cut_is_not_shown(root: Path, tokenizer: TextTokenizer) -> None:
    late = made_up.record("What is it?", "A cat. " * 40, "And <image>?", "No.", image="coco/a.png")
    assert len(_dataset([late], root, tokenizer)[0]["images"]) == 1
    cut = _dataset([late], root, tokenizer, max_length=150)[0]
    assert cut["images"] == [] and IMAGE_ID not in cut["input_ids"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"image": "/etc/passwd"}, "leaves the image folder"),
        ({"image": "coco/../../x.png"}, "leaves the image folder"),
        ({"image": ""}, "not a path"),
        ({"image": 3}, "not a path"),
        ({"conversations": []}, "no conversations"),
        ({"conversations": [{"from": "human"}]}, "not {from, value}"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "unknown role 'bot'"),
        (made_up.record("What?", "A cat."), "0 turns with <image>"),
        (made_up.record("<image>\nA?", "B", "<image>\nC?", "D"), "2 turns with <image>"),
        (made_up.record("A?", "<image>"), "<image> in an answer"),
        (made_up.record("<image>\nA?", "B", image=None) | {"image": None}, "but has no image"),
        ({"conversations": [{"from": "human", "value": "\ud800"}], "image": None}, "not Unicode"),
    ],
)
def test_bad_records_are_refused_at_once(
    root: Path, tokenizer: TextTokenizer, broken: dict, message: str
) -> None:
    records = [*RECORDS, {**RECORDS[0], **broken, "id": "bad_4"}]
    with pytest.raises(LabError) as error:
        _dataset(records, root, tokenizer)
    assert message in str(error.value)
    assert "bad_4" in str(error.value) or "Unicode" in message


def test_a_tag_inside_a_text_is_the_texts_own(root: Path, tokenizer: TextTokenizer) -> None:
    code = made_up.record("What does <image> do in SVG?", "It shows a picture.", image=None)
    dataset = _dataset([code], root, tokenizer)
    assert IMAGE_ID not in dataset[0]["input_ids"] and dataset[0]["images"] == []


def test_bad_files_and_settings_are_refused(root: Path, tokenizer: TextTokenizer) -> None:
    for name, content in {"cut.json": '[{"id": ', "map.json": "{}", "x.parquet": "PAR"}.items():
        (root / name).write_text(content)
        with pytest.raises(LabError, match=name):
            _dataset(root / name, root, tokenizer)
    with pytest.raises(LabError, match="no records"):
        _dataset([], root, tokenizer)
    with pytest.raises(LabError, match="no variant 'latest'"):
        _dataset(RECORDS, root, tokenizer, variant="latest")


def test_linked_folders_are_trained_on(
    root: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    shutil.move(root / "coco", tmp_path / "disk")
    (root / "coco").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(root)
    item = _dataset(RECORDS, tmp_path / "link", tokenizer)[2]
    assert len(item["images"]) == 1


def test_a_broken_picture_names_record_and_file(root: Path, tokenizer: TextTokenizer) -> None:
    (root / "coco/a.png").write_bytes(b"")
    with pytest.raises(LabError, match=r"'three', coco/a\.png: empty: 0 bytes"):
        _dataset(RECORDS, root, tokenizer)[2]


def test_qwens_own_records_bring_their_pictures(root: Path, tmp_path: Path) -> None:
    turns = ["Picture 1: <img>coco/a.png</img>\nWhat?", "A cat.", "And <img>coco/a.png</img>?", "B"]
    record = made_up.record(*turns, image=None)
    qwen = load_tokenizer(made_up.tiktoken_file(tmp_path))
    item = _dataset([record], root, qwen, "qwen", "square")[0]
    assert len(item["images"]) == 2 == item["input_ids"].count(qwen.special["<img>"])


@pytest.mark.parametrize("workers", [0, 2])
def test_survey_counts_what_the_items_hold(
    root: Path, tokenizer: TextTokenizer, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    lost = made_up.record("<image>\nWhat?", "It says </s> here.", image="coco/a.png", name="lost")
    dataset = _dataset([*RECORDS, lost], root, tokenizer, max_length=100)
    with caplog.at_level(logging.INFO):
        found = survey(dataset, image_tokens=4, workers=workers, progress=False)
    for i in range(3):
        item = dataset[i]
        assert found.lengths[i] == len(item["input_ids"]) + 3 * len(item["images"])
        assert found.supervised[i] == sum(label != IGNORED for label in item["labels"])
        assert found.truncated[i] == (RECORDS[i]["id"] == "three")
    assert list(found.broken) == [3]
    assert found.broken[3].startswith("record 'lost'")
    assert found.missing == {} and found.folders == {"coco": (3, 0)}
    supervised = int(found.supervised.sum())
    assert f"{supervised} supervised, 1 cut at 100, 1 cannot be trained on" in caplog.text


@pytest.mark.reference
def test_real_records_with_their_photos(reference: Path) -> None:
    path = reference / "data/sharegpt4v/sharegpt4v_gpt4v_excerpt.json"
    records = [r for r in json.loads(path.read_text()) if r["image"].startswith("coco")]
    tokenizer = load_tokenizer(reference / "data/tokenizers/llama")
    dataset = _dataset(records, reference / "data", tokenizer)
    assert len(dataset) == 5
    for i in range(len(dataset)):
        assert dataset[i]["images"][0].shape == (3, 28, 28)
    assert survey(dataset, 576, progress=False).supervised.min() > 100
