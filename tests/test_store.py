"""The store: computed once, never stale, and never seen half-made."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sgv_lab import closure, store
from sgv_lab.errors import LabError

BUILD = """
import sys, time
from pathlib import Path
from sgv_lab import store

def build(folder):
    with open(sys.argv[1], "a") as log:
        print("built", file=log)
    (folder / "half").write_text("half")
    time.sleep(float(sys.argv[2]))
    (folder / "whole").write_text("whole")

print(store.artifact("t", {"a": 1}, [], build))
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


class Counter:
    """A build that counts its calls."""

    def __init__(self, text: str = "x") -> None:
        self.calls, self.text = 0, text

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "file.txt").write_text(self.text)


def test_is_computed_once_and_found_again() -> None:
    build = Counter("four")
    first = store.artifact("t", {"a": 1, "b": [2.5, None]}, [], build)
    assert store.artifact("t", {"b": [2.5, None], "a": 1}, [], build) == first
    assert build.calls == 1
    assert (first / "sub" / "file.txt").read_text() == "four"
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["files"] == {"sub/file.txt": 4}
    assert manifest["settings"] == {"a": 1, "b": [2.5, None]}


def test_name_settings_inputs_and_code_each_make_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("one")
    code = tmp_path / "some_code.py"
    code.write_text("x = 1\ndef build(folder):\n    print(x)\n")
    monkeypatch.syspath_prepend(tmp_path)
    build = importlib.import_module("some_code").build
    monkeypatch.setattr(closure, "_sources", closure.Sources)  # as a process begins
    made = [
        store.artifact("t", {"a": 1}, [source], build),
        store.artifact("u", {"a": 1}, [source], build),
        store.artifact("t", {"a": 2}, [source], build),
    ]
    source.write_text("two")
    made.append(store.artifact("t", {"a": 1}, [source], build))
    code.write_text(code.read_text().replace("1", "2"))
    made.append(store.artifact("t", {"a": 1}, [source], build))
    assert len(set(made)) == 5
    source.write_text("one")
    code.write_text(code.read_text().replace("2", "1  # a comment"))
    assert store.artifact("t", {"a": 1}, [source], build) == made[0]


def test_an_artefact_as_input_counts_by_its_key() -> None:
    first = store.artifact("a", {}, [], Counter())
    second = store.artifact("b", {}, [first], Counter())
    assert json.loads((second / "manifest.json").read_text())["inputs"] == [first.name]
    other = store.artifact("a", {"n": 2}, [], Counter())
    assert store.artifact("b", {}, [other], Counter()) != second


def test_a_folder_in_an_artefact_counts_by_the_artefact_and_its_place() -> None:
    def build(folder: Path) -> None:
        for name in ("model", "other"):  # as a trained model's folder, which has a manifest too
            (folder / name).mkdir()
            (folder / name / "manifest.json").write_text("{}")

    one, two = (store.artifact("t", {"seed": seed}, [], build) for seed in (1, 2))
    inputs = (one / "model", two / "model", one / "other", one)
    made = {store.artifact("u", {}, [given], Counter()) for given in (*inputs, one / "model")}
    assert len(made) == len(inputs)


def test_refuses_what_json_cannot_hold_and_missing_inputs(tmp_path: Path) -> None:
    for value in (Path("x"), float("nan"), {1, 2}):
        with pytest.raises(LabError, match=r"stage 't'"):
            store.artifact("t", {"a": value}, [], Counter())
    with pytest.raises(LabError, match=r"gone\.txt"):
        store.artifact("t", {}, [tmp_path / "gone.txt"], Counter())


class FailsOnce(Counter):
    """A build that fails, half done, when it is called first."""

    def __call__(self, folder: Path) -> None:
        super().__call__(folder)
        if self.calls == 1:
            (folder / "half").write_text("half")
            raise RuntimeError("no")


def test_a_failed_build_is_not_there_and_is_made_again(root: Path) -> None:
    build = FailsOnce()
    with pytest.raises(RuntimeError):
        store.artifact("t", {}, [], build)
    assert not (store.artifact("t", {}, [], build) / "half").exists()


def test_a_build_that_resumes_finds_what_it_left() -> None:
    build = FailsOnce()
    with pytest.raises(RuntimeError):
        store.artifact("t", {}, [], build, resumes=True)
    assert (store.artifact("t", {}, [], build, resumes=True) / "half").read_text() == "half"


def test_a_full_disk_is_said_and_leaves_nothing(root: Path) -> None:
    def fills(folder: Path) -> None:
        (folder / "half").write_text("half")
        Path("/dev/full").write_text("x" * 100)

    with pytest.raises(LabError, match=r"/t: the disk is full.*SGV_STORE"):
        store.artifact("t", {}, [], fills)
    assert not [path for path in root.rglob("*") if path.suffix != ".lock" and path.is_file()]
    assert store.artifact("t", {}, [], Counter()).is_dir()


def start(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    script = tmp_path / "build.py"  # what builds has to be in a file
    script.write_text(BUILD)
    command = [sys.executable, script, str(tmp_path / "log"), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_two_processes_compute_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.5) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: process.communicate()[0].strip(), processes))
    assert said[0] == said[1] and Path(said[0], "whole").read_text() == "whole"
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_sigkill_while_building_leaves_nothing_that_looks_whole(
    tmp_path: Path, root: Path
) -> None:
    process = start(tmp_path, 60)
    end = time.monotonic() + 120
    while not list(root.glob("t/.*.building/half")):
        assert time.monotonic() < end, "the build never began"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(root.glob("t/[!.]*"))
    said, _ = start(tmp_path, 0).communicate()
    assert sorted(p.name for p in Path(said.strip()).iterdir()) == [
        "half",
        "manifest.json",
        "whole",
    ]
    assert (tmp_path / "log").read_text() == "built\nbuilt\n"
