"""One run of the study: train the base as an arm says, ask the benchmarks, keep the answers.

Stage 1, where an arm has one, is an artefact of its own; then the mix is fine-tuned on.
A run is addressed by its content: the records it trains on, its pictures, questions, base model,
settings, seed, device, versions and the code that trains and asks. Two arms that come to the same
are computed once; one caption changed is another run.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256 as digest_of
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab import store
from sgv_lab.benchmarks.evaluate import evaluate
from sgv_lab.closure import digest
from sgv_lab.files import sha256, write_json
from sgv_lab.models import checkpoints, families
from sgv_lab.provenance import provenance
from sgv_lab.study import mix, official, scores, stage_one, two_stages
from sgv_lab.study.arms import Design
from sgv_lab.training.recipes import Recipe, recipe
from sgv_lab.training.trainer import train

POINTS = "points.parquet"
STAGES = ("pre-training", "fine-tuning")
FULL_SIZE_ROWS = 4  # of a batch at full size: what fits beside 7 billion float32 weights in 141 GB
RECIPES = {  # family -> recipes of all weights and of LoRA; any other family: LLaVA-1.5's
    "llava-7b": ("sft-v1", "sft-v1"),
    "qwen-vl-chat": ("sft-qwen", "sft-qwen-lora"),
    "qwen3-vl-8b": ("sft-qwen3", "sft-qwen3"),
}


@dataclass(frozen=True)
class Job:
    """One run to do: what a worker needs to know."""

    arm: str
    seed: int
    design: Design
    family: str
    base: Path
    base_hash: str
    questions: Mapping[str, tuple[Path, str]]  # benchmark -> folder, hash
    data_root: Path | None = None  # of the official files; None: the embedded world


@dataclass(frozen=True)
class Stage:
    """One training: records, the folder of their pictures, recipe and updates (None: an epoch)."""

    name: str
    records: Path
    images: Path
    recipe: Recipe
    updates: int | None


def recipe_of(family: str, design: Design) -> Recipe:
    """The family's own recipe with the design's settings; the projector is always trained."""
    full, lora = RECIPES.get(family, ("sft", "sft-lora"))
    settings = {"language_model": design.tuning, "connector": True, **design.recipe}
    return recipe(full if design.tuning == "full" else lora, settings)


def resolved(design: Design, family: str) -> dict[str, Any]:
    """The fields of a design, its recipe in full, as a record keeps them."""
    chosen = {"recipe": asdict(recipe_of(family, design)), "captions": Path(design.captions).name}
    return asdict(design) | chosen


def config(job: Job) -> dict[str, Any]:
    """All that makes a run, as its record keeps it, known before anything is trained."""
    first = job.design.pretrain
    return resolved(job.design, job.family) | {
        "pretrain_recipe": asdict(stage_one.recipe_of(first, job.base)) if first.by else None,
        "captioner": stage_one.CAPTIONERS[first.captioner] if first.by else None,
        "base": job.base_hash,
        "question_files": {name: known for name, (_, known) in job.questions.items()},
    }


def code() -> str:
    """The hash of the code that a run rests on."""
    return digest(execute)


def materials(job: Job) -> tuple[Path, list[dict[str, Any]], Path]:
    """The mix's folder in the store, its records, and the folder that holds their pictures."""
    if job.data_root:
        data = official.stage(job.design, job.data_root, job.family)
        return data, json.loads((data / "records.json").read_text(encoding="utf-8")), job.data_root
    tokenizer = checkpoints.load_processor(job.base).tokenizer
    vocabulary = digest_of(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
    length = lambda text: len(tokenizer(text).input_ids)  # noqa: E731
    data = mix.stage(job.design, job.seed, length, vocabulary)
    records = json.loads((data / "records.json").read_text(encoding="utf-8"))
    return data, records, mix.pictures(records, _side(job))


def stages(job: Job) -> list[Stage]:
    """What a job trains, in order; its records and drawn pictures are made here, once."""
    first, found = job.design.pretrain, []
    if first.by:
        shown = stage_one.materials(first, job.base, _side(job), job.seed, job.data_root)
        chosen = stage_one.recipe_of(first, job.base)
        found.append(Stage(STAGES[0], *shown, chosen, first.updates))
    data, _, images = materials(job)
    chosen = recipe_of(job.family, job.design)
    return [*found, Stage(STAGES[1], data / "records.json", images, chosen, job.design.updates)]


def _side(job: Job) -> int:
    return families.family(job.family).image_size


def rows(job: Job) -> int:
    """Of a batch: for 7 billion parameters, or for a few million."""
    return FULL_SIZE_ROWS if job.data_root else 16


def execute(job: Job) -> dict[str, Any]:
    """Train and ask, or find it done; what came out, as `_result` wrote it, and its key."""
    trained = stages(job)
    *before, last = trained
    shown = []  # half a terabyte of official pictures is known by its names alone
    if not job.data_root:
        shown = [sha256(part) for part in sorted(last.images.iterdir()) if part.is_dir()]
    settings = {
        "recipe": asdict(last.recipe),
        "updates": last.updates,
        "seed": job.seed,
        "loss": job.design.loss,
        "base": job.base_hash,
        "pictures": shown,
        "questions": {name: known for name, (_, known) in job.questions.items()},
        **two_stages.computer(),
        **{one.name: {"recipe": asdict(one.recipe), "updates": one.updates} for one in before},
    }

    def build(folder: Path) -> None:
        if not (folder / "result.json").is_file():
            _result(job, trained, folder)
        shutil.rmtree(folder / "model", ignore_errors=True)  # answers are kept, weights are not

    inputs = [one.records for one in trained]
    folder = store.stage("arms", settings, inputs, build, resumes=True)
    ids = last.records.with_name("replaced.json")
    listed = {"count": len(json.loads(ids.read_text(encoding="utf-8"))), "sha256": sha256(ids),
              "mix": ids.parent.name}  # fmt: skip
    return json.loads((folder / "result.json").read_text(encoding="utf-8")) | {
        "key": folder.name,
        "replaced": listed,
    }


def fine_tune(job: Job, records: Path | list[dict[str, Any]], images: Path, out: Path) -> None:
    """Train ``job.base`` on the records into ``out``, as every arm is.

    Weights learn in float32 at any size (on a GPU under bfloat16 autocast): a step of 2e-5 is lost
    in bfloat16. Official questions are answered in bfloat16, as the authors' are in half precision.
    """
    train(
        *checkpoints.load(job.base, device="cuda" if torch.cuda.is_available() else "cpu"),
        records,
        images,
        recipe_of(job.family, job.design),
        out,
        job.seed,
        max_steps=job.design.updates,
        loss=job.design.loss,
        micro_batch=rows(job),
        progress=False,
        drop_broken=job.data_root is not None,  # OCR-VQA and SAM pictures are gone; counted
    )


def loaded(job: Job, model: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A trained checkpoint, ready to be asked."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked_in = torch.bfloat16 if job.data_root else torch.float32
    return checkpoints.load(model, device=device, dtype=asked_in)


def ask(job: Job, model: Path, out: Path) -> dict[str, float]:
    """Have a checkpoint answer every benchmark into ``out``, going on after a kill; its scores.

    Points by picture are written beside the answers, as POINTS.
    """
    ready, metrics, tables = loaded(job, model), {}, []
    for name, (data, _) in job.questions.items():
        found = evaluate(model, name, data, out / name, batch_size=64, loaded=ready)
        metrics |= scores.metrics(name, found, out / name)
        tables.append(scores.points(name, out / name))
    pd.concat(tables, ignore_index=True).to_parquet(out / POINTS, index=False)
    return metrics


def asked(model: Path, job: Job) -> tuple[dict[str, float], pd.DataFrame]:
    """A checkpoint's scores, by the paper's names, and its points by picture; asked once."""

    def build(out: Path) -> None:
        write_json(out / "scores.json", ask(job, model, out))

    known = {"questions": {name: key for name, (_, key) in job.questions.items()},
             "threads": torch.get_num_threads(), **two_stages.computer()}  # fmt: skip
    out = store.stage("answers", known, [model], build, resumes=True)
    return json.loads((out / "scores.json").read_bytes()), pd.read_parquet(out / POINTS)


def _pretrained(job: Job, stage: Stage) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that stage 1 ends at, made once, and what a record keeps of it."""
    model = two_stages.stage(
        job.base, stage.records, stage.images, stage.recipe, stage.updates, job.seed,
        loss=job.design.loss, micro_batch=rows(job), drop_broken=job.data_root is not None,
    )  # fmt: skip
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    return model, {
        "captions": len(json.loads(stage.records.read_text(encoding="utf-8"))),
        "dropped": manifest["records_dropped"],
        "updates": stage.updates,
        "first_block": stage.recipe.vision_from,
        "loss": manifest["final_loss"],
        "seconds": manifest["seconds"],
        "peak_bytes": manifest["peak_bytes"],  # of the process; on a GPU of its memory
        "device": manifest["provenance"]["device"],
    }


def _result(job: Job, stages: list[Stage], folder: Path) -> None:
    """Train into ``folder/model``, answer every benchmark beside it, and write result.json.

    ``seconds`` there are fine-tuning's and the answers'; stage 1, which arms share, has its own.
    """
    *before, last = stages
    base, first = _pretrained(job, before[0]) if before else (job.base, {})
    started, trained = time.monotonic(), folder / "model"
    fine_tune(replace(job, base=base), last.records, last.images, trained)
    metrics = ask(job, trained, folder)
    manifest = json.loads((trained / "manifest.json").read_text(encoding="utf-8"))
    result = {
        "metrics": metrics,
        "recipe": asdict(last.recipe),
        "pretrain": first,
        "dropped": manifest["records_dropped"],
        "provenance": provenance(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_bytes": manifest["peak_bytes"],
        "loss": manifest["final_loss"],
    }
    write_json(folder / "result.json", result)
