"""Train a model by a recipe. The same call resumes; done when manifest.json is there."""

import hashlib
import json
import math
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments, set_seed

from sgv_lab.errors import LabError
from sgv_lab.files import sha256, write_json
from sgv_lab.provenance import provenance
from sgv_lab.training import metrics, saving, updates
from sgv_lab.training.collate import Collator
from sgv_lab.training.data import RecordDataset, survey
from sgv_lab.training.lab_trainer import LabTrainer
from sgv_lab.training.loss import Weighting
from sgv_lab.training.model_card import card
from sgv_lab.training.packing import Batching, packed
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.trainable import Trainable, set_trainable

CHECKPOINTING = {"use_reentrant": False}  # the other kind freezes a partly frozen tower, silently


@dataclass(frozen=True)
class Run:
    """How a recipe is run: everything that is no part of the recipe. Lengths in tokens."""

    max_steps: int | None = None  # None: as many as the recipe's epochs take
    loss: Weighting = "token"  # "sample": every sample weighs the same, however long
    micro_batch: int = 8  # rows of a padded batch
    packing: bool = False
    tokens_per_batch: int = 8192  # length of a packed batch
    device: str = "auto"  # "auto", "cpu" or "cuda"
    fsdp: bool = False  # shard over the processes of torchrun (GPUs only)
    save_every: int | None = None  # updates; None: a tenth of the run, at least 50
    keep: int = 1  # checkpoints kept while running
    workers: int = 0  # processes that load pictures
    progress: bool = True


def train(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    records: Sequence[Mapping[str, Any]] | str | Path,
    image_root: str | Path,
    recipe: Recipe,
    out: str | Path,
    seed: int,
    *,
    samples_per_update: int | None = None,
    drop_broken: bool = False,
    **run: Any,
) -> Path:
    """Train ``model`` on LLaVA records and return ``out``, then a Hugging Face checkpoint.

    ``records``: a list or a file of ``{id, image, conversations}``; images lie below
    ``image_root``. ``run``: fields of `Run`. A set with missing pictures is refused, unless
    ``drop_broken`` says to leave those records out; the manifest then counts them. Otherwise as
    `fit`, which see for resuming and for what is raised.
    """
    if samples_per_update is not None:
        recipe = recipe.override({"samples_per_update": samples_per_update})
    settings = Run(**run)
    examples = RecordDataset(
        records,
        image_root,
        processor.tokenizer,
        processor.image_processor,
        template=recipe.template,
        aspect=recipe.aspect,
        max_length=recipe.max_length,
    )
    collate = collator(model, per_sample=settings.loss == "sample", packed=settings.packing)
    found = survey(examples, collate.image_tokens, settings.workers, settings.progress)
    broken = found.problems | missing_pictures(examples)
    if broken and not drop_broken:
        raise LabError(
            f"{len(broken)} of {len(examples)} records cannot be trained on: "
            + "; ".join(list(broken.values())[:3]),
            where=image_root,
            fix="`sgv-lab plan` lists them; mend them, or say drop_broken to leave them out",
        )
    kept = [i for i in range(len(examples)) if i not in broken]
    facts = {
        "data": _data_hash(records),
        "records_dropped": len(broken),
        "records_cut": int(found.truncated[kept].sum()),
    }
    batching = (
        packed(found.lengths[kept], settings.tokens_per_batch)
        if settings.packing
        else updates.padded(settings.micro_batch)
    )
    return fit(
        model,
        processor,
        Subset(examples, kept),
        collate,
        recipe,
        out,
        seed,
        settings,
        facts,
        batching,
    )


def collator(model: PreTrainedModel, per_sample: bool = False, packed: bool = False) -> Collator:
    """The collator for a model of the LLaVA family."""
    config = model.config
    return Collator(
        pad_id=config.text_config.pad_token_id or 0,
        image_token_id=config.image_token_id,
        image_tokens=config.image_seq_length,
        image_size=config.vision_config.image_size,
        per_sample=per_sample,
        packed=packed,
    )


def missing_pictures(examples: RecordDataset) -> dict[int, str]:
    """Record number -> what is missing, for pictures that are no file below the image folder."""
    return {
        number: f"record {examples.record(number)['id']!r} lacks its picture {path}"
        for number in range(len(examples))
        for path in examples.image_paths(number)
        if not (examples.image_root / path).is_file()
    }


