import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time

import pytest
import tiny_llava
import torch
from accelerate import PartialState

from sgv_lab.errors import LabError
from sgv_lab.files import only_writer
from sgv_lab.training import checkpointing, metrics, trainer

UPDATES = 12
LORA = {"lora_dropout": 0.3}  # dropout draws random numbers in every update


def _run(out, recipe, updates=UPDATES, samples=None):
    torch.set_num_threads(1)
    return tiny_llava.fit(
        out, recipe=recipe, max_steps=updates, save_every=4, samples=samples, micro_batch=3
    )


class Stopped(Exception):
    """What ends a run from within."""


class StopsAt(tiny_llava.Samples):
    """Samples that end the run when the ``reads``-th one is read."""

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __getitem__(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise Stopped
        return super().__getitem__(index)


@pytest.fixture(scope="module", params=["pretrain", "sft-lora"])
def whole(request, tmp_path_factory):
    """A recipe, and an undisturbed run of it: all weights, and adapters with dropout."""
    recipe = tiny_llava.recipe(request.param, **(LORA if "lora" in request.param else {}))
    return recipe, _run(tmp_path_factory.mktemp(request.param), recipe)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """The same for adapters alone, which have everything a checkpoint can hold."""
    recipe = tiny_llava.recipe("sft-lora", **LORA)
    return recipe, _run(tmp_path_factory.mktemp("adapters"), recipe)


def _assert_bit_for_bit(out, undisturbed):
    ours, theirs = tiny_llava.weights(out), tiny_llava.weights(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    timed = {"seconds", "samples_per_second"}
    rows = [
        [
            {k: v for k, v in row.items() if k not in timed}
            for row in metrics.read(o / "metrics.jsonl")
        ]
        for o in (out, undisturbed)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("updates_done", [3, 4, 11])
def test_stopped_and_resumed_is_undisturbed_bit_for_bit(tmp_path, whole, updates_done):
    recipe, undisturbed = whole
    with pytest.raises(Stopped):
        _run(tmp_path, recipe, samples=StopsAt(8 * updates_done + 3))
    kept = [p.name for p in checkpointing.checkpoints(tmp_path / "checkpoints")]
    assert kept == ([f"checkpoint-{updates_done // 4 * 4}"] if updates_done >= 4 else [])
    reads = StopsAt(8 * (UPDATES - updates_done // 4 * 4))  # what was trained on is not read again
    _assert_bit_for_bit(_run(tmp_path, recipe, samples=reads), undisturbed)


def test_a_finished_run_returns_at_once(tmp_path):
    recipe = tiny_llava.recipe()
    out = _run(tmp_path, recipe, updates=2)
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert _run(tmp_path, recipe, updates=2, samples=StopsAt(0)) == out
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    _run(tmp_path, tiny_llava.recipe(), updates=2)
    with pytest.raises(LabError, match=r"holds a run with other settings \(recipe"):
        _run(tmp_path, tiny_llava.recipe(learning_rate=1e-4), updates=2)
    with pytest.raises(LabError, match=r"other settings \(model\)"):
        tiny_llava.fit(tmp_path, model=tiny_llava.model(seed=5), max_steps=2)


def _killed(out, recipe, after):
    """Run in a process of its own and kill it ``after`` seconds; whether it had ended by itself."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(out, recipe))
    process.start()
    process.join(after)
    ended = not process.is_alive()
    process.kill()
    process.join()
    return ended


def _survives(tmp_path, whole, kills):
    recipe, undisturbed = whole
    draw = random.Random(0)
    began = time.monotonic()
    assert _killed(tmp_path / "timed", recipe, None)
    seconds = time.monotonic() - began
    out = tmp_path / "run"
    for _ in range(kills):
        _killed(out, recipe, draw.uniform(0.1, 0.9) * seconds)
    _assert_bit_for_bit(_run(out, recipe), undisturbed)


def test_killed_at_random_moments(tmp_path, adapters):
    _survives(tmp_path, adapters, kills=2)


def test_a_folder_in_which_another_training_writes_is_refused_and_left_alone(tmp_path):
    with only_writer(tmp_path), pytest.raises(LabError, match="another run is writing here"):
        _run(tmp_path, tiny_llava.recipe("sft"), updates=2)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert (_run(tmp_path, tiny_llava.recipe("sft"), updates=2) / "manifest.json").is_file()


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path, whole):
    _survives(tmp_path, whole, kills=20)


@pytest.mark.parametrize("moment", ["process-0.pt", "marker"])
def test_killed_during_a_save(tmp_path, adapters, moment):
    """SIGKILL while the second checkpoint is being written leaves the first one to go on from."""
    recipe, undisturbed = adapters

    def target():
        usual_save, usual_complete = torch.save, checkpointing.complete
        saved = []

        def save(value, file, *given, **named):
            usual_save(value, file, *given, **named)
            saved.append(file)
            if len(saved) == 2 and moment == file.name:
                os.truncate(file, file.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        def complete(scratch, place):
            if place.name == "checkpoint-8" and moment == "marker":
                os.kill(os.getpid(), signal.SIGKILL)
            usual_complete(scratch, place)

        torch.save, checkpointing.complete = save, complete
        _run(tmp_path, recipe)

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [p.name for p in checkpointing.checkpoints(tmp_path / "checkpoints")] == ["checkpoint-4"]
    _assert_bit_for_bit(_run(tmp_path, recipe), undisturbed)


def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path, adapters):
    recipe, undisturbed = adapters
    folder = tmp_path / "checkpoints"
    with pytest.raises(Stopped):
        _run(tmp_path, recipe, samples=StopsAt(8 * 5))
    shutil.copytree(folder / "checkpoint-4", tmp_path / "older")
    with pytest.raises(Stopped):
        _run(tmp_path, recipe, samples=StopsAt(8 * 5))
    (tmp_path / "older").rename(folder / "checkpoint-4")  # as if killed while it was deleted
    assert [p.name for p in checkpointing.checkpoints(folder)] == ["checkpoint-4", "checkpoint-8"]
    file = folder / "checkpoint-8" / "process-0.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert [p.name for p in checkpointing.checkpoints(folder)] == ["checkpoint-4"]
    _assert_bit_for_bit(_run(tmp_path, recipe), undisturbed)


def test_a_full_disk_is_an_error_and_the_last_checkpoint_stays(tmp_path, adapters):
    recipe, undisturbed = adapters
    with pytest.raises(Stopped):
        _run(tmp_path, recipe, samples=StopsAt(8 * 5))
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # no file may grow past 20 kB
    try:
        with pytest.raises(LabError, match=r"the disk is full.* the last checkpoint"):
            _run(tmp_path, recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert [p.name for p in checkpointing.checkpoints(tmp_path / "checkpoints")] == ["checkpoint-4"]
    _assert_bit_for_bit(_run(tmp_path, recipe), undisturbed)


def test_metrics_cut_off_by_a_kill_are_read_and_mended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 4, "lo')
    assert metrics.read(path) == rows
    run = trainer.Machine(progress=False)
    with metrics.Metrics(path, 2, 4, run, PartialState(cpu=True), {}) as resumed:
        resumed.add({"step": 3, "loss": 0.5, "samples": 8})
    assert metrics.read(path)[:2] == rows[:2]
    assert [(row["step"], row["loss"]) for row in metrics.read(path)[2:]] == [(3, 0.5)]
