"""Qwen-VL's conversations as its official code tokenises them.

Source: finetune.py of QwenLM/Qwen-VL@aa00ed0.

    <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
    <|im_start|>user\nPicture 1: <img>PATH</img>\nWhat?<|im_end|>\n
    <|im_start|>assistant\nA dog.<|im_end|>\n

The loss covers more than the answers: <|im_start|>, <|im_end|> and the newline behind it are
supervised in every turn, the system's and the user's too. Role names, the newline behind them and
the text of system and user are not.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sgv_lab.errors import LabError
from sgv_lab.training.segments import IGNORED, IMAGE, IMAGE_ID, TextTokenizer, Turn, ordered

SYSTEM = "You are a helpful assistant."
SPAN = 256  # tokens between <img> and </img>: as many as the resampler has queries
_NEEDED = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>")
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_SPANS = re.compile(r"(<img>.*?</img>)", re.DOTALL)


def paths(record: Mapping[str, Any]) -> list[str]:
    """The image paths written into a record in Qwen's own format."""
    texts = (turn["value"] for turn in record["conversations"])
    return [span[5:-6] for text in texts for span in _SPANS.findall(text)]


def _texts(turns: Sequence[Turn], path: str | None) -> list[tuple[str, str]]:
    """(role, text) with LLaVA's <image> turned into Qwen's span for ``path``."""
    pairs = ordered(turns, _ROLES)
    if path is None:
        return pairs
    span = f"Picture 1: <img>{path}</img>\n"
    return [
        (role, span + text.replace(IMAGE, "").strip() if IMAGE in text else text)
        for role, text in pairs
    ]


def _span(path: str, tokenizer: TextTokenizer) -> list[int]:
    """Ids of an image: byte values of its path between <img> and </img>, padded to SPAN.

    Tokenizers of another vocabulary have no such bytes; there the image is -200 between the two.
    """
    first, last, pad = (tokenizer.special[name] for name in ("<img>", "</img>", "<imgpad>"))
    if not tokenizer.spells_images:
        return [first, IMAGE_ID, last]
    content = list(path.encode())
    if len(content) > SPAN or any(mark in path for mark in tokenizer.special):
        raise LabError(
            f"an image path longer than {SPAN} bytes or with a special token: {path[:40]!r}",
            fix="shorten the path",
        )
    return [first, *content, *[pad] * (SPAN - len(content)), last]


def text_ids(text: str, tokenizer: TextTokenizer) -> list[int]:
    """Ids of a text with spans <img>PATH</img>; LabError for one that cannot be an image's."""
    ids = []
    for part in _SPANS.split(unicodedata.normalize("NFC", text)):
        if _SPANS.fullmatch(part):
            ids += _span(part[5:-6], tokenizer)
        elif "<img>" in part:
            raise LabError(f"<img> without </img>: {part[:60]!r}", fix="close it")
        else:
            ids += tokenizer.ids(part)
    return ids


def _encoded(
    pairs: Sequence[tuple[str, str]], tokenizer: TextTokenizer
) -> tuple[list[int], list[int]]:
    if missing := [name for name in _NEEDED if name not in tokenizer.special]:
        raise LabError(
            f"the qwen template needs a tokenizer with {', '.join(missing)}",
            fix="give the model's own tokenizer, or use the template v1",
        )
    ids, labels = [], []
    for role, text in [("system", SYSTEM), *pairs]:
        content = (text, role == "assistant")
        for part, learned in [*_opening(role), content, ("<|im_end|>", True), ("\n", True)]:
            new = text_ids(part, tokenizer)
            ids += new
            labels += new if learned else [IGNORED] * len(new)
    return ids, labels


def _opening(role: str) -> list[tuple[str, bool]]:
    return [("<|im_start|>", True), (role, False), ("\n", False)]


def encode_turns(
    record: Mapping[str, Any], tokenizer: TextTokenizer, max_length: int
) -> tuple[list[int], list[int]]:
    """Ids and labels (uncut) of a record in LLaVA's format or in Qwen's own (user/assistant).

    Raises LabError for no answer at all, an unclosed <img>, a path over SPAN bytes, or where a cut
    at ``max_length`` would fall into an image.
    """
    pairs = _texts(record["conversations"], record.get("image"))
    if len(pairs) < 2:
        raise LabError("no answer in it", fix="give one, or drop the record")
    ids, labels = _encoded(pairs, tokenizer)
    kept = ids[: limit(ids, max_length)]
    if kept.count(tokenizer.special["<img>"]) != kept.count(tokenizer.special["</img>"]):
        raise LabError(
            f"the cut at {max_length} tokens falls into an image", fix="shorten the text"
        )
    return ids, labels


def limit(ids: Sequence[int], max_length: int) -> int:
    """Where to cut so that ``max_length`` holds with every image at -200 counted as SPAN tokens."""
    return max_length - (SPAN - 1) * ids.count(IMAGE_ID)


def prompt_turns(turns: Sequence[Turn], tokenizer: TextTokenizer, has_image: bool) -> list[int]:
    """Ids up to where the assistant's next answer begins; the image's path is left empty."""
    ids, _ = _encoded(_texts(turns, "" if has_image else None), tokenizer)
    return ids + [i for part, _ in _opening("assistant") for i in tokenizer.ids(part)]
