import gzip
import io
import json
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
from sgv_lab.training.config import base
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.preprocessing import prepare
from sgv_lab.training.segments import IGNORED, IMAGE_ID, TextTokenizer, load_tokenizer
from sgv_lab.training.survey import survey

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
    return RecordDataset(records, root, processor, base("sft", changes))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load_tokenizer(made_up.sentencepiece_model(tmp_path_factory.mktemp("sp")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "coco").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "coco/a.png")
    return tmp_path


def _parquet_bytes(rows: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _written(folder: Path, kind: str) -> Path:
    """RECORDS in a file of a kind and of a name that does not tell it."""
    lines = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
    content = {
        "indented": json.dumps(RECORDS, indent=1).encode(),
        # As the official files: a number for an id, a further key.
        "with more keys": json.dumps([{**record, "model": ""} for record in RECORDS]).encode(),
        "with a byte order mark": b"\xef\xbb\xbf" + json.dumps(RECORDS).encode(),
        "lines": "\n".join(lines).encode(),
        "lines of Windows": ("\ufeff" + "".join(f"{line}\r\n" for line in lines)).encode(),
        "lines with blank ones": ("\n" + "\n\n \n".join(lines) + "\n\n").encode(),
        "array over lines of Windows": json.dumps(RECORDS, indent=2).replace("\n", "\r\n").encode(),
        "objects over lines": "\n".join(json.dumps(r, indent=2) for r in RECORDS).encode(),
        "parquet": _parquet_bytes(RECORDS),
    }[kind.removesuffix(", gzipped")]
    path = folder / "records.txt"
    path.write_bytes(gzip.compress(content) if kind.endswith("gzipped") else content)
    return path


KINDS = ("indented", "with more keys", "with a byte order mark", "lines", "lines of Windows",
         "lines with blank ones", "array over lines of Windows", "objects over lines",
         "parquet")  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, *(f"{kind}, gzipped" for kind in KINDS)])
def test_a_file_is_read_as_the_list_it_holds(
    root: Path, tokenizer: TextTokenizer, kind: str
) -> None:
    dataset = _dataset(_written(root, kind), root, tokenizer)
    assert [dataset.record(i) for i in range(len(dataset))] == RECORDS and not dataset.malformed
    assert _dataset([{**RECORDS[1], "id": 7}], root, tokenizer).record(0)["id"] == "7"


def test_items(root: Path, tokenizer: TextTokenizer) -> None:
    dataset = _dataset(RECORDS, root, tokenizer, aspect="square")
    first, text_only = dataset[0], dataset[1]
    assert first["id"] == "one" and first["input_ids"].count(IMAGE_ID) == 1
    with Image.open(root / "coco/a.png") as image:
        assert (first["images"][0] == prepare(image, PROCESSOR, "square", raw=True)).all()
    assert text_only["images"] == [] and IMAGE_ID not in text_only["input_ids"]
    assert len(text_only["labels"]) == len(text_only["input_ids"])


def test_an_image_behind_the_cut_is_not_shown(root: Path, tokenizer: TextTokenizer) -> None:
    late = made_up.record("What is it?", "A cat. " * 40, "And <image>?", "No.", image="coco/a.png")
    assert len(_dataset([late], root, tokenizer)[0]["images"]) == 1
    cut = _dataset([late], root, tokenizer, max_length=150)[0]
    assert cut["images"] == [] and IMAGE_ID not in cut["input_ids"]


