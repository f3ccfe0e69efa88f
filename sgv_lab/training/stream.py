"""A token stream with labels that grows segment by segment, and what every template shares."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sgv_lab.captions.records import IMAGE
from sgv_lab.errors import LabError
from sgv_lab.training.tokenizers import TextTokenizer

IMAGE_ID = -200
IGNORED = -100
Turn = Mapping[str, str]  # {"from": "human"|"gpt", "value": text}


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
