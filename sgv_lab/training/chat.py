"""Any image-text model of transformers, shown conversations by its own processor and chat template.

The loss covers what the template puts behind its generation prompt: an answer, and what ends it.
Templates that mark answers themselves (``{% generation %}``) are taken at their word; with others
the conversation up to an answer must be the beginning of the whole. As in every template here an
image is one token, -200; the processor makes it as long as the model needs it (`sample`).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from sgv_lab.errors import LabError
from sgv_lab.training.segments import IGNORED, IMAGE, IMAGE_ID, Encoded, Turn, ordered

_SHOWN = [{"from": "human", "value": f"{IMAGE}\nWhat?"}]
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_MARKS = re.compile(r"{%-?\s*generation\s*-?%}")


def encode_turns(record: Mapping[str, Any], processor: ProcessorMixin) -> tuple[list[int], ...]:
    """Ids and labels (uncut) of a record.

    Raises LabError for no answer at all, another number of places for an image than images, and a
    template that shows a conversation otherwise once it goes on.
    """
    messages = _messages(record["conversations"])
    if len(messages) < 2:
        raise LabError("no answer in it", fix="give one, or drop the record")
    ids = _tokens(processor, _text(processor, messages))
    template = processor.chat_template or processor.tokenizer.chat_template or ""
    asked = (_marked if _MARKS.search(template) else _found)(ids, messages, processor)
    labels = [token if one else IGNORED for token, one in zip(ids, asked, strict=True)]
    return _placed(ids, processor, int(record.get("image") is not None)), labels


def _found(ids: list[int], messages: list[dict[str, Any]], processor: ProcessorMixin) -> list[int]:
    """1 for the tokens of answers, 0 for others: what is new behind each generation prompt."""
    asked = [0] * len(ids)
    for number in range(1, len(messages), 2):
        begin = _tokens(processor, _text(processor, messages[:number], asking=True))
        end = _tokens(processor, _text(processor, messages[: number + 1]))
        if ids[: len(begin)] != begin or ids[: len(end)] != end:
            raise LabError(
                f"answer {number // 2 + 1} cannot be told from what the chat template puts around "
                "it",
                fix="mark answers with {% generation %} in the template, or drop the record",
            )
        asked[len(begin) : len(end)] = [1] * (len(end) - len(begin))
    return asked


def _marked(ids: list[int], messages: list[dict[str, Any]], processor: ProcessorMixin) -> list[int]:
    """The same by the template's own marks."""
    found = processor.tokenizer.apply_chat_template(
        messages,
        chat_template=processor.chat_template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    front = len(ids) - len(found["input_ids"])  # what the tokenizer begins every text with
    if ids[front:] != found["input_ids"]:
        raise LabError("the tokenizer puts something behind the chat template's text")
    return [0] * front + found["assistant_masks"]


def prompt_turns(turns: Sequence[Turn], processor: ProcessorMixin, has_image: bool) -> list[int]:
    """Ids up to where the assistant's next answer begins."""
    text = _text(processor, _messages(turns), asking=True)
    return _placed(_tokens(processor, text), processor, int(has_image))


def sample(
    record: Mapping[str, Any],
    processor: ProcessorMixin,
    encoded: Encoded,
    images: Sequence[Image.Image],
) -> dict[str, Any]:
    """What is learned from a record: its ids and labels, the image as long as the model takes it.

    ``images`` is a list of what the processor makes of each, ``aligned`` what else it says of each
    token (T,). Raises LabError where the processor changes more than the image's place.
    """
    text = _text(processor, _messages(record["conversations"]))
    made = dict(inputs(processor, [text], images))
    whole = made.pop("input_ids")
    aligned = {key: made.pop(key)[0] for key in [*made] if made[key].shape == whole.shape}
    ids, labels = encoded.input_ids, encoded.labels
    shown = IMAGE_ID in ids  # one whose place was cut off is not
    if shown:
        ids, labels = _widened(_tokens(processor, text), labels, whole[0].tolist())
    del aligned["attention_mask"]
    return {
        "id": record["id"],
        "input_ids": ids,
        "labels": labels,
        "aligned": {key: value[: len(ids)] for key, value in aligned.items()},
        "images": [made] if shown else [],
    }


def inputs(
    processor: ProcessorMixin, texts: Sequence[str], images: Sequence[Image.Image]
) -> BatchFeature:
    """The processor's own batch of rendered conversations, padded on the left."""
    shown = iter(images)
    nested = [[next(shown) for _ in range(one.count(processor.image_token))] for one in texts]
    return processor(
        text=list(texts),
        images=nested if images else None,
        padding=True,
        padding_side="left",
        add_special_tokens=not _begins(processor, texts[0]),
        return_tensors="pt",
    )


def ask(
    conversations: Sequence[Sequence[Turn]],
    processor: ProcessorMixin,
    images: Sequence[Image.Image],
) -> BatchFeature:
    """What ``generate`` takes to answer conversations: (B, T), padded on the left."""
    texts = [_text(processor, _messages(turns), asking=True) for turns in conversations]
    return inputs(processor, texts, images)


@cache
def image_tokens(processor: ProcessorMixin, width: int, height: int) -> int:
    """How many tokens an image of that size takes, with all that the processor puts around it."""
    text = _text(processor, _messages(_SHOWN))
    whole = inputs(processor, [text], [Image.new("RGB", (width, height))])["input_ids"]
    return whole.shape[1] - len(_tokens(processor, text)) + 1


def blank(processor: ProcessorMixin) -> dict[str, Any]:
    """A sample of a black image, of which nothing is learned."""
    ids = _placed(_tokens(processor, _text(processor, _messages(_SHOWN))), processor, 1)
    encoded = Encoded(ids, [IGNORED] * len(ids), len(ids))
    record = {"id": "", "conversations": _SHOWN}
    return sample(record, processor, encoded, [Image.new("RGB", (64, 64))])


def _messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns as templates take them: the image where its tag stood, texts around it stripped."""
    messages = []
    for role, text in ordered(turns, _ROLES):
        content = []
        for number, part in enumerate(text.split(IMAGE) if role == "user" else [text]):
            content += [{"type": "image"}] if number else []
            part = part.strip() if role == "user" else part
            content += [{"type": "text", "text": part}] if part else []
        messages.append({"role": role, "content": content})
    return messages


def _text(
    processor: ProcessorMixin, messages: Sequence[dict[str, Any]], asking: bool = False
) -> str:
    try:
        return processor.apply_chat_template(messages, add_generation_prompt=asking)
    except Exception as error:  # the template's own refusals are of several kinds
        fix = "give the checkpoint its chat_template.jinja"
        raise LabError(f"the chat template refuses it: {error}"[:200], fix=fix) from error


def _begins(processor: ProcessorMixin, text: str) -> bool:
    """Whether a template has written the token that begins a text itself."""
    first = processor.tokenizer.bos_token
    return first is not None and text.startswith(first)


def _tokens(processor: ProcessorMixin, text: str) -> list[int]:
    special = not _begins(processor, text)
    return list(processor.tokenizer(text, add_special_tokens=special)["input_ids"])


def _placed(ids: Sequence[int], processor: ProcessorMixin, images: int) -> list[int]:
    """``ids`` with the template's image token as -200; LabError if there are not as many."""
    place = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if (count := ids.count(place)) != images:
        wrong = f"one image for {count} places" if images else "its text holds the image token"
        raise LabError(wrong, fix=f"have one {IMAGE} for an image, and no {processor.image_token}")
    return [IMAGE_ID if token == place else token for token in ids]


def _widened(short: list[int], labels: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """Ids and labels of ``whole``: ``short`` with all that the processor puts in for an image.

    Outside of one gap both are the same. ``labels`` are those of ``short``, which may be cut.
    """
    most, more = min(len(short), len(whole)), len(whole) - len(short)
    front = shared_start(short, whole)
    back = min(shared_start(short[::-1], whole[::-1]), most - front)
    last = len(short) - back
    if any(label != IGNORED for label in labels[front:last]):
        fix = "take the checkpoint's own processor"
        raise LabError("the processor changes the tokens of an answer", fix=fix)
    cut = len(labels) + more
    labels = labels[:front] + [IGNORED] * (last + more - front) + labels[last:]
    return whole[:cut], labels[:cut]


def shared_start(*rows: Sequence[int]) -> int:
    """How many ids all rows begin with."""
    columns = enumerate(zip(*rows, strict=False))
    return next((at for at, ids in columns if len(set(ids)) > 1), min(map(len, rows)))
