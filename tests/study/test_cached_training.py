"""Both stages as artefacts: made once, told apart, resumed after any kill, the same in two."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sgv_lab.captions import sources
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.study import cached_training
from sgv_lab.training import metrics
from sgv_lab.training.config import BASES, base
from sgv_lab.world.scene import MINIATURE

KEY = "llava-1.5-7b"
TINY = {"samples_per_step": 4, "learning_rate": 1e-3, "gradient_checkpointing": False}


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base with random weights, a file of dense captions, and the root of their images."""
    out = tmp_path_factory.mktemp("two-stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGV_STORE", str(out / "store"))
        world = sources.world(12, 0, 64, difficulty=MINIATURE)
    records = sources.find(world)["ShareGPT4V"]
    said = json.loads(records.read_text())
    texts = [turn["value"] for one in said for turn in one["conversations"]]
    processor = families.processor(KEY, "mini", mini.train_tokenizer(texts))
    base = checkpoints.save(families.build(KEY, "mini", 0), processor, out / "base")
    return base, records, world


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def pretrained(start, records, images, blocks, updates, seed, changes, **how):
    config = base("pretrain", {**changes, "vision_from": blocks, "max_steps": updates})
    return cached_training.train_cached(start, records, images, config, seed, **how)


def finetuned(start, records, images, updates, seed, changes, **how):
    config = base("sft", {**changes, "max_steps": updates})
    return cached_training.train_cached(start, records, images, config, seed, **how)


def _moved(before: Path, after: Path) -> set[str]:
    """Tensors that differ between two checkpoints."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert ours.keys() == theirs.keys()
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


def _blocks(moved: set[str]) -> set[int]:
    found = [name.split("encoder.layers.")[1] for name in moved if "encoder.layers." in name]
    return {int(name.split(".")[0]) for name in found}


@pytest.mark.parametrize(("blocks", "tuned"), [(None, set()), (1, {1}), (0, {0, 1}), (2, set())])
def test_pre_training_tunes_the_blocks_it_says_with_projector_and_language_model(
    materials: tuple[Path, Path, Path], blocks: int | None, tuned: set[int]
) -> None:
    made = pretrained(*materials, blocks, 2, 0, TINY)
    moved = _moved(materials[0], made)
    assert _blocks(moved) == tuned
    for part in ("multi_modal_projector", "language_model", "lm_head"):
        assert any(part in name for name in moved)
    assert json.loads((made / "run.json").read_text())["recipe"]["vision_from"] == blocks


def test_fine_tuning_starts_from_pre_training_and_leaves_its_tower_alone(
    materials: tuple[Path, Path, Path],
) -> None:
    base, records, images = materials
    first = pretrained(base, records, images, 1, 2, 0, TINY)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    second = finetuned(first, records, images, 2, 0, TINY)
    moved = _moved(first, second)
    assert moved and not any("vision_tower" in name for name in moved)
    run = json.loads((second / "run.json").read_text())
    assert (run["recipe"]["name"], run["recipe"]["template"], run["steps"]) == ("sft", "v1", 2)
    assert pretrained(base, records, images, 1, 2, 0, TINY) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    other = pretrained(base, records, images, 1, 2, 1, TINY)
    again = finetuned(other, records, images, 2, 0, TINY)
    assert other != first and again != second


def test_without_changes_it_is_the_papers_recipe() -> None:
    said = cached_training.command("m", "r.json", "d", BASES["pretrain"], "o", 0)
    assert " ".join(said) == (
        "sgv-lab train --model m --records r.json --images d --recipe pretrain --out o --seed 0"
    )
    other = base("sft", {"learning_rate": 0.1, "max_steps": 7, "micro_batch": 4})
    many = cached_training.command("m", "r.json", "d", other, "o", 0, processes=8, fsdp=True)
    assert many[:5] == ["torchrun", "--standalone", "--nproc-per-node=8", "-m", "sgv_lab"]
    assert many[many.index("--set") + 1] == "learning_rate=0.1"
    assert many[-5:] == ["--max-steps", "7", "--micro-batch", "4", "--fsdp"]


def test_an_unknown_block_is_refused(materials: tuple[Path, Path, Path]) -> None:
    with pytest.raises(LabError, match=r"vision_from=12, but the tower has 3 blocks"):
        pretrained(*materials, 12, 2, 0, TINY)


UPDATES = 6  # of each stage in the tests below


def _both(materials: tuple[Path, Path, Path], store: Path, **how: object) -> tuple[Path, Path]:
    """Both stages into ``store``: their checkpoints."""
    os.environ["SGV_STORE"] = str(store)
    torch.set_num_threads(1)
    base, records, images = materials
    how = {"save_every": 2, "device": "cpu", **how}
    first = pretrained(base, records, images, 1, UPDATES, 0, TINY, **how)
    return first, finetuned(first, records, images, UPDATES, 0, TINY, **how)


def _rows(store: Path) -> int:
    """Updates that were written down, of both stages; 0 while a stage's folder gets its name."""
    try:
        return sum(path.read_text().count("\n") for path in store.rglob("metrics.jsonl"))
    except FileNotFoundError:
        return 0


