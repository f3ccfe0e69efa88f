"""Conversations as a model sees them: token ids with the image at -200, labels with -100.

Templates: ``v1`` (Vicuna), ``plain`` (pre-training), ``qwen`` (Qwen-VL, in qwen_vl_chat), and
``chat``: the model's own, of any model of transformers (in `chat`).
Training and inference build their ids with the same code. A text is tokenised once, and what a
token covers of it decides its label, so no later re-tokenising can shift the mask. Held to
share4v/train/train.py of ShareGPT4Omni/ShareGPT4V@b6f70e9 and llava/train/train.py of
haotian-liu/LLaVA@c121f04.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from sgv_lab.errors import LabError
from sgv_lab.models.architectures import VICUNA_SYSTEM
from sgv_lab.training import chat, qwen_vl_chat
from sgv_lab.training.segments import (
    DEFAULT_VARIANT,
    IGNORED,
    IMAGE,
    IMAGE_ID,
    Encoded,
    TextTokenizer,
    Turn,
    ordered,
    text_tokenizer,
    tokenised,
)

MAX_LENGTH = 2048
__all__ = ["IGNORED", "IMAGE_ID", "Encoded", "encode", "prompt_ids"]
TEMPLATES = ("v1", "plain", "qwen", "chat")
SYSTEM = VICUNA_SYSTEM  # of v1
_TO_ANSWER = " ASSISTANT: "


def encode(
    record: Mapping[str, Any],
    tokenizer: TextTokenizer | PreTrainedTokenizerBase | ProcessorMixin,
    template: str = "v1",
    variant: str = DEFAULT_VARIANT,
    max_length: int = MAX_LENGTH,
) -> Encoded:
    """Token ids and labels of a record ``{"id", "image"?, "conversations"}``.

    The image is one token, -200 (``qwen``: the span <img>...</img> itself). ``chat`` needs the
    model's processor in place of its tokenizer. Cut at ``max_length`` as the official collator
    does; ``Encoded.truncated`` tells. Raises LabError naming the record where the official code
    loses it to a "tokenization mismatch" or an assertion (an empty answer at the end, "</s>",
    "<unk>" or " ASSISTANT: " inside a turn, turns out of order), and where no supervised token is
    left.
    """
    tokenizer = tokenizer if template == "chat" else text_tokenizer(tokenizer)
    try:
        if template == "chat":
            ids, labels = chat.encode_turns(record, tokenizer)
        elif template == "qwen":
            ids, labels = qwen_vl_chat.encode_turns(record, tokenizer, max_length)
            max_length = qwen_vl_chat.limit(ids, max_length)
        else:
            has_image, turns = record.get("image") is not None, record["conversations"]
            read = _caption if template == "plain" else _dialogue
            parts, unclear = read(turns, tokenizer, has_image)
            ids, labels = tokenised(parts, tokenizer, variant, has_image)
            if unclear and len(ids) < max_length:  # behind the cut the official code does not look
                raise unclear
        encoded = Encoded(ids[:max_length], labels[:max_length], len(ids))
        if not encoded.supervised:
            raise LabError(f"no supervised token within {max_length} tokens", fix="drop it")
    except LabError as error:
        where = f"record {record.get('id')!r}"
        raise LabError(error.what, where=where, fix=error.fix) from error
    return encoded


def prompt_ids(
    turns: Sequence[Turn],
    tokenizer: TextTokenizer | PreTrainedTokenizerBase | ProcessorMixin,
    template: str = "v1",
    has_image: bool = True,
    system: str = SYSTEM,
) -> list[int]:
    """Ids to ask a model with: those of ``encode`` up to where the last answer would begin.

    ``turns`` end with a human one; the image is -200. ``template`` is "v1", "qwen" or "chat".
    ``system``: what ``v1`` begins with; only the Q-Bench script asks with another sentence.
    Raises LabError for turns that ``encode`` would refuse.
    """
    if template == "chat":
        return chat.prompt_turns(turns, tokenizer, has_image)
    tokenizer = text_tokenizer(tokenizer)
    if template == "qwen":
        return qwen_vl_chat.prompt_turns(turns, tokenizer, has_image)
    answered = [*turns, {"from": "gpt", "value": "."}]
    parts, unclear = _dialogue(answered, tokenizer, has_image, system, asking=True)
    if unclear:
        raise unclear
    return tokenised(parts[:-1], tokenizer, DEFAULT_VARIANT, has_image)[0]


def _image_first(text: str) -> str:
    """A turn with its image tag(s) moved to the front, as the official preprocess_multimodal."""
    if IMAGE not in text:
        return text
    return f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip()


def _dialogue(
    turns: Sequence[Turn],
    tokenizer: TextTokenizer,
    has_image: bool,
    system: str = SYSTEM,
    asking: bool = False,
) -> tuple[list[tuple[str, bool]], LabError | None]:
    """The ``v1`` template's text in parts, as `tokenised` takes them, and why it ends early if so.

    It ends before a turn that is empty or holds one of the template's own marks, where the official
    code cannot tell question and answer apart. ``asking``: the last question stays as it is where
    it begins with its image: official scripts strip what they train on, and Q-Bench's questions
    end in a line break.
    """
    if "</s>" not in tokenizer.special:
        raise LabError("the v1 template needs a tokenizer with </s>", fix="use LLaMA's, or qwen")
    texts = [text for _, text in ordered(turns, {"human": "USER", "gpt": "ASSISTANT"})]
    if has_image:
        kept = len(texts) - 2 if asking and texts[-2].startswith(f"{IMAGE}\n") else None
        texts = [t if i == kept else _image_first(t) for i, t in enumerate(texts)]
    parts, before = [], f"{system} "
    for question, answer in zip_longest(texts[::2], texts[1::2], fillvalue=""):
        before += f"USER: {question} ASSISTANT:"
        marks = [m for m in ("</s>", _TO_ANSWER) if m in f" {question} " or m in answer]
        if not question or marks:
            break
        if answer:  # one without it is read as a part of the next question
            parts += [(before, False), (f" {answer}</s>", True)]
            before = ""
    if before:
        return parts, LabError(
            f"cannot tell question and answer apart: {before[-60:]!r}",
            fix='leave no turn empty and write no "</s>" or " ASSISTANT: " inside one',
        )
    if not asking and any("<unk>" in text for text in texts):
        return parts, LabError('"<unk>" inside a turn', fix="write it another way")
    return parts, None


def _caption(
    turns: Sequence[Turn], _: TextTokenizer, has_image: bool
) -> tuple[list[tuple[str, bool]], None]:
    """The image and its caption: the ``plain`` template, likewise."""
    if len(turns) != 2 or IMAGE not in turns[0]["value"] or not has_image:
        raise LabError(
            "the plain template needs an image and exactly two turns, the tag <image> in the first",
            fix="use the template v1, or keep only the caption",
        )
    return [(IMAGE, False), (_image_first(turns[1]["value"]) + "\n", True)], None
