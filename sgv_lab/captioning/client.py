"""The one client of OpenAI-compatible endpoints: for captions and for judges.

Whatever openai-python can read is taken, and nothing is validated beyond what is used: the text,
why it ended, the model's name and the tokens. Requests that get no answer (429, 5xx, a broken or
silent connection, no JSON) are repeated with back-off. What an endpoint refuses in a request
(`max_tokens`, `temperature`, `seed`) is learned from its message and left out from then on.

The key comes from OPENAI_API_KEY alone. It is removed from errors and logs, never from an answer.
"""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from sgv_lab.captions.answers import unfinished, without_reasoning
from sgv_lab.errors import LabError

RETRIES = 5  # of a request without an answer: 0.5 to 8 seconds apart, or as the endpoint says
_LEARNED = ("max_tokens", "temperature", "seed")
_UNSUPPORTED = re.compile(
    r"unsupported|(?:not|n't) (?:be )?(?:support|permit|allow|accept|set|specified)|"
    r"unrecogni[sz]ed|unknown|unexpected|extra[ _](?:inputs|forbidden)|deprecated|only the default|"
    r"may only be|cannot be used|not implemented|not (?:a )?valid|invalid (?:parameter|argument)|"
    r"use 'max_completion_tokens'",
    re.IGNORECASE,
)
_POLICY = re.compile(r"content.?(?:filter|policy|management)|moderation|flagged|safety", re.I)
_FINISH = dict.fromkeys(("length", "max_tokens", "model_length", "error"), "truncated")
_FINISH |= dict.fromkeys(("content_filter", "safety", "refusal"), "refusal")
_TRANSPORT = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """A request that got no answer, also when repeated."""


class RequestRefused(Exception):
    """A request that the endpoint refuses."""


def about_content(told: str) -> bool:
    """Whether a refusal is about what is shown or said, and not about the request's form."""
    return bool(_POLICY.search(told))


@dataclass
class Answer:
    """What an endpoint answered. ``problem`` says which field was wrong, if it cannot be used."""

    text: str = ""
    reasoning: str = ""  # was cut from the text
    raw: str = ""  # the text as it came
    finish: str = ""  # "stop", "truncated", "refusal", "reasoning" (has no end), or its own word
    served: Any = None  # the model's name as the endpoint gives it
    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = False  # the endpoint told its tokens
    problem: str = ""
    error: Any = None  # of an answer that is one


