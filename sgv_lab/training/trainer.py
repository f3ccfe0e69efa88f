"""From records to a checkpoint: the whole of a training, to be read from top to bottom.

`train` checks and encodes records; `fit` makes a model learn from the samples; `_learn` is the
loop, `_step` one optimizer step, `supervised_loss` what it minimises. What a step is shown is
decided in `step_data`, which tensors learn in `trainable`, how processes share the work in
`processes`, and how a run is saved, resumed and finished in `checkpointing`.
"""

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, send_to_device
from torch.nn.functional import cross_entropy, pad
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, ProcessorMixin, get_cosine_schedule_with_warmup, set_seed

from sgv_lab.captions.records import count_reasons
from sgv_lab.errors import LabError
from sgv_lab.files import only_writer, write_json
from sgv_lab.models import checkpoints
from sgv_lab.training import checkpointing, kernels, step_data
from sgv_lab.training import processes as several
from sgv_lab.training.card import hub_name
from sgv_lab.training.collate import Collator, Sample, collator
from sgv_lab.training.config import Machine, RunConfig, configured
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.metrics import Metrics
from sgv_lab.training.packing import Batching, packed
from sgv_lab.training.precision import adamw, set_precision
from sgv_lab.training.preprocessing import normalised
from sgv_lab.training.segments import IGNORED
from sgv_lab.training.step_data import padded
from sgv_lab.training.survey import MAX_DROPPED, survey
from sgv_lab.training.trainable import GradientGuard, set_trainable

log = logging.getLogger(__name__)


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
    max_dropped: float = MAX_DROPPED,
    keep: bool = True,
    **run: Any,
) -> Path:
    """Train ``model`` on LLaVA records and return ``out``, then a Hugging Face checkpoint.

    ``records``: a list or a file of ``{id, image, conversations}``; images lie below
    ``image_root``. ``run``: fields of `Machine`, and settings of the recipe to change. A set with
    records that cannot be trained on (see `RecordDataset.examine`) is refused, unless
    ``drop_broken`` says to leave them out and they are at most ``max_dropped`` of all; the manifest
    then counts them. Otherwise as `fit`, which see for resuming, ``keep``, and what is raised.
    """
    recipe, settings = configured(recipe, run)
    checkpoints.refuse_tokenizer(model.config, processor, "processor")
    examples = RecordDataset(records, image_root, processor, recipe)
    collate = collator(model.config, recipe.loss == "sample", recipe.packing, processor)
    found = survey(examples, collate.image_tokens, settings.workers or 0, settings.progress)
    found.refuse(records, drop_broken, max_dropped)
    broken = found.broken.values()
    if broken and settings.progress:
        log.warning("%d left out: %s", len(broken), count_reasons(broken))
    facts = {
        "data": examples.digest(),
        "records_file": Path(records).name if isinstance(records, str | Path) else "",
        "records_dropped": len(broken),
        "dropped_for": Counter(one.reason for one in broken),
        "left_out": found.digest(),
        "records_cut": int(found.truncated.sum()),
    }
    lengths, fits = found.lengths, recipe.tokens_per_batch
    batching = packed(lengths, fits) if recipe.packing else padded(recipe.micro_batch, lengths)
    given = (model, processor, examples, collate, recipe, out, seed, settings, facts, batching)
    return fit(*given, keep, list(found.broken))


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
    keep: bool = True,
    left_out: Sequence[int] = (),
) -> Path:
    """Train ``model`` on encoded ``examples`` and return ``out``, then a Hugging Face checkpoint.

    ``facts`` go into the manifest and must be the same when a run is resumed (hashes of the
    data). ``batching`` splits a step's samples into batches (padded ones if not given). Called
    again after a kill, with a fresh copy of the same model, it goes on from the last complete
    checkpoint; after completion it returns at once. ``seed`` sets the order of the data, the
    adapters' first values and dropout; the model's first weights are the caller's, with ``fsdp``
    those of the first process alone (see `processes.distributed`). Without ``keep``
    nothing is saved but metrics.jsonl: to measure what a training takes. ``left_out``: numbers of
    examples that are not shown (see `SampleOrder`); epochs count them all the same.

    Raises LabError if ``out`` holds a run with other settings, no GPU is there where one is asked
    for, a tensor does not learn, a loss is not finite, or saving fails.
    """
    out, processes = Path(out), several.start(recipe, run)
    steps = total_steps(len(examples), recipe)
    first = processes.is_main_process
    known = broadcast_object_list([checkpoints.weights_hash(model) if first else None])
    settings = {  # what makes a run this run and no other
        "recipe": recipe.training(),
        "seed": seed,
        "steps": steps,
        "records": len(examples) - len(left_out),
        "model": known[0],
        "base": hub_name(model.name_or_path),
        **facts,
    }
    if checkpointing.finished(out, settings):
        return out
    order = step_data.SampleOrder(len(examples), seed, left_out)
    batching = batching or padded(recipe.micro_batch)
    place = processes.process_index, processes.num_processes
    data = step_data.Steps(examples, collate, order, batching, recipe.samples_per_step, *place)
    with only_writer(out) if first else contextlib.nullcontext():
        if first:
            write_json(out / "run.json", settings)
        _learn(model, processor, data, recipe, run, settings, out, processes, keep)
    return out


