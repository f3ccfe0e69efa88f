"""What a GPU's image lacks is not needed to train, evaluate, caption or run a study there."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {
    *("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy"),
    *("huggingface-hub", "msgspec", "click", "pandas", "pyarrow", "scipy", "pillow", "tqdm"),
    *("pyyaml", "filelock", "jinja2"),  # which torch itself needs
}
# Read by every Python process of a run, workers too: the packages left out are not found, nor is
# any version of theirs or ours.
SITE = """
import importlib.machinery, importlib.metadata

MODULES, PACKAGES = {modules!r}, {packages!r}
spec = importlib.machinery.PathFinder.find_spec
distribution = importlib.metadata.Distribution.from_name

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in MODULES else spec(name, path, target)

def from_name(name):
    if name.lower().replace("_", "-") in PACKAGES:
        raise importlib.metadata.PackageNotFoundError(name)
    return distribution(name)

importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
importlib.metadata.Distribution.from_name = staticmethod(from_name)
"""
# In one process, because loading torch and transformers is most of the time.
MAKE = """
import json
from pathlib import Path
from sgv_lab.cli import main
from sgv_lab.models.shipped import shipped
from sgv_lab.world import benchmarks
from sgv_lab.world.records import instruct_mix
from sgv_lab.world.render import render
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import MINIATURE

base = str(shipped("llava-1.5-7b"))

def call(*words):
    main(list(map(str, words)), standalone_mode=False)
"""
TRAIN = """
records = instruct_mix(8, difficulty=MINIATURE)
for one in records:
    if "image" in one:
        path = Path("images", one["image"])
        path.parent.mkdir(parents=True, exist_ok=True)
        render(scene_of(one["image"], MINIATURE), 64).save(path)
Path("records.json").write_text(json.dumps(records))
given = ["--model", base, "--records", "records.json", "--images", "images", "--recipe", "sft"]
given += ["--set", "samples_per_step=4", "--max-steps", 1, "--out", "trained"]
call("plan", *given)
call("train", *given)
packages = json.loads(Path("trained/manifest.json").read_text())["provenance"]["packages"]
assert packages["torch"] and packages["sgv-lab"] and packages["polars"] is None, packages
"""
ANSWER = """
asked = {"benchmarks": ["mme", "mmbench"], "images": 1, "seed": 0, "size": 64}
benchmarks.write(Path("questions"), **asked, difficulty=MINIATURE)
for name in asked["benchmarks"]:
    given = ["--model", base, "--data", f"questions/{name}", "--out", f"said/{name}"]
    call("evaluate", "--benchmark", name, *given)
    assert list(Path("said", name).rglob("score.json"))
call("caption", "--model", base, "--images", "images", "--out", "captions", "--max-tokens", 8)
call("caption", "--merge", "--out", "captions")
assert len(json.loads(Path("captions/captions.json").read_text())) > 2
call("measure", "--size", "mini", "--seconds", 0, "--out", "speeds")
"""
STUDY = """
Path("tiny.yaml").write_text('''
title: tiny
family: llava-1.5-7b
arms: [before, after]
seeds: 1
primary: [after, MME-P]
benchmarks: [mme, mmbench]
images: 1
baseline: {samples: 24, steps: 1, recipe: {samples_per_step: 4}}
''')
call("study", "tiny.yaml", "--dry-run")
call("study", "tiny.yaml", "--out", "study", "--workers", 1)
one, two = Path("study/records.jsonl").read_text().splitlines()
assert json.loads(two)["provenance"]["packages"]["openai"] is None
"""


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in an empty folder where only the NEEDED of our dependencies exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]}
    assert direct > NEEDED
    lacking = sorted(direct - NEEDED)
    modules = sorted(
        name
        for name, owners in packages_distributions().items()
        if {owner.lower() for owner in owners} & set(lacking)
    )
    assert {"polars", "openai", "textblob", "nbformat", "IPython", "matplotlib"} <= set(modules)
    site = tmp_path / "site"
    site.mkdir()
    text = SITE.format(modules=modules, packages=[*lacking, "sgv-lab"])
    (site / "sitecustomize.py").write_text(text)
    known = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "SGV_STORE": str(tmp_path / "store")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=os.environ | known | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_what_a_gpu_runs_needs_no_more(bare) -> None:
    done = bare("-c", MAKE + TRAIN + ANSWER + STUDY)
    assert done.returncode == 0, done.stderr
    assert "tiny: tiny" in done.stdout and "no mmbench.xlsx to submit" in done.stderr


def test_an_absent_package_is_one_line(bare) -> None:
    done = bare("-m", "sgv_lab", "stats", "captions.json")
    assert done.returncode == 1
    assert done.stderr.strip() == "Error: textblob is not installed. Run `pip install textblob`."


@pytest.mark.slow
def test_a_study_that_collects_captions_says_so_before_it_runs(bare) -> None:
    plan = ROOT / "figures" / "data" / "plans" / "table4-llava-1.5-7b.yaml"
    done = bare("-m", "sgv_lab", "study", str(plan), "--dry-run")
    assert done.returncode == 1
    assert done.stderr.strip() == "Error: openai is not installed. Run `pip install openai`."
