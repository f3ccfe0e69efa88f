"""Conversations as a model sees them: token ids with the image at -200, labels with -100.

Templates: ``v1`` (Vicuna), ``plain`` (pre-training), ``qwen`` (Qwen-VL, in qwen_vl_chat), and
``chat``: the model's own, of any model of transformers (in `chat`).
Training and inference build their ids with the same code, segment by segment; the label mask is
written while the stream grows, so no later re-tokenising can shift it. Held to
share4v/train/train.py of ShareGPT4Omni/ShareGPT4V@b6f70e9 and llava/train/train.py of
haotian-liu/LLaVA@c121f04.
"""

from collections.abc import Mapping, Sequence
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
    VARIANTS,
    Encoded,
    Stream,
    TextTokenizer,
    Turn,
    ordered,
    text_tokenizer,
)

MAX_LENGTH = 2048
__all__ = ["IGNORED", "IMAGE_ID", "Encoded", "check_names", "encode", "prompt_ids"]
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
    check_names(template, variant)
    tokenizer = tokenizer if template == "chat" else text_tokenizer(tokenizer)
    try:
        if template == "chat":
            ids, labels = chat.encode_turns(record, tokenizer)
        elif template == "qwen":
            ids, labels = qwen_vl_chat.encode_turns(record, tokenizer, max_length)
            max_length = qwen_vl_chat.limit(ids, max_length)
        else:
            stream = Stream(tokenizer, variant, record.get("image") is not None)
            if template == "plain":
                _add_caption(stream, record["conversations"])
            else:
                _add_dialogue(stream, record["conversations"], max_length)
            ids, labels = stream.ids, stream.labels
        encoded = Encoded(ids[:max_length], labels[:max_length], len(ids))
        if not encoded.supervised:
            raise LabError(f"no supervised token within {max_length} tokens", fix="drop it")
    except LabError as error:
        raise LabError(str(error), where=f"record {record.get('id')!r}") from error
    return encoded


def prompt_ids(
    turns: Sequence[Turn],
    tokenizer: TextTokenizer | PreTrainedTokenizerBase | ProcessorMixin,
    template: str = "v1",
    has_image: bool = True,
    variant: str = DEFAULT_VARIANT,
    system: str = SYSTEM,
) -> list[int]:
    """Ids to ask a model with: those of ``encode`` up to where the last answer would begin.

    ``turns`` end with a human one; the image is -200. For ``plain`` the prompt is the image alone.
    ``system``: what ``v1`` begins with; only the Q-Bench script asks with another sentence.
    Raises LabError for turns that ``encode`` would refuse.
    """
    check_names(template, variant)
    if template == "chat":
        return chat.prompt_turns(turns, tokenizer, has_image)
    tokenizer = text_tokenizer(tokenizer)
    if template == "qwen":
        return qwen_vl_chat.prompt_turns(turns, tokenizer, has_image)
    stream = Stream(tokenizer, variant, has_image)
    if template == "plain":
        stream.add(IMAGE, supervised=False)
        return stream.ids
    prompt = _v1_prompt([*turns, {"from": "gpt", "value": ""}], has_image, system, asking=True)
    *complete, (asked, answer) = _v1_rounds(prompt)
    if answer is not None or not asked.endswith(_TO_ANSWER.rstrip()):
        raise _unclear(asked)
    for question, given in complete:
        _add_round(stream, question, given)
    stream.add(asked, supervised=False)
    return stream.ids


def check_names(template: str, variant: str) -> None:
    """Raise LabError for a template or variant that does not exist."""
    if template not in TEMPLATES:
        raise LabError(f"no template {template!r}", fix=f"use one of {', '.join(TEMPLATES)}")
    if variant not in VARIANTS:
        raise LabError(f"no variant {variant!r}", fix=f"use one of {', '.join(VARIANTS)}")


def _image_first(text: str) -> str:
    """A turn with its image tag(s) moved to the front, as the official preprocess_multimodal."""
    if IMAGE not in text:
        return text
    return f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip()


def _v1_prompt(
    turns: Sequence[Turn], has_image: bool, system: str = SYSTEM, asking: bool = False
) -> str:
    """The whole conversation as text. An empty turn is "ROLE:" without a separator, as official.

    ``asking``: the question before an empty answer stays as it is where it begins with its picture.
    The official scripts strip only what they train on; Q-Bench's questions end in a line break.
    """
    prompt = system + " "
    pairs = ordered(turns, {"human": "USER", "gpt": "ASSISTANT"})
    for number, (role, text) in enumerate(pairs):
        placed = asking and number == len(pairs) - 2 and text.startswith(f"{IMAGE}\n")
        text = _image_first(text) if has_image and not placed else text
        end = " " if role == "USER" else "</s>"
        prompt += f"{role}: {text}{end}" if text else f"{role}:"
    return prompt


def _v1_rounds(prompt: str) -> list[tuple[str, str | None]]:
    """(question with "ASSISTANT:", answer without "</s>") for each round between two "</s>".

    A round that cannot be told apart into one question and one answer has the answer None.
    """
    rounds = []
    for part in prompt.split("</s>"):
        question, *answers = part.split(_TO_ANSWER)
        if len(answers) == 1:
            rounds.append((question + _TO_ANSWER.rstrip(), answers[0]))
        else:
            rounds.append((part, None))
    return rounds


def _unclear(text: str) -> LabError:
    return LabError(
        f"cannot tell question and answer apart: {text[-60:]!r}",
        fix='leave no turn empty and write no "</s>" or " ASSISTANT: " inside one',
    )


def _add_round(stream: Stream, question: str, answer: str | None) -> None:
    if answer is None:
        raise _unclear(question)
    stream.add(question, supervised=False)
    stream.add(f" {answer}</s>", supervised=True)


def _add_dialogue(stream: Stream, turns: Sequence[Turn], max_length: int) -> None:
    """All rounds of the ``v1`` template, up to where the cut hides what follows."""
    if "</s>" not in stream.tokenizer.special:
        raise LabError("the v1 template needs a tokenizer with </s>", fix="use LLaMA's, or qwen")
    prompt = _v1_prompt(turns, stream.has_image)
    *rounds, (rest, _) = _v1_rounds(prompt)
    if rest:  # something behind the last "</s>": a question without its answer
        rounds.append((rest, None))
    for question, answer in rounds:
        if answer is None and len(stream.ids) >= max_length:
            break  # never seen: the cut lies before it, and the official code does not check
        _add_round(stream, question, answer)
    if "<unk>" in prompt and len(stream.ids) < max_length:
        raise LabError('"<unk>" inside a turn', fix="write it another way")


def _add_caption(stream: Stream, turns: Sequence[Turn]) -> None:
    """The image and its caption: the ``plain`` template."""
    if len(turns) != 2 or IMAGE not in turns[0]["value"] or not stream.has_image:
        raise LabError(
            "the plain template needs an image and exactly two turns, the tag <image> in the first",
            fix="use the template v1, or keep only the caption",
        )
    stream.add(IMAGE, supervised=False)
    stream.add(_image_first(turns[1]["value"]) + "\n", supervised=True)
