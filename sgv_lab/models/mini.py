"""Small tokenizers of the same make as the real ones, trained on the miniature's own texts."""

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from sgv_lab.models.tokenizers import of_llamas_make, qwen_tokenizer

CONTEXT = 2048
_LLAMA_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # ids 3..258, as in LLaMA's vocabulary
# Qwen's special tokens stand behind the 256 bytes, in the order of both real vocabularies.
QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<img>", "</img>", "<imgpad>"),  # Qwen-VL
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 1024, make: Literal["llama", "qwen"] = "llama"
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on ``texts``: the same texts give the same tokenizer.

    ``make`` "llama": BPE over words that begin with "▁", digits and punctuation apart, bytes for
    what was never seen (a newline is ``<0x0A>`` = 13), ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2;
    ``<image>`` and ``<pad>`` are special tokens. Any text that does not begin with a space comes
    back unchanged; LLaMA's own drops one such space too.

    ``make`` "qwen": byte-level BPE over Qwen's pieces of text, the bytes being ids 0..255, and
    QWEN_SPECIAL behind them. Any text in Unicode's normal form C comes back unchanged.

    The vocabulary has at most ``vocab_size`` tokens.
    """
    if make == "llama":
        vocab, merges = _learn(
            (line for text in texts for line in text.splitlines()),
            (
                pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"),
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.Punctuation(),
            ),
            vocab_size,
            ["<unk>", "<s>", "</s>", *_LLAMA_BYTES, "<image>", "<pad>"],
            [chr(code) for code in range(33, 127)],  # printable ASCII, seen or not
        )
        return of_llamas_make(vocab, merges, CONTEXT)
    blank = Qwen2Tokenizer().backend_tokenizer
    learned, merges = _learn(
        (blank.normalizer.normalize_str(text) for text in texts),
        [blank.pre_tokenizer],
        vocab_size - len(QWEN_SPECIAL),
        [],
        pre_tokenizers.ByteLevel.alphabet(),
    )
    vocab = {token: i if i < 256 else i + len(QWEN_SPECIAL) for token, i in learned.items()}
    special = {token: 256 + i for i, token in enumerate(QWEN_SPECIAL)}
    return qwen_tokenizer(vocab | special, merges, QWEN_SPECIAL, CONTEXT)


def _learn(
    texts: Iterable[str],
    pieces: Sequence[pre_tokenizers.PreTokenizer],
    vocab_size: int,
    special: list[str],
    alphabet: list[str],
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary (special tokens first, then the alphabet) and merges in the order learned."""
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(list(pieces))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer=trainer)
    trained = json.loads(learner.to_str())["model"]
    return trained["vocab"], [tuple(pair) for pair in trained["merges"]]