def _data_hash(records: Sequence[Mapping[str, Any]] | str | Path) -> str:
    if isinstance(records, str | Path):
        return sha256(records)
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def fit(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: updates.Examples,
    collate: Collator,
    recipe: Recipe,
    out: str | Path,
    seed: int,
    run: Run,
    facts: dict[str, Any],
    batching: Batching | None = None,
    order: updates.Order | None = None,
) -> Path:
    """Train ``model`` on encoded ``examples`` and write a Hugging Face checkpoint to ``out``.

    ``facts`` go into the manifest and must be the same when a run is resumed (hashes of the
    data). ``batching`` splits an update into batches (padded ones if not given). Called again
    after a kill, with a fresh copy of the same model, it goes on from the last complete
    checkpoint; after completion it returns at once. ``seed`` sets the order of the data, the
    adapters' first values and dropout; the model's first weights are the caller's.

    Raises LabError if ``out`` holds a run with other settings, no GPU is there where one is asked
    for, a record has no supervised token, a tensor does not learn, a loss is not finite, or
    saving fails.
    """
    out = Path(out)
    arguments = _arguments(recipe, out, seed, run, len(examples))
    settings = {
        "recipe": asdict(recipe),
        "seed": seed,
        "updates": arguments.max_steps,
        "loss": run.loss,
        "packing": run.tokens_per_batch if run.packing else None,
        "records": len(examples),
        "model": _fingerprint(model),
        **facts,
    }
    if _finished(out, settings):
        return out
    set_seed(seed)
    model, trainable = set_trainable(model, recipe)
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTING)
        # Only reentrant checkpointing needs inputs with gradients; they would send the backward
        # pass through all of a frozen tower.
        model.disable_input_require_grads()
    found = saving.checkpoints(out / "checkpoints")
    trainer = LabTrainer(
        model=model,
        updates=updates.Updates(
            examples,
            collate,
            order or updates.Order(len(examples), seed),
            batching or updates.padded(run.micro_batch),
            recipe.samples_per_update,
            arguments.process_index,
            arguments.world_size,
        ),
        recipe=recipe,
        trainable=trainable,
        weighting=run.loss,
        start=int(found[-1].name.split("-")[1]) if found else 0,
        keep=run.keep,
        progress=run.progress,
        args=arguments,
        processing_class=processor,
    )
    if trainer.is_world_process_zero():
        write_json(out / "run.json", settings)
    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    _finish(trainer, trainable, settings, out)
    return out


def total_updates(records: int, recipe: Recipe) -> int:
    """How many updates the recipe's epochs take; the last one is filled from the next epoch."""
    return math.ceil(recipe.epochs * records / recipe.samples_per_update)


def _arguments(recipe: Recipe, out: Path, seed: int, run: Run, records: int) -> TrainingArguments:
    """The Trainer's arguments. bf16 holds on GPUs; a CPU trains in the weights' own precision."""
    cuda = torch.cuda.is_available()
    if run.device == "cuda" and not cuda:
        raise LabError("no GPU is there", where="device=cuda", fix="use device=cpu")
    on_gpu = cuda and run.device != "cpu"
    if run.fsdp and not on_gpu:
        raise LabError(
            "the Trainer does not shard on a CPU, it would silently copy the model instead",
            where="fsdp",
            fix="leave fsdp out, or run on GPUs",
        )
    if not records:
        raise LabError("no records to train on", fix="give at least one record")
    steps = run.max_steps or total_updates(records, recipe)
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=1,  # one item of the dataset is one update
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.adam_beta1,
        adam_beta2=recipe.adam_beta2,
        max_grad_norm=recipe.max_grad_norm,
        bf16=on_gpu and recipe.precision == "bf16",
        use_cpu=not on_gpu,
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=run.save_every or max(50, steps // 10),
        ignore_data_skip=True,  # update numbers say where to go on
        remove_unused_columns=False,
        dataloader_num_workers=run.workers,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        fsdp=True if run.fsdp else None,
        fsdp_config={"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT"} if run.fsdp else None,
        report_to="none",
        disable_tqdm=True,
    )
    if recipe.samples_per_update < arguments.world_size:
        raise LabError(
            f"{recipe.samples_per_update} samples per update for {arguments.world_size} processes",
            fix="use fewer processes or a larger samples_per_update",
        )
    return arguments


def _fingerprint(model: PreTrainedModel) -> str:
    """A hash of the first numbers of every tensor: tells starting weights apart, cheaply."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether ``out`` holds this run, complete. Raises LabError if it holds another one."""
    plain = json.loads(json.dumps(settings))
    if (out / "run.json").is_file():
        before = json.loads((out / "run.json").read_text())
        changed = [k for k in {*before, *plain} if before.get(k) != plain.get(k)]
        if changed:
            raise LabError(
                f"holds a run with other settings ({', '.join(sorted(changed))})",
                where=out,
                fix="choose another folder, or delete this one",
            )
    return (out / "manifest.json").is_file()


def _finish(trainer: LabTrainer, trainable: Trainable, settings: dict[str, Any], out: Path) -> None:
    """Write the checkpoint, its card, and last the manifest."""
    scratch = out / ".final"
    if trainer.recipe.language_model == "lora":  # a whole checkpoint, not adapters for another one
        trainer.model = trainer.model.merge_and_unload()
    with saving.refusing_full_disk(out):
        shutil.rmtree(scratch, ignore_errors=True)
        trainer.save_model(str(scratch))
    if not trainer.is_world_process_zero():
        return
    (scratch / "training_args.bin").unlink()  # pickled code; run.json says the same
    on_gpu = trainer.args.device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    rows = metrics.read(out / "metrics.jsonl")
    manifest = {
        **settings,
        "model_type": trainer.model.config.model_type,
        "changed": trainer.recipe.differences(),
        "final_loss": rows[-1]["loss"],
        "seconds": sum(row["seconds"] for row in rows),
        "trainable": trainable.counts,
        "processes": trainer.args.world_size,
        "dtype": str(trainer.model.dtype).removeprefix("torch."),
        "bf16_autocast": trainer.args.bf16,
        "peak_bytes": peak,
        "provenance": provenance(),
    }
    with saving.refusing_full_disk(out):
        (scratch / "README.md").write_text(card(manifest))
        for path in scratch.iterdir():
            path.replace(out / path.name)
        scratch.rmdir()
        write_json(out / "manifest.json", manifest)
    shutil.rmtree(out / "checkpoints")