def _killed(materials: tuple[Path, Path, Path], store: Path, until: float, later: float) -> bool:
    """Both stages in a process of their own, killed ``later`` seconds after ``until`` updates."""
    process = multiprocessing.get_context("fork").Process(target=_both, args=(materials, store))
    process.start()
    while process.is_alive() and _rows(store) < until:
        time.sleep(0.002)
    time.sleep(later)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def _survives(materials: tuple[Path, Path, Path], tmp_path: Path, kills: int) -> None:
    draw, store = random.Random(0), tmp_path / "killed"
    whole = _both(materials, tmp_path / "whole")
    moments = sorted(draw.uniform(0, 2 * UPDATES - 1) for _ in range(kills))
    killed, in_stage = 0, set()
    for moment in moments:
        killed += _killed(materials, store, moment, draw.uniform(0, 0.05))
        in_stage.add(bool(list(store.glob("pretrain/*/model/manifest.json"))))
    assert killed == kills and in_stage == {False, True}
    for ours, undisturbed in zip(_both(materials, store), whole, strict=True):
        assert _moved(ours, undisturbed) == set()
        assert not (ours / "checkpoints").exists()


def test_killed_at_random_moments_across_both_stages(
    materials: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _survives(materials, tmp_path, kills=5)


@pytest.mark.slow
def test_killed_at_many_random_moments_across_both_stages(
    materials: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _survives(materials, tmp_path, kills=20)


@pytest.mark.slow
def test_two_processes_end_both_stages_as_one_does_with_a_whole_checkpoint(
    materials: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = _both(materials, tmp_path / "one")
    two = _both(materials, tmp_path / "two", processes=2)
    for alone, together in zip(one, two, strict=True):
        rows = [metrics.read(made / "metrics.jsonl") for made in (alone, together)]
        losses = [[row["loss"] for row in run] for run in rows]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
        manifest = json.loads((together / "manifest.json").read_text())
        assert manifest["processes"] == 2
        assert [p.name for p in together.rglob("*.safetensors")] == ["model.safetensors"]
        ours, theirs = (load_file(made / "model.safetensors") for made in (alone, together))
        assert ours.keys() == theirs.keys()
        model, _ = checkpoints.load(together)
        assert model.num_parameters() == sum(tensor.numel() for tensor in theirs.values())


def test_a_process_that_fails_is_told(materials: tuple[Path, Path, Path]) -> None:
    base, records, _ = materials
    with pytest.raises(LabError, match="a process ended with 1"):
        pretrained(base, records, base, 1, UPDATES, 0, TINY, processes=2, device="cpu")
