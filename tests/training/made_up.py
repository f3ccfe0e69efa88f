"""Small tokenizers and records made in the tests."""

import base64
from pathlib import Path
from typing import Any

import sentencepiece

TEXTS = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What is on the mat? ASSISTANT: A cat is on the mat. USER: Is it red? ASSISTANT: No.",
)


def sentencepiece_model(folder: Path) -> Path:
    """A LLaMA-like tokenizer.model: BPE, byte fallback, nothing normalised, space in front."""
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(TEXTS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def tiktoken_file(folder: Path) -> Path:
    """A qwen.tiktoken of the 256 bytes and a few merges."""
    tokens = [bytes([i]) for i in range(256)] + [b"us", b"er", b"user", b" c", b"at", b" cat"]
    lines = [f"{base64.b64encode(t).decode()} {i}" for i, t in enumerate(tokens)]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n")
    return folder / "qwen.tiktoken"


def record(*texts: str, image: str | None = "a.png", name: str = "r1") -> dict[str, Any]:
    """A record of alternating human and gpt turns."""
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": name} | ({"image": image} if image else {}) | {"conversations": turns}
