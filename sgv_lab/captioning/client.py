"""The one client of OpenAI-compatible endpoints: for captions and for judges.

Whatever openai-python can read is taken, and nothing is validated beyond what is used: the text,
why it ended, the model's name and the tokens. Requests that get no answer (429, 5xx, a broken or
silent connection, no JSON) are repeated with back-off. What an endpoint refuses in a request
(`max_tokens`, `temperature`, `seed`) is learned from its message and left out from then on.

The key comes from OPENAI_API_KEY alone. It is removed from errors and logs, never from an answer.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sgv_lab.captioning.keys import checked, key, quiet, redacted
from sgv_lab.captioning.response import Answer, code, read_answer, words
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
log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """A request that got no answer, also when repeated."""


class Rejected(Exception):
    """A request that the endpoint refuses."""


def about_content(told: str) -> bool:
    """Whether a refusal is about what is shown or said, and not about the request's form."""
    return bool(_POLICY.search(told))


class Client:
    """An endpoint and a model, for any number of threads.

    ``learned``: what is known already to be refused, parameter -> its name here, or None.
    Raises LabError for an address or a key that cannot be right.
    """

    def __init__(
        self,
        url: str | None,
        model: str,
        timeout: float = 120.0,
        per_minute: float = 0.0,
        learned: Mapping[str, str | None] | None = None,
    ) -> None:
        import openai

        url = url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self.url = checked(url.strip())
        self.key, self.model, self.per_minute = key(self.url), model, per_minute
        quiet()
        self.client = openai.OpenAI(
            base_url=self.url, api_key=self.key, timeout=timeout, max_retries=RETRIES
        )
        self.learned = dict(learned or {})
        self.lock, self.next_start = threading.Lock(), 0.0

    def ask(self, messages: list[dict[str, Any]], **settings: Any) -> Answer:
        """The answer to a chat; ``settings`` are more fields of the request, None leaves one out.

        Raises Rejected, NoAnswer, and LabError for an endpoint that will answer no request at all.
        """
        spent = [0, 0]
        for retry in range(RETRIES):
            answer = self._asked_once(messages, settings)
            spent = [spent[0] + answer.tokens_in, spent[1] + answer.tokens_out]
            answer.tokens_in, answer.tokens_out = spent
            if answer.error is None and not answer.problem.startswith("no JSON"):
                return answer
            if answer.error is not None:
                self._judged(code(answer.error), words(answer.error))
            if retry + 1 < RETRIES:
                time.sleep(min(0.1 * 2**retry, 8))
        if answer.error is None:
            raise NoAnswer(answer.problem)
        answer.problem = self.redacted(f"an error: {words(answer.error)}")[:200]
        return answer

    def _asked_once(self, messages: list[dict[str, Any]], settings: Mapping[str, Any]) -> Answer:
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
                told = words(error.body if isinstance(error.body, dict) else error.message)
                if error.status_code not in (400, 422) or not self._learns(told, given, learned):
                    self._judged(error.status_code, told)
                    raise NoAnswer(
                        self.redacted(f"status {error.status_code}: {told}")[:200]
                    ) from None
            except openai.OpenAIError as error:
                told = self.redacted(f"{type(error).__name__}: {error}")[:200]
                raise NoAnswer(told) from None
            except UnicodeEncodeError:
                raise Rejected(
                    "the request holds half a surrogate pair, which is no text"
                ) from None

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

    def _judged(self, status: int | None, told: str) -> None:
        """Raise Rejected or LabError for a status that no repetition mends."""
        told = self.redacted(f"{status or 'an error:'} {told}")[:300]
        if status in (None, 400, 403, 422) and about_content(told):
            raise Rejected(told) from None  # the cause may hold the key
        if status in (401, 402, 403, 404, 405):
            fix = "check OPENAI_API_KEY, the address (it often ends in /v1) and the model's name"
            raise LabError(f"the endpoint says {told}", fix=fix) from None
        if status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429):
            raise Rejected(told) from None

    def _pace(self) -> None:
        """Wait until the next request may start."""
        if self.per_minute:
            with self.lock:
                now = time.monotonic()
                self.next_start = max(now, self.next_start + 60 / self.per_minute)
                wait = self.next_start - now
            time.sleep(wait)

    def redacted(self, text: str) -> str:
        """An error's text without the key."""
        return redacted(text, self.key)

    def first_model(self) -> str:
        """The first model that the endpoint lists. Raises LabError if it lists none."""
        import openai

        try:
            return self.client.models.list().data[0].id
        except (openai.OpenAIError, LookupError, AttributeError, TypeError, ValueError) as error:
            told = f"lists no models ({type(error).__name__})"
            where = urlsplit(self.url).hostname
            raise LabError(told, where=where, fix="give --name") from None
