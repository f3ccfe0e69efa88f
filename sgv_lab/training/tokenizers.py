"""One small interface over the tokenizers the study meets, and the three kinds behind it.

A conversation is tokenised in segments: text between special tokens or images. Where a segment
stands decides its ids (LLaMA puts a space in front of a text, but not behind "</s>" unless the
tokenizer is "legacy"), so the interface asks for the place. Everything else, templates and label
masks, is built from segments and never looks at a token's characters.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import sentencepiece
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sgv_lab.errors import LabError
from sgv_lab.models.tokenizers import QWEN_VL_SPECIAL, tiktoken_file

# Official code on its pinned stack -> how a segment behind a special token is treated. The paper's
# own is sg4v_tf4.31_legacy_false; the default is what today's tokenizers emit by themselves.
VARIANTS = {
    "llava_tf4.37.2_legacy_false": "no space",
    "llava_tf4.37.2_legacy_true": "space",
    "sg4v_tf4.31_legacy_false": "space stripped",
    "sg4v_tf4.31_legacy_true": "space",
}
DEFAULT_VARIANT = "llava_tf4.37.2_legacy_false"


class TextTokenizer(ABC):
    """What conversations need of a tokenizer."""

    special: Mapping[str, int]  # spelling -> id of each token that text is split at
    bos_id: int | None
    eos_id: int
    unk_id: int | None
    pad_id: int

    @abstractmethod
    def start(self, segment: str) -> list[int]:
        """Ids of a segment that begins a text (or follows an image)."""

    @abstractmethod
    def text(self, ids: list[int]) -> str:
        """The text of ordinary (not special) tokens, spaces in front kept."""

    def _ids(self, text: str) -> list[int]:
        """Ids of a whole text."""
        return self.start(text)

    def _stripped(self, token: int) -> int | None:
        """The token without the space in front that LLaMA adds; None if nothing is left."""
        return token

    def _behind(self, segment: str) -> list[int]:
        """Ids of a segment behind a special token, without a space of the tokenizer's own."""
        return self.after_text(segment, "<unk>")  # as ordinary text: transformers >= 4.34

    def after_special(self, segment: str, variant: str) -> list[int]:
        """Ids of a segment right behind a special token, as ``variant`` (VARIANTS) gives them."""
        how = VARIANTS[variant]
        if how == "no space":
            return self._behind(segment)
        first, *rest = self.start(segment)
        if how == "space" or segment.startswith(" "):
            return [first, *rest]
        first = self._stripped(first)
        return rest if first is None else [first, *rest]

    def after_text(self, segment: str, before: str) -> list[int]:
        """Ids of a segment behind the text ``before``, as they would be in one piece."""
        return _continuation(self._ids(before + segment), self._ids(before), segment)


def _continuation(whole: list[int], before: list[int], text: str) -> list[int]:
    """``whole`` without its beginning ``before``; LabError if a token straddles the border."""
    if whole[: len(before)] != before:
        raise LabError(
            f"the tokenizer merges across the border before {text[:20]!r}",
            fix="use a tokenizer that keeps ':' and the word behind it apart, as LLaMA's does",
        )
    return whole[len(before) :]


