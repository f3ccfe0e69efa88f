"""Runs of a random base: once each, repeatable to the byte, resumable, found by what they are."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from sgv_lab import store
from sgv_lab.benchmarks import mme
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.files import write_jsonl
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.study import arms, effects, plans, publishing, run_arm, runner
from sgv_lab.training import metrics
from sgv_lab.world.records import instruct_mix
from sgv_lab.world.scene import MINIATURE

TEXT = """
title: tiny
family: llava-1.5-7b
arms: [before, after, sft]
seeds: 1
primary: [after, MME-P]
benchmarks: [mme, mmbench]
images: 1
minutes_a_run: 0.1
baseline: {samples: 24, steps: 1, share: 0.145, recipe: {samples_per_step: 8}}
"""
PLAN = plans.parse(TEXT, "tiny")
RESULT = ("metrics", "replaced", "key", "provenance", "seconds", "peak_bytes")  # in a record


KEY = f"""
import sys
from sgv_lab.study import plans, run_arm, runner
run_arm._result = lambda *a: (a[-1] / "result.json").write_text("{{}}")
job = runner.jobs(plans.parse({TEXT!r}, "tiny"), sys.argv[1])[0]
print(run_arm.execute(job)["key"])
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = [t["value"] for r in instruct_mix(40, difficulty=MINIATURE) for t in r["conversations"]]
    processor = families.processor(PLAN.family, "mini", mini.train_tokenizer(texts))
    processor.tokenizer.add_bos_token = True
    checkpoints.save(families.build(PLAN.family, "mini", 0), processor, folder / PLAN.family)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory, models):
    """(store, folder of the records, records): the tiny plan, run once by two workers."""
    root, out = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGV_STORE", str(root))
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        records = runner.run(PLAN, out, models, workers=2, progress=False)
        torch.set_num_threads(threads)
        return root, out, records


@pytest.fixture(autouse=True)
def _same_store(study, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(study[0]))


def answers(folder):
    return (folder / "mme" / "answers.jsonl").read_bytes()


def test_every_run_leaves_a_record_answers_and_no_weights(study):
    root, out, records = study
    assert [(r.arm, r.seed) for r in records] == PLAN.runs()
    assert runner.read(out) and {r.digest for r in records} == {PLAN.digest}
    for r in records:
        assert {"MME-P", "MME-C", "MMB", "yes-bias", "MME existence"} <= set(r.metrics)
        assert r.config["captions"]["samples"] == 24 and r.config["language_model"] == "lora"
        assert r.origins["samples"] == "plan" and r.origins["learning_rate"] == "drawn world"
        assert r.origins["annotator"] == ("default" if r.arm == "before" else f"arm {r.arm}")
        assert {"revision", "clean", "packages", "device"} <= set(r.provenance)
        assert r.seconds > 0 and r.peak_bytes > 0
        folder = root / "arms" / r.key
        assert answers(folder) and not list(folder.rglob("*.safetensors"))
        assert [row["step"] for row in metrics.read(folder / "metrics.jsonl")] == [1]
        mix = root / "mix" / r.replaced["mix"]
        ids = [row["id"] for row in json.loads((mix / "records.json").read_text())]
        listed = [row["by"] for row in json.loads((mix / "replaced.json").read_text())]
        assert listed == [key for key in ids if key.startswith("detail-")]
        assert r.replaced["count"] == len(listed) > 0


def test_weights_are_kept_when_asked_for_and_can_be_asked_more(models, tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path))
    (tmp_path / "plan.yaml").write_text(TEXT)
    shown = ["study", str(tmp_path / "plan.yaml"), "--models-root", str(models), "--keep-models"]
    result = CliRunner().invoke(main, [*shown, "--dry-run"])
    assert result.exit_code == 0 and "GB of 3 runs" in result.output, result.output
    job = replace(runner.jobs(PLAN, models)[0], keep_model=True)
    with pytest.raises(LabError, match="Unsupported logging capability: tensorbored"):
        run_arm.execute(replace(job, report_to="tensorbored"))
    folder = tmp_path / "arms" / run_arm.execute(job)["key"]
    model, _ = checkpoints.load(folder / "model")
    assert run_arm.check_disk([job, job]) == 2 * 4 * model.num_parameters()
    assert (folder / "metrics.jsonl").read_bytes() == (folder / "model/metrics.jsonl").read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9_000_000))
    with pytest.raises(LabError, match=r"GB of weights are to be kept, 0\.0 GB are free"):
        run_arm.check_disk([job, job])


