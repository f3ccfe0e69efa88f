"""The miniature's stand-in for CLIP: a vision tower taught by dense supervision.

CLIP saw 400 million images; a tower this small cannot be given that. It learns what the projector
will need from the world's own truth instead: each patch tells its place and its object's kind,
colour, size and pattern, all together the background, light, sign, landmark, character and style.
Heads read what the projector is given (of LLaVA layer −2) and are thrown away afterwards.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from transformers import (
    CLIPImageProcessorPil,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from sgv_lab import store
from sgv_lab.base.lessons import training_scenes
from sgv_lab.files import write_jsonl
from sgv_lab.models import checkpoints
from sgv_lab.models.architectures import part
from sgv_lab.world.render import patch_truth, render
from sgv_lab.world.scene import GRID, MINIATURE, Scene, allowed_sources, scene

CROWDED = replace(MINIATURE, max_objects=4)
PATCHES = ("kind", "color", "size", "pattern", "place")  # labels of patches, not of the whole
BATCH, RATE = 128, 3e-3
EXAMINED = 210
_HELD_OUT = 9 * 10**8  # the first of the scenes that the tower is examined with


def train_vision_tower(start: Path, images: int, steps: int, seed: int) -> Path:
    """The checkpoint ``start`` with a vision tower that learned to see, made once per arguments.

    Beside it lie metrics.jsonl, the learning curve, and accuracy.csv: percent right by label where
    there is something to see, in EXAMINED images of scenes that training never draws.
    """

    def build(out: Path) -> None:
        model, processor = checkpoints.load(start)
        side = model.config.vision_config.image_size
        seen = DenseImages(training_scenes(images, seed, CROWDED), side)
        set_seed(seed)
        classes = {name: int(values.max()) + 1 for name, values in seen.labels.items()}
        tower = DenseTower(model, processor.image_processor, classes)
        curve = fit(tower, seen, out, seed, steps, BATCH, RATE)
        sources = allowed_sources(CROWDED)
        new = [
            scene(_HELD_OUT + i, "eval", sources[i % len(sources)], CROWDED)
            for i in range(EXAMINED)
        ]
        checkpoints.save(model, processor, out / "model")
        write_jsonl(out / "model" / "metrics.jsonl", curve)
        table = accuracy(tower.eval(), DenseImages(new, side))
        table.to_csv(out / "model" / "accuracy.csv", index=False)

    settings = {"images": images, "steps": steps, "seed": seed, "batch": BATCH}
    return store.artifact("vision-tower", settings, [start], build) / "model"


def with_tower(start: Path, seeing: Path) -> Path:
    """The checkpoint ``start`` with the vision tower of ``seeing``, made once per arguments."""

    def build(out: Path) -> None:
        (model, processor), (other, _) = checkpoints.load(start), checkpoints.load(seeing)
        tower = {n: w for n, w in other.named_parameters() if part(n) == "vision tower"}
        model.load_state_dict(tower, strict=False)
        checkpoints.save(model, processor, out / "model")

    return store.artifact("with-tower", {}, [start, seeing], build) / "model"


class DenseImages(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Scenes drawn once and kept: pixels (3, S, S) uint8 and the truth of ``patch_truth``."""

    def __init__(self, scenes: Sequence[Scene], side: int) -> None:
        drawn = [np.asarray(render(one, side)) for one in scenes]
        truth = [patch_truth(one, GRID) for one in scenes]
        self.pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
        self.labels = {
            name: torch.from_numpy(np.stack([one[name] for one in truth])) for name in truth[0]
        }
        # Without it the tower forgets where a patch is, and nothing later can say.
        self.labels["place"] = torch.arange(GRID * GRID).view(GRID, GRID).repeat(len(scenes), 1, 1)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        found = {name: values[index] for name, values in self.labels.items()}
        return {"pixels": self.pixels[index], **found}


class DenseTower(torch.nn.Module):
    """A model's vision tower with one linear head a label, on what the projector is given."""

    def __init__(
        self, model: PreTrainedModel, processor: CLIPImageProcessorPil, classes: dict[str, int]
    ) -> None:
        super().__init__()
        self.resampled = model.config.model_type == "qwen_vl"
        self.tower = model.model.visual if self.resampled else model.model.vision_tower
        width = model.config.vision_config.hidden_size
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(width, n) for name, n in classes.items()}
        )
        scale = torch.tensor(processor.image_std).view(3, 1, 1) * 255
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1) * 255)
        self.register_buffer("scale", scale)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) uint8 -> (B, N, V): LLaVA takes layer −2, without the class token."""
        scaled = (pixels - self.mean) / self.scale
        if self.resampled:
            return self.tower.features(scaled)
        return self.tower(scaled, output_hidden_states=True).hidden_states[-2][:, 1:]

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


@torch.no_grad()
def accuracy(tower: DenseTower, images: DenseImages) -> pd.DataFrame:
    """Percent right by label, where there is something to see, and how often there was."""
    device = tower.mean.device
    parts = [tower.logits(part.to(device)) for part in images.pixels.split(256)]
    rows = []
    for name, truth in images.labels.items():
        said = torch.cat([part[name].argmax(-1).flatten().cpu() for part in parts])
        asked = (truth.flatten() > 0) | (name == "place")  # of other labels 0 is none
        right = (said == truth.flatten())[asked].float().mean().item()
        rows.append((name, int(asked.sum()), 100 * right))
    return pd.DataFrame(rows, columns=["label", "asked", "accuracy"])


def fit(
    model: torch.nn.Module,
    data: torch.utils.data.Dataset,
    out: Path,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
) -> list[dict[str, float]]:
    """Train a module that returns its loss; the curve, rows of a step and the loss up to it."""
    trainer = Trainer(
        model=model,
        train_dataset=data,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=min(50, steps // 4),
            weight_decay=0.05,
            seed=seed,
            save_strategy="no",
            logging_steps=max(1, steps // 50),
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=[],
            use_cpu=not torch.cuda.is_available(),
        ),
    )
    trainer.remove_callback(PrinterCallback)  # which prints every row
    trainer.train()
    return [
        {"step": r["step"], "loss": r["loss"]} for r in trainer.state.log_history if "loss" in r
    ]
