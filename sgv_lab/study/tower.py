"""The miniature's stand-in for CLIP: a vision tower taught by dense supervision.

CLIP saw 400 million pictures; a tower this small cannot be given that. It learns what the
projector will need from the world's own truth instead: each patch tells its place and the kind,
colour, size and pattern of the object in it, all patches together the background, light, sign,
landmark, character and style. Heads read the features LLaVA uses (layer −2, patches) and are
thrown away afterwards.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from sgv_lab.world.render import patch_truth, render
from sgv_lab.world.scene import Scene

PATCHES = ("kind", "color", "size", "pattern", "place")  # labels of patches, not of the whole


class Pictures(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Scenes drawn once and kept: pixels (3, S, S) uint8 and the truth of ``patch_truth``."""

    def __init__(self, scenes: Sequence[Scene], side: int, grid: int) -> None:
        drawn = [np.asarray(render(scene, side)) for scene in scenes]
        truth = [patch_truth(scene, grid) for scene in scenes]
        self.pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
        self.labels = {
            name: torch.from_numpy(np.stack([one[name] for one in truth])) for name in truth[0]
        }
        # Without it the tower forgets where a patch is, and nothing later can say.
        self.labels["place"] = torch.arange(grid * grid).view(grid, grid).repeat(len(scenes), 1, 1)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        found = {name: values[index] for name, values in self.labels.items()}
        return {"pixels": self.pixels[index], **found}


class DenseTower(torch.nn.Module):
    """A CLIP vision tower with one linear head a label, on the patches of layer −2."""

    def __init__(
        self, tower: CLIPVisionModel, processor: CLIPImageProcessorPil, classes: dict[str, int]
    ) -> None:
        super().__init__()
        self.tower = tower
        width = tower.config.hidden_size
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(width, n) for name, n in classes.items()}
        )
        scale = torch.tensor(processor.image_std).view(3, 1, 1) * 255
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1) * 255)
        self.register_buffer("scale", scale)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) uint8 -> (B, N, V), layer −2 without the class token, as LLaVA takes it."""
        hidden = self.tower((pixels - self.mean) / self.scale, output_hidden_states=True)
        return hidden.hidden_states[-2][:, 1:]

    def logits(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, S, S) uint8 -> by label (B, N, classes) of patches, or (B, classes)."""
        patches = self.patches(pixels)
        whole = patches.mean(1)
        return {
            name: head(patches if name in PATCHES else whole) for name, head in self.heads.items()
        }

    def forward(self, pixels: torch.Tensor, **labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The sum of all labels' cross-entropies, as the Trainer wants it."""
        losses = [
            functional.cross_entropy(found.flatten(0, -2), labels[name].flatten())
            for name, found in self.logits(pixels).items()
        ]
        return {"loss": torch.stack(losses).sum()}


def train(
    tower: CLIPVisionModel,
    processor: CLIPImageProcessorPil,
    pictures: Pictures,
    out: Path,
    seed: int,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
) -> dict[str, Any]:
    """Teach ``tower`` in place; its checkpoints in ``out`` let a killed run go on.

    Returns the loss, averaged over the updates of this call, and the number of classes by label.
    """
    classes = {name: int(values.max()) + 1 for name, values in pictures.labels.items()}
    set_seed(seed)
    model = DenseTower(tower, processor, classes)
    loss = fit(model, pictures, out, seed, steps, batch, learning_rate)
    return {"mean_loss": loss, "classes": classes}


def fit(
    model: torch.nn.Module,
    data: torch.utils.data.Dataset,
    out: Path,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
) -> float:
    """Train a module that returns its loss, going on from a checkpoint in ``out``; mean loss."""
    trainer = Trainer(
        model=model,
        train_dataset=data,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=50,
            weight_decay=0.05,
            seed=seed,
            save_steps=max(1, steps // 5),
            save_total_limit=1,
            logging_steps=50,
            report_to="none",
            remove_unused_columns=False,
            label_names=[],
            use_cpu=not torch.cuda.is_available(),
        ),
    )
    last = get_last_checkpoint(str(out)) if out.is_dir() else None
    return trainer.train(resume_from_checkpoint=last).training_loss
