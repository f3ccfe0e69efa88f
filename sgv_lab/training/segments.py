"""A text's token ids with their labels, for the tokenizers the study meets.

Where a text stands decides its ids (LLaMA puts a space in front of one, but not behind "</s>"
unless the tokenizer is "legacy"), so `TextTokenizer` is told. Everything else, templates and label
masks, is built from texts and never looks at a token's characters.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from sgv_lab.captions.records import IMAGE
from sgv_lab.errors import LabError
from sgv_lab.models.tokenizers import llama_tokenizer, qwen_vl_tokenizer

IMAGE_ID = -200
IGNORED = -100
Span = tuple[int, int, int]  # a token's id, and where it begins and ends in the text
Turn = Mapping[str, str]  # {"from": "human"|"gpt", "value": text}
# Official code on its pinned stack -> how a text behind a special token is treated. The paper's
# own is sg4v_tf4.31_legacy_false; the default is what today's tokenizers emit by themselves.
VARIANTS = {
    "llava_tf4.37.2_legacy_false": "no space",
    "llava_tf4.37.2_legacy_true": "space",
    "sg4v_tf4.31_legacy_false": "space stripped",
    "sg4v_tf4.31_legacy_true": "space",
}
DEFAULT_VARIANT = "llava_tf4.37.2_legacy_false"


class TextTokenizer:
    """A Hugging Face tokenizer, asked text by text.

    ``special``: spelling -> id of each token that text is split at. With ``spells_images`` an
    image stands in the text as its path's bytes, as in Qwen-VL's own vocabulary.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spells_images: bool = False) -> None:
        self._backend, self.spells_images = _without_image_token(tokenizer), spells_images
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
        self.special.pop(IMAGE, None)
        self.special |= {text: tokenizer.convert_tokens_to_ids(text) for text in marks}
        # LLaMA puts a space in front of every text, also of one that begins with a space; the
        # fast tokenizers leave the latter out.
        self._space = "▁" if self.ids("a") == self.ids("▁a") else ""

    def digest(self) -> str:
        """A hash of all that decides its ids."""
        known = self.special, self.bos_id, self.eos_id, self._unk_id, self.spells_images
        return hashlib.sha256(f"{self._backend.to_str()} {known}".encode()).hexdigest()

    def ids(self, text: str) -> list[int]:
        """Ids of a text that stands alone."""
        return [token for token, _, _ in self._spans(text)]

    def spans(self, text: str, variant: str) -> list[Span]:
        """The tokens of a text that stands alone or behind an image, by ``variant`` (VARIANTS)."""
        if (how := VARIANTS[variant]) == "no space":
            return self._spans(text)
        found: list[Span] = []
        end, after_special = 0, False
        for part in re.split("(" + "|".join(map(re.escape, self.special)) + ")", text):
            start, end = end, end + len(part)
            if part in self.special:
                found.append((self.special[part], start, end))
            elif part:
                new = self._spans(part, start)
                if after_special and how == "space stripped" and not part.startswith(" "):
                    new[:1] = self._without_space(new[0])
                found += new
            after_special = part in self.special
        return found

    def _spans(self, text: str, start: int = 0) -> list[Span]:
        space = self._space if text.startswith(" ") else ""
        made = self._backend.encode(space + text, add_special_tokens=False)
        places = [[start + max(at - len(space), 0) for at in ends] for ends in made.offsets]
        return [(token, *place) for token, place in zip(made.ids, places, strict=True)]

    def _without_space(self, first: Span) -> list[Span]:
        piece = self._backend.id_to_token(first[0]).removeprefix("▁")
        known = self._backend.token_to_id(piece)
        return [(self._unk_id if known is None else known, *first[1:])] if piece else []

    def text(self, ids: list[int]) -> str:
        """The text of ordinary (not special) tokens, spaces in front kept."""
        return self._backend.decode([*self.ids("a"), *ids], skip_special_tokens=False)[1:]


def _without_image_token(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Its backend, for which "<image>" is a text like any other, as for the original tokenizers.

    Where an image is shown no text holds the tag (`tokenised` splits at it); in a record without
    an image it is the text's own: train.py of LLaVA and of ShareGPT4V tokenise it as text.
    """
    made = tokenizer.backend_tokenizer
    if made.token_to_id(IMAGE) is None:
        return made
    described = json.loads(made.to_str())
    added = [token for token in described["added_tokens"] if token["content"] != IMAGE]
    return Tokenizer.from_str(json.dumps(described | {"added_tokens": added}))


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


def tokenised(
    parts: Sequence[tuple[str, bool]], tokenizer: TextTokenizer, variant: str, has_image: bool
) -> tuple[list[int], list[int]]:
    """Ids and labels of one text given in parts: (part, whether it carries a loss).

    With ``has_image`` each tag <image> is the image, -200. Raises LabError where a token lies in
    two parts of which one carries a loss.
    """
    text = "".join(part for part, _ in parts)
    loss = list(chain.from_iterable(repeat(learned, len(part)) for part, learned in parts))
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    labels, at = [IGNORED] * len(ids), 0
    for part in re.split(f"({IMAGE})", text) if has_image else [text]:
        whole = has_image and part == IMAGE
        spans = [(IMAGE_ID, 0, len(part))] if whole else tokenizer.spans(part, variant)
        for token, start, end in spans:
            learned = loss[at + start]
            if (not learned) in loss[at + start : at + end]:
                raise LabError(
                    f"the tokenizer merges across the border in {text[at + start : at + end]!r}",
                    fix="use a tokenizer that keeps ':' and the word behind it apart, as LLaMA's",
                )
            ids.append(token)
            labels.append(token if learned else IGNORED)
        at += len(part)
    return ids, labels


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
