"""A random miniature LLaVA with made-up samples: 4 image tokens, 32 words, no tokenizer."""

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from sgv_lab.training.collate import Collator

IMAGE, PAD, VOCAB, SIDE = 30, 0, 32, 28


def model(seed: int = 0, vision_layers: int = 3) -> LlavaForConditionalGeneration:
    """32 wide, 3 vision blocks (the last one unused under layer -2), 2 language layers."""
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
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.1,
        ),
        image_token_index=IMAGE,
        image_seq_length=4,
    )
    return LlavaForConditionalGeneration(config)


class Samples:
    """``size`` samples of different lengths; every ``text_only``-th has no picture."""

    def __init__(self, size: int = 40, text_only: int = 5) -> None:
        self.size, self.text_only = size, text_only

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(index)
        prompt = torch.randint(3, 29, (2 + index % 3,), generator=draw).tolist()
        answer = torch.randint(3, 29, (3 + index % 7,), generator=draw).tolist()
        picture = (
            [] if index % self.text_only == 0 else [torch.randn(3, SIDE, SIDE, generator=draw)]
        )
        ids = [1, *([-200] * len(picture)), *prompt, *answer, 2]
        labels = [-100] * (len(ids) - len(answer) - 1) + [*answer, 2]
        return {"id": f"record-{index}", "input_ids": ids, "labels": labels, "images": picture}


def collator(per_sample: bool = False) -> Collator:
    """The collator that fits ``model``."""
    return Collator(PAD, IMAGE, image_tokens=4, image_size=SIDE, per_sample=per_sample)
