"""A text's token ids with their labels, segment by segment, for the tokenizers the study meets.

A conversation is tokenised in segments: text between special tokens or images. Where a segment
stands decides its ids (LLaMA puts a space in front of a text, but not behind "</s>" unless the
tokenizer is "legacy"), so `TextTokenizer` is asked for the place; `Stream` knows it. Everything
else, templates and label masks, is built from segments and never looks at a token's characters.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from sgv_lab.captions.records import IMAGE
from sgv_lab.errors import LabError
from sgv_lab.models.tokenizers import llama_tokenizer, qwen_vl_tokenizer

IMAGE_ID = -200
IGNORED = -100
Turn = Mapping[str, str]  # {"from": "human"|"gpt", "value": text}
# Official code on its pinned stack -> how a segment behind a special token is treated. The paper's
# own is sg4v_tf4.31_legacy_false; the default is what today's tokenizers emit by themselves.
VARIANTS = {
    "llava_tf4.37.2_legacy_false": "no space",
    "llava_tf4.37.2_legacy_true": "space",
    "sg4v_tf4.31_legacy_false": "space stripped",
    "sg4v_tf4.31_legacy_true": "space",
}
DEFAULT_VARIANT = "llava_tf4.37.2_legacy_false"


class TextTokenizer:
    """A Hugging Face tokenizer, asked segment by segment.

    ``special``: spelling -> id of each token that text is split at. With ``spells_images`` an
    image stands in the text as its path's bytes, as in Qwen-VL's own vocabulary.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spells_images: bool = False) -> None:
        self._backend, self.spells_images = tokenizer.backend_tokenizer, spells_images
        self.bos_id, self.eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._unk_id = tokenizer.unk_token_id
        if self.eos_id is None:
            raise LabError(
                "no end-of-sequence token",
                where=tokenizer.name_or_path or type(tokenizer).__name__,
                fix="set eos_token in tokenizer_config.json",
            )
        marks = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token} - {None}
        self.special = {str(token): i for i, token in tokenizer.added_tokens_decoder.items()}
        self.special |= {text: tokenizer.convert_tokens_to_ids(text) for text in marks}
        # LLaMA puts a space in front of every text, also of one that begins with a space; the
        # fast tokenizers leave the latter out.
        self._space = "▁" if self._ids("a") == self._ids("▁a") else ""

    def digest(self) -> str:
        """A hash of all that decides its ids."""
        known = (
            f"{self._backend.to_str()} {self.special} {self.bos_id} {self.eos_id} {self._unk_id}"
        )
        return hashlib.sha256(f"{known} {self.spells_images}".encode()).hexdigest()

    def _ids(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def start(self, segment: str) -> list[int]:
        """Ids of a segment that begins a text (or follows an image)."""
        return self._ids(self._space + segment if segment.startswith(" ") else segment)

    def after_special(self, segment: str, variant: str) -> list[int]:
        """Ids of a segment right behind a special token, as ``variant`` (VARIANTS) gives them."""
        how = VARIANTS[variant]
        if how == "no space":
            mark = next(text for text, i in self.special.items() if i == self.eos_id)
            return _continuation(self._ids(mark + segment), [self.eos_id], segment)
        first, *rest = self.start(segment)
        if how == "space" or segment.startswith(" "):
            return [first, *rest]
        piece = self._backend.id_to_token(first).removeprefix("▁")
        known = self._backend.token_to_id(piece)
        return ([self._unk_id if known is None else known] if piece else []) + rest

    def after_text(self, segment: str, before: str) -> list[int]:
        """Ids of a segment behind the text ``before``, as they would be in one piece."""
        return _continuation(self._ids(before + segment), self._ids(before), segment)

    def text(self, ids: list[int]) -> str:
        """The text of ordinary (not special) tokens, spaces in front kept."""
        return self._backend.decode([*self._ids("a"), *ids], skip_special_tokens=False)[1:]


def _continuation(whole: list[int], before: list[int], text: str) -> list[int]:
    """``whole`` without its beginning ``before``; LabError if a token straddles the border."""
    if whole[: len(before)] != before:
        raise LabError(
            f"the tokenizer merges across the border before {text[:20]!r}",
            fix="use a tokenizer that keeps ':' and the word behind it apart, as LLaMA's does",
        )
    return whole[len(before) :]


_wrapped = lru_cache(maxsize=8)(TextTokenizer)


def text_tokenizer(
    tokenizer: TextTokenizer | PreTrainedTokenizerBase | ProcessorMixin,
) -> TextTokenizer:
    """A Hugging Face tokenizer, or a processor's, as a TextTokenizer; one of these as it is."""
    if isinstance(tokenizer, ProcessorMixin):
        tokenizer = tokenizer.tokenizer
    return tokenizer if isinstance(tokenizer, TextTokenizer) else _wrapped(tokenizer)


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
        return TextTokenizer(llama_tokenizer(path))
    if path.suffix == ".tiktoken" and path.is_file():
        return TextTokenizer(qwen_vl_tokenizer(path), spells_images=True)
    if path.name == "tokenizer.json" and path.is_file():
        return TextTokenizer(PreTrainedTokenizerFast.from_pretrained(path.parent))
    raise LabError("no tokenizer found", where=path, fix=f"give one of {', '.join(names)}")


@dataclass(frozen=True)
class Encoded:
    """One sample: ids (T,) with the image at -200, labels (T,) with -100 where there is no loss."""

    input_ids: list[int]
    labels: list[int]
    untruncated: int  # tokens before the cut at max_length; an image counts as one

    @property
    def supervised(self) -> int:
        """How many tokens carry a loss."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def truncated(self) -> bool:
        """Whether the sample was longer than max_length."""
        return self.untruncated > len(self.input_ids)


@dataclass
class Stream:
    """A growing token stream that knows where the next segment stands."""

    tokenizer: TextTokenizer
    variant: str
    has_image: bool
    apart: bool = False  # whether every text added stands as at the start of one (ChatML)
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    _before: str | None = None  # None: at the start of a text; "": behind a special token

    def __post_init__(self) -> None:
        marks = [IMAGE] * self.has_image + list(self.tokenizer.special)
        self._split = re.compile("(" + "|".join(map(re.escape, marks)) + ")")
        if self.tokenizer.bos_id is not None:
            self.push([self.tokenizer.bos_id], supervised=False)

    def push(self, ids: list[int], supervised: bool) -> None:
        """Append ids."""
        self.ids += ids
        self.labels += ids if supervised else [IGNORED] * len(ids)

    def add(self, text: str, supervised: bool) -> None:
        """Append a text, split at images and at special tokens."""
        if self.apart:
            self._before = None
        for part in self._split.split(text):
            if part == IMAGE and self.has_image:
                self.push([IMAGE_ID], supervised)
                self._before = None
            elif part in self.tokenizer.special:
                self.push([self.tokenizer.special[part]], supervised)
                self._before = ""
            elif part:
                self.push(self._segment(part), supervised)
                self._before = part.rsplit(" ", 1)[-1] or part

    def _segment(self, part: str) -> list[int]:
        if self._before is None:
            return self.tokenizer.start(part)
        if not self._before:
            return self.tokenizer.after_special(part, self.variant)
        return self.tokenizer.after_text(part, self._before)


def ordered(turns: Sequence[Turn], roles: Mapping[str, str]) -> list[tuple[str, str]]:
    """(role, text) of each turn, a first answer dropped; LabError if the two don't alternate.

    ``roles``: names in "from" -> role, the human's first.
    """
    for turn in turns:
        if turn["from"] not in roles:
            raise LabError(f"unknown role {turn['from']!r}", fix=f"use one of {', '.join(roles)}")
    first, second = dict.fromkeys(roles.values())
    pairs = [(roles[turn["from"]], turn["value"]) for turn in turns]
    if pairs and pairs[0][0] != first:
        pairs = pairs[1:]
    if not pairs:
        raise LabError("no conversation", fix="give at least one question and its answer")
    for position, (role, _) in enumerate(pairs):
        if role != (first, second)[position % 2]:
            raise LabError(
                f"turn {position + 1} is from the wrong side", fix="let human and gpt alternate"
            )
    return pairs