class Client:
    """An endpoint and a model, for any number of threads.

    ``learned``: what is known already to be refused, parameter -> its name here, or None.
    Raises LabError for an address or a key that cannot be right.
    """

    def __init__(
        self, url: str | None, model: str, timeout: float = 120.0, per_minute: float = 0.0
    ) -> None:
        import openai

        url = url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self.url = check_address(url.strip())
        self.key, self.model, self.per_minute = api_key(self.url), model, per_minute
        for name in (*_TRANSPORT, *logging.root.manager.loggerDict):
            if name.split(".")[0] in _TRANSPORT:  # endpoints repeat the key in what these log
                logging.getLogger(name).setLevel(logging.WARNING)
        self.client = openai.OpenAI(
            base_url=self.url, api_key=self.key, timeout=timeout, max_retries=RETRIES
        )
        self.learned: dict[str, str | None] = {}
        self.lock, self.next_start = threading.Lock(), 0.0

    def ask(self, messages: list[dict[str, Any]], **settings: Any) -> Answer:
        """The answer to a chat; ``settings`` are more fields of the request, None leaves one out.

        Raises Rejected, NoAnswer, and LabError for an endpoint that will answer no request at all.
        """
        spent = [0, 0]
        for retry in range(RETRIES):
            answer = self._ask_once(messages, settings)
            spent = [spent[0] + answer.tokens_in, spent[1] + answer.tokens_out]
            answer.tokens_in, answer.tokens_out = spent
            if answer.error is None and not answer.problem.startswith("no JSON"):
                return answer
            if answer.error is not None:
                self._raise_if_final(_status(answer.error), error_message(answer.error))
            if retry + 1 < RETRIES:
                time.sleep(min(0.1 * 2**retry, 8))
        if answer.error is None:
            raise NoAnswer(answer.problem)
        answer.problem = self.redacted(f"an error: {error_message(answer.error)}")[:200]
        return answer

    def _ask_once(self, messages: list[dict[str, Any]], settings: Mapping[str, Any]) -> Answer:
        """One answer, of whatever kind; asks again only for having learned something."""
        import openai

        while True:
            with self.lock:
                learned = dict(self.learned)
            request = {learned.get(name, name): value for name, value in settings.items()}
            given = {name: value for name, value in request.items() if name and value is not None}
            self._pace()
            try:
                raw = self.client.chat.completions.with_raw_response.create(
                    model=self.model, messages=messages, extra_body=given
                )
                return read_answer(raw.content)
            except openai.APIStatusError as error:
                told = error_message(error.body if isinstance(error.body, dict) else error.message)
                if error.status_code not in (400, 422) or not self._learns(told, given, learned):
                    self._raise_if_final(error.status_code, told)
                    told = self.redacted(f"status {error.status_code}: {told}")[:200]
                    raise NoAnswer(told) from None
            except openai.OpenAIError as error:
                told = self.redacted(f"{type(error).__name__}: {error}")[:200]
                raise NoAnswer(told) from None
            except UnicodeEncodeError:
                what = "the request holds half a surrogate pair, which is no text"
                raise RequestRefused(what) from None

    def _learns(self, told: str, given: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Whether a refused request is worth another try, as something is known that was not."""
        if not _UNSUPPORTED.search(told) or "too large" in told:
            return False
        known: dict[str, str | None] = {}
        for name in _LEARNED:
            if name in given and re.search(rf"(?<![a-z_]){name}(?![a-z_])", told):
                renamed = name == "max_tokens" and "max_completion_tokens" in told
                known[name] = "max_completion_tokens" if renamed else None
        if "max_completion_tokens" in known.values():  # the message of one alone names the other
            known = {"max_tokens": "max_completion_tokens"}
        with self.lock:
            new = {name: to for name, to in known.items() if name not in self.learned}
            self.learned |= new
        for name, to in new.items():
            what = f"is sent as {to}" if to else "is left out"
            log.warning("the endpoint refuses %s: it %s from now on", name, what)
        return any(name not in before for name in known)

    def _raise_if_final(self, status: int | None, told: str) -> None:
        """Raise Rejected or LabError for a status that no repetition mends."""
        told = self.redacted(f"{status or 'an error:'} {told}")[:300]
        if status in (None, 400, 403, 422) and about_content(told):
            raise RequestRefused(told) from None  # the cause may hold the key
        if status in (401, 402, 403, 404, 405):
            fix = "check OPENAI_API_KEY, the address (it often ends in /v1) and the model's name"
            raise LabError(f"the endpoint says {told}", fix=fix) from None
        if status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429):
            raise RequestRefused(told) from None

    def _pace(self) -> None:
        """Wait until the next request may start."""
        if self.per_minute:
            with self.lock:
                now = time.monotonic()
                self.next_start = max(now, self.next_start + 60 / self.per_minute)
                wait = self.next_start - now
            time.sleep(wait)

    def redacted(self, text: str) -> str:
        """An error's text without the key.

        Short words, such as "x", "none" and "EMPTY", guard nothing: they stay, as an error without
        its x could not be read.
        """
        guards = len(self.key) >= (8 if self.key.isalpha() else 6)
        return text.replace(self.key, "[key]") if guards else text

    def first_model(self) -> str:
        """The first model that the endpoint lists. Raises LabError if it lists none."""
        import openai

        try:
            return self.client.models.list().data[0].id
        except (openai.OpenAIError, LookupError, AttributeError, TypeError, ValueError) as error:
            told = f"lists no models ({type(error).__name__})"
            where = urlsplit(self.url).hostname
            raise LabError(told, where=where, fix="give --name") from None


def check_address(url: str) -> str:
    """The address. Raises LabError for one that is none, before anything is sent."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        whole = False
    if whole and not re.search(r"\s", url):
        return url
    bare = re.sub(r"^\w+:/*(?=\D)", "", url).rpartition("@")[2].partition("?")[0]
    raise LabError("is no address of an endpoint", where=bare, fix=f"write http://{bare or '…'}")


def api_key(url: str) -> str:
    """OPENAI_API_KEY, which an endpoint on this machine or network does without.

    Raises LabError if it is not set, or cannot be one; it is not shown.
    """
    value = os.environ.get("OPENAI_API_KEY")
    if not value:
        if _is_near(urlsplit(url).hostname or ""):
            return "none"
        raise LabError("OPENAI_API_KEY is not set", fix="export the endpoint's key")
    kinds = {
        "a line end": r"[\r\n]",
        "a blank": r"\s",
        "a quotation mark": "[\"'‘’“”]",
        "a character that is not ASCII": r"[^\x00-\x7f]",
        "a control character": r"[\x00-\x1f\x7f]",
    }
    for what, pattern in kinds.items():
        if re.search(pattern, value):
            raise LabError(f"OPENAI_API_KEY holds {what}", fix="export it anew without")
    return value


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or one of its network: such servers seldom have keys."""
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return address.is_loopback or address.is_private or address.is_unspecified


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
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        where, what = "choices[0].message", message
        if not isinstance(choice, dict):
            where, what = ("choices", choices) if choice is None else ("choices[0]", choice)
        answer.problem = f"{where} is {_kind(what)}"
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


def _status(error: Any) -> int | None:
    """The status that an error inside an answer tells, or None."""
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    return int(code) if str(code).isdigit() else None


def error_message(error: Any) -> str:
    """An error's message in one line, with its code and parameter where it has them."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict | str):
        error = error["error"]
    if isinstance(error, dict):
        told = str(error.get("message") or error.get("detail") or json.dumps(error))
        more = [str(error.get(name) or "") for name in ("code", "param")]
        more = [value for value in more if value and value not in told]
        error = f"{told} ({', '.join(more)})" if more else told
    return " ".join(str(error).split())
