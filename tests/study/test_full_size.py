"""At full size, in small: what is missing is told, counted and limited; notebooks run."""

import json
import re
import shlex
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import full_size
import pytest
import yaml
from click.testing import CliRunner

from sgv_lab import pipeline
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.notebook import folder as notebooks
from sgv_lab.study import ledger, official, plans, publishing, run_arm, runner

PLAN = {
    "title": "tiny, from official files", "profile": "paper", "family": full_size.FAMILY,
    "arms": ["before", "after"], "seeds": 1, "primary": ["after", "MME-P"],
    "benchmarks": ["mme"],
    "baseline": {"tuning": "full", "recipe": {"tokens_per_batch": 512}},  # packs of a tiny model
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full-size")
    return full_size.base(folder / "models")


@pytest.fixture
def data(models, tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    return full_size.lay(tmp_path / "data")


def jobs(models, data, **more):
    return runner.jobs(plans.parse(yaml.dump(PLAN), "tiny"), models, data, **more)


def test_a_folder_without_its_images_is_refused_and_counted_ones_are_told(models, data):
    (told,) = run_arm.check(jobs(models, data), at_once=3)  # both arms need the same
    assert told.startswith("before, after, fine-tuning: 40 records, ")
    assert re.search(r" images, [\d.]+ GB of memory, [\d.]+ GB of disk × 3 runs at once$", told)
    (data / full_size.COCO[7]).unlink()
    whole = (data / full_size.COCO[8]).read_bytes()
    (data / full_size.COCO[8]).write_bytes(whole[: len(whole) // 2])  # its header is sound
    told = run_arm.check(jobs(models, data))
    assert "before, fine-tuning: 2 of 40 records are left out" in told[0]
    assert "image missing (1)" in told[0] and "image corrupt (1)" in told[0]
    assert told[1] == "  coco/train2017: 30 images, 1 missing, 1 corrupt"
    (data / full_size.COCO[9]).unlink()
    with pytest.raises(LabError, match=r"3 of 40 records cannot be trained on, more than 5\.0%"):
        run_arm.check(jobs(models, data))
    assert run_arm.check(jobs(models, data, max_dropped=0.1))
    with pytest.raises(LabError, match=r"3 of 40 records cannot be trained on, more than 5\.0%"):
        run_arm.execute(jobs(models, data)[0])


def test_images_that_arrive_later_make_another_run(models, data, monkeypatch):
    monkeypatch.setattr(run_arm, "_result", lambda *a: (a[-1] / "result.json").write_text("{}"))
    job = jobs(models, data)[0]
    whole = run_arm.execute(job)
    image = (data / full_size.COCO[7]).read_bytes()
    (data / full_size.COCO[7]).unlink()
    lacking = run_arm.execute(job)
    assert lacking["key"] != whole["key"] and lacking["left_out"] != whole["left_out"]
    (data / full_size.COCO[7]).write_bytes(image)
    assert run_arm.execute(job)["key"] == whole["key"]


@pytest.fixture
def answered(monkeypatch):
    """Runs train for real, in this process; their answers are made up."""
    told = {"MME-P": 700.0}
    monkeypatch.setattr(run_arm, "evaluate_all", lambda *given: told)
    monkeypatch.setattr(runner, "evaluate_cached", lambda *given: (told, None))
    monkeypatch.setattr(runner, "_workers", lambda *_: nullcontext(SimpleNamespace(map=map)))
    run = lambda left, *_: ((job, run_arm.execute(job)) for job in left)  # noqa: E731
    monkeypatch.setattr(runner, "_all", run)


@pytest.mark.usefixtures("answered")
def test_a_swap_counts_once_and_what_was_left_out_stands_in_record_and_report(
    models, data, tmp_path
):
    (data / full_size.COCO[7]).unlink()
    plan = plans.parse(yaml.dump(PLAN), "tiny")
    records = runner.run(plan, tmp_path / "out", models, data, workers=1, progress=False)
    assert {one.arm: one.replaced["count"] for one in records} == {"before": 0, "after": 4}
    parameters = full_size.model().num_parameters()
    for one in records:
        assert (one.records, one.dropped, one.parameters) == (39, 1, parameters)
        assert one.config["left_out"].keys() == {"fine-tuning"}
    said = publishing.report(plan, records, tmp_path / "out")
    assert "left out of after, fine-tuning: 1 of 40 records (2.50%)" in said
    (data / full_size.COCO[8]).unlink()
    with pytest.raises(LabError, match=r"of another experiment: left_out\.fine-tuning"):
        runner.run(plan, tmp_path / "out", models, data, workers=1, progress=False)

    # A toy is not full size, whatever its profile says.
    kept = tmp_path / "data_kept"
    (kept / "plans").mkdir(parents=True)
    assert ledger.not_full_size(records[0], kept) == "its plan is not committed"
    (kept / "plans" / "tiny.yaml").write_text(yaml.dump(PLAN))
    whole = plans.load(kept / "plans" / "tiny.yaml").digest
    toy = replace(records[0], digest=whole)
    assert "parameters, llava-1.5-7b has 7," in ledger.not_full_size(toy, kept)
    large = replace(toy, parameters=7_000_000_000)
    assert ledger.not_full_size(large, kept) == ""
    assert "left out" in ledger.not_full_size(replace(large, dropped=10), kept)
    first = {"captions": 100, "dropped": 6}
    assert "6.0% of its" in ledger.not_full_size(replace(large, pretrain=first), kept)
    assert "left out" in ledger.not_full_size(replace(large, records=0, dropped=0), kept)
    study = kept / "studies" / "tiny"
    study.mkdir(parents=True)
    lines = (tmp_path / "out" / runner.RECORDS).read_text().splitlines()
    rows = [json.loads(line) | {"digest": whole} for line in lines]
    for parameters, found in ((4_000_000, False), (7_000_000_000, True)):
        text = "\n".join(json.dumps(row | {"parameters": parameters}) for row in rows)
        (study / runner.RECORDS).write_text(text + "\n")
        table = ledger.records(kept)
        assert bool(len(table)) == found
    assert table["dropped"].max() == pytest.approx(1 / 40)


RUNS = {
    "04": {"families": f'["{full_size.FAMILY}"]', "seeds": "1"},
    "05": {},
    "07": {"arms": '["none@PT", "blip@PT", "share@PT"]', "seeds": "1"},
}


@pytest.mark.slow
@pytest.mark.timeout(1_800)  # several trainings and examinations, a process each
@pytest.mark.parametrize("number", RUNS)
def test_a_notebook_runs_at_full_size(number, models, data, tmp_path):
    given = {"models_root": str(models), "data_root": str(data), **RUNS[number]}
    planned = pipeline.plan([number], "paper", given, notebooks())
    list(pipeline.run(planned, notebooks(), tmp_path / "run"))
    (book,) = (tmp_path / "run").glob(f"{number}_*.ipynb")
    cells = {cell["id"]: cell for cell in json.loads(book.read_text())["cells"]}
    if first := cells.get("before-after-figure"):  # a photo with its captions, then the drawn one
        drawn = [one for one in first["outputs"] if "image/png" in one.get("data", {})]
        assert len(drawn) == 2


PAGE = Path(__file__).parents[2] / "docs" / "full_size.md"
TINY = {"MIX": Path(official.FILES["mix"]).stem, "FAMILY": full_size.FAMILY, "SPEED": "1000"}
ELSEWHERE = ("hf download", "pip install", "sgv-lab measure")  # they fetch, or take minutes
LESS = ["--max-steps", "2", "--set", "samples_per_step=8"]


@pytest.mark.slow
@pytest.mark.timeout(1_800)  # a study's processes among them
def test_the_commands_of_the_page_run_one_after_the_other(tmp_path, monkeypatch):
    """On tiny files in the official layouts, laid out where the page has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    full_size.original(full_size.lay(tmp_path / "data").parent)
    (block, *_) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    baseline = {"tuning": "full", "recipe": {"tokens_per_batch": 512, "samples_per_step": 8}}
    (plan,) = map(Path, re.findall(r"study (\S+)", block))
    plan.parent.mkdir(parents=True)
    plan.write_text(yaml.dump(PLAN | {"baseline": baseline}))
    walked = []
    for line in block.splitlines():
        if not line.startswith(ELSEWHERE):
            for name, ours in TINY.items():
                line = re.sub(rf"\b{name}\b", ours, line)
            _, command, *given = shlex.split(line)
            given += LESS if command in ("plan", "train") else []
            done = CliRunner().invoke(main, [command, *given])
            assert done.exit_code == 0, f"{line}\n{done.output}"
            walked.append(command)
    assert walked == ["stats", "convert", "plan", "train", "evaluate", "study"]
    model, _ = checkpoints.load(tmp_path / "RUN")
    assert model.num_parameters() == full_size.model().num_parameters()
    assert json.loads((tmp_path / "ANSWERS" / "score.json").read_text())["benchmark"] == "MME"
    kept = runner.read(tmp_path / "figures" / "data" / "studies" / plan.stem)
    assert {one.arm: one.records for one in kept} == {"before": 40, "after": 40}
