"""Files whole or not at all; paths that stay below their root; errors that name the nearest."""

import errno
import hashlib
import json
import threading
from pathlib import Path

import pytest

from sgv_lab import files
from sgv_lab.errors import LabError, unknown


def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_makes_folders_too(tmp_path: Path) -> None:
    with files.atomic(tmp_path / "deep" / "folder") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("1")
    assert (tmp_path / "deep" / "folder" / "x").read_text() == "1"


def test_json_and_lines_read_back(tmp_path: Path) -> None:
    rows = [{"a": "é"}, {"b": [1, None]}]
    files.write_json(tmp_path / "a.json", rows)
    assert json.loads((tmp_path / "a.json").read_text()) == rows
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_a_line_that_a_kill_cut_short_is_taken_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert files.Journal(path).read() == []
    for text, rows in (("1\n2\n", [1, 2]), ("1\n2\n{", [1, 2]), ("{", []), ("", [])):
        path.write_text(text)
        assert files.Journal(path).read() == rows
        files.Journal(path).append([])
        assert path.read_text() == "".join(f"{row}\n" for row in rows)


def test_a_journal_keeps_whole_rows_and_cuts_a_torn_one_off(tmp_path: Path) -> None:
    journal = files.Journal(tmp_path / "deep" / "a.jsonl")
    assert journal.read() == []
    journal.append([{"a": "é\u2028"}, 2])
    with journal.path.open("ab") as file:
        file.write(b'{"torn')
    assert journal.read() == [{"a": "é\u2028"}, 2]
    journal.append([3])
    assert journal.read() == [{"a": "é\u2028"}, 2, 3]
    assert b"torn" not in journal.path.read_bytes()


def test_a_damaged_line_of_a_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n{\n2\n")
    with pytest.raises(LabError, match="line 2 is damaged"):
        files.Journal(tmp_path / "a.jsonl").read()


def test_a_folder_or_a_file_has_one_writer(tmp_path: Path) -> None:
    one = files.only_writer(tmp_path / "run", "a.jsonl").lock
    with pytest.raises(LabError, match=r"a\.jsonl: another run is writing here"):
        files.only_writer(tmp_path / "run", "a.jsonl")
    with files.only_writer(tmp_path / "run"), pytest.raises(LabError, match="another run"):
        files.only_writer(tmp_path / "run")
    one.release()
    with files.only_writer(tmp_path / "run", "a.jsonl"), files.only_writer(tmp_path / "run"):
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "a.jsonl.lock"}


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_leaves_a_journal_as_it_was(tmp_path: Path, monkeypatch, failing: str) -> None:
    journal = files.Journal(tmp_path / "a.jsonl")
    journal.append([1])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, failing, full)
        with pytest.raises(LabError, match="the disk is full"):
            journal.append([2])
    assert journal.read() == [1]
    with pytest.raises(PermissionError), files.full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_sha256_of_a_folder_sees_names_and_bytes(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    (one / "a").write_bytes(b"abc")
    assert files.sha256(one / "a") == hashlib.sha256(b"abc").hexdigest()
    before = files.sha256(one)
    (one / "a").rename(one / "b")
    renamed = files.sha256(one)
    (one / "b").write_bytes(b"abd")
    assert len({before, renamed, files.sha256(one)}) == 3


def test_a_path_leaves_its_root_in_many_ways() -> None:
    for good in ("a/b.jpg", "a..b/...c.jpg", "link/x"):  # a link is laid by the user himself
        assert not files.leaves_root(good)
    for bad in ("../../etc/passwd", "/etc/passwd", "a/../../x", "a/..", "..", "", "a\0",
                "..\\x", "a\\..\\..\\x", "\\x", "\\\\host\\x", "C:\\x", "c:x"):  # fmt: skip
        assert files.leaves_root(bad)


def test_unknown_names_the_nearest() -> None:
    assert "Did you mean 'epochs'?" in str(unknown("parameter", "epoch", ["lr", "epochs"]))
    assert "known: none" in str(unknown("parameter", "epoch", []))


def test_one_thread_works_ahead_in_order_and_by_one() -> None:
    begun, taken = [], []
    for number in files.in_threads(lambda n: begun.append(n) or n, range(200), 1):
        taken.append(number)
        assert max(begun) <= number + 1
    assert taken == begun == list(range(200))


def test_several_threads_work_ahead_in_order_where_it_matters() -> None:
    later = threading.Event()

    def work(number: int) -> int:
        assert number or later.wait(20)  # the first ends behind the second
        if number == 1:
            ended.set()
        return number

    ended = later
    assert list(files.in_threads(work, range(50), 2)) == list(range(50))
    later, ended = threading.Event(), threading.Event()
    as_they_end = files.in_threads(work, range(50), 2, in_order=False)
    assert next(as_they_end) == 1
    later.set()  # only now: set by the second, both could have ended before anybody looked
    assert sorted(as_they_end) == [0, *range(2, 50)]
