"""Small tokenizers of the same make as the real ones, trained on the miniature's own texts."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaTokenizer

VOCAB_SIZE = 1024
IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"
_LLAMA_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # ids 3..258, as in LLaMA's vocabulary
IMAGE_ID, PAD_ID = 259, 260
CONTEXT = 2048


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> LlamaTokenizer:
    """Train a tokenizer of LLaMA's make on ``texts``: the same texts give the same tokenizer.

    BPE over words that begin with "▁", digits and punctuation apart, bytes for what was never
    seen (a newline is ``<0x0A>`` = 13), ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2; ``<image>`` and
    ``<pad>`` are special tokens. The vocabulary has at most ``vocab_size`` tokens. Any text that
    does not begin with a space comes back unchanged; LLaMA's own drops one such space too.
    """
    learner = Tokenizer(BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<unk>", "<s>", "</s>", *_LLAMA_BYTES, IMAGE_TOKEN, PAD_TOKEN],
        initial_alphabet=[chr(code) for code in range(33, 127)],  # printable ASCII, seen or not
        show_progress=False,
    )
    lines = (line for text in texts for line in text.splitlines())
    learner.train_from_iterator(lines, trainer=trainer)
    trained = json.loads(learner.to_str())["model"]
    return LlamaTokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        legacy=False,
        add_bos_token=True,
        pad_token=PAD_TOKEN,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        padding_side="right",
        model_max_length=CONTEXT,
    )
