"""One run of the study: train the base as an arm says, ask the benchmarks, keep the answers.

A run is addressed by its content: config, records, images, questions, base, seed, device, versions
and code. Two arms that come to the same are computed once; one caption changed is another run.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

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
from sgv_lab.training.config import Machine, RunConfig
from sgv_lab.training.estimates import weight_bytes
from sgv_lab.training.precision import loading_dtype
from sgv_lab.training.survey import MAX_DROPPED
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
    data_root: Path | None = None  # of the official files; None: the drawn world
    max_dropped: float = MAX_DROPPED  # of a stage's official records, whose images are gone
    keep_model: bool = False  # its weights, too, once its answers are there
    report_to: str = ""  # trackers of its trainings, by commas


@dataclass(frozen=True)
class Stage:
    """One training: its records, the folder of their images, and how it learns."""

    name: str
    records: Path
    images: Path
    config: RunConfig

    def of(self, base: Path) -> tuple[Path, Path, Path, RunConfig]:
        """What `cached_training` takes to train ``base``."""
        return base, self.records, self.images, self.config


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
    records, side = _read(data / "records.json"), families.family(job.family).image_size
    return data, records, job.data_root or mix.drawn_images(records, side)


def stages(job: Job, sharded: bool = False) -> list[Stage]:
    """What a job trains, in order; its records and drawn images are made here, once.

    ``sharded``: over several GPUs, where 24-bit masters become those of 32 bits.
    """

    def masters(config: RunConfig) -> RunConfig:
        wider = sharded and config.precision == "bf16_24"
        return config.changed({"precision": "bf16_32"}, "sharded") if wider else config

    first, found = job.config.pretrain, []
    if first:
        side = families.family(job.family).image_size
        shown = (first.captions, job.base, side, job.seed, job.data_root)
        found.append(Stage(STAGES[0], *pretraining_data.materials(*shown), masters(first)))
    data, _, images = materials(job)
    return [*found, Stage(STAGES[1], data / "records.json", images, masters(job.config))]


def preflight(job: Job, speeds: Sequence[float] = (), **known: Any) -> dict[str, planning.Plan]:
    """Stage -> what it needs and what is missing; trains nothing.

    ``speeds``: tokens a second of one device, a stage each, as ``sgv-lab measure`` measures
    them (none: no hours are told); ``known``: what else `training.plan.plan` takes.
    """
    known.setdefault("max_dropped", job.max_dropped)
    known["on_gpu"] = torch.cuda.is_available() or job.data_root is not None
    sharded = known.get("devices", 1) > 1 and torch.cuda.is_available()  # as `trained` does
    known["run"] = Machine(progress=None, fsdp=sharded)  # a bar in a terminal
    found = {}
    for number, stage in enumerate(stages(job, sharded)):
        known["tokens_per_second"] = speeds[number] if speeds else None
        found[stage.name] = cached_training.preflight(*stage.of(job.base), **known)
    return found


def check(jobs: Iterable[Job], at_once: int = 1) -> list[str]:
    """What each arm's training leaves out, and then what each stage needs, in words.

    ``at_once``: how many runs share the machine, each on a GPU of its own. Raises LabError for
    questions that cannot be asked or scored, and arms that cannot be trained (the first one).
    """
    arms, left_out = {job.arm: job for job in jobs}, []
    needs: dict[str, list[str]] = {}  # a stage and what it needs -> arms
    for name, (data, _) in next(iter(arms.values())).questions.items():
        _check_questions(name, data)
    for job in arms.values():
        for stage, checked in preflight(job, drop_broken=True).items():
            where, broken = f"{job.arm}, {stage}", checked.broken
            if checked.obstacles:
                fix = "mend it, then run it again"
                raise LabError("; ".join(checked.obstacles), where=where, fix=fix)
            needs.setdefault(f"{stage}: {planning.needed(checked, at_once)}", []).append(job.arm)
            if broken:
                what = f"{len(broken):,} of {checked.records:,} records are left out"
                some = "; ".join(broken[: planning.SHOWN])
                left_out.append(f"{where}: {what}, {checked.reasons}: {some}")
                left_out += [f"  {folder}: {planning.counted(count)}"
                             for folder, count in checked.images.items()]  # fmt: skip
    return left_out + [f"{', '.join(names)}, {what}" for what, names in needs.items()]


def left_out(job: Job, known: dict | None = None, trained: Sequence[Stage] = ()) -> dict[str, str]:
    """Stage -> a hash of the official records that it leaves out today; {} in the drawn world.

    ``known``: of stages that jobs share, added to; ``trained``: the job's stages, if there are any.
    """
    found, known = {}, {} if known is None else known
    for stage in (trained or stages(job)) if job.data_root else ():
        if (key := (job.base, stage)) not in known:
            known[key] = cached_training.left_out(*stage.of(job.base))
        found[stage.name] = known[key]
    return found


def _check_questions(name: str, data: Path) -> None:
    """Refuse a benchmark without questions, images that can be read, or the truth."""
    task = TASKS[name]
    questions = list(task.questions(data))
    if not questions:
        raise LabError("holds no question", where=data, fix="unpack the official release there")
    check_images(questions, data)
    silence = {question.id: "" for question in questions}
    with tempfile.TemporaryDirectory() as out:
        if task.write(questions, silence, data, Path(out)) is None:
            fix = "take a split with public answers, as val"
            raise LabError("holds no right answers to score by", where=data, fix=fix)


def check_disk(jobs: Sequence[Job]) -> int:
    """The bytes that the models of ``jobs`` take. LabError if the disk lacks them.

    Whole models, for adapters are merged; those of pre-training are kept in any case.
    """
    on_gpu = torch.cuda.is_available()
    empty = {base: checkpoints.load_empty(base)[0] for base in {job.base for job in jobs}}
    needed = sum(weight_bytes(j.config, on_gpu) * empty[j.base].num_parameters() for j in jobs)
    free = shutil.disk_usage(store.root()).free
    if needed > free:
        what = f"{needed / 1e9:,.1f} GB of weights are to be kept, {free / 1e9:,.1f} GB are free"
        fix = "point SGV_STORE at a larger disk, or keep answers and loss curves alone"
        raise LabError(what, where=store.root(), fix=fix)
    return needed


def execute(job: Job) -> dict[str, Any]:
    """Train and ask, or find it done; what came out, as `_result` wrote it, and its key."""
    trained = stages(job)
    mixed, dropped = trained[-1], left_out(job, trained=trained)
    shown = []  # half a terabyte of official images is known by its names alone
    if not job.data_root:
        shown = [sha256(part) for part in sorted(mixed.images.iterdir()) if part.is_dir()]
    settings = {
        "config": [stage.config.alone().values() for stage in trained],
        "seed": job.seed,
        "left_out": dropped,
        "base": job.base_hash,
        "images": shown,
        "questions": {name: known for name, (_, known) in job.questions.items()},
        **cached_training.computer(),
    }

    def build(folder: Path) -> None:
        if not (folder / "result.json").is_file():
            _result(job, trained, folder)
        if (curve := folder / "model" / "metrics.jsonl").is_file():
            shutil.copy(curve, folder)
        if not job.keep_model:
            shutil.rmtree(folder / "model", ignore_errors=True)

    inputs = [stage.records for stage in trained]
    folder = store.artifact("arms", settings, inputs, build, resumes=True)
    ids = mixed.records.with_name("replaced.json")
    listed = {"count": len(_read(ids)), "sha256": sha256(ids), "mix": ids.parent.name}
    found = {"key": folder.name, "replaced": listed, "left_out": dropped}
    return _read(folder / "result.json") | found


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def trained(
    job: Job, *, processes: int = 1, price: float = 0.0, progress: bool = False, drop: bool = False
) -> list[Path]:
    """The checkpoints of a job's stages, each trained from the one before, made once.

    ``processes``: above 1, torchrun's, sharded where they are GPUs; ``drop``: leave out records
    whose images are gone, counted.
    """
    made = [job.base]
    how = {"fsdp": True} if processes > 1 and torch.cuda.is_available() else {}
    how |= {"processes": processes, "price": price, "progress": progress, "drop_broken": drop}
    how["max_dropped"] = job.max_dropped
    for stage in stages(job, sharded="fsdp" in how):
        made.append(cached_training.train_cached(*stage.of(made[-1]), job.seed, **how))
    return made[1:]


def _result(job: Job, stages: list[Stage], folder: Path) -> None:
    """Train into ``folder/model``, answer every benchmark beside it, and write result.json.

    Its ``seconds`` leave out pre-training, which arms share.
    """
    # OCR-VQA and SAM images are gone; counted
    how = {"drop_broken": job.data_root is not None, "max_dropped": job.max_dropped}
    how["report_to"] = job.report_to
    *before, mixed = stages
    base, first = job.base, {}
    for stage in before:
        base = cached_training.train_cached(*stage.of(base), job.seed, **how)
        manifest = _read(base / "manifest.json")
        first = {
            "captions": len(_read(stage.records)),
            "dropped": manifest["records_dropped"],
            "steps": stage.config.max_steps,
            "first_block": stage.config.vision_from,
            "loss": manifest["final_loss"],
            "seconds": manifest["seconds"],
            "peak_bytes": manifest["peak_bytes"],  # of the process; on a GPU of its memory
            "device": manifest["provenance"]["device"],
        }
    started, trained = time.monotonic(), folder / "model"
    loaded = checkpoints.load(base, dtype=loading_dtype(job.config))  # cast before a GPU has it
    parameters = loaded[0].num_parameters()
    train(*loaded, mixed.records, mixed.images, job.config, trained, job.seed, progress=False,
          workers=None if job.data_root else 0, **how)  # fmt: skip
    metrics = evaluate_all(job, trained, folder)
    manifest = _read(trained / "manifest.json")
    result = {
        "metrics": metrics,
        "pretrain": first,
        "records": manifest["records"],
        "dropped": manifest["records_dropped"],
        "parameters": parameters,
        "provenance": provenance(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_bytes": manifest["peak_bytes"],
        "loss": manifest["final_loss"],
    }
    write_json(folder / "result.json", result)


def evaluate_all(job: Job, model: Path, out: Path) -> dict[str, float]:
    """Have a checkpoint answer every benchmark into ``out``, going on after a kill; its scores.

    Points by image are written beside the answers, as POINTS. Official questions are answered in
    bfloat16, as the authors' are in half precision.
    """
    how = {"dtype": torch.bfloat16 if job.data_root else torch.float32}
    how["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    ready, metrics, tables = checkpoints.load(model, **how), {}, []
    for name, (data, _) in job.questions.items():
        found = evaluate(model, name, data, out / name, batch_size=64, loaded=ready)
        metrics |= scores.metrics(name, found, out / name)
        tables.append(scores.points(name, out / name))
    pd.concat(tables, ignore_index=True).to_parquet(out / POINTS, index=False)
    return metrics


def evaluate_cached(model: Path, job: Job) -> tuple[dict[str, float], pd.DataFrame]:
    """A checkpoint's scores, by the paper's names, and its points by image; asked once."""

    def build(out: Path) -> None:
        write_json(out / "scores.json", evaluate_all(job, model, out))

    known = {
        "questions": {name: key for name, (_, key) in job.questions.items()},
        "full size": job.data_root is not None,  # which is asked in bfloat16
        "threads": torch.get_num_threads(),
        **cached_training.computer(),
    }
    out = store.artifact("answers", known, [model], build, resumes=True)
    return _read(out / "scores.json"), pd.read_parquet(out / POINTS)
