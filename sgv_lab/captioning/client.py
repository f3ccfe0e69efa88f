"""The one client of OpenAI-compatible endpoints: for captions and for judges.

Whatever openai-python can read is taken, and nothing is validated beyond what is used: the text,
why it ended, the model's name and the tokens. Requests that get no answer (429, 5xx, a broken or
silent connection, no JSON) are repeated with back-off. What an endpoint refuses in a request
(`max_tokens`, `temperature`, `seed`) is learned from its message and left out from then on.

The key comes from OPENAI_API_KEY alone. It is removed from errors and logs, never from an answer.
"""

import ipaddress
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sgv_lab.captions.answers import unfinished, without_reasoning
from sgv_lab.captions.scan import HALF, HALF_PAIR
from sgv_lab.errors import LabError

OPENAI = "https://api.openai.com"
NEAR, FAR = 256, 8  # requests at once: engines batch hundreds, services limit them
TIMEOUT = 600.0  # seconds without a sign, as openai-python: an engine may have a long queue
RETRIES = 5  # of a request without an answer: 0.5 to 8 seconds apart, or as the endpoint says
_ADDRESS = re.compile(r"https?://(\S+@)?([\w.-]+|\[[\da-fA-F:]+\])(:\d+)?(/\S*)?")
_LEARNED = ("max_tokens", "temperature", "seed")
_NOT = r"(?:not|n't|no longer)(?: be| an?)* "
_UNSUPPORTED = re.compile(
    rf"{_NOT}(?:support|permi|allow|accept|set|specif|chang|modif|configur|used|valid|implement|"
    r"avail|applic)|unsupported|unrecogni[sz]ed|unknown|unexpected|extra[ _](?:inputs|forbidden)|"
    r"deprecated|disabled|omitted|fixed (?:at|to)|only the default|only \S+ (?:is|are) |only be|"
    r"(?:must|should|has to) (?:be|equal) (?:(?:set|equal) to )?(?:1|the default|unset)\b|"
    r"invalid (?:parameter|argument)|use [`'\"]?max_completion_tokens"
)
_RANGE = re.compile(  # another value would do
    r"too (?:large|small|high|low|long|big)|between|exceed|\brange\b|at (?:most|least)|"
    r"(?:less|greater|more|fewer|larger|smaller|higher|lower) than|"
    r"\bor (?:less|more|lower|higher|greater|above|below)|\d to \d"
)
_POLICY = re.compile(r"content.?(?:filter|policy|management)|moderation|flagged|safety", re.I)
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
_DECLINED = ("content_filter", "safety", "prohibited_content", "recitation", "blocklist", "spii")
_FINISH = dict.fromkeys(_CUT, "truncated") | dict.fromkeys(_DECLINED, "refusal")
_TRANSPORT = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """A request that got no answer, also when repeated."""


class RequestRefused(Exception):
    """A request that the endpoint refuses."""


def about_content(told: str) -> bool:
    """Whether a refusal is about what is shown or said, and not about the request's form."""
    return bool(_POLICY.search(told))


def named_fields(told: str, fields: Iterable[str]) -> list[str]:
    """Those of a request's fields that an endpoint's message names."""
    words = set(re.findall(r"\w+", told.lower()))
    return [name for name in fields if name.lower() in words]


@dataclass
class Answer:
    """What an endpoint answered. ``problem`` says which field was wrong, if it cannot be used."""

    text: str = ""
    reasoning: str = ""  # was cut from it
    raw: str = ""  # the text as it came
    finish: str = ""  # "stop", "truncated", "refusal", "reasoning" (has no end), or its own word
    served: Any = None  # the model's name as the endpoint gives it
    tokens_in: int = 0
    tokens_out: int = 0
    problem: str = ""
    error: Any = None  # of an answer that is one


