"""Updates on one batch, at the size that a CPU can do; `test_gpu` does the true one."""

import json
import math

import pytest
from click.testing import CliRunner

from sgv_lab.cli import main
from sgv_lab.training import recipes, true_size

KEY = "llava-1.5-7b"
MINI = {"pretrain": {"vision_from": 1, "learning_rate": 1e-3}, "sft": {"learning_rate": 1e-3}}


@pytest.mark.parametrize("name", MINI)
def test_the_loss_falls_on_a_repeated_batch_and_memory_is_planned(name):
    found = true_size.repeated(KEY, "mini", recipes.recipe(name, MINI[name]), updates=4)
    assert all(map(math.isfinite, found["losses"])) and len(found["losses"]) == 4
    assert found["losses"][-1] < found["losses"][0]
    assert found["planned_bytes"] == sum(found["planned"].values()) > 0
    assert found["peak_bytes"] is None  # a CPU does not tell


def test_the_command_writes_a_record_a_call(tmp_path):
    out = tmp_path / "records.jsonl"
    given = ["throughput", "repeat", "--model", KEY, "--recipe", "sft", "--size", "mini"]
    for _ in range(2):
        done = CliRunner().invoke(main, [*given, "--steps", "2", "--out", str(out)])
        assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["recipe"] for line in lines] == ["sft", "sft"]
    assert lines[0]["losses"] == lines[1]["losses"]
    refused = CliRunner().invoke(main, [*given[:-1], "paper", "--out", str(out)])
    assert refused.exit_code and "true sizes need a GPU" in f"{refused.output}{refused.exception}"
