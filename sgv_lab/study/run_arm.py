"""One run of the study: train the base as an arm says, ask the benchmarks, keep the answers.

Pre-training, where an arm has one, is an artefact of its own; then the mix is fine-tuned on.
A run is addressed by its content: its resolved config, the records it trains on, its images,
questions, base model, seed, device, versions and the code that trains and asks. Two arms that come
to the same are computed once; one caption changed is another run.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab import store
from sgv_lab.benchmarks.evaluate import check_images, evaluate
from sgv_lab.benchmarks.tasks import TASKS
from sgv_lab.closure import digest
from sgv_lab.errors import LabError
from sgv_lab.files import sha256, write_json
from sgv_lab.models import checkpoints, families
from sgv_lab.provenance import provenance
from sgv_lab.study import cached_training, mix, official, pretraining_data, scores, share_captioner
from sgv_lab.training import plan as planning
from sgv_lab.training.config import RunConfig
from sgv_lab.training.trainer import train

POINTS = "points.parquet"
STAGES = ("pre-training", "fine-tuning")


@dataclass(frozen=True)
class Job:
    """One run to do: what a worker needs to know."""

    arm: str
    seed: int
    config: RunConfig
    family: str
    base: Path
    base_hash: str
    questions: Mapping[str, tuple[Path, str]]  # benchmark -> folder, hash
    data_root: Path | None = None  # of the official files; None: the embedded world


@dataclass(frozen=True)
class Stage:
    """One training: its records, the folder of their images, and how it learns."""

    name: str
    records: Path
    images: Path
    config: RunConfig


def config(job: Job) -> dict[str, Any]:
    """All that makes a run, as its record keeps it, known before anything is trained."""
    found, first = job.config.values(), job.config.pretrain
    found["captions"]["file"] = Path(job.config.captions.file).name
    share = first and first.captions.annotator == "share"
    return found | {
        "captioner": share_captioner.SIZES[first.captions.captioner] if share else None,
        "base": job.base_hash,
        "question_files": {name: known for name, (_, known) in job.questions.items()},
    }


def code() -> str:
    """The hash of the code that a run rests on."""
    return digest(execute)


def materials(job: Job) -> tuple[Path, list[dict[str, Any]], Path]:
    """The mix's folder in the store, its records, and the folder that holds their images."""
    shown = job.config.captions
    if job.data_root:
        data = official.official_mix(shown, job.data_root, job.family)
    else:
        data = mix.mix_artifact(shown, job.seed)
    records = json.loads((data / "records.json").read_text(encoding="utf-8"))
    return data, records, job.data_root or mix.drawn_images(records, _side(job))


def stages(job: Job) -> list[Stage]:
    """What a job trains, in order; its records and drawn images are made here, once."""
    first, found = job.config.pretrain, []
    if first:
        shown = pretraining_data.materials(
            first.captions, job.base, _side(job), job.seed, job.data_root
        )
        found.append(Stage(STAGES[0], *shown, first))
    data, _, images = materials(job)
    return [*found, Stage(STAGES[1], data / "records.json", images, job.config)]


def _side(job: Job) -> int:
    return families.family(job.family).image_size


def preflight(
    job: Job,
    speeds: Sequence[float] = (),
    price: float = 0.0,
    devices: int = 1,
    drop: bool = False,
) -> dict[str, planning.Plan]:
    """Stage -> what it needs and what is missing; trains nothing.

    ``speeds``: tokens a second of one device, a stage each, as ``sgv-lab throughput`` measures
    them (none: no hours are told); ``price`` of a device-hour; ``drop``: leave out broken records.
    """
    on_gpu = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else None
    return {
        stage.name: cached_training.preflight(
            job.base,
            stage.records,
            stage.images,
            stage.config,
            autocast=on_gpu or job.data_root is not None,
            device_bytes=memory,
            tokens_per_second=speeds[number] if speeds else None,
            price_per_hour=price or None,
            devices=devices,
            drop_broken=drop,
        )
        for number, stage in enumerate(stages(job))
    }


def check(jobs: Iterable[Job]) -> list[str]:
    """What each arm's training leaves out, in words; records that cannot be used are no obstacle.

    Raises LabError for a study whose questions cannot be asked or scored (the first such file), or
    whose arms cannot be trained (an arm's obstacles).
    """
    arms, left_out = {job.arm: job for job in jobs}, []
    for name, (data, _) in next(iter(arms.values())).questions.items():
        _check_questions(name, data)
    for job in arms.values():
        for stage, checked in preflight(job, drop=True).items():
            if checked.obstacles:
                what = "; ".join(checked.obstacles)
                raise LabError(what, where=f"{job.arm}, {stage}", fix="mend it, then run it again")
            if checked.broken:
                some = "; ".join(checked.broken[: planning.SHOWN])
                left_out.append(
                    f"{job.arm}, {stage}: {len(checked.broken):,} of {checked.records:,} records "
                    f"are left out, {checked.reasons}: {some}"
                )
    return left_out


def _check_questions(name: str, data: Path) -> None:
    """Refuse a benchmark without questions, images that can be read, or the truth."""
    task, fix = TASKS[name], "unpack the official release there"
    questions = list(task.questions(data))
    if not questions:
        raise LabError("holds no question", where=data, fix=fix)
    check_images(questions, data)
    silence = {question.id: "" for question in questions}
    with tempfile.TemporaryDirectory() as out:
        if task.write(questions, silence, data, Path(out)) is None:
            fix = "take a split with public answers, as val"
            raise LabError("holds no right answers to score by", where=data, fix=fix)


