"""Both commands killed at random moments: every image ends with one caption, the same one."""

import multiprocessing
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from sgv_lab.captioning import endpoint, writer
from sgv_lab.captioning.collect import Terms, collect
from sgv_lab.captioning.merge import merge

# A model is shared by forking; polars, which looks for flaws, hangs in a forked process.
FORK, SPAWN = (multiprocessing.get_context(name) for name in ("fork", "spawn"))


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 16)


def slow(answer, seconds=0.01):
    """The same answers, a little later: a run then takes long enough to be killed in."""

    def answer_later(*given):
        time.sleep(seconds)
        return answer(*given)

    return answer_later


@pytest.fixture(params=["collect", "caption"])
def command(request, world, loaded):
    """How to start a process, and what captions the world into a folder in it."""
    if request.param == "caption":
        yield FORK, partial(_by_model, loaded, world)
        return
    with endpoint.serve(slow(endpoint.annotator(world))) as url:
        yield SPAWN, partial(_by_endpoint, url, world)


def _by_endpoint(url, world, out):
    writer.CHUNK = 16
    collect(url, endpoint.MODEL, world, out, Terms(connections=3))


def _by_model(loaded, world, out):
    import torch

    from sgv_lab.captioning.bulk import Decoding, caption

    torch.set_num_threads(1)
    sampled = Decoding(max_new_tokens=8, do_sample=True)
    caption(*loaded, world, out, batch_size=3, decoding=sampled)


def _bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("rows/*"))


def _kill(command, out: Path, draw: random.Random, whole: int) -> bool:
    """Run, SIGKILL when a random amount was written and a random time passed; whether it ran."""
    until = draw.uniform(0, 0.9) * max(0, whole - _bytes(out)) + _bytes(out)
    context, run = command
    process = context.Process(target=run, args=(out,))
    process.start()
    while process.is_alive() and _bytes(out) < until:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.02))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def _survives(command, tmp_path, kills: int) -> None:
    draw, whole = random.Random(0), tmp_path / "whole"
    command[1](whole)
    want, size = merge(whole).read_bytes(), _bytes(whole)
    killed = 0
    while killed < kills:
        out = tmp_path / f"killed{killed}"
        while killed < kills and _kill(command, out, draw, size):
            killed += 1
        command[1](out)
        assert sorted(row["index"] for row in writer.rows(out)) == list(range(40))
        assert merge(out).read_bytes() == want


def test_killed_at_random_moments(tmp_path, command):
    _survives(command, tmp_path, kills=5)


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path, command):
    _survives(command, tmp_path, kills=50)


def _dies(write, run, out):
    real, left = os.write, iter(range(write - 1, -1, -1))

    def half(descriptor, data):
        if bytes(data[:8]) == b'{"index"' and next(left) == 0:
            real(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, data)

    os.write = half
    run(out)


@pytest.mark.parametrize("write", [1, 2, 5])
def test_killed_during_a_write(tmp_path, command, write):
    """The ``write``-th write ends half way through a row, and so does the process."""
    context, run = command
    run(tmp_path / "whole")
    process = context.Process(target=_dies, args=(write, run, tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    torn = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("rows/*"))
    assert torn and not torn.endswith(b"\n")
    run(tmp_path / "out")
    assert merge(tmp_path / "out").read_bytes() == merge(tmp_path / "whole").read_bytes()


def test_a_model_that_breaks_in_a_batch_leaves_whole_rows(tmp_path, loaded, world, monkeypatch):
    from sgv_lab.captioning import bulk

    usual, batches = bulk.decode, iter(range(4))

    def breaks(*given):
        if next(batches) == 3:
            raise RuntimeError("device lost")
        return usual(*given)

    monkeypatch.setattr(bulk, "decode", breaks)
    with pytest.raises(RuntimeError, match="device lost"):
        _by_model(loaded, world, tmp_path / "out")
    monkeypatch.undo()
    assert len(list(writer.rows(tmp_path / "out"))) == 9
