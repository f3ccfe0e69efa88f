"""From records to a checkpoint: the whole of a training, to be read from top to bottom.

`train` checks records and encodes them; `fit` makes a model learn from the encoded samples; `_step`
is one optimizer step. What a step is shown is decided in `updates`, which tensors learn in
`trainable`, and how a run is saved, resumed and finished in `checkpointing`.
"""

import contextlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import send_to_device
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    get_cosine_schedule_with_warmup,
    set_seed,
)
from transformers.trainer_pt_utils import get_parameter_names

from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.models import checkpoints
from sgv_lab.models.kinds import kind
from sgv_lab.training import checkpointing, updates
from sgv_lab.training.collate import Collator, Sample, collator
from sgv_lab.training.config import Machine, RunConfig, configured
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.guards import GradientGuard, refuse_non_finite
from sgv_lab.training.loss import supervised_loss
from sgv_lab.training.metrics import Metrics
from sgv_lab.training.packing import Batching, packed, varlen
from sgv_lab.training.survey import survey
from sgv_lab.training.trainable import set_trainable

CHECKPOINTING = {"use_reentrant": False}  # the other kind freezes a partly frozen tower, silently
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def train(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    records: Sequence[Mapping[str, Any]] | str | Path,
    image_root: str | Path,
    recipe: RunConfig,
    out: str | Path,
    seed: int,
    *,
    drop_broken: bool = False,
    **run: Any,
) -> Path:
    """Train ``model`` on LLaVA records and return ``out``, then a Hugging Face checkpoint.

    ``records``: a list or a file of ``{id, image, conversations}``; images lie below
    ``image_root``. ``run``: fields of `Machine`, and settings of the recipe to change. A set with
    records that cannot be trained on (see `RecordDataset.examine`) is refused, unless
    ``drop_broken`` says to leave them out; the manifest then counts them. Otherwise as `fit`, which
    see for resuming and for what is raised.
    """
    recipe, settings = configured(recipe, run)
    checkpoints.refuse_tokenizer(model.config, processor, "processor")
    examples = RecordDataset(records, image_root, processor, recipe)
    collate = collator(model.config, recipe.loss == "sample", recipe.packing)
    found = survey(examples, collate.image_tokens, settings.workers, settings.progress)
    if found.broken:
        found.report(records, refuse=not drop_broken, shown=bool(settings.progress))
    kept = found.kept.tolist()
    facts = {
        "data": examples.digest(),
        "records_dropped": len(found.broken),
        "dropped_for": Counter(one.reason for one in found.broken.values()),
        "records_cut": int(found.truncated[kept].sum()),
    }
    batching = None
    if recipe.packing:
        batching = packed(found.lengths[kept], recipe.tokens_per_batch)
    chosen = Subset(examples, kept)
    return fit(model, processor, chosen, collate, recipe, out, seed, settings, facts, batching)


def fit(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    examples: Dataset[Sample],
    collate: Collator,
    recipe: RunConfig,
    out: str | Path,
    seed: int,
    run: Machine,
    facts: dict[str, Any],
    batching: Batching | None = None,
) -> Path:
    """Train ``model`` on encoded ``examples`` and return ``out``, then a Hugging Face checkpoint.

    ``facts`` go into the manifest and must be the same when a run is resumed (hashes of the
    data). ``batching`` splits a step's samples into batches (padded ones if not given). Called
    again after a kill, with a fresh copy of the same model, it goes on from the last complete
    checkpoint; after completion it returns at once. ``seed`` sets the order of the data, the
    adapters' first values and dropout; the model's first weights are the caller's.

    Raises LabError if ``out`` holds a run with other settings, no GPU is there where one is asked
    for, a tensor does not learn, a loss is not finite, or saving fails.
    """
    out, processes = Path(out), _processes(recipe, run, len(examples))
    steps = recipe.max_steps or total_updates(len(examples), recipe)
    settings = {  # what makes a run this run and no other
        "recipe": recipe.training(),
        "seed": seed,
        "updates": steps,
        "records": len(examples),
        "model": checkpointing.fingerprint(model),
        **facts,
    }
    if checkpointing.finished(out, settings):
        return out
    if processes.is_main_process:
        write_json(out / "run.json", settings)
    data = updates.Updates(
        examples,
        collate,
        updates.Order(len(examples), seed),
        batching or updates.padded(recipe.micro_batch),
        recipe.samples_per_update,
        processes.process_index,
        processes.num_processes,
    )
    _learn(model, processor, data, recipe, run, settings, out, processes)
    return out


