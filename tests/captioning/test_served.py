"""A model server that is not ours, `transformers serve`, with the miniature that is shipped."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgv_lab.captioning.merge import table
from sgv_lab.cli import main
from sgv_lab.files import Journal
from sgv_lab.models.shipped import shipped
from sgv_lab.world import benchmarks
from sgv_lab.world.scene import MINIATURE

MODEL = shipped("llava-1.5-7b")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", MODEL, "--host",
               "127.0.0.1", "--port", port, "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log,
                                  env=os.environ | offline)  # fmt: skip
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.5)
            else:
                pytest.fail(f"does not listen: {(folder / 'log').read_text()}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def run(*words: object) -> None:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def names(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of twelve of the world's images."""
    listed = tmp_path_factory.mktemp("names") / "names.txt"
    some = sorted(path.relative_to(world).as_posix() for path in world.rglob("*.png"))[:12]
    listed.write_text("\n".join(some))
    return listed


def test_captions_by_the_server_are_those_of_the_checkpoint(url, world, names, tmp_path):
    shared = ("--images", names, "--root", world, "--max-tokens", 120)
    run("caption", "--model", url, "--name", MODEL, "--out", tmp_path / "served", *shared)
    run("caption", "--model", MODEL, "--out", tmp_path / "loaded", *shared)
    served, loaded = (table(tmp_path / name).set_index("image") for name in ("served", "loaded"))
    assert served["caption"].to_dict() == loaded["caption"].to_dict()
    assert served["caption"].str.len().min() > 5


def test_it_is_collected_from_with_the_papers_prompts(url, world, names, tmp_path):
    run("collect", "--url", url, "--model", MODEL, "--images", names, "--root", world, "--out",
        tmp_path, "--max-tokens", 200, "--request", '{"temperature": 0}')  # fmt: skip
    found = table(tmp_path)
    assert sorted(found["image"]) == names.read_text().split("\n")
    assert found["caption"].notna().sum() >= 6  # a miniature may ramble: what ends is kept
    assert set(found["served"].dropna()) == {f"{MODEL}@main"}


def test_answers_by_the_server_are_those_of_the_checkpoint(url, tmp_path):
    (data,) = benchmarks.write(tmp_path / "world", ["mme"], images=1, difficulty=MINIATURE)
    shared = ("evaluate", "--benchmark", "mme", "--data", data)
    run(*shared, "--model", url, "--name", MODEL, "--out", tmp_path / "served")
    run(*shared, "--model", MODEL, "--out", tmp_path / "loaded")
    served, loaded = (Journal(tmp_path / name / "answers.jsonl") for name in ("served", "loaded"))
    told = {row["question_id"]: row["text"] for row in loaded.read()}
    assert {row["question_id"]: row["text"] for row in served.read()} == told
    assert len(set(told.values())) > 1
