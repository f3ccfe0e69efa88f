"""The writer and the merged data set."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sgv_lab.captioning import writer
from sgv_lab.captioning.image_lists import ImageList
from sgv_lab.captioning.merge import discarded, merge, outcome, table
from sgv_lab.captioning.writer import CaptionRun
from sgv_lab.captions.convert import convert
from sgv_lab.errors import LabError
from sgv_lab.files import only_writer

SETTINGS = {"model": "m", "revision": "r1", "seed": 0, "prompt": "Say."}


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 4)


def images(count: int = 10) -> ImageList:
    return ImageList(Path("nowhere"), [f"a/{n}.png" for n in range(count)])


def row(index: int, **more) -> dict:
    return {"index": index, "sha256": f"{index}", "caption": f"Number {index} é\u2028.", **more}


def fill(out: Path, shard=(0, 1), most: int = 99, settings=SETTINGS) -> list[int]:
    """Write what is missing, a row at a time; the numbers written."""
    written = []
    with CaptionRun(out, images(), settings, shard) as shards:
        for _, left in shards.missing():
            for number in reversed(left):
                if len(written) < most:
                    shards.add([row(number)])
                    written.append(number)
    return written


def test_what_is_there_is_not_written_again_and_rows_say_where_they_come_from(tmp_path):
    assert fill(tmp_path, most=6) == [3, 2, 1, 0, 7, 6]
    assert fill(tmp_path) == [5, 4, 9, 8] and fill(tmp_path) == []
    rows = list(writer.rows(tmp_path))
    assert sorted(r["index"] for r in rows) == list(range(10))
    one = rows[0]
    stamp = {"model": "m", "revision": "r1", "seed": 0, "settings": writer.digest(SETTINGS)}
    assert one == row(3) | {"image": "a/3.png"} | stamp
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == SETTINGS


def test_shards_share_the_files_and_together_make_the_whole(tmp_path):
    assert fill(tmp_path, (1, 2)) == [7, 6, 5, 4]
    with pytest.raises(LabError, match="4 images without a row, the first 0"):
        merge(tmp_path)
    assert sorted(fill(tmp_path, (0, 2))) == [0, 1, 2, 3, 8, 9]
    fill(tmp_path / "alone")
    assert merge(tmp_path).read_bytes() == merge(tmp_path / "alone").read_bytes()
    with pytest.raises(LabError, match="no shard 2/2"):
        fill(tmp_path, (2, 2))


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_line_is_cut_and_its_image_captioned_again(tmp_path, cut):
    fill(tmp_path)
    whole = merge(tmp_path).read_bytes()
    file = tmp_path / "rows/000001.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert fill(tmp_path) == [4]
    assert merge(tmp_path).read_bytes() == whole


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    fill(tmp_path, most=2)
    with pytest.raises(LabError, match=r"holds another run \(prompt was 'Say\.'; seed was '0'\)"):
        fill(tmp_path, settings=SETTINGS | {"seed": 1, "prompt": "Tell."})
    with pytest.raises(LabError, match="names was"):
        CaptionRun(tmp_path, ImageList(Path(), list("abcdefghij")), SETTINGS)


def test_two_processes_cannot_write_the_same_file(tmp_path):
    fill(tmp_path, most=2)
    refused = pytest.raises(LabError, match=r"000000\.jsonl: another run is writing here")
    with only_writer(tmp_path / "rows", "000000.jsonl"), refused:
        fill(tmp_path)
    assert len(fill(tmp_path)) == 8


def test_damage_inside_is_named_and_deleting_the_file_mends_it(tmp_path):
    fill(tmp_path)
    file = tmp_path / "rows/000001.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\0\0\0\n" + b"".join(lines[2:]))
    with pytest.raises(LabError, match=r"000001\.jsonl: line 2 is damaged"):
        fill(tmp_path)
    file.unlink()
    assert fill(tmp_path) == [7, 6, 5, 4]


def test_a_write_that_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    fill(tmp_path, most=1)
    size = (tmp_path / "rows/000000.jsonl").stat().st_size
    real = os.write

    def full(descriptor, data):
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LabError, match="the disk is full"):
        fill(tmp_path)
    assert (tmp_path / "rows/000000.jsonl").stat().st_size == size
    monkeypatch.undo()
    monkeypatch.setattr(writer, "CHUNK", 4)
    fill(tmp_path)
    merge(tmp_path)


def test_a_disk_filled_by_the_run_itself(tmp_path):
    """The system's own limit stops a write in the middle of the third row."""
    fill(tmp_path / "undisturbed")
    limit = (tmp_path / "undisturbed/rows/000002.jsonl").stat().st_size + 30
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(LabError, match="the disk is full"):
            fill(tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert 0 < len(list(writer.rows(tmp_path / "full"))) < 4
    fill(tmp_path / "full")
    assert merge(tmp_path / "full").read_bytes() == merge(tmp_path / "undisturbed").read_bytes()


def test_merging_gives_the_official_records_parquet_and_a_card(tmp_path):
    from sgv_lab.captions.records import record_problem

    with CaptionRun(tmp_path, images(), SETTINGS) as shards:
        for numbers, _ in shards.missing():
            shards.add([row(n) for n in numbers if n != 5])
            if 5 in numbers:
                shards.add([row(5, caption=None, reason="animated: 3 frames")])
    records = json.loads(merge(tmp_path, tmp_path / "made", "set").read_text())
    assert [r["id"] for r in records] == [str(n) for n in range(10) if n != 5]
    assert not any(map(record_problem, records))  # as the trainer reads them
    assert len({r["conversations"][0]["value"] for r in records}) > 3
    frame = convert(tmp_path / "made/set.json").rows().collect()  # as the statistics read them
    assert frame["caption"].to_list() == [row(n)["caption"] for n in range(10) if n != 5]
    parquet = pd.read_parquet(tmp_path / "made/set.parquet")
    assert list(parquet["image"]) == [r["image"] for r in records]
    assert set(parquet["settings"]) == {writer.digest(SETTINGS)} and set(parquet["model"]) == {"m"}
    card = (tmp_path / "made/README.md").read_text()
    assert "9 captions of 10 images" in card and "- 1 animated" in card
    assert '"revision": "r1"' in card and "data_files: set.parquet" in card
    assert outcome(tmp_path).to_dict()["images"] == {"captioned": 9, "animated": 1}
    assert list(table(tmp_path)["index"]) == list(range(10)) and discarded(tmp_path).empty


def test_merging_refuses_duplicates_strangers_and_mixed_runs(tmp_path):
    fill(tmp_path)
    file = tmp_path / "rows/000001.jsonl"
    good = file.read_text()
    bad = {
        "an image twice": good + good.partition("\n")[0] + "\n",
        "first 4": good.replace('"index": 4', '"index": 0'),
        "another run": good.replace(writer.digest(SETTINGS), "f" * 12, 1),
    }
    for message, text in bad.items():
        file.write_text(text)
        with pytest.raises(LabError, match=message):
            merge(tmp_path)
    assert not (tmp_path / "captions.json").exists()
    assert not (tmp_path / "captions.parquet").exists()
    with pytest.raises(LabError, match="holds no run"):
        merge(tmp_path / "rows")


def test_names_that_two_folders_share_become_paths(tmp_path):
    names = ImageList(Path(), ["a/1.png", "b/1.png"])
    with CaptionRun(tmp_path, names, SETTINGS) as shards:
        for numbers, _ in shards.missing():
            shards.add([row(n) for n in numbers])
    assert [r["id"] for r in json.loads(merge(tmp_path).read_text())] == ["a/1", "b/1"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Peak memory of captioning 10,000 and 100,000 names whose files are missing, then merging."""
    program = """
import resource, sys
from sgv_lab.captioning import bulk, merge
from sgv_lab.models import families
model = families.build("llava-1.5-7b", "mini", 0)
bulk.caption(model, None, sys.argv[1], sys.argv[2])
merge.merge(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for count in (10_000, 100_000):
        names = tmp_path / f"{count}.txt"
        names.write_text("".join(f"coco/train2017/{n:012d}.jpg\n" for n in range(count)))
        command = [sys.executable, "-c", program, str(names), str(tmp_path / f"out{count}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    print(f"peak memory {peaks[0]:.0f} and {peaks[1]:.0f} MB")
    assert peaks[1] - peaks[0] < 40