BROKEN = {  # what a record is changed to -> its reason
    "is no object": ("text", "not an object"),
    "image leads out": ({"image": "/etc/passwd"}, "leaves the image folder"),
    "image climbs out": ({"image": "coco/../../x.png"}, "leaves the image folder"),
    "image of a drive": ({"image": "C:\\x.png"}, "leaves the image folder"),
    "image is empty": ({"image": ""}, "an image that is not a path: ''"),
    "image is a number": ({"image": 3}, "an image that is not a path: 3"),
    "image is a list": ({"image": ["coco/a.png"]}, "an image that is not a path: ['coco/a.png']"),
    "image is an empty list": ({"image": []}, "an image that is not a path: []"),
    "image is bytes": ({"image": {"bytes": b"x" * 99}}, "an image that is not a path"),
    "image holds a zero": ({"image": "coco/a\0.png"}, "an image that is not a path"),
    "no turns": ({"conversations": []}, "no conversations"),
    "turns are null": ({"conversations": None}, "no conversations"),
    "turns are a text": ({"conversations": "What?"}, "no conversations"),
    "turns are an object": ({"conversations": {"from": "human"}}, "no conversations"),
    "a turn is a text": ({"conversations": ["What?"]}, "not {from, value}"),
    "a turn without a text": ({"conversations": [{"from": "human"}]}, "not {from, value}"),
    "a turn's text is a number": ({"conversations": [{"from": "human", "value": 7}]},
                                  "not {from, value}"),
    "another role": ({"conversations": [{"from": "bot", "value": "x"}]}, "unknown role 'bot'"),
    "no role": ({"conversations": [{"value": "x"}]}, "unknown role None"),
    "a role that is a list": ({"conversations": [{"from": ["gpt"], "value": "x"}]}, "unknown role"),
    "two questions": ({"conversations": [{"from": "human", "value": "<image>\nA?"},
                                         {"from": "human", "value": "B?"},
                                         {"from": "gpt", "value": "C."}]}, "two turns in a row"),
    "no answer": (made_up.record("<image>\nWhat?"), "no answer"),
    "an empty answer": (made_up.record("<image>\nWhat?", "", image="coco/a.png"),
                        "cannot tell question and answer apart"),
    "no tag": (made_up.record("What?", "A cat."), "0 turns with <image>"),
    "a tag in two turns": (made_up.record("<image>\nA?", "B", "<image>\nC?", "D"), "2 turns with"),
    "a tag in an answer": (made_up.record("A?", "<image>"), "<image> in an answer"),
    "a tag and no image": ({"image": None}, "but has no image"),
    "half an emoji": (made_up.record("A?", "B", "C?", "D \ud800", image=None) | {"image": None},
                      "not Unicode"),
    "half an emoji in the path": ({"image": "\udc00.png"}, "not Unicode"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_record_is_named_and_costs_itself_alone(
    root: Path, tokenizer: TextTokenizer, case: str
) -> None:
    change, reason = BROKEN[case]
    broken = change if isinstance(change, str) else {**RECORDS[0], **change, "id": "bad_4"}
    dataset = _dataset([RECORDS[1], broken, RECORDS[0]], root, tokenizer)
    found = survey(dataset, image_tokens=4, progress=False)
    assert list(found.broken) == [1] and found.kept.tolist() == [0, 2]
    assert reason in str(found.broken[1]) and "number 1 from 0" in str(found.broken[1])
    assert isinstance(change, str) or "'bad_4'" in str(found.broken[1])
    assert found.lengths[1] == 0 < found.lengths.min(initial=99, where=[True, False, True])
    with pytest.raises(LabError):
        dataset[1]


@pytest.mark.parametrize(
    ("given", "name"),
    [({"id": 7}, "7"), ({"id": 7.5}, "7.5"), ({"id": None}, "1"), ({"id": ""}, "1"), ({}, "1"),
     ({"id": True}, "1"), ({"id": ["x"]}, "1"), ({"id": {"$oid": "x"}}, "1"),
     ({"id": "two"}, "two")],
)  # fmt: skip
def test_records_with_odd_ids_or_none_are_trained_on(
    root: Path, tokenizer: TextTokenizer, given: dict, name: str
) -> None:
    bare = {key: value for key, value in RECORDS[1].items() if key != "id"}
    dataset = _dataset([RECORDS[1], bare | given], root, tokenizer)
    assert dataset.malformed == {} and dataset[1]["id"] == name


def test_two_tags_in_one_question_are_one_image(root: Path, tokenizer: TextTokenizer) -> None:
    """As officially: all of a turn's tags are taken out, and one is put in front."""
    twice = made_up.record("<image>\nWhat is <image>?", "A cat.", image="coco/a.png")
    assert _dataset([twice], root, tokenizer)[0]["input_ids"].count(IMAGE_ID) == 1


def test_a_tag_inside_a_text_is_the_texts_own(root: Path, tokenizer: TextTokenizer) -> None:
    code = made_up.record("What does <image> do in SVG?", "It shows an image.", image=None)
    ending = made_up.record("How do you call the tag <image>", "It is <image>", image=None)
    dataset = _dataset([code, ending], root, tokenizer)
    for item in (dataset[0], dataset[1]):
        assert IMAGE_ID not in item["input_ids"] and item["images"] == []


def test_bad_files_and_settings_are_refused(root: Path, tokenizer: TextTokenizer) -> None:
    contents = {
        "cut.json": b'[{"id": ',
        "unclosed.json": json.dumps(RECORDS).encode()[:-1],
        "cut.jsonl": (json.dumps(RECORDS[0]) + "\n" + json.dumps(RECORDS[1])[:-9]).encode(),
        "x.parquet": b"PAR",
        "no_column.parquet": _parquet_bytes([{"id": "x", "text": "y"}]),
        "no_footer.parquet": b"PAR1" + b"x" * 99,
        "cut.json.gz": gzip.compress(json.dumps(RECORDS).encode())[:-20],
        "coco.json": b'{"images": [], "annotations": [{"image_id": 1, "caption": "A cat."}]}',
        "empty.json": b"",
        "none.json": b"[]",
        "utf16.json": json.dumps(RECORDS).encode("utf-16"),
        "page.json": b"<!DOCTYPE html>",
    }
    for name, content in contents.items():
        (root / name).write_bytes(content)
        with pytest.raises(LabError, match=name):
            _dataset(root / name, root, tokenizer)
    with pytest.raises(LabError, match="no records"):
        _dataset([], root, tokenizer)
    with pytest.raises(LabError, match="unknown variant 'latest'"):
        _dataset(RECORDS, root, tokenizer, variant="latest")


def test_linked_folders_are_trained_on(
    root: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    shutil.move(root / "coco", tmp_path / "disk")
    (root / "coco").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(root)
    item = _dataset(RECORDS, tmp_path / "link", tokenizer)[2]
    assert len(item["images"]) == 1


def test_a_broken_image_names_record_and_file(root: Path, tokenizer: TextTokenizer) -> None:
    (root / "coco/a.png").write_bytes(b"")
    with pytest.raises(LabError, match=r"'three', coco/a\.png: empty: 0 bytes"):
        _dataset(RECORDS, root, tokenizer)[2]


def test_qwens_own_records_bring_their_images(root: Path, tmp_path: Path) -> None:
    turns = ["Picture 1: <img>coco/a.png</img>\nWhat?", "A cat.", "And <img>coco/a.png</img>?", "B"]
    record = made_up.record(*turns, image=None)
    qwen = load_tokenizer(made_up.tiktoken_file(tmp_path))
    item = _dataset([record], root, qwen, "qwen", "square")[0]
    assert len(item["images"]) == 2 == item["input_ids"].count(qwen.special["<img>"])


@pytest.mark.parametrize("workers", [0, 2])
def test_survey_counts_what_the_items_hold(
    root: Path, tokenizer: TextTokenizer, workers: int
) -> None:
    lost = made_up.record("<image>\nWhat?", "It says </s> here.", image="coco/a.png", name="lost")
    dataset = _dataset([*RECORDS, lost], root, tokenizer, max_length=100)
    found = survey(dataset, image_tokens=4, workers=workers, progress=False)
    for i in range(3):
        item = dataset[i]
        assert found.lengths[i] == len(item["input_ids"]) + 3 * len(item["images"])
        assert found.supervised[i] == sum(label != IGNORED for label in item["labels"])
        assert found.truncated[i] == (RECORDS[i]["id"] == "three")
    assert list(found.broken) == [3]
    assert str(found.broken[3]).startswith("record 'lost' (number 3 from 0): cannot tell")
    assert found.folders == {"coco": {"images": 1, "missing": 0}}


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
