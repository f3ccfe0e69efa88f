"""Train a model by a recipe. The same call resumes; done when manifest.json is there."""

import contextlib
import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Subset
from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments, set_seed

from sgv_lab.captions.records import counted
from sgv_lab.errors import LabError
from sgv_lab.files import sha256, write_json
from sgv_lab.models import checkpoints
from sgv_lab.training import finishing, saving, updates
from sgv_lab.training.collate import Collator, Sample, collator
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.lab_trainer import LabTrainer, Run
from sgv_lab.training.packing import Batching, packed, varlen
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.survey import survey
from sgv_lab.training.trainable import set_trainable

log = logging.getLogger(__name__)
CHECKPOINTING = {"use_reentrant": False}  # the other kind freezes a partly frozen tower, silently


def train(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    records: Sequence[Mapping[str, Any]] | str | Path,
    image_root: str | Path,
    recipe: Recipe,
    out: str | Path,
    seed: int,
    *,
    drop_broken: bool = False,
    **run: Any,
) -> Path:
    """Train ``model`` on LLaVA records and return ``out``, then a Hugging Face checkpoint.

    ``records``: a list or a file of ``{id, image, conversations}``; images lie below
    ``image_root``. ``run``: fields of `Run`. A set with records that cannot be trained on (see
    `RecordDataset.examine`) is refused, unless ``drop_broken`` says to leave them out; the manifest
    then counts them. Otherwise as `fit`, which see for resuming and for what is raised.
    """
    settings = Run(**run)
    checkpoints.refuse_tokenizer(model.config, processor, "processor")
    examples = RecordDataset(records, image_root, processor, recipe)
    collate = collator(model.config, settings.loss == "sample", settings.packing)
    found = survey(examples, collate.image_tokens, settings.workers, settings.progress)
    if found.broken and not drop_broken:
        raise LabError(
            f"{len(found.broken)} of {len(examples)} records cannot be trained on "
            f"({counted(found.broken.values())}): "
            + "; ".join(map(str, list(found.broken.values())[:3])),
            where=records if isinstance(records, str | Path) else image_root,
            fix="`sgv-lab plan` lists them; mend them, or say drop_broken to leave them out",
        )
    if found.broken and settings.progress:
        log.warning("%d left out: %s", len(found.broken), counted(found.broken.values()))
    kept = found.kept.tolist()
    facts = {
        "data": _data_hash(records),
        "records_dropped": len(found.broken),
        "dropped_for": Counter(one.reason for one in found.broken.values()),
        "records_cut": int(found.truncated[kept].sum()),
    }
    batching = None
    if settings.packing:
        batching = packed(found.lengths[kept], settings.tokens_per_batch)
    chosen = Subset(examples, kept)
    return fit(model, processor, chosen, collate, recipe, out, seed, settings, facts, batching)


def _data_hash(records: Sequence[Mapping[str, Any]] | str | Path) -> str:
    if isinstance(records, str | Path):
        return sha256(records)
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def fit(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Dataset[Sample],
    collate: Collator,
    recipe: Recipe,
    out: str | Path,
    seed: int,
    run: Run,
    facts: dict[str, Any],
    batching: Batching | None = None,
) -> Path:
    """Train ``model`` on encoded ``examples`` and write a Hugging Face checkpoint to ``out``.

    ``facts`` go into the manifest and must be the same when a run is resumed (hashes of the
    data). ``batching`` splits an update into batches (padded ones if not given). Called again
    after a kill, with a fresh copy of the same model, it goes on from the last complete
    checkpoint; after completion it returns at once. ``seed`` sets the order of the data, the
    adapters' first values and dropout; the model's first weights are the caller's.

    Raises LabError if ``out`` holds a run with other settings, no GPU is there where one is asked
    for, a tensor does not learn, a loss is not finite, or saving fails.
    """
    out = Path(out)
    arguments = _arguments(recipe, out, seed, run, len(examples), _blocks(model))
    settings = {  # what makes a run this run and no other
        "recipe": asdict(recipe),
        "seed": seed,
        "updates": arguments.max_steps,
        "loss": run.loss,
        "packing": run.tokens_per_batch if run.packing else None,
        "records": len(examples),
        "model": finishing.fingerprint(model),
        **facts,
    }
    if finishing.finished(out, settings):
        return out
    data = updates.Updates(
        examples,
        collate,
        updates.Order(len(examples), seed),
        batching or updates.padded(run.micro_batch),
        recipe.samples_per_update,
        arguments.process_index,
        arguments.world_size,
    )
    # A mask of all samples against all others would cost memory that the kernel does not need.
    with varlen(model) if run.packing and arguments.bf16 else contextlib.nullcontext():
        _run(model, processor, data, recipe, run, arguments, settings)
    return out


def _run(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    data: updates.Updates,
    recipe: Recipe,
    run: Run,
    arguments: TrainingArguments,
    settings: dict[str, Any],
) -> None:
    """Train from the last complete checkpoint, or from the start, to the manifest."""
    out = Path(arguments.output_dir)
    set_seed(arguments.seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # a study's worker trains many models
    model, trainable = set_trainable(model, recipe)
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTING)
        # Only reentrant checkpointing needs inputs with gradients; they would send the backward
        # pass through all of a frozen tower.
        model.disable_input_require_grads()
    found = saving.checkpoints(out / "checkpoints")
    trainer = LabTrainer(
        model=model,
        updates=data,
        recipe=recipe,
        trainable=trainable,
        run=run,
        start=int(found[-1].name.split("-")[1]) if found else 0,
        args=arguments,
        processing_class=processor,
    )
    if trainer.is_world_process_zero():
        write_json(out / "run.json", settings)
    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    finishing.finish(trainer, trainable, settings, out)


def total_updates(records: int, recipe: Recipe) -> int:
    """How many updates the recipe's epochs take; the last one is filled from the next epoch."""
    return math.ceil(recipe.epochs * records / recipe.samples_per_update)


def _blocks(model: PreTrainedModel) -> list[str]:
    """The classes of the model's blocks: what is sharded as a unit."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return sorted({type(block).__name__ for blocks in lists for block in blocks})


def _refuse(recipe: Recipe, run: Run, records: int) -> bool:
    """Whether the run is on a GPU. Raises LabError for what cannot be run as asked."""
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
    if run.fsdp and recipe.language_model == "lora":
        raise LabError("adapters are not sharded", where="fsdp", fix="leave fsdp out: they fit")
    if not records:
        raise LabError("no records to train on", fix="give at least one record")
    return on_gpu


def _arguments(
    recipe: Recipe, out: Path, seed: int, run: Run, records: int, blocks: Sequence[str] = ()
) -> TrainingArguments:
    """The Trainer's arguments. bf16 holds on GPUs; a CPU trains in the weights' own precision."""
    on_gpu = _refuse(recipe, run, records)
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
        fsdp_config={"version": 2, "transformer_layer_cls_to_wrap": list(blocks)},
        report_to="none",
        disable_tqdm=True,
    )
    if recipe.samples_per_update < arguments.world_size:
        raise LabError(
            f"{recipe.samples_per_update} samples per update for {arguments.world_size} processes",
            fix="use fewer processes or a larger samples_per_update",
        )
    return arguments
