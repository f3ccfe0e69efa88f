"""ChatML conversations of both Qwens, as their official code tokenises them.

``qwen``, Qwen-VL (finetune.py of QwenLM/Qwen-VL@aa00ed0):

    <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
    <|im_start|>user\nPicture 1: <img>PATH</img>\nWhat?<|im_end|>\n
    <|im_start|>assistant\nA dog.<|im_end|>\n

The loss covers more than the answers: <|im_start|>, <|im_end|> and the newline behind it are
supervised in every turn, the system's and the user's too. Role names, the newline behind them and
the text of system and user are not.

``qwen3``, Qwen3-VL (qwen-vl-finetune/qwenvl/data/data_processor.py of QwenLM/Qwen3-VL@23d3cce):

    <|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>What?<|im_end|>\n
    <|im_start|>assistant\nA dog.<|im_end|>\n

No system turn; the image stands where the tag did, the texts around it stripped. The loss covers
answers with their <|im_end|> and newline. IMAGE is one -200 here; the collator widens it.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sgv_lab.errors import LabError
from sgv_lab.training.stream import IMAGE, IMAGE_ID, Stream, Turn, ordered
from sgv_lab.training.tokenizers import DEFAULT_VARIANT, TextTokenizer

SYSTEM = "You are a helpful assistant."
SPAN = 256  # tokens between <img> and </img>: as many as the resampler has queries
_NEEDED = {
    "qwen": ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"),
    "qwen3": ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
}
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_SPANS = re.compile(r"(<img>.*?</img>)", re.DOTALL)


def paths(record: Mapping[str, Any]) -> list[str]:
    """The image paths written into a record in Qwen's own format."""
    texts = (turn["value"] for turn in record["conversations"])
    return [span[5:-6] for text in texts for span in _SPANS.findall(text)]


def _texts(turns: Sequence[Turn], path: str | None, template: str) -> list[tuple[str, str]]:
    """(role, text) with LLaVA's <image> turned into Qwen's span for ``path``."""
    pairs = ordered(turns, _ROLES)
    if template == "qwen3":
        enclosed = f"<|vision_start|>{IMAGE}<|vision_end|>"
        return [
            (role, enclosed.join(map(str.strip, text.split(IMAGE))) if role == "user" else text)
            for role, text in pairs
        ]
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


def _add_text(stream: Stream, text: str, supervised: bool) -> None:
    for part in _SPANS.split(unicodedata.normalize("NFC", text)):
        if _SPANS.fullmatch(part):
            stream.push(_span(part[5:-6], stream.tokenizer), supervised)
        elif "<img>" in part:
            raise LabError(f"<img> without </img>: {part[:60]!r}", fix="close it")
        else:
            stream.add(part, supervised)


def _stream(
    pairs: Sequence[tuple[str, str]], tokenizer: TextTokenizer, template: str, has_image: bool
) -> Stream:
    if missing := [name for name in _NEEDED[template] if name not in tokenizer.special]:
        raise LabError(
            f"the {template} template needs a tokenizer with {', '.join(missing)}",
            fix="give the model's own tokenizer, or use the template v1",
        )
    first = template == "qwen"
    stream = Stream(tokenizer, DEFAULT_VARIANT, has_image and not first, apart=True)
    for role, text in [("system", SYSTEM)] * first + list(pairs):
        answer = role == "assistant"
        _open(stream, role, template)
        if first:
            _add_text(stream, text, supervised=answer)
        else:
            stream.add(text, supervised=answer)
        for mark in ("<|im_end|>", "\n"):
            stream.add(mark, supervised=answer or first)
    return stream


def _open(stream: Stream, role: str, template: str) -> None:
    stream.add("<|im_start|>", supervised=template == "qwen")
    for text in (role, "\n"):
        stream.add(text, supervised=False)


def encode_turns(
    record: Mapping[str, Any], tokenizer: TextTokenizer, max_length: int, template: str
) -> tuple[list[int], list[int]]:
    """Ids and labels (uncut) of a record in LLaVA's format or in Qwen's own (user/assistant).

    Raises LabError for no answer at all, more than one place for an image, an unclosed <img>, a
    path over SPAN bytes, or where a cut at ``max_length`` would fall into an image.
    """
    path = record.get("image")
    pairs = _texts(record["conversations"], path, template)
    if all(role == "user" for role, _ in pairs):
        raise LabError("no answer in it", fix="give one, or drop the record")
    stream = _stream(pairs, tokenizer, template, path is not None)
    if template == "qwen3":
        if stream.ids.count(IMAGE_ID) != (path is not None):
            raise LabError(f"one image for {stream.ids.count(IMAGE_ID)} places", fix="mend it")
        return stream.ids, stream.labels
    kept = stream.ids[: limit(stream.ids, max_length)]
    if kept.count(tokenizer.special["<img>"]) != kept.count(tokenizer.special["</img>"]):
        raise LabError(
            f"the cut at {max_length} tokens falls into an image", fix="shorten the text"
        )
    return stream.ids, stream.labels


def limit(ids: Sequence[int], max_length: int) -> int:
    """Where to cut so that ``max_length`` holds with every image at -200 counted as SPAN tokens."""
    return max_length - (SPAN - 1) * ids.count(IMAGE_ID)


def prompt_turns(
    turns: Sequence[Turn], tokenizer: TextTokenizer, has_image: bool, template: str
) -> list[int]:
    """Ids up to where the assistant's next answer begins; the image's path is left empty."""
    pairs = _texts(turns, "" if has_image else None, template)
    stream = _stream(pairs, tokenizer, template, has_image)
    _open(stream, "assistant", template)
    return stream.ids