class Client:
    """An endpoint and a model, for any number of threads.

    Raises LabError for an address or a key that cannot be right.
    """

    def __init__(
        self, url: str | None, model: str, timeout: float = TIMEOUT, per_minute: float = 0.0
    ) -> None:
        import openai

        url = url or os.environ.get("OPENAI_BASE_URL") or f"{OPENAI}/v1"
        self.url = check_address(url.strip())
        self.key, self.model, self.per_minute = api_key(self.url), model, per_minute
        for name in (*_TRANSPORT, *logging.root.manager.loggerDict):
            if name.split(".")[0] in _TRANSPORT:  # endpoints repeat the key in what these log
                logging.getLogger(name).setLevel(logging.WARNING)
        self.client = openai.OpenAI(
            base_url=self.url, api_key=self.key, timeout=timeout, max_retries=RETRIES
        )
        self.learned: dict[str, str | None] = {}  # parameter -> its name here; None: refused
        self.lock, self.next_start = threading.Lock(), 0.0

    def ask(self, messages: list[dict[str, Any]], **settings: Any) -> Answer:
        """The answer to a chat; ``settings`` are more fields of the request, None leaves one out.

        Raises RequestRefused, NoAnswer, and LabError for an endpoint that will answer nothing.
        """
        tokens_in = tokens_out = 0
        for retry in range(RETRIES):
            if retry:
                time.sleep(0.1 * 2**retry)
            answer = self._ask_once(messages, settings)
            answer.tokens_in = tokens_in = tokens_in + answer.tokens_in
            answer.tokens_out = tokens_out = tokens_out + answer.tokens_out
            if answer.error is not None:
                told, inside = error_message(answer.error), answer.error
                code = inside.get("code", inside.get("status")) if isinstance(inside, dict) else ""
                self._raise_if_final(int(code) if str(code).isdigit() else None, told)
                answer.problem = self.redacted(f"an error: {told}")[:200]
            elif not answer.problem.startswith("no JSON"):
                return answer
        if answer.error is None:
            raise NoAnswer(answer.problem)
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
                status = error.status_code
                told = error_message(error.body if isinstance(error.body, dict) else error.message)
                if status not in (400, 422) or not self._learns(told, given, learned):
                    self._raise_if_final(status, told)
                    raise NoAnswer(self.redacted(f"status {status}: {told}")[:200]) from None
            except openai.OpenAIError as error:
                told = f"{type(error).__name__}: {error}"
                raise NoAnswer(self.redacted(told)[:200]) from None
            except UnicodeEncodeError:
                raise RequestRefused(f"the request holds {HALF}") from None

    def _learns(self, told: str, given: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Whether a refused request is worth another try, as something is known that was not."""
        told = told.lower()
        if not _UNSUPPORTED.search(told) or _RANGE.search(told):
            return False
        sent = [name for name in _LEARNED if name in given]
        known: dict[str, str | None] = dict.fromkeys(named_fields(told, sent))
        if "max_tokens" in given and "max_completion_tokens" in told:
            known = {"max_tokens": "max_completion_tokens"}  # the other's message names this one
        with self.lock:
            new = {name: to for name, to in known.items() if name not in self.learned}
            self.learned |= new
        for name, to in new.items():
            what = f"is sent as {to}" if to else "is left out"
            log.warning("the endpoint refuses %s: it %s from now on", name, what)
        return any(name not in before for name in known)

    def _raise_if_final(self, status: int | None, told: str) -> None:
        """Raise RequestRefused or LabError for a status that no repetition mends."""
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
        """An error's text without the key; short words ("x", "EMPTY") guard nothing and stay."""
        guards = len(self.key) >= (8 if self.key.isalpha() else 6)
        return text.replace(self.key, "[key]") if guards else text

    def first_model(self) -> str:
        """The first model that the endpoint lists. Raises LabError if it lists none."""
        import openai

        try:
            return self.client.models.list().data[0].id
        except (openai.OpenAIError, LookupError, AttributeError, TypeError, ValueError) as error:
            what = f"the endpoint lists no models ({type(error).__name__})"
            raise LabError(what, fix="give --name") from None


def requests_at_once(url: str) -> int:
    """How many requests an endpoint gets at once: NEAR on this machine or a private network."""
    try:
        (*_, (address, *_)), *_ = socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:  # the request itself will tell
        return FAR
    return FAR if ipaddress.ip_address(address).is_global else NEAR


def check_address(url: str) -> str:
    """The address. Raises LabError for one that is none, before anything is sent."""
    if not _ADDRESS.fullmatch(url):
        what = "this is no address of an endpoint"
        raise LabError(what, fix="write it as http://HOST:PORT/v1")  # it may hold a password
    return url


def api_key(url: str) -> str:
    """OPENAI_API_KEY; servers of one's own do without. LabError if it cannot be one; not shown."""
    value = os.environ.get("OPENAI_API_KEY")
    if not value and url.startswith(OPENAI):
        raise LabError("OPENAI_API_KEY is not set", fix="export the endpoint's key")
    if re.search("[^!-~]|[\"'`]", value or ""):
        what = "OPENAI_API_KEY holds a blank, a line end, a quotation mark or what is not ASCII"
        raise LabError(what, fix="export it anew without")
    return value or "none"


def read_answer(body: bytes) -> Answer:
    """What the body of a response with status 200 says; never raises."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        if body.lstrip().startswith((b"data:", b"event:", b": ")):
            return Answer(problem="a stream, though none was asked for")
        return Answer(problem=f"no JSON but {len(body)} bytes that begin with {body[:1]!r}")
    fields = value if isinstance(value, dict) else {}
    usage = fields["usage"] if isinstance(fields.get("usage"), dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    tokens = [int(n) if isinstance(n, int | float) and 0 < n < 1e9 else 0 for n in counts]
    answer = Answer(served=fields.get("model"), tokens_in=tokens[0], tokens_out=tokens[1])
    choices, error = fields.get("choices"), fields.get("error")
    if isinstance(choices, list) and choices:
        choice = choices[0] if isinstance(choices[0], dict) else {}
        answer.problem = _read_choice(answer, choice)
        error = error or choice.get("error")
    else:
        answer.problem = "no choices"
    if answer.problem or not answer.raw:
        answer.error = error or answer.error
    return answer


def _read_choice(answer: Answer, choice: Mapping[str, Any]) -> str:
    """Fill in text and finish; what keeps them from being an answer's, or ""."""
    finish = str(choice.get("finish_reason") or "stop").lower()
    answer.finish = _FINISH.get(finish, finish)
    message = choice.get("message")
    if finish == "error":  # what came before it is no whole text
        answer.error = "the answer broke off"
        return ""
    if not isinstance(message, dict):
        return "a choice without a message"
    content, refusal = message.get("content"), message.get("refusal")
    content = "" if content is None else content
    if not isinstance(content, str):
        return f"content that is no text but {type(content).__name__}"
    if not content and refusal and isinstance(refusal, str):
        content, answer.finish = refusal, "refusal"
    if HALF_PAIR.search(content):
        return f"the content is {HALF}"
    answer.raw = content
    answer.text, answer.reasoning = without_reasoning(content)
    if unfinished(answer.text):
        answer.finish = "reasoning"
    return ""


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