def _learn(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    data: step_data.Steps,
    recipe: RunConfig,
    run: Machine,
    settings: dict[str, Any],
    out: Path,
    processes: PartialState,
    keep: bool,
) -> None:
    """Train from the last complete checkpoint, or from the start, to the manifest."""
    steps, cuda = settings["steps"], processes.device.type == "cuda"
    half = recipe.precision == "bf16" and cuda  # autocast
    set_seed(settings["seed"])  # the adapters' first values
    model, trainable = set_trainable(model, recipe)
    set_precision(model, recipe, half and not run.fsdp)  # shards are cast as they are gathered
    kernels.checkpoint(model, recipe)
    wrapped = several.distributed(model.train(), run, processes, half)
    optimizer = adamw(model, recipe)
    schedule = learning_rates(optimizer, recipe, steps)
    set_seed(settings["seed"])  # dropout, whatever was drawn so far
    state = checkpointing.TrainingState(out / "checkpoints", model, optimizer, schedule, processes)
    start = state.load()
    loader = DataLoader(
        data,
        sampler=range(start, steps),  # a step's number says what it is shown: nothing is read twice
        batch_size=None,
        num_workers=4 * cuda if run.workers is None else run.workers,
        pin_memory=cuda,
        generator=torch.Generator(),  # its own, so that opening it leaves the global one alone
    )
    guard, every = GradientGuard(trainable.effective), run.save_every or max(50, steps // 10)
    fast = kernels.fast(model, recipe, cuda, run.liger)
    told = {name: settings[name] for name in ("seed", "steps", "records", "base")}
    shown = (out / "metrics.jsonl", start, steps, run, processes, recipe.training() | told)
    with fast, Metrics(*shown) as metrics:
        for step, batches in enumerate(loader, start + 1):
            counts = step_data.counts(batches, processes)
            row = _step(wrapped, batches, counts, step, recipe, half)
            guard.check(model, has_image=counts["images"] > 0)
            row["learning_rate"] = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            metrics.add({"step": step, **row, **counts})
            if keep and (step % every == 0 or step == steps):
                state.save(step)
                metrics.restart_clock()
    if keep:
        checkpointing.finish(model, processor, recipe, trainable, settings, out, processes, half)


def _step(
    model: torch.nn.Module,
    batches: Sequence[dict[str, Any]],
    counts: Mapping[str, int],
    step: int,
    recipe: RunConfig,
    half: bool,
) -> dict[str, float]:
    """Leave one optimizer step's gradients in ``model``; its loss, and the gradients' norm."""
    processes = PartialState()
    denominator = counts["supervised_tokens" if recipe.loss == "token" else "samples"]
    total, shares = torch.zeros((), device=processes.device), []
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
            (loss * processes.num_processes).backward()  # the gradients will be averaged
        shares.append(loss.detach())
        total += shares[-1]
    _refuse_non_finite("loss", torch.stack(shares), step, batches)
    if processes.num_processes > 1:
        dist.all_reduce(total)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or math.inf)
    norm = getattr(norm, "full_tensor", lambda: norm)()  # of all shards
    _refuse_non_finite("gradient norm", norm.expand(len(batches)), step, batches)
    return {"loss": total.item(), "grad_norm": norm.item()}


def supervised_loss(
    model: torch.nn.Module, batch: Mapping[str, Any], denominator: torch.Tensor | float
) -> torch.Tensor:
    """This batch's share of a step's loss, a float32 scalar.

    Only positions whose next token has a label pass through the output head. The first label of a
    sample is never one, so nothing is asked across packed samples. Cross-entropies are weighted by
    ``loss_weights`` (B, T), summed, and divided by ``denominator``: weights of 1 and the number of
    supervised tokens of the whole step (over all its batches and processes) give the mean over
    tokens; weights of 1 / (a sample's supervised tokens) and the number of samples give the mean
    over samples, so that longer captions change nothing else. Either way the shares add up to the
    same loss however the step is split.

    The official code (SG share4v/train/train.py on transformers 4.31) takes the mean over tokens
    within each device's batch and then the mean of those means, so there a token's weight depends
    on which samples it shares a device with.
    """
    targets = pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)  # (B, T): the next token's label
    asked = targets != IGNORED
    weights = pad(batch["loss_weights"][:, 1:], (0, 1))[asked]
    others = ("labels", "loss_weights", "record_ids", "images", "pixel_norm")
    inputs = {key: value for key, value in batch.items() if key not in others}
    if "pixel_norm" in batch:
        inputs["pixel_values"] = normalised(inputs["pixel_values"], batch["pixel_norm"])
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(next(model.parameters()).dtype)
    logits = model(**inputs, logits_to_keep=asked, use_cache=False).logits  # (N, V)
    losses = cross_entropy(logits.float(), targets[asked], reduction="none")  # (N,)
    return (losses * weights).sum() / denominator


def _refuse_non_finite(
    what: str, values: torch.Tensor, step: int, batches: Sequence[Mapping[str, Any]]
) -> None:
    """Raise LabError for the batches whose value is not finite. The device is waited for once."""
    pairs = list(zip(values.tolist(), batches, strict=True))
    if bad := [(value, batch) for value, batch in pairs if not math.isfinite(value)]:
        ids = ", ".join(name for _, batch in bad for name in batch["record_ids"])
        raise LabError(
            f"the {what} is {bad[0][0]} in step {step}; records of the batch: {ids}",
            fix="look at these records or lower the learning rate; the last checkpoint is intact",
        )


def learning_rates(
    optimizer: torch.optim.Optimizer, recipe: RunConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of a run: a linear warm-up from 0, then a cosine down to 0."""
    warmup = math.ceil(steps * recipe.warmup_ratio)
    return get_cosine_schedule_with_warmup(optimizer, warmup, steps)


def total_steps(records: int, recipe: RunConfig) -> int:
    """As many as the recipe says or its epochs take; the last one is filled from the next epoch."""
    return recipe.max_steps or math.ceil(recipe.epochs * records / recipe.samples_per_step)
