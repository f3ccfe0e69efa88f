"""A survey of a file of records is made once, and again when what decides it changes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import pytest
from PIL import Image

from sgv_lab import store
from sgv_lab.training.config import base
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.segments import TextTokenizer, load_tokenizer
from sgv_lab.training.survey import Survey, survey


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load_tokenizer(made_up.sentencepiece_model(tmp_path_factory.mktemp("sp")))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four records as JSON lines, the third without its image; a store of its own."""
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    records = [made_up.record("<image>\nA?", "B" * i, image=f"{i}.png") for i in range(1, 5)]
    lines = [json.dumps(record | {"id": f"r{i}"}) for i, record in enumerate(records)]
    (tmp_path / "records.jsonl").write_text("\n\n".join(lines))
    for number in (1, 2, 4):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The records that were encoded, as often as they were."""
    found: list[int] = []
    encode = RecordDataset.encode

    def noted(self: RecordDataset, record: Any) -> Any:
        found.append(int(record["id"][1:]))
        return encode(self, record)

    monkeypatch.setattr(RecordDataset, "encode", noted)
    return found


def _survey(root: Path, tokenizer: TextTokenizer, image_tokens: int = 4, **changes: Any) -> Survey:
    processor = SimpleNamespace(tokenizer=tokenizer, image_processor=None)
    data = RecordDataset(root / "records.jsonl", root, processor, base("sft", changes))
    return survey(data, image_tokens, progress=False)


def test_a_second_survey_encodes_nothing_and_finds_the_same(
    root: Path, tokenizer: TextTokenizer, seen: list[int]
) -> None:
    first = _survey(root, tokenizer)
    assert seen == [0, 1, 3]
    second = _survey(root, tokenizer)
    assert seen == [0, 1, 3]
    for one in (first, second):
        assert one.folders == {".": {"images": 4, "missing": 1}}
        lacks = "record 'r2' (number 2 from 0, line 5): image missing: 3.png (no such file)"
        assert list(map(str, one.broken.values())) == [lacks] and one.kept.tolist() == [0, 1, 3]
    assert (first.lengths == second.lengths).all() and second.truncated.dtype == bool


def test_an_image_that_arrives_or_breaks_later_is_seen(
    root: Path, tokenizer: TextTokenizer
) -> None:
    assert list(_survey(root, tokenizer).broken) == [2]
    Image.new("RGB", (9, 9)).save(root / "3.png")
    assert list(_survey(root, tokenizer).broken) == []
    (root / "1.png").write_bytes(b"")
    assert [one.reason for one in _survey(root, tokenizer).broken.values()] == ["image empty"]
    (root / "1.png").write_text("<html>")
    assert [one.reason for one in _survey(root, tokenizer).broken.values()] == ["image corrupt"]
    state = (root / "4.png").stat()
    (root / "4.png").write_bytes(b"x" * state.st_size)  # as long as it was, at another time
    os.utime(root / "4.png", ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert list(_survey(root, tokenizer).broken) == [0, 3]


def test_other_records_recipes_tokens_and_tokenizers_are_surveyed_anew(
    root: Path,
    tokenizer: TextTokenizer,
    seen: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = _survey(root, tokenizer)
    assert _survey(root, tokenizer, image_tokens=9).lengths[0] == first.lengths[0] + 5
    assert _survey(root, tokenizer, max_length=20).lengths[0] < first.lengths[0]
    assert len(seen) == 9
    _survey(root, load_tokenizer(made_up.sentencepiece_model(tmp_path)))
    assert len(seen) == 9, "the same tokenizer from another place is the same"
    ours = made_up.TEXTS
    monkeypatch.setattr(made_up, "TEXTS", (*ours, "BBB BBB BBBB"))
    _survey(root, load_tokenizer(made_up.sentencepiece_model(tmp_path)))
    assert len(seen) == 12
    text = (root / "records.jsonl").read_text()
    (root / "records.jsonl").write_text(text.replace("BBBB", "BBBBB"))
    assert _survey(root, tokenizer).lengths[3] != first.lengths[3]


def test_a_store_that_cannot_be_written_is_done_without(
    root: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **more: Any) -> Path:
        raise PermissionError("read-only")

    monkeypatch.setattr(store, "artifact", refuse)
    assert list(_survey(root, tokenizer).broken) == [2]


LOOK = """
import json, resource, sys
from types import SimpleNamespace
from pathlib import Path
from sgv_lab.training.config import base
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.segments import load_tokenizer
from sgv_lab.training.survey import survey

folder, tokenizer = Path(sys.argv[1]), load_tokenizer(Path(sys.argv[2]))
who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN  # the workers, once they have ended
before = sum(sum(resource.getrusage(one)[:2]) for one in who)
processor = SimpleNamespace(tokenizer=tokenizer, image_processor=None)
data = RecordDataset(folder / "records.jsonl", folder, processor, base("sft"))
found = survey(data, 576, progress=False)
used = [resource.getrusage(one) for one in who]
print(json.dumps({"seconds": sum(sum(one[:2]) for one in used) - before,
                  "bytes": max(one.ru_maxrss for one in used) * 1024,
                  "lengths": int(found.lengths.sum()), "broken": len(found.broken),
                  "folders": found.folders}))
"""


def _look(folder: Path, tokenizer: Path, records: int) -> dict[str, Any]:
    """What a survey of so many records takes; a tenth of them have an image, links to one file."""
    (folder / "coco").mkdir(parents=True)
    Image.effect_noise((640, 480), 90).convert("RGB").save(folder / "photo.jpg")
    answer = "A cat is on the mat. " * 8
    with (folder / "records.jsonl").open("w") as file:
        for number in range(records):
            image = f"coco/{number}.jpg" if number % 10 == 0 else None
            if image:
                (folder / image).symlink_to(folder / "photo.jpg")
            asked = "<image>\nWhat is on the mat?" if image else "What is on the mat?"
            one = made_up.record(asked, f"{answer}{number}", image=image, name=f"r{number}")
            file.write(json.dumps(one) + "\n")
    known = os.environ | {"SGV_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LOOK, str(folder), str(tokenizer)], env=known,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_survey_of_300_000_records_takes_its_time_and_little_memory(tmp_path: Path) -> None:
    """Thirty times the processor's time of 10,000 (twice that at most), and 2 KB a record."""
    tokenizer = made_up.sentencepiece_model(tmp_path)
    few, many = (_look(tmp_path / str(n), tokenizer, n) for n in (10_000, 300_000))
    assert many["broken"] == few["broken"] == 0
    assert many["folders"]["coco"] == {"images": 30_000, "missing": 0, "linked": 30_000}
    assert many["lengths"] > 30 * few["lengths"]  # longer numbers
    assert many["seconds"] < 2 * 30 * few["seconds"], (few, many)
    assert many["bytes"] - few["bytes"] < 2_000 * 290_000, (few, many)
