"""Both recipes compared seed by seed, checked by hand, and what both are to be given."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from sgv_lab import profiles
from sgv_lab.errors import LabError
from sgv_lab.study import run_arm, sharegpt4v
from sgv_lab.study.sharegpt4v import LLAVA, OURS


def _found(gained: list[float]) -> sharegpt4v.Found:
    """Runs whose MME-P differ by ``gained``, seed by seed; two images of one subtask."""
    columns = ["score", "stratum", "image", "points"]
    found = {}
    for seed, more in enumerate(gained):
        for name, points in ((LLAVA, 100.0 + seed), (OURS, 100.0 + seed + more)):
            rows = [("MME-P", "color", p, points) for p in "ab"]
            found[name, seed] = {"MME-P": points, "MMB": 50.0}, pd.DataFrame(rows, columns=columns)
    return found


def test_gains_are_paired_by_seed() -> None:
    table = sharegpt4v.compared(_found([1.0, 3.0]))
    row = table.loc["MME-P"]
    assert (row[LLAVA], row[OURS], row["gain"], row["seeds"]) == (100.5, 102.5, 2.0, 2)
    half = 12.706204736 * 1.0  # t of one degree of freedom, times the standard error
    assert (row["low"], row["high"]) == pytest.approx((2 - half, 2 + half))
    assert row["flip"] == 0.5
    assert row["crossed_low"] < 2.0 < row["crossed_high"]
    same = table.loc["MMB"]
    assert same["gain"] == 0 and math.isnan(same["flip"]) and math.isnan(same["crossed_low"])


@pytest.mark.parametrize("profile", ["smoke", "mini"])
def test_in_miniature_both_recipes_get_as_many_updates_of_as_many_samples(profile: str) -> None:
    jobs = sharegpt4v.jobs(profiles.section("05_sharegpt4v_7b", profile), profile)
    for seed in {seed for _, seed in jobs}:
        ours, theirs = (jobs[name, seed].config for name in (OURS, LLAVA))
        assert ours.captions.samples == theirs.captions.samples
        assert ours.training() == theirs.training() and ours.max_steps == theirs.max_steps
        assert (ours.language_model, ours.loss) == ("full", "token")
        ours, theirs = ours.pretrain, theirs.pretrain
        first = [(d.max_steps, d.samples_per_step, d.loss, d.captions.samples, d.captions.pool)
                 for d in (ours, theirs)]  # fmt: skip
        assert first[0] == first[1]
        assert (ours.captions.annotator, ours.name) == ("share", "pretrain")
        assert (theirs.captions.annotator, theirs.name) == ("blip", "projector-only")
        assert (ours.vision_from, theirs.vision_from) == (1, None)
        assert (ours.learning_rate, theirs.learning_rate) == (5e-4, 1e-3)
    assert len({job.questions["mme"] for job in jobs.values()}) == 1


def test_the_full_size_commands_are_the_papers_recipes_unchanged() -> None:
    first, second = sharegpt4v.torchrun_commands(8).splitlines()
    for line, name in ((first, "pretrain"), (second, "sft")):
        assert line.startswith("torchrun --standalone --nproc-per-node=8 -m sgv_lab train")
        assert f"--recipe {name} " in line and "--max-steps" not in line
        changed = {one.partition("=")[0] for one in line.split("--set ")[1:]}
        assert changed == {"gradient_checkpointing", "precision"}  # speed and memory alone
    assert "share-captioner_coco_lcs_sam_1246k_1107.json" in first
    assert "cap23k" in second and "--model runs/pretrain " in second


def test_a_check_names_what_training_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    named = "record 'x' (number 1 from 0): image empty: x.jpg (0 bytes)"
    found = {"obstacles": [], "broken": [], "records": 3, "reasons": "", "images": {}}
    whole = SimpleNamespace(**found, memory={"weights": 14e9}, disk_needed=95e9)
    spoilt = SimpleNamespace(**vars(whole) | {"broken": [named], "reasons": "image empty (1)"})
    stages = {"pre-training": whole, "fine-tuning": spoilt}
    monkeypatch.setattr(run_arm, "preflight", lambda job, drop_broken: stages)
    job = SimpleNamespace(arm="before", questions={})
    needed = "3 records, 0 images, 14.00 GB of memory, 95.00 GB of disk"
    assert run_arm.check([job]) == [
        f"before, fine-tuning: 1 of 3 records are left out, image empty (1): {named}",
        f"before, pre-training: {needed}",
        f"before, fine-tuning: {needed}",
    ]
    spoilt.obstacles = ["no record is left to train on"]
    with pytest.raises(LabError, match="before, fine-tuning: no record is left"):
        run_arm.check([job])
