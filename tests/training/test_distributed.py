import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pytest
import tiny_llava
import torch
from accelerate import PartialState

from sgv_lab.errors import LabError
from sgv_lab.training import checkpointing, metrics

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder in which two CPU processes under torchrun left their runs."""
    out = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command += [str(HERE / "distributed_worker.py"), str(out)]
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def _assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if not name.endswith("k_proj.bias"):  # its gradient is rounding noise
            torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=0, msg=name)


@pytest.mark.parametrize("name", [name for name in distributed_worker.RUNS if name != "masters"])
def test_two_processes_train_as_one(tmp_path, two, name):
    one = distributed_worker.fit(name, tmp_path, fsdp=False)
    assert tiny_llava.losses(two / name) == pytest.approx(tiny_llava.losses(one), abs=1e-5)
    _assert_close(tiny_llava.weights(two / name), tiny_llava.weights(one))
    rows = [metrics.read(out / "metrics.jsonl") for out in (two / name, one)]
    for key in ("samples", "supervised_tokens", "images"):
        assert [row[key] for row in rows[0]] == [row[key] for row in rows[1]], key
    assert json.loads((two / name / "manifest.json").read_text())["processes"] == 2


def test_sharded_weights_with_masters_train_as_one(tmp_path, two):
    """Killed and resumed, too: to the rounding of bfloat16 gradients, summed in another order."""
    one = distributed_worker.fit("masters", tmp_path, fsdp=False)
    assert tiny_llava.losses(two / "masters") == pytest.approx(tiny_llava.losses(one), rel=5e-3)
    ours, theirs = (tiny_llava.weights(out) for out in (two / "masters", one))
    assert ours.keys() == theirs.keys()
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}


def test_every_tensor_is_sharded(two):
    for rank in (0, 1):
        facts = json.loads((two / f"facts-{rank}.json").read_text())
        assert facts["unsharded"] == []
        assert 0.45 < facts["share"] < 0.55


def test_shards_are_resumed_by_as_many_processes(tmp_path, two):
    """One process cannot go on from the shards of two."""
    folder = tmp_path / "checkpoints" / "checkpoint-4"
    folder.mkdir(parents=True)
    torch.save({"step": 4, "processes": 2}, folder / "process-0.pt")
    size = (folder / "process-0.pt").stat().st_size
    (folder / checkpointing.MARKER).write_text(json.dumps({"process-0.pt": size}))
    state = checkpointing.TrainingState(
        folder.parent, torch.nn.Linear(1, 1), None, None, PartialState()
    )
    state.sharded = True
    with pytest.raises(LabError, match="saved in shards by 2 processes"):
        state.load()