def _learn(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    data: updates.Updates,
    recipe: RunConfig,
    run: Machine,
    settings: dict[str, Any],
    out: Path,
    processes: PartialState,
) -> None:
    """Train from the last complete checkpoint, or from the start, to the manifest."""
    steps, device = settings["updates"], processes.device
    half = recipe.precision == "bf16" and device.type == "cuda"
    set_seed(settings["seed"])  # the adapters' first values
    model, trainable = set_trainable(model, recipe)
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTING)
        # Only reentrant checkpointing needs inputs with gradients; they would send the backward
        # pass through all of a frozen tower.
        model.disable_input_require_grads()
    wrapped = _distributed(model.to(device).train(), run, processes, half)
    optimizer = _adamw(model, recipe)
    schedule = learning_rates(optimizer, recipe, steps)
    set_seed(settings["seed"])  # dropout, whatever was drawn so far
    state = checkpointing.State(out / "checkpoints", model, optimizer, schedule, processes)
    start = state.load()
    loader = DataLoader(
        data,
        sampler=range(start, steps),  # a step's number says what it is shown: nothing is read twice
        batch_size=None,
        num_workers=run.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # its own, so that opening it leaves the global one alone
    )
    guard, every = GradientGuard(trainable.effective), run.save_every or max(50, steps // 10)
    # A mask of all samples against all others would cost memory that the kernel does not need.
    kernel = varlen(model) if recipe.packing and half else contextlib.nullcontext()
    with kernel, Metrics(out / "metrics.jsonl", start, steps, run, processes) as metrics:
        for step, batches in enumerate(loader, start + 1):
            counts = updates.counts(batches, processes)
            row = _step(wrapped, batches, counts, step, recipe, run, half)
            guard.check(model, has_image=counts["images"] > 0)
            row["learning_rate"] = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            metrics.add({"step": step, **row, **counts})
            if step % every == 0 or step == steps:
                state.save(step)
                metrics.restart_clock()
    checkpointing.finish(model, processor, recipe, trainable, settings, out, processes, half)


def _step(
    model: torch.nn.Module,
    batches: Sequence[dict[str, Any]],
    counts: Mapping[str, int],
    step: int,
    recipe: RunConfig,
    run: Machine,
    half: bool,
) -> dict[str, float]:
    """Leave one optimizer step's gradients in ``model``; its loss, and the gradients' norm."""
    processes = PartialState()
    denominator = counts["supervised_tokens" if recipe.loss == "token" else "samples"]
    total = torch.zeros((), device=processes.device)
    for number, batch in enumerate(batches, start=1):
        batch = send_to_device(batch, processes.device)
        # Copies exchange gradients once a step. Shards do at every batch: kept whole until the last
        # one, they would take the memory that sharding saves.
        waits = isinstance(model, DistributedDataParallel) and number < len(batches)
        with (
            model.no_sync() if waits else contextlib.nullcontext(),
            torch.autocast(processes.device.type, torch.bfloat16, enabled=half),
        ):
            loss = supervised_loss(model, batch, denominator)
            refuse_non_finite(loss, "loss", step, batch["record_ids"])
            (loss * processes.num_processes).backward()  # the gradients will be averaged
        total += loss.detach()
    if processes.num_processes > 1:
        dist.all_reduce(total)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or math.inf)
    norm = getattr(norm, "full_tensor", lambda: norm)()  # of all shards
    refuse_non_finite(norm, "gradient norm", step, [i for b in batches for i in b["record_ids"]])
    return {"loss": total.item(), "grad_norm": norm.item()}


def _adamw(model: torch.nn.Module, recipe: RunConfig) -> torch.optim.AdamW:
    """AdamW without decay of norms and biases; the projector may have a rate of its own."""
    decays = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))
    projector = kind(model.config.model_type).connector
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    groups[recipe.learning_rate, recipe.weight_decay] = []  # the first one's rate is logged
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = recipe.connector_learning_rate and any(part in name for part in projector)
            rate = recipe.connector_learning_rate if own else recipe.learning_rate
            decay = recipe.weight_decay if name in decays else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()],
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        fused=True,
    )


def learning_rates(
    optimizer: torch.optim.Optimizer, recipe: RunConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of a run: a linear warm-up from 0, then a cosine down to 0."""
    warmup = math.ceil(steps * recipe.warmup_ratio)
    return get_cosine_schedule_with_warmup(optimizer, warmup, steps)


def _distributed(
    model: PreTrainedModel, run: Machine, processes: PartialState, half: bool
) -> torch.nn.Module:
    """The model as its processes train it: alone, copied (DDP), or sharded block by block."""
    if run.fsdp:
        policy = MixedPrecisionPolicy(*[torch.bfloat16, torch.float32] * half)
        lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
        for block in (block for blocks in lists for block in blocks):
            fully_shard(block, mp_policy=policy)
        return fully_shard(model, mp_policy=policy)
    if processes.num_processes > 1:
        return DistributedDataParallel(model)
    return model


def _processes(recipe: RunConfig, run: Machine, records: int) -> PartialState:
    """This process among those of torchrun, and its device. LabError for what cannot be run."""
    cuda = torch.cuda.is_available()
    if run.device == "cuda" and not cuda:
        raise LabError("no GPU is there", where="device=cuda", fix="use device=cpu")
    if run.fsdp and recipe.language_model == "lora":
        raise LabError("adapters are not sharded", where="fsdp", fix="leave fsdp out: they fit")
    if run.fsdp and int(os.environ.get("WORLD_SIZE", 1)) < 2:
        raise LabError("one process has nobody to share with", where="fsdp", fix="use torchrun")
    if not records:
        raise LabError("no records to train on", fix="give at least one record")
    cpu = run.device == "cpu" or not cuda
    if PartialState._shared_state and (PartialState().device.type == "cpu") != cpu:
        PartialState._reset_state()  # an earlier run of this process was on the other device
    processes = PartialState(cpu=cpu)
    if recipe.samples_per_update < processes.num_processes:
        raise LabError(
            f"{recipe.samples_per_update} samples for {processes.num_processes} processes",
            fix="use fewer processes or a larger samples_per_update",
        )
    return processes


def total_updates(records: int, recipe: RunConfig) -> int:
    """How many steps the recipe's epochs take; the last one is filled from the next epoch."""
    return math.ceil(recipe.epochs * records / recipe.samples_per_update)