@pytest.mark.parametrize(
    ("precision", "tuned", "gpu", "size"),
    [
        ("fp32", "full", True, 4),
        ("bf16", "full", True, 4),
        ("bf16", "lora", True, 2),
        ("bf16", "lora", False, 4),
        ("bf16_24", "full", True, 2),
        ("bf16_32", "full", False, 2),
    ],
)
def test_kept_weights_are_counted_in_the_precision_that_is_written(
    models, monkeypatch, precision, tuned, gpu, size
):
    job = runner.jobs(PLAN, models)[0]
    config = job.config.changed({"precision": precision, "language_model": tuned})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    model, _ = checkpoints.load(job.base)
    assert run_arm.check_disk([replace(job, config=config)]) == size * model.num_parameters()


def test_a_gpu_never_holds_a_base_before_it_is_cast(models, tmp_path, monkeypatch):
    """Training casts what does not learn, then moves it: on the GPU it is in bfloat16 alone."""
    loads = []

    def train(model, *more, **how):
        assert next(model.parameters()).device.type == "cpu"
        raise LabError("seen")

    monkeypatch.setattr(run_arm, "train", train)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    real = checkpoints.load
    monkeypatch.setattr(checkpoints, "load", lambda at, **how: loads.append(how) or real(at, **how))
    job = runner.jobs(PLAN, models)[0]
    with pytest.raises(LabError, match="seen"):
        run_arm._result(job, run_arm.stages(job), tmp_path)
    assert loads and all("device" not in how for how in loads)


def test_two_arms_that_come_to_the_same_are_computed_once(study, models):
    root, _, records = study
    keys = {r.arm: r.key for r in records}
    assert len(set(keys.values())) == 3
    again = replace(runner.jobs(PLAN, models)[0], arm="of another name")
    assert run_arm.execute(again)["key"] == keys["before"]
    assert len([f for f in (root / "arms").iterdir() if (f / "manifest.json").is_file()]) == 3


def test_points_by_image_add_up_to_the_scores(study):
    _, out, records = study
    points = pd.read_parquet(out / run_arm.POINTS)
    found = points.groupby(["arm", "score", "stratum"], observed=True)["points"].mean()
    found = found.groupby(["arm", "score"], observed=True).sum()
    for r in records:
        for score in ("MME-P", "MME-C", "MMB"):
            assert found[r.arm, score] == pytest.approx(r.metrics[score], abs=1e-3)
    subtasks = set(points.query("score == 'MME-P'")["stratum"])
    assert subtasks <= set(mme.PERCEPTION) and len(subtasks) > 4
    table = effects.effects(PLAN, records, points)
    assert table["primary"].sum() == 1


def test_run_again_it_does_nothing(study, models, monkeypatch):
    _, out, records = study
    monkeypatch.setattr(runner, "execute", None)
    assert runner.run(PLAN, out, models, progress=False) == records


def _job(**new):
    """A change to the last job of a plan."""

    def change(patch):
        real = runner.jobs
        patch.setattr(runner, "jobs", lambda *a: [*real(*a)[:-1], replace(real(*a)[-1], **new)])

    return change


def _arm(**delta):
    """A change to what an arm of the registry is."""
    return lambda patch: patch.setitem(
        arms.ARMS, "after", replace(arms.ARMS["after"], changes=delta)
    )


def _recipe(**new):
    """A change to a setting that no arm names: the base's own."""
    changed = replace(PLAN.baseline, **new)
    return lambda patch: patch.setattr(runner.Plan, "configs", lambda plan: {
        name: arms.arm(name).config(changed) for name in plan.arms})  # fmt: skip


OTHERS = {  # what is named -> the change
    r"base \(\w+, now other\)": _job(base_hash="other"),
    r"question_files\.mme \(\w+, now x\)": _job(questions={"mme": (Path(), "x")}),
    r"after, seed \d+, .*annotator \(gpt4_vision, now oracle\)": _arm(annotator="oracle"),
    r"edit \(, now shuffled\)": _arm(annotator="gpt4_vision", edit="shuffled"),
    r"weight_decay \(0\.0, now 0\.1\)": _recipe(weight_decay=0.1),
    r"pretrain \(None, now .*projector-only": _arm(
        annotator="gpt4_vision", **arms.PROJECTOR, **{"pretrain.annotator": "blip"}
    ),
    r"code \(\w+, now edited\)": lambda patch: patch.setattr(run_arm, "code", lambda: "edited"),
}


