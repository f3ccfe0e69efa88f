"""Collecting captions from an OpenAI-compatible endpoint: GPT4-Vision's, vLLM's, our own.

Requests that get no answer (429, 5xx, a broken or silent connection, no JSON) are repeated with
back-off; answers that refuse or have a defect are discarded, kept beside the row with the reason,
and the picture is asked about again with the next seed. The key comes from OPENAI_API_KEY alone; it
is cut out of whatever an endpoint says.
"""

import base64
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import polars as pl
from openai.types.chat import ChatCompletion
from PIL import Image
from tqdm import tqdm

from sgv_lab.captioning import prompts, writer
from sgv_lab.captioning.keys import hidden, key
from sgv_lab.captioning.pictures import Pictures, ahead, find
from sgv_lab.captioning.writer import Row, Shards
from sgv_lab.captions.defects import KINDS
from sgv_lab.errors import LabError
from sgv_lab.images import load_image

FILTERS = ("empty", "over_long", "list_form", "citation", "prompt_leakage", "refusal", "truncated",
           "repeated_sentence")  # fmt: skip
"""Kinds of `captions.defects` an answer is discarded for."""
TRIES = 3  # answers asked for before a picture is given up
RETRIES = 5  # of a request without an answer: 0.5 to 8 seconds apart, or as the endpoint says
STOP_AFTER = 5  # pictures in a row without an answer, beyond those under way: the endpoint is down


@dataclass(frozen=True)
class Terms:
    """How an endpoint is asked; only ``temperature``, ``max_tokens`` and ``extra`` (further fields
    of the request; None removes one) matter to the captions.

    ``connections``: requests at once; ``per_minute``: most requests started (0: any number);
    ``timeout``: seconds without a sign; ``price_in``, ``price_out``: per million tokens;
    ``budget``: most to spend, in the same currency (0: no limit).
    """

    temperature: float = 1.0
    max_tokens: int = 1024
    extra: Mapping[str, Any] | None = None
    connections: int = 8
    per_minute: float = 0.0
    timeout: float = 120.0
    price_in: float = 0.0
    price_out: float = 0.0
    budget: float = 0.0

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class NoAnswer(Exception):
    """A request that failed for good; the picture stays without a row."""


