"""What only a GPU can show about training: sharding, adapters on 4 bits."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sgv_lab.cli import main
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.training import metrics

KEY = "llava-1.5-7b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A miniature checkpoint, eight images and their records."""
    root = tmp_path_factory.mktemp("gpu")
    records = []
    for number in range(8):
        Image.new("RGB", (40, 30), (number * 20, 90, 9)).save(root / f"{number}.png")
        turns = [("human", "<image>\nWhat is this?"), ("gpt", f"Image number {number}.")]
        turns = [{"from": who, "value": text} for who, text in turns]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (root / "records.json").write_text(json.dumps(records))
    tokenizer = mini.train_tokenizer(t["value"] for r in records for t in r["conversations"])
    model = families.build(KEY, "mini", 0)
    checkpoints.save(model, families.processor(KEY, "mini", tokenizer), root / "base")
    return root


def _given(folder, out, name, *more):
    given = ["train", "--model", folder / "base", "--records", folder / "records.json"]
    given += ["--images", folder, "--recipe", name, "--out", out, "--device", "cuda"]
    given += ["--max-steps", 4, "--set", "samples_per_step=4", *more]
    return list(map(str, given))


def _losses(out):
    return [row["loss"] for row in metrics.read(out / "metrics.jsonl")]


@pytest.mark.gpu
def test_the_trainers_fsdp2_trains_as_one_device(folder, tmp_path):
    """torch's `fully_shard` under torchrun; the final checkpoint is whole."""
    processes = torch.cuda.device_count()
    if processes < 2:
        pytest.skip("one GPU has nobody to share with")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += ["--nproc-per-node", str(processes), "--module", "sgv_lab"]
    subprocess.run([*start, *_given(folder, tmp_path / "sharded", "sft", "--fsdp")], check=True)
    alone = CliRunner().invoke(main, _given(folder, tmp_path / "alone", "sft"))
    assert alone.exit_code == 0, alone.output
    for a, b in zip(_losses(tmp_path / "sharded"), _losses(tmp_path / "alone"), strict=True):
        assert abs(a - b) < 0.02
    model, _ = checkpoints.load(tmp_path / "sharded")
    assert model.config.model_type == "llava"


@pytest.mark.gpu
def test_adapters_on_four_bits_learn(folder, tmp_path):
    pytest.importorskip("bitsandbytes")
    rate = ("--set", "learning_rate=0.01", "--set", "projector_learning_rate=0.01")
    done = CliRunner().invoke(main, _given(folder, tmp_path / "run", "sft-qlora", *rate))
    assert done.exit_code == 0, done.output
    losses = _losses(tmp_path / "run")
    assert losses[-1] < losses[0]
    assert (tmp_path / "run" / "manifest.json").is_file()
