"""What an endpoint's response says, whatever its form: nothing is validated but what is used."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgv_lab.captions.answers import unfinished, without_reasoning

_FINISH = dict.fromkeys(("length", "max_tokens", "model_length", "error"), "truncated")
_FINISH |= dict.fromkeys(("content_filter", "safety", "refusal"), "refusal")


@dataclass
class Answer:
    """What an endpoint answered. ``problem`` says which field was wrong, if it cannot be used."""

    text: str = ""
    reasoning: str = ""  # was cut from the text
    raw: str = ""  # the text as it came
    finish: str = (
        ""  # "stop", "truncated", "refusal", "reasoning" (has no end), or the endpoint's own word
    )
    served: Any = None  # the model's name as the endpoint gives it
    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = False  # the endpoint told its tokens
    problem: str = ""
    error: Any = None  # of an answer that is one


def read_answer(body: bytes) -> Answer:
    """What the body of a response with status 200 says; never raises."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        start = body.lstrip()[:20].lower()
        if start.startswith((b"data:", b"event:", b": ")):
            return Answer(problem="a stream, though none was asked for")
        what = "an HTML page" if start.startswith(b"<") else f"{len(body)} bytes"
        return Answer(problem=f"no JSON but {what}")
    if not isinstance(value, dict):
        return Answer(problem=f"the answer is {_kind(value)}, not an object")
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    tokens = [int(n) if isinstance(n, int | float) and 0 < n < 1e9 else 0 for n in counts]
    answer = Answer(
        served=value.get("model"), tokens_in=tokens[0], tokens_out=tokens[1], counted=any(tokens)
    )
    _read_choice(answer, value)
    if (answer.problem or not answer.raw) and value.get("error"):
        answer.error = value["error"]
    return answer


def _read_choice(answer: Answer, value: Mapping[str, Any]) -> None:
    """Fill in text and finish, or the problem."""
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        answer.problem = f"choices is {_kind(choices)}"
        return
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        where = "choices[0].message" if isinstance(choice, dict) else "choices[0]"
        answer.problem = f"{where} is {_kind(message if isinstance(choice, dict) else choice)}"
        return
    finish = str(choice.get("finish_reason") or "stop").lower()
    answer.finish = _FINISH.get(finish, finish)
    content = message.get("content")
    if not content and isinstance(message.get("refusal"), str) and message["refusal"]:
        content, answer.finish = message["refusal"], "refusal"
    if content is not None and not isinstance(content, str):
        answer.problem = f"choices[0].message.content is {_kind(content)}, not text"
        return
    if re.search("[\ud800-\udfff]", content or ""):
        answer.problem = "choices[0].message.content holds half a surrogate pair, which is no text"
        return
    answer.raw = content or ""
    answer.text, answer.reasoning = without_reasoning(answer.raw)
    if unfinished(answer.text):
        answer.finish = "reasoning"


def _kind(value: Any) -> str:
    if value in (None, "", [], {}):
        return "null or missing" if value is None else "empty"
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return kinds.get(type(value), "a number")


def code(error: Any) -> int | None:
    """The status that an error inside an answer tells, or None."""
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    return int(code) if str(code).isdigit() else None


def words(error: Any) -> str:
    """An error's message in one line, with its code and parameter where it has them."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict | str):
        error = error["error"]
    if isinstance(error, dict):
        told = str(error.get("message") or error.get("detail") or json.dumps(error))
        more = [str(error.get(name) or "") for name in ("code", "param")]
        more = [value for value in more if value and value not in told]
        error = f"{told} ({', '.join(more)})" if more else told
    return " ".join(str(error).split())