def collect(
    url: str,
    model: str,
    images: str | Path | Pictures,
    out: str | Path,
    terms: Terms = Terms(),
    *,
    ask: Callable[[str], str] = prompts.prompt,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Caption ``images`` (see `pictures.find`) by ``model`` at ``url`` into the run ``out``.

    Rows as `writer.Row`, with the tokens in and out of all answers about the picture, and those
    "discarded" (reason and text). ``ask``: a picture's path -> the prompt. The same call goes on
    where a killed one stopped. The first picture is asked about alone, to know what one costs.

    Raises LabError for a missing or refused key, an endpoint that is down or takes no picture,
    pictures without an answer, a spent budget (none is begun that could exceed it) and as `Shards`
    does. What was collected stays.
    """
    pictures = find(images)
    settings = {
        "model": model,
        "revision": urlsplit(url).hostname,
        "seed": seed,
        "prompts": {name: ask(f"{one.prefix}/") for name, one in prompts.SOURCES.items()},
        "temperature": terms.temperature,
        "max_tokens": terms.max_tokens,
        "extra": dict(terms.extra or {}),
        "filters": FILTERS,
        "tries": TRIES,
    }
    with Shards(out, pictures, settings, shard) as shards, hidden(key(url)):
        _Collector(url, shards, terms, ask).run()
    return Path(out)


class _Collector:
    def __init__(self, url: str, shards: Shards, terms: Terms, ask: Callable[[str], str]) -> None:
        self.shards, self.terms, self.ask, self.secret = shards, terms, ask, key(url)
        self.client = openai.OpenAI(
            base_url=url, api_key=self.secret, timeout=terms.timeout, max_retries=RETRIES
        )
        self.lock, self.next_start = threading.Lock(), 0.0
        self.spent = sum(map(self._cost, writer.rows(shards.out)))
        self.under_way, self.dearest_prompt = 0, 0.0
        self.answered, self.broke = False, False

    def run(self) -> None:
        """Ask about every picture without a row: one by one until an answer, then many at once."""
        left = (number for _, missing in self.shards.missing() for number in missing)
        first = ahead(self._work, self._affordable(left, alone=True), 1, 0)
        rest = ahead(self._work, self._affordable(left), self.terms.connections, 0)
        unanswered, in_a_row, why = 0, 0, ""
        rejected: list[Row] = []  # kept back until another picture is taken: the request may be bad
        with tqdm(unit="caption", disable=None) as bar:
            for result in chain(first, rest):
                self.under_way -= 1
                if isinstance(result, str):
                    unanswered, in_a_row, why = unanswered + 1, in_a_row + 1, result
                elif str(result.get("reason")).startswith("rejected"):
                    rejected.append(result)
                    in_a_row, why = in_a_row + 1, result["reason"]
                else:
                    self.shards.add([*rejected, result])
                    bar.update(len(rejected) + 1)
                    bar.set_postfix_str(f"cost {self.spent:.2f}", refresh=False)
                    rejected, in_a_row = [], 0
                if in_a_row >= STOP_AFTER + self.terms.connections:
                    raise LabError(f"the endpoint fails: {why}", fix="mend it and run again")
        self.shards.add(rejected)
        if unanswered:
            raise LabError(f"{unanswered} pictures got no answer: {why}", fix="run again to go on")
        if self.broke:
            told = f"the budget of {self.terms.budget:g} allows no more ({self.spent:.2f} spent)"
            raise LabError(told, fix="raise it and run the same again to go on")

    def _affordable(self, numbers: Iterator[int], alone: bool = False) -> Iterator[int]:
        """The numbers as long as the worst that is under way stays within the budget.

        ``alone``: only until the first answer tells what one costs.
        """
        for number in numbers:
            dearest = self.dearest_prompt + self.terms.cost(0, self.terms.max_tokens)
            if self.terms.budget and (
                self.spent + (self.under_way + 1) * TRIES * dearest > self.terms.budget
            ):
                self.broke = True
                return
            self.under_way += 1
            yield number
            if alone and self.answered:
                return

    def _cost(self, row: Row) -> float:
        return self.terms.cost(row.get("tokens_in", 0), row.get("tokens_out", 0))

    def _work(self, number: int) -> Row | str:
        """The row of a picture, or why there was no answer."""
        name = self.shards.pictures[number]
        row: Row = {"index": number, "sha256": None, "caption": None}
        try:
            data, image = load_image(self.shards.pictures.root, name)
        except LabError as error:
            return row | {"reason": str(error)}
        row["sha256"] = hashlib.sha256(data).hexdigest()
        try:
            return row | self._captioned(self.ask(name), data_url(data, image))
        except openai.APIStatusError as error:
            if error.status_code in (401, 403, 404):
                told = f"{error.status_code} {self._clean(error.message)}"
                fix = "check OPENAI_API_KEY, the address and the model's name"
                raise LabError(f"the endpoint says {told}", fix=fix) from None
            if error.status_code == 429 or error.status_code >= 500:
                return f"status {error.status_code}"
            told = f"{error.status_code} {self._clean(error.message)}"[:200]
            return row | {"reason": f"rejected: {told}"}
        except (openai.APIConnectionError, NoAnswer) as error:
            return self._clean(f"{type(error).__name__}: {error}")

    def _captioned(self, prompt: str, picture: str) -> Row:
        """Ask until an answer passes the filters, TRIES times at most."""
        row: Row = {"tokens_in": 0, "tokens_out": 0, "discarded": []}
        for attempt in range(TRIES):
            reply = self._reply(prompt, picture, self.shards.stamp["seed"] + attempt)
            self.answered = True
            text = self._clean(reply.choices[0].message.content or "").strip()
            if reply.usage is not None:
                given, made = reply.usage.prompt_tokens, reply.usage.completion_tokens
                row["tokens_in"] += given
                row["tokens_out"] += made
                with self.lock:
                    self.spent += self.terms.cost(given, made)
                    self.dearest_prompt = max(self.dearest_prompt, self.terms.cost(given, 0))
            row["served"] = self._clean(reply.model)
            reason = flaw(text, reply.choices[0].finish_reason)
            if reason is None:
                return {"caption": text} | row
            row["discarded"].append({"reason": reason, "text": text})
        return {"reason": f"filtered: {reason}"} | row

    def _reply(self, prompt: str, picture: str, seed: int) -> ChatCompletion:
        """A well-formed answer. Raises NoAnswer after RETRIES answers that are none."""
        content = [{"type": "text", "text": prompt},
                   {"type": "image_url", "image_url": {"url": picture}}]  # fmt: skip
        request = {
            "model": self.shards.stamp["model"],
            "messages": [{"role": "user", "content": content}],
            "temperature": self.terms.temperature,
            "max_tokens": self.terms.max_tokens,
            "seed": seed,
        } | dict(self.terms.extra or {})
        given = {name: value for name, value in request.items() if value is not None}
        for retry in range(RETRIES):
            self._pace()
            try:
                raw = self.client.chat.completions.with_raw_response.create(**given)
                return ChatCompletion.model_validate_json(raw.content, strict=False)
            except ValueError:  # no JSON, or not of a chat completion
                time.sleep(0.1 * 2**retry)
        raise NoAnswer("answers are no chat completions")

    def _pace(self) -> None:
        """Wait until the next request may start."""
        if self.terms.per_minute:
            with self.lock:
                now = time.monotonic()
                self.next_start = max(now, self.next_start + 60 / self.terms.per_minute)
                wait = self.next_start - now
            time.sleep(wait)

    def _clean(self, text: str) -> str:
        return text.replace(self.secret, "[key]")


def first_model(url: str) -> str:
    """The first model an endpoint lists. Raises LabError if it lists none."""
    try:
        with hidden(key(url)):
            return openai.OpenAI(base_url=url, api_key=key(url)).models.list().data[0].id
    except (openai.OpenAIError, IndexError, AttributeError) as error:
        told = f"lists no models ({type(error).__name__})"
        raise LabError(told, where=urlsplit(url).hostname, fix="give --name") from None


def flaw(text: str, finish: str | None = "stop") -> str | None:
    """Why an answer is discarded: the first of FILTERS that finds it, or None."""
    if finish == "length":
        return "truncated"
    if finish == "content_filter":
        return "refusal"
    row = pl.LazyFrame({"caption": [text], "characters": [len(text)]})
    found = row.select(**{name: KINDS[name].rows for name in FILTERS}).collect()
    return next((name for name in FILTERS if found[name][0]), None)


def data_url(data: bytes, image: Image.Image) -> str:
    """A picture as endpoints take it: its own file where that is JPEG, PNG or WebP, else PNG."""
    kind = image.format
    if kind not in ("JPEG", "PNG", "WEBP"):
        image.save(stream := io.BytesIO(), "PNG")
        data, kind = stream.getvalue(), "PNG"
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