class SentencePieceTokenizer(TextTokenizer):
    """The original LLaMA/Vicuna ``tokenizer.model``, read by sentencepiece itself.

    Exact for all four VARIANTS, also where the tokenizers that transformers 5 builds from the same
    file differ (double spaces, text behind a special token).
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise LabError(
                "is no sentencepiece model", where=path, fix="give LLaMA's tokenizer.model"
            ) from error
        self.bos_id, self.eos_id = self._model.bos_id(), self._model.eos_id()
        self.unk_id = self.pad_id = self._model.unk_id()  # the official code pads with <unk>
        ids = (self.bos_id, self.eos_id, self.unk_id)
        self.special = {self._model.id_to_piece(i): i for i in ids}

    def start(self, segment: str) -> list[int]:
        """Ids of a segment that begins a text."""
        return self._model.encode(segment)

    def _stripped(self, token: int) -> int | None:
        piece = self._model.id_to_piece(token).removeprefix("▁")
        return self._model.piece_to_id(piece) if piece else None

    def text(self, ids: list[int]) -> str:
        """The text of ordinary tokens."""
        return self._model.decode([*self._model.encode("a"), *ids])[1:]


class FastTokenizer(TextTokenizer):
    """A Hugging Face tokenizer, asked segment by segment."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        self.bos_id, self.unk_id = tokenizer.bos_token_id, tokenizer.unk_token_id
        self.eos_id = tokenizer.eos_token_id
        self.pad_id = self.unk_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        if self.eos_id is None or self.pad_id is None:
            raise LabError(
                "no end-of-sequence or padding token",
                where=tokenizer.name_or_path or type(tokenizer).__name__,
                fix="set eos_token and pad_token in tokenizer_config.json",
            )
        marks = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token} - {None}
        added = {str(token): i for i, token in tokenizer.added_tokens_decoder.items()}
        chat = {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<imgpad>"}
        chat |= {"<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"}
        self.special = {text: i for text, i in added.items() if text in marks | chat}
        self.special |= {text: tokenizer.convert_tokens_to_ids(text) for text in marks}
        # LLaMA puts a space in front of every text, also of one that begins with a space; the
        # fast tokenizers leave the latter out.
        self._space = "▁" if self._ids("a") == self._ids("▁a") else ""

    def _ids(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def start(self, segment: str) -> list[int]:
        """Ids of a segment that begins a text."""
        return self._ids(self._space + segment if segment.startswith(" ") else segment)

    def _stripped(self, token: int) -> int | None:
        piece = self._backend.id_to_token(token).removeprefix("▁")
        known = self._backend.token_to_id(piece)
        return (self.unk_id if known is None else known) if piece else None

    def _behind(self, segment: str) -> list[int]:
        """Ids of a segment behind the end of sequence, as the tokenizer itself gives them."""
        mark = next(text for text, i in self.special.items() if i == self.eos_id)
        return _continuation(self._ids(mark + segment), [self.eos_id], segment)

    def text(self, ids: list[int]) -> str:
        """The text of ordinary tokens."""
        return self._backend.decode([*self._ids("a"), *ids], skip_special_tokens=False)[1:]


class QwenTokenizer(TextTokenizer):
    """Qwen-VL's ``qwen.tiktoken``: byte-pair encoding of NFC text, special tokens above 151,643.

    Source of the pattern and the special tokens: tokenization_qwen.py of Qwen-VL-Chat
    (x1ngzai/Qwen-VL-Chat-Int4@1cd721a).
    """

    _PATTERN = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )

    def __init__(self, path: str | Path) -> None:
        with tiktoken_file(path):
            ranks = load_tiktoken_bpe(str(path))
        self.special = {name: len(ranks) + i for i, name in enumerate(QWEN_VL_SPECIAL)}
        self.bos_id, self.unk_id = None, None
        self.eos_id = self.pad_id = self.special["<|endoftext|>"]
        self._bpe = tiktoken.Encoding(
            "qwen", pat_str=self._PATTERN, mergeable_ranks=ranks, special_tokens=self.special
        )

    def start(self, segment: str) -> list[int]:
        """Ids of a segment; byte-pair encoding needs no space in front of a text."""
        return self._bpe.encode_ordinary(unicodedata.normalize("NFC", segment))

    def after_special(self, segment: str, variant: str) -> list[int]:
        """Ids of a segment right behind a special token: the same as anywhere."""
        return self.start(segment)

    def text(self, ids: list[int]) -> str:
        """The text of ordinary tokens."""
        return self._bpe.decode(ids)


@lru_cache(maxsize=8)
def _wrapped(tokenizer: PreTrainedTokenizerBase) -> FastTokenizer:
    return FastTokenizer(tokenizer)


def text_tokenizer(tokenizer: TextTokenizer | PreTrainedTokenizerBase) -> TextTokenizer:
    """``tokenizer`` as a TextTokenizer: a Hugging Face tokenizer is wrapped, others returned."""
    return _wrapped(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else tokenizer


def load_tokenizer(path: str | Path) -> TextTokenizer:
    """The tokenizer in a file or folder.

    ``path``: tokenizer.model (sentencepiece), qwen.tiktoken, tokenizer.json, or a folder holding
    one of them, looked for in this order (the original file is exact where tokenizer.json may not
    be). Raises LabError naming what was looked for.
    """
    path = Path(path)
    names = ("tokenizer.model", "qwen.tiktoken", "tokenizer.json")
    if path.is_dir():
        path = next((path / name for name in names if (path / name).is_file()), path)
    if path.suffix == ".model" and path.is_file():
        return SentencePieceTokenizer(path)
    if path.suffix == ".tiktoken" and path.is_file():
        return QwenTokenizer(path)
    if path.name == "tokenizer.json" and path.is_file():
        return FastTokenizer(PreTrainedTokenizerFast.from_pretrained(path.parent))
    raise LabError("no tokenizer found", where=path, fix=f"give one of {', '.join(names)}")