@pytest.mark.parametrize("said", OTHERS)
def test_records_of_what_would_be_another_run_today_are_refused(study, models, monkeypatch, said):
    _, out, _ = study
    before = (out / runner.RECORDS).read_bytes()
    OTHERS[said](monkeypatch)
    monkeypatch.setattr(runner, "execute", None)
    with pytest.raises(LabError, match=said):
        runner.run(PLAN, out, models, progress=False)
    assert (out / runner.RECORDS).read_bytes() == before


def test_records_of_an_earlier_library_lack_fields_and_are_shown_but_not_gone_on_with(
    study, models, tmp_path
):
    rows = [json.loads(line) for line in (study[1] / runner.RECORDS).read_text().splitlines()]
    for row in rows:
        del row["code"], row["config"]["question_files"], row["config"]["loss"]
    write_jsonl(tmp_path / runner.RECORDS, rows)
    read = runner.read(tmp_path)
    assert publishing.outdated(PLAN, study[2]) == []
    assert publishing.outdated(PLAN, read) == ["loss (not recorded, now sample)"]
    with pytest.raises(LabError, match=r"code \(not recorded.*loss.*question_files \(not recorded"):
        runner.run(PLAN, tmp_path, models, progress=False)


def test_the_base_is_asked_as_the_arms_are(study):
    root, _, _ = study
    (manifest,) = (root / "answers").glob("*/manifest.json")
    settings = json.loads(manifest.read_text())["settings"]
    assert settings["threads"] == 1  # the caller has two
    arms = [json.loads(path.read_text()) for path in (root / "arms").glob("*/manifest.json")]
    for name in ("device", "versions", "questions"):
        assert {json.dumps(arm["settings"][name]) for arm in arms} == {json.dumps(settings[name])}


def test_an_edited_scorer_asks_anew_an_edited_help_text_does_not(study, models, tmp_path):
    library = Path(runner.__file__).parents[1]
    leave = shutil.ignore_patterns("__pycache__", "foundations")
    copy = shutil.copytree(library, tmp_path / "sgv_lab", ignore=leave)

    def key(file="", old="", new=""):
        if file:
            text = (copy / file).read_text(encoding="utf-8")
            assert old in text
            (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        script = (tmp_path / "key.py").write_text(KEY) and tmp_path / "key.py"
        command = [sys.executable, str(script), str(models)]
        path = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=path, check=True)
        return done.stdout.split()[-1]

    first = key()
    assert key("training/commands.py", "# Checkpoint folder.", "# Told otherwise.") == first
    assert key("figures/study.py", "def ", "EDITED = 1\n\n\ndef ") == first
    assert key("benchmarks/mme.py", ".lower()", ".upper()") != first


def test_the_same_run_gives_the_same_answers_to_the_byte_one_caption_changed_is_another(
    study, models, tmp_path, monkeypatch
):
    root, _, records = study
    job = runner.jobs(PLAN, models)[0]
    first = answers(root / "arms" / records[0].key)
    monkeypatch.setenv("SGV_STORE", str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have
    again = run_arm.execute(job)
    torch.set_num_threads(threads)
    assert again["key"] == records[0].key
    assert answers(tmp_path / "arms" / again["key"]) == first
    data, changed, images = run_arm.materials(job)
    turns = next(r for r in changed if r["id"].startswith("detail"))["conversations"]
    turns[1]["value"] += " Indeed."
    other_data = shutil.copytree(data, tmp_path / "changed")  # an artefact counts by its key
    (other_data / "records.json").write_text(json.dumps(changed))
    monkeypatch.setattr(run_arm, "_result", lambda *a: (a[-1] / "result.json").write_text("{}"))
    monkeypatch.setattr(run_arm, "materials", lambda _: (other_data, changed, images))
    other = run_arm.execute(job)
    assert other["key"] != again["key"]
    assert (store.root() / "arms" / other["key"]).is_dir()


def test_a_line_cut_by_a_kill_is_left_out_and_written_anew(study, models, tmp_path, monkeypatch):
    lines = (study[1] / runner.RECORDS).read_text().splitlines(keepends=True)
    (tmp_path / runner.RECORDS).write_text("".join(lines[:2]) + lines[2][:40])
    assert len(runner.read(tmp_path)) == 2
    last = json.loads(lines[2])
    kept = {key: last[key] for key in (*RESULT, "records", "dropped", "parameters")}
    monkeypatch.setattr(runner, "_all", lambda left, *_: [(job, kept) for job in left])
    assert runner.run(PLAN, tmp_path, models, progress=False) == study[2]
    assert (tmp_path / runner.RECORDS).read_text() == "".join(lines)
    assert runner.read(tmp_path / "nothing") == []


def test_a_run_that_fails_is_named(study, models, tmp_path):
    bad = replace(PLAN, baseline=PLAN.baseline.changed({"annotator": "gpt5"}))
    with pytest.raises(LabError, match=r"seed \d+: LabError: no annotator 'gpt5'"):
        runner.run(bad, tmp_path, models, workers=1, progress=False)


@pytest.mark.slow
def test_over_a_cluster_each_run_is_done_once_though_a_worker_is_killed(
    study, models, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    killed = []

    def kill(client):
        """The first worker that is busy, while it is."""
        while not killed:
            busy = [worker for worker, tasks in client.processing().items() if tasks]
            if busy and list((tmp_path / "store").glob("arms/.*")):
                pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.05)

    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
        watch = threading.Thread(target=kill, args=(client,), daemon=True)
        watch.start()
        address, out = cluster.scheduler_address, tmp_path / "out"
        found = runner.run(PLAN, out, models, progress=False, cluster=address)
        watch.join(10)
        assert killed and killed[0] not in client.run(os.getpid).values()
        other = partial(runner._alone, "other code", store.root(), print)
        with pytest.raises(LabError, match="a worker has other code"):
            client.submit(other).result()
    assert [(r.arm, r.seed) for r in found] == PLAN.runs()
    assert len((out / runner.RECORDS).read_text().splitlines()) == len(found)
    assert [(r.key, r.metrics) for r in found] == [(r.key, r.metrics) for r in study[2]]
    for record in found:
        assert answers(tmp_path / "store/arms" / record.key) == answers(
            study[0] / "arms" / record.key
        )
    assert runner.untuned(out) == runner.untuned(study[1])


def test_a_cluster_that_does_not_answer_is_named(study, models, tmp_path):
    pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(LabError, match=r"tcp://127.0.0.1:9: no cluster answers. Start `dask sched"),
    ):
        runner.run(PLAN, tmp_path, models, progress=False, cluster="tcp://127.0.0.1:9")


