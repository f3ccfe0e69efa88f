"""A random miniature LLaVA with made-up samples: 4 image tokens, 32 words, no tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from sgv_lab.training import metrics, trainer
from sgv_lab.training.collate import Collator
from sgv_lab.training.config import RunConfig, base, configured
from sgv_lab.training.packing import packed

IMAGE, PAD, VOCAB, SIDE = 30, 0, 32, 28


def model(
    seed: int = 0, vision_layers: int = 3, text_layers: int = 2, tied: bool = False
) -> LlavaForConditionalGeneration:
    """32 wide; the last vision block is unused under feature layer -2.

    ``tied``: the output head is the embeddings.
    """
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=vision_layers,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=14,
            initializer_range=0.1,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=text_layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.1,
        ),
        image_token_index=IMAGE,
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    return LlavaForConditionalGeneration(config)


class Samples:
    """``size`` samples of different lengths; every ``text_only``-th has no image."""

    def __init__(self, size: int = 40, text_only: int = 5) -> None:
        self.size, self.text_only = size, text_only

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(index)
        prompt = torch.randint(3, 29, (2 + index % 3,), generator=draw).tolist()
        answer = torch.randint(3, 29, (3 + index % 7,), generator=draw).tolist()
        image = [] if index % self.text_only == 0 else [torch.randn(3, SIDE, SIDE, generator=draw)]
        ids = [1, *([-200] * len(image)), *prompt, *answer, 2]
        labels = [-100] * (len(ids) - len(answer) - 1) + [*answer, 2]
        return {"id": f"record-{index}", "input_ids": ids, "labels": labels, "images": image}


def collator(per_sample: bool = False, packed: bool = False) -> Collator:
    """The collator that fits ``model``."""
    return Collator(PAD, IMAGE, 4, SIDE, per_sample=per_sample, packed=packed)


def recipe(name: str = "pretrain", **changes: Any) -> RunConfig:
    """A recipe at a size that fits: 8 samples a step, and a rate that moves the loss."""
    small = {"samples_per_step": 8, "learning_rate": 3e-3, "lora_rank": 4}
    if name == "pretrain":
        small["vision_from"] = 1
    return base(name, small | changes)


def fit(out: Path, *, seed: int = 0, samples: Samples | None = None, **given: Any) -> Path:
    """``trainer.fit`` with everything tiny; ``given``: recipe, model, keep, or settings."""
    chosen, start = given.pop("recipe", recipe()), given.pop("model", None) or model()
    keep = given.pop("keep", True)
    given = {"max_steps": 6, "progress": False, "device": "cpu"} | given
    chosen, run = configured(chosen, given)
    samples = Samples() if samples is None else samples
    collate = collator(per_sample=chosen.loss == "sample", packed=chosen.packing)
    batching = None
    if chosen.packing:
        lengths = np.array([length(samples[i]) for i in range(len(samples))])
        batching = packed(lengths, chosen.tokens_per_batch)
    return trainer.fit(start, None, samples, collate, chosen, out, seed, run, {}, batching, keep)


def length(sample: dict[str, Any]) -> int:
    """A sample's positions in the language model."""
    return len(sample["input_ids"]) + 3 * len(sample["images"])


def losses(out: Path) -> list[float]:
    """The losses a run wrote down, in order."""
    return [row["loss"] for row in metrics.read(out / "metrics.jsonl")]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's final checkpoint."""
    return load_file(out / "model.safetensors")
