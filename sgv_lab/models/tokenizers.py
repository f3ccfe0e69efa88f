"""The real tokenizers as Hugging Face tokenizers, rebuilt from the files they were released in."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import LlamaTokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.tokenization_utils_base import generate_merges

from sgv_lab.errors import LabError

# Qwen-VL's special tokens, in the order of their ids behind the 151,643 of qwen.tiktoken
# (tokenization_qwen.py of x1ngzai/Qwen-VL-Chat-Int4@1cd721a).
QWEN_VL_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|extra_{i}|>" for i in range(205)),
    *("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"),
)


def llama_tokenizer(
    path: str | Path, added: Sequence[str] = (), context: int = 2048
) -> LlamaTokenizer:
    """LLaMA's ``tokenizer.model`` with ``added`` tokens, then <image> and <pad>, behind it.

    The merges are ordered by sentencepiece's scores: its runs of spaces come last, which the
    conversion built into transformers 5 (merges by id) gets wrong for double spaces.
    Raises LabError if the file is no sentencepiece model.
    """
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise LabError("is no sentencepiece model", where=path, fix="download it again") from error
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    scores = {piece: model.get_score(i) for i, piece in enumerate(pieces)}
    outside = {p for i, p in enumerate(pieces) if model.is_control(i) or model.is_byte(i)}
    vocab = {piece: i for i, piece in enumerate([*pieces, *added, "<image>", "<pad>"])}
    merges = generate_merges(vocab, scores, skip_tokens=outside | {"<unk>"})
    tokenizer = of_llamas_make(vocab, merges, context)
    tokenizer.add_tokens(list(added), special_tokens=True)
    return tokenizer


def of_llamas_make(
    vocab: dict[str, int], merges: list[tuple[str, str]], context: int
) -> LlamaTokenizer:
    """A tokenizer of LLaMA's make; <image> and <pad> are in ``vocab``."""
    return LlamaTokenizer(
        vocab=vocab,
        merges=merges,
        legacy=False,
        add_bos_token=True,
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="right",
        model_max_length=context,
    )


def qwen_tokenizer(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    special: Sequence[str],
    context: int = 2048,
) -> Qwen2Tokenizer:
    """A byte-level tokenizer of Qwen's make whose ``special`` tokens are in ``vocab``."""
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(special),
        padding_side="right",
        model_max_length=context,
    )
    moved = [t for t in special if tokenizer.convert_tokens_to_ids(t) != vocab[t]]
    assert not moved, f"special tokens moved: {moved}"
    return tokenizer


def qwen_vl_tokenizer(path: str | Path, context: int = 2048) -> Qwen2Tokenizer:
    """Qwen-VL's ``qwen.tiktoken`` with its special tokens; LabError if the file is something else.

    An image's path as bytes between <img> and </img> is not a matter of this tokenizer: the
    processor puts <imgpad> there, and the model replaces whatever is there.
    """
    letters = bytes_to_unicode()
    try:
        rows = [line.split() for line in Path(path).read_bytes().splitlines()]
        vocab = {
            "".join(letters[byte] for byte in b64decode(token, validate=True)): int(rank)
            for token, rank in rows
        }
    except (ValueError, OSError) as error:
        raise LabError("is no tiktoken file", where=path, fix="download it again") from error
    merges: list[tuple[str, str]] = []
    for token in vocab:
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [pair for pair in pairs if vocab.keys() >= {*pair}]
        merges += sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    special = {token: len(vocab) + i for i, token in enumerate(QWEN_VL_SPECIAL)}
    return qwen_tokenizer(vocab | special, merges, QWEN_VL_SPECIAL, context)