def test_the_preflight_finds_nothing_missing(models):
    found = run_arm.preflight(runner.jobs(PLAN, models)[0])["fine-tuning"]
    assert found.obstacles == [] and found.steps == 1


@pytest.mark.parametrize("tuned", ["lora", "full"])
def test_a_familys_own_recipe_with_the_projector(tuned):
    for family, name in (("llava-7b", "sft-v1"), ("qwen-vl-chat", "sft-qwen")):
        chosen = arms.baseline(family, tuned)
        assert chosen.name.startswith(name)
        assert chosen.language_model == tuned and chosen.projector


@pytest.mark.parametrize("tuned", ["lora", "full", "projector"])
def test_a_qwen_vl_chat_reads_its_own_template_in_every_stage(tuned):
    chosen, llava = arms.baseline("qwen-vl-chat", tuned), arms.baseline("llava-1.5-7b", tuned)
    assert chosen.template == chosen.pretrain.template == "qwen"
    assert llava.pretrain.template == "plain"
    assert llava.template == ("plain" if tuned == "projector" else "v1")


def test_no_checkpoint_is_said_so(tmp_path):
    with pytest.raises(LabError, match=r"no checkpoint of llava-1\.5-7b"):
        runner.bases(PLAN, tmp_path)


@pytest.fixture(scope="module")
def two_bases(models, tmp_path_factory):
    """A models root with two bases of other weights, and a third that a gap makes unseen."""
    root, first = tmp_path_factory.mktemp("two"), models / PLAN.family
    shutil.copytree(first, root / PLAN.family)
    processor = checkpoints.load_processor(first)
    checkpoints.save(families.build(PLAN.family, "mini", 1), processor, root / f"{PLAN.family}.1")
    shutil.copytree(first, root / f"{PLAN.family}.3")
    return root


def test_seeds_take_the_bases_in_turn_and_arms_of_a_seed_share_theirs(two_bases, models):
    plan = plans.parse(TEXT.replace("seeds: 1", "seeds: 5"), "tiny")
    start = [path.name for path in runner.bases(plan, two_bases).values()]
    assert start == [plan.family, f"{plan.family}.1"] * 2 + [plan.family]
    jobs = runner.jobs(plan, two_bases)
    assert [job.base.name for job in jobs[::3]] == start == [job.base.name for job in jobs[2::3]]
    hashes = {job.base: job.base_hash for job in jobs}
    assert len(set(hashes.values())) == 2
    one = runner.bases(replace(plan, bases=1), two_bases)
    assert {path.name for path in one.values()} == {plan.family}
    assert {path.name for path in runner.bases(plan, models).values()} == {plan.family}
    assert plans.parse(TEXT + "bases: 2\n", "tiny").bases == 2
    with pytest.raises(LabError, match=r"3 bases are planned, 2 of .* are there"):
        runner.bases(replace(plan, bases=3), two_bases)