def execute(job: Job) -> dict[str, Any]:
    """Train and ask, or find it done; what came out, as `_result` wrote it, and its key."""
    trained = stages(job)
    *_, last = trained
    shown = []  # half a terabyte of official images is known by its names alone
    if not job.data_root:
        shown = [sha256(part) for part in sorted(last.images.iterdir()) if part.is_dir()]
    settings = {
        "config": [stage.config.alone().values() for stage in trained],
        "seed": job.seed,
        "base": job.base_hash,
        "pictures": shown,
        "questions": {name: known for name, (_, known) in job.questions.items()},
        **cached_training.computer(),
    }

    def build(folder: Path) -> None:
        if not (folder / "result.json").is_file():
            _result(job, trained, folder)
        shutil.rmtree(folder / "model", ignore_errors=True)  # answers are kept, weights are not

    inputs = [one.records for one in trained]
    folder = store.artifact("arms", settings, inputs, build, resumes=True)
    ids = last.records.with_name("replaced.json")
    listed = {"count": len(json.loads(ids.read_text(encoding="utf-8"))), "sha256": sha256(ids),
              "mix": ids.parent.name}  # fmt: skip
    return json.loads((folder / "result.json").read_text(encoding="utf-8")) | {
        "key": folder.name,
        "replaced": listed,
    }


def trained(
    job: Job, *, processes: int = 1, price: float = 0.0, progress: bool = False, drop: bool = False
) -> list[Path]:
    """The checkpoints of a job's stages, each trained from the one before, made once.

    ``processes``: above 1, torchrun's, sharded where they are GPUs; ``drop``: leave out records
    whose images are gone, counted.
    """
    base, made = job.base, []
    how = {"fsdp": True} if processes > 1 and torch.cuda.is_available() else {}
    for stage in stages(job):
        base = cached_training.train_cached(
            base, stage.records, stage.images, stage.config, job.seed,
            processes=processes, price=price, progress=progress, drop_broken=drop, **how,
        )  # fmt: skip
        made.append(base)
    return made


def fine_tune(job: Job, records: Path | list[dict[str, Any]], images: Path, out: Path) -> None:
    """Train ``job.base`` on the records into ``out``, as every arm is.

    Weights learn in float32 at any size (on a GPU under bfloat16 autocast): a step of 2e-5 is lost
    in bfloat16. Official questions are answered in bfloat16, as the authors' are in half precision.
    """
    model, processor = checkpoints.load(job.base, device=_device())
    drop = job.data_root is not None  # OCR-VQA and SAM images are gone; counted
    train(model, processor, records, images, job.config, out, job.seed,
          progress=False, drop_broken=drop)  # fmt: skip


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_for_eval(job: Job, model: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A trained checkpoint, ready to be asked."""
    asked_in = torch.bfloat16 if job.data_root else torch.float32
    return checkpoints.load(model, device=_device(), dtype=asked_in)


def evaluate_all(job: Job, model: Path, out: Path) -> dict[str, float]:
    """Have a checkpoint answer every benchmark into ``out``, going on after a kill; its scores.

    Points by picture are written beside the answers, as POINTS.
    """
    ready, metrics, tables = load_for_eval(job, model), {}, []
    for name, (data, _) in job.questions.items():
        found = evaluate(model, name, data, out / name, batch_size=64, loaded=ready)
        metrics |= scores.metrics(name, found, out / name)
        tables.append(scores.points(name, out / name))
    pd.concat(tables, ignore_index=True).to_parquet(out / POINTS, index=False)
    return metrics


def evaluate_cached(model: Path, job: Job) -> tuple[dict[str, float], pd.DataFrame]:
    """A checkpoint's scores, by the paper's names, and its points by picture; asked once."""

    def build(out: Path) -> None:
        write_json(out / "scores.json", evaluate_all(job, model, out))

    known = {"questions": {name: key for name, (_, key) in job.questions.items()},
             "threads": torch.get_num_threads(), **cached_training.computer()}  # fmt: skip
    out = store.artifact("answers", known, [model], build, resumes=True)
    return json.loads((out / "scores.json").read_bytes()), pd.read_parquet(out / POINTS)


def _pretrained(job: Job, stage: Stage) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that pre-training ends at, made once, and what a record keeps of it."""
    model = cached_training.train_cached(
        job.base, stage.records, stage.images, stage.config, job.seed,
        drop_broken=job.data_root is not None,
    )  # fmt: skip
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    return model, {
        "captions": len(json.loads(stage.records.read_text(encoding="utf-8"))),
        "dropped": manifest["records_dropped"],
        "updates": stage.config.max_steps,
        "first_block": stage.config.vision_from,
        "loss": manifest["final_loss"],
        "seconds": manifest["seconds"],
        "peak_bytes": manifest["peak_bytes"],  # of the process; on a GPU of its memory
        "device": manifest["provenance"]["device"],
    }


def _result(job: Job, stages: list[Stage], folder: Path) -> None:
    """Train into ``folder/model``, answer every benchmark beside it, and write result.json.

    ``seconds`` there are fine-tuning's and the answers'; pre-training, which arms share, has its
    own.
    """
    *before, last = stages
    base, first = _pretrained(job, before[0]) if before else (job.base, {})
    started, trained = time.monotonic(), folder / "model"
    fine_tune(replace(job, base=base), last.records, last.images, trained)
    metrics = evaluate_all(job, trained, folder)
    manifest = json.loads((trained / "manifest.json").read_text(encoding="utf-8"))
    result = {
        "metrics": metrics,
        "pretrain": first,
        "dropped": manifest["records_dropped"],
        "provenance": provenance(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_bytes": manifest["peak_bytes"],
        "loss": manifest["final_loss"],
    }
    write_json(folder / "result.json", result)
