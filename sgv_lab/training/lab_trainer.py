"""transformers' Trainer, changed in what an update is, the loss, saving, logging and stopping."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer

from sgv_lab.models.kinds import kind
from sgv_lab.training import saving
from sgv_lab.training.guards import GradientGuard, refuse_non_finite
from sgv_lab.training.loss import Weighting, supervised_loss, targets
from sgv_lab.training.metrics import MetricsFile, Progress
from sgv_lab.training.recipes import Recipe
from sgv_lab.training.stream import IGNORED
from sgv_lab.training.trainable import Trainable
from sgv_lab.training.updates import Updates


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
    workers: int = 0  # processes that load pictures
    progress: bool | None = True  # None: while records are looked through, in a terminal only
    price: float = 0.0  # of one device-hour; above 0, progress tells the cost


class _From:
    """Sampler of the update numbers from ``start`` to ``total``; its length stays ``total``."""

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __len__(self) -> int:
        return self.total


class LabTrainer(Trainer):
    """One dataset item is one update: a list of batches, accumulated in ``training_step``.

    The Trainer's own accumulation has a fixed number of batches per update; packed batches need
    as many as the samples fill.
    """

    loss_is_scaled_for_ga = True  # every batch's loss is its share of the update's

    def __init__(
        self,
        model: torch.nn.Module,
        updates: Updates,
        recipe: Recipe,
        trainable: Trainable,
        run: Run,
        start: int,
        **kwargs: Any,
    ) -> None:
        self.recipe, self.run, self.start = recipe, run, start
        self.guard = GradientGuard(trainable.effective)
        self.ids: list[str] = []  # of the update under way
        self.counts: dict[str, int] = {}
        self.saving_in: Path | None = None
        super().__init__(model=model, train_dataset=updates, callbacks=[self.guard], **kwargs)
        self.remove_callback(PrinterCallback)
        metrics = Path(self.args.output_dir) / "metrics.jsonl"
        self.metrics = MetricsFile(metrics, start) if self.is_world_process_zero() else None
        self.add_callback(Progress(run.progress, run.price))
        self.clock = time.monotonic()

    def get_train_dataloader(self) -> DataLoader:
        """Updates in order, from the one to resume at. Each process loads its own batches."""
        return DataLoader(
            self.train_dataset,
            sampler=_From(self.start, self.args.max_steps),
            batch_size=None,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),  # its own, so that opening it leaves the global one alone
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | None]:
        """The next update, and the loss's denominator over all processes."""
        update = next(epoch_iterator, None)
        if update is None:
            return [], None
        self.ids = [i for batch in update for i in batch["record_ids"]]
        counts = {
            "tokens": sum(_filled(batch) for batch in update),
            "positions": sum(batch["labels"].numel() for batch in update),
            "supervised_tokens": sum(int((targets(b) != IGNORED).sum()) for b in update),
            "samples": len(self.ids),
            "images": sum(_pictures(batch) for batch in update),
            "batches": len(update),
        }
        summed = self.accelerator.reduce(torch.tensor(list(counts.values()), device=device))
        self.counts = dict(zip(counts, summed.tolist(), strict=True))
        self.guard.has_image = self.counts["images"] > 0
        per = "supervised_tokens" if self.run.loss == "token" else "samples"
        return [update], torch.tensor(float(self.counts[per]), device=device)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: list[dict[str, Any]],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Forward and backward of one update; gradients are exchanged in its last batch only."""
        losses = []
        for number, batch in enumerate(inputs, start=1):
            last = number == len(inputs)
            wait = contextlib.nullcontext() if last else self.accelerator.no_sync(model)
            with wait:
                losses.append(super().training_step(model, batch, num_items_in_batch))
            refuse_non_finite(losses[-1], "loss", self.state.global_step, batch["record_ids"])
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch's share of the update's loss, times the processes that will be averaged."""
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        loss = supervised_loss(model, inputs, num_items_in_batch)
        return loss * self.args.world_size

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; the connector gets a learning rate of its own where the recipe has one."""
        optimizer = super().create_optimizer(model)
        if rate := self.recipe.connector_learning_rate:
            model = self.accelerator.unwrap_model(model or self.model)
            parts = kind(model.config.model_type).connector
            own = {id(p) for n, p in model.named_parameters() if any(part in n for part in parts)}
            for group in list(optimizer.param_groups):
                apart = [p for p in group["params"] if id(p) in own]
                group["params"] = [p for p in group["params"] if id(p) not in own]
                if apart:
                    optimizer.add_param_group({**group, "params": apart, "lr": rate})
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the update's counts and speed; write metrics.jsonl; stop at a non-finite gradient."""
        if "loss" in logs:
            norm = torch.tensor(logs["grad_norm"])
            refuse_non_finite(norm, "gradient norm", self.state.global_step - 1, self.ids)
            now = time.monotonic()
            seconds, self.clock = now - self.clock, now
            logs |= self.counts | {
                "seconds": seconds,
                "samples_per_second": self.counts["samples"] / seconds,
            }
            if self.metrics:
                self.metrics.add({"step": self.state.global_step, **logs})
        super().log(logs, start_time)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Load every weight or raise: the Trainer's own way passes over renamed tensors."""
        if self.is_fsdp_enabled or isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _get_output_dir(self, trial: Any) -> str:
        """Where the Trainer's ``_save_checkpoint`` writes: a scratch folder, renamed after it."""
        return str(self.saving_in or Path(self.args.output_dir) / "checkpoints")

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save beside the checkpoints, then move into place, so that a kill leaves no half one."""
        folder = Path(self.args.output_dir) / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        self.saving_in = folder / ".saving"
        name = f"checkpoint-{self.state.global_step}"
        with saving.refusing_full_disk(folder):
            if self.args.should_save:
                shutil.rmtree(self.saving_in, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                saving.complete(self.saving_in / name, folder / name)
        self.saving_in = None
        self.clock = time.monotonic()


def _filled(batch: dict[str, torch.Tensor]) -> int:
    """Positions that hold a token, not padding."""
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None else batch["labels"].numel()


def _pictures(batch: dict[str, torch.Tensor]) -> int:
    """Pictures of records, without the blank ones that keep processes in step."""
    if "pixel_values" not in batch:
        return 0
    pictures = batch["pixel_values"]
    if "image_grid_thw" in batch:  # patches of all pictures in one row
        pictures = pictures.split(batch["image_grid_thw"].prod(dim=1).tolist())
    return sum(bool(picture.any()) for picture in pictures)