def test_a_plan_may_name_a_folder_of_bases_that_ships(two_bases, monkeypatch):
    plan = plans.parse(TEXT + f"models: {two_bases.name}\n", "tiny")
    monkeypatch.setattr("sgv_lab.models.shipped.ROOT", two_bases.parent)
    assert set(runner.bases(plan).values()) == {two_bases / PLAN.family}
    assert runner.bases(plan, two_bases.parent) == runner.bases(plan)  # below one's own root, too
    with pytest.raises(LabError, match=r"no checkpoint of llava-1\.5-7b"):
        runner.bases(replace(plan, models="none"))


def test_recorded_plans_keep_their_bases_and_new_ones_take_each_as_often(tmp_path, monkeypatch):
    for name in ("llava-1.5-7b", *(f"llava-1.5-7b.{number}" for number in range(1, 6))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setattr("sgv_lab.models.shipped.ROOT", tmp_path)
    for name in ("pilot-a", "pilot-b", "pilot-c"):
        plan, records, _ = publishing.load_study(f"{name}-llava-1.5-7b")
        start = {seed: path.name for seed, path in runner.bases(plan).items()}
        assert records and start == {one.seed: one.base for one in records}
    planned = {"study-a": 6, "study-b": 3, "study-figure6": 6, "study-tokens": 6}
    for name, bases in planned.items():
        plan = plans.load(publishing.folder() / "plans" / f"{name}-llava-1.5-7b.yaml")
        used = Counter(path.name for path in runner.bases(plan).values())
        assert len(used) == bases and set(used.values()) == {len(plan.seeds) // bases}


def test_a_study_of_two_bases_says_which_and_keeps_both_untuned(
    study, two_bases, models, tmp_path, monkeypatch
):
    text = TEXT.replace("seeds: 1", "seeds: 2").replace("[mme, mmbench]", "[mme]")
    plan = plans.parse(text.replace(", sft]", "]"), "two")
    kept = {key: getattr(study[2][0], key) for key in RESULT}
    monkeypatch.setattr(runner, "_all", lambda left, *_: [(job, kept) for job in left])
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    records = runner.run(plan, tmp_path, two_bases, progress=False)
    names = [plan.family, f"{plan.family}.1"]
    assert [record.base for record in records] == [names[0]] * 2 + [names[1]] * 2
    assert len({record.config["base"] for record in records}) == 2
    assert list(runner.untuned(tmp_path)) == names
    assert len(list((tmp_path / "store" / "answers").glob("*/manifest.json"))) == 2  # both asked
    assert runner.read(tmp_path) == records
    assert "against the untuned base" in publishing.report(plan, records, tmp_path)
    with pytest.raises(LabError, match=r"base \(\w+, now \w+\)"):  # the second is not there
        runner.run(plan, tmp_path, models, progress=False)


def test_the_command_shows_a_plan_and_its_records(study, models, tmp_path, monkeypatch):
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    dry = CliRunner().invoke(main, ["study", str(path), "--dry-run"])
    assert dry.exit_code == 0 and f"{PLAN.seeds[0]} (from" in dry.output
    told = [line.split() for line in dry.output.splitlines()]
    for row in ("all samples 24 plan", "all learning_rate 0.001 drawn world",
                "before annotator gpt4_blind default", "all template v1 base sft-lora",
                "after annotator gpt4_vision arm after"):  # fmt: skip
        assert row.split() in told, row
    ask = ["study", str(path), "--out", str(study[1]), "--models-root", str(models)]
    said = CliRunner().invoke(main, ask)
    assert said.exit_code == 0, said.output
    assert "resolve nothing" in said.output
    again = CliRunner().invoke(main, [*ask, "--dry-run"])
    assert again.exit_code == 0 and "records    3 of 3 are there" in again.output
    monkeypatch.setattr(run_arm, "code", lambda: "edited")
    again = CliRunner().invoke(main, [*ask, "--dry-run"])
    assert again.exit_code == 1 and "another experiment: code" in again.output
    monkeypatch.undo()
    for more in (["--max-dropped", "0.1"], ["--workers", "2", "--cluster", "tcp://1.2.3.4:5"]):
        ignored = CliRunner().invoke(main, [*ask, *more])
        assert ignored.exit_code == 1 and f"takes no {more[0]}" in ignored.output
    wrong = CliRunner().invoke(main, ["study", str(tmp_path / "none.yaml")])
    assert wrong.exit_code == 1 and "cannot read the plan" in wrong.output
