import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pytest
import tiny_llava
import torch

from sgv_lab.training import metrics
from sgv_lab.training.trainable import set_trainable

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


@pytest.mark.parametrize("name", distributed_worker.RUNS)
def test_two_ddp_processes_train_as_one(tmp_path, two, name):
    one = distributed_worker.fit(name, tmp_path)
    assert tiny_llava.losses(two / name) == pytest.approx(tiny_llava.losses(one), abs=1e-5)
    _assert_close(tiny_llava.weights(two / name), tiny_llava.weights(one))
    rows = [metrics.read(out / "metrics.jsonl") for out in (two / name, one)]
    for key in ("samples", "supervised_tokens", "images"):
        assert [row[key] for row in rows[0]] == [row[key] for row in rows[1]], key
    assert json.loads((two / name / "manifest.json").read_text())["processes"] == 2


def test_fsdp2_shards_every_parameter_and_trains_as_one_process(two):
    facts = [json.loads((two / f"facts-{rank}.json").read_text()) for rank in (0, 1)]
    for fact in facts:
        assert fact["unsharded"] == []
        assert 0.45 < fact["share"] < 0.55
    model, trainable = set_trainable(tiny_llava.model().train(), tiny_llava.recipe())
    losses = distributed_worker.steps(model, trainable.effective, 0, 1)
    assert facts[0]["losses"] == facts[1]["losses"] == pytest.approx(losses, abs=1e-5)
    weights = torch.load(two / "sharded.pt", weights_only=True)
    _assert_close(weights, dict(model.named_parameters()))
