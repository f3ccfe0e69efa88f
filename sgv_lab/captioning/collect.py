"""Collecting captions from an OpenAI-compatible endpoint: GPT4-Vision's, vLLM's, our own.

Answers that refuse, have a defect or cannot be used are discarded, kept beside the row with the
reason, and the image is asked about again with the next seed. Captions are kept as they were
written; only a block of reasoning is taken out, and kept beside the row too.
"""

import base64
import io
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from tqdm import tqdm

from sgv_lab.captioning import prompts, writer
from sgv_lab.captioning.client import (
    TIMEOUT,
    Answer,
    Client,
    NoAnswer,
    RequestRefused,
    about_content,
    named_fields,
    requests_at_once,
)
from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.writer import CaptionRun, Row
from sgv_lab.errors import LabError
from sgv_lab.files import in_threads
from sgv_lab.options import Count, JsonObject

FILTERS = ("empty", "over_long", "list_form", "citation", "prompt_leakage", "refusal", "reasoning",
           "truncated", "repeated_sentence")  # fmt: skip
"""Kinds of `captions.defects` an answer is discarded for."""
TRIES = 3  # answers asked for before an image is given up
STOP_AFTER = 5  # images in a row without an answer, beyond those under way: the endpoint is down
IMAGE_TOKENS = 1_000  # assumed for an image where the endpoint does not tell
_FAILED = ("unanswered", "rejected", "no answer")  # how reasons begin that say so of the endpoint
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How an endpoint is asked; the first three matter to the captions, the others do not."""

    temperature: float = 1.0
    max_tokens: int = 1024
    request: JsonObject | None = None  # JSON: Endpoint: more fields of a request; null: left out.
    connections: Count | None = None  # Endpoint: requests at once.  [default: 256 locally, else 8]
    per_minute: float = 0.0  # Endpoint: most requests a minute; 0: any number.
    timeout: float = TIMEOUT  # Endpoint: seconds without a sign.
    price_in: float = 0.0  # Endpoint: price of a million tokens in.
    price_out: float = 0.0  # Endpoint: price of a million tokens out.
    budget: float = 0.0  # Endpoint: most to spend in all, in the same currency; 0: no limit.

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def collect(
    url: str,
    model: str,
    images: str | Path | ImageList,
    out: str | Path,
    terms: Terms = Terms(),
    *,
    ask: Callable[[str], str] = prompts.prompt,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Caption ``images`` (see `list_images`) by ``model`` at ``url`` into the run ``out``.

    Rows as `writer.Row`, with the tokens in and out of all answers about the image, and those
    "discarded" (reason and text). ``ask``: an image's path -> the prompt. The same call goes on
    where a killed one stopped. The first image is asked about alone, to know what one costs.

    Raises LabError for an endpoint that fails or refuses, images without an answer, a spent budget
    (none is begun that could exceed it), if not one caption was accepted, and as `CaptionRun` does.
    What was collected stays.
    """
    more = dict(terms.request or {})
    if more.get("stream"):
        raise LabError("streams are not read", fix='leave "stream" out of the request')
    client = Client(url, model, terms.timeout, terms.per_minute)
    images = list_images(images)
    asked = {name: ask(f"{one.prefix}/") for name, one in prompts.SOURCES.items()}
    settings = {"model": model, "revision": urlsplit(client.url).hostname, "seed": seed}
    settings |= {"prompts": asked, "temperature": terms.temperature}
    settings |= {"max_tokens": terms.max_tokens, "extra": more}
    settings |= {"filters": FILTERS, "tries": TRIES}
    with CaptionRun(out, images, settings, shard) as run:
        client.learned |= run.notes["learned"]
        _Collector(client, run, terms, ask).run()
    return Path(out)


class _Collector:
    def __init__(
        self, client: Client, run: CaptionRun, terms: Terms, ask: Callable[[str], str]
    ) -> None:
        self.client, self.kept, self.terms, self.ask = client, run, terms, ask
        self.connections = terms.connections or requests_at_once(client.url)
        limits = [self._fields(0).get(name) for name in ("max_tokens", "max_completion_tokens")]
        self.longest = max((n for n in limits if isinstance(n, int)), default=terms.max_tokens)
        self.lock = threading.Lock()
        self.spent = terms.cost(**writer.tokens(chain(writer.rows(run.out), [run.notes["spent"]])))
        self.under_way, self.dearest_prompt = 0, 0.0
        self.answered, self.broke, self.estimated = False, False, False

    def run(self) -> None:
        """Ask about every image without a row: one by one until an answer, then many at once."""
        left = (number for _, missing in self.kept.missing() for number in missing)
        how = {"spare": 0, "in_order": False}
        first = in_threads(self._work, self._affordable(left, alone=True), 1, **how)
        rest = in_threads(self._work, self._affordable(left), self.connections, **how)
        held: list[Row] = []  # kept back until an image is taken: the request may be bad
        unanswered, in_a_row = [], 0
        with tqdm(unit="caption", disable=None) as bar:
            for row in chain(first, rest):
                self.under_way -= 1
                reason = row.get("reason", "")
                if reason.startswith("unanswered"):
                    unanswered.append(reason.removeprefix("unanswered: "))
                elif reason.startswith(_FAILED) or "tokens_in" not in row:  # it cannot be read
                    held.append(row)
                else:
                    self.kept.add([*held, row])
                    self.kept.note(learned=dict(self.client.learned))
                    bar.update(len(held) + 1)
                    bar.set_postfix_str(f"cost {self.spent:.2f}", refresh=False)
                    held, in_a_row = [], 0
                in_a_row += reason.startswith(_FAILED) and not about_content(reason)
                if in_a_row >= STOP_AFTER + self.connections * self.answered:
                    self.kept.spend(held)
                    what = f"the endpoint fails: {reason.removeprefix('unanswered: ')}"
                    raise LabError(what, fix=self._way_out(reason))
        self._end(held, unanswered)

    def _end(self, held: list[Row], unanswered: list[str]) -> None:
        """Keep what was held back if the run has a caption, else nothing; raise what is to tell."""
        rows = [*writer.rows(self.kept.out), *held]
        if any(row["caption"] is not None for row in rows):
            self.kept.add(held)
        elif rows:
            reasons = Counter([*(row["reason"] for row in rows), *unanswered]).most_common()
            told = "; ".join(f"{number} × {reason}" for reason, number in reasons[:3])
            self.kept.spend(held)
            self.kept.empty()  # what did not work may be mended before the next run
            asked = unanswered + [row["reason"] for row in rows if "tokens_in" in row]
            if not asked:
                what = f"no image can be read ({told})"
                raise LabError(what, fix="mend the images, or give others")
            fix = self._way_out(next(reason for reason, _ in reasons if reason in asked))
            what = f"no caption was accepted, {self.spent:.2f} spent ({told})"
            raise LabError(what, where=self.kept.out, fix=fix)
        if unanswered:
            told = f"{len(unanswered)} images got no answer: {unanswered[-1]}"
            raise LabError(told, fix="run again to go on")
        if self.broke:
            told = f"the budget of {self.terms.budget:g} allows no more ({self.spent:.2f} spent)"
            raise LabError(told, fix="raise it and run the same again to go on")

    def _affordable(self, numbers: Iterator[int], alone: bool = False) -> Iterator[int]:
        """The numbers as long as the worst that is under way stays within the budget.

        ``alone``: only until the first answer tells what one costs.
        """
        for number in numbers:
            dearest = self.dearest_prompt + self.terms.cost(0, self.longest)
            if self.terms.budget and (
                self.spent + (self.under_way + 1) * TRIES * dearest > self.terms.budget
            ):
                self.broke = True
                return
            self.under_way += 1
            yield number
            if alone and self.answered:
                return

    def _work(self, number: int) -> Row:
        """The row of an image: its caption, or the reason why there is none."""
        row, data, image = self.kept.images.read(number)
        if image is None:
            return row
        row |= {"tokens_in": 0, "tokens_out": 0, "discarded": []}
        try:
            self._ask(row, self.ask(self.kept.images[number]), data_url(data, image))
        except RequestRefused as error:
            row["reason"] = f"rejected: {error}"
        except NoAnswer as error:
            row["reason"] = f"unanswered: {error}"
        return row

    def _ask(self, row: Row, prompt: str, url: str) -> None:
        """Ask until an answer passes the filters, TRIES times at most; it completes the row."""
        shown = {"type": "image_url", "image_url": {"url": url}}
        content = [{"type": "text", "text": prompt}, shown]
        messages, seed = [{"role": "user", "content": content}], self.kept.stamp["seed"]
        for attempt in range(TRIES):
            answer = self.client.ask(messages, **self._fields(seed + attempt))
            self._count(row, answer, prompt)
            text, reason = answer.text.strip(), f"no answer: {answer.problem}"
            if not answer.problem:
                self.answered = True
                reason = flaw(text, answer.finish)
            if reason is None:
                row["caption"] = text
                if answer.reasoning:
                    row["reasoning"] = answer.reasoning
                return
            row["discarded"].append({"reason": reason, "text": answer.raw})
            if answer.error is not None:  # which was repeated already
                break
        reasons = [one["reason"] for one in row["discarded"]]
        flaws = [f"filtered: {one}" for one in reasons if not one.startswith("no answer")]
        row["reason"] = [*reasons, *flaws][-1]

    def _way_out(self, reason: str) -> str:
        """What to change if the endpoint gives no caption for such a reason."""
        if reason.startswith("rejected"):
            sent = [*self._fields(0), "max_completion_tokens"]
            name = next(iter(named_fields(reason, sent)), "FIELD")
            request = f"--request '{{\"{name}\": VALUE}}' (null leaves it out)"
            return f"change the request by {request}, or the model"
        if reason.startswith(("filtered: truncated", "filtered: reasoning", "filtered: empty")):
            return "raise --max-tokens, or turn the model's reasoning off by --request"
        if reason.startswith(("filtered", "no answer")):
            return "ask another model or endpoint, or in other words"
        return "mend it and run again"

    def _fields(self, seed: int) -> dict[str, Any]:
        fields = {"temperature": self.terms.temperature, "max_tokens": self.terms.max_tokens}
        return fields | {"seed": seed} | (self.terms.request or {})

    def _count(self, row: Row, answer: Answer, prompt: str) -> None:
        """Add what an answer cost, usable or not, to the row and the sum."""
        given, made = answer.tokens_in, answer.tokens_out
        if not (given or made or answer.problem):
            given, made = IMAGE_TOKENS + len(prompt) // 4, -(-len(answer.raw) // 4)
            if not self.estimated:
                log.warning("the endpoint tells no tokens: they are estimated from the texts")
            self.estimated = row["estimated"] = True
        row["tokens_in"] += given
        row["tokens_out"] += made
        if answer.served is not None:
            row["served"] = answer.served
        with self.lock:
            self.spent += self.terms.cost(given, made)
            self.dearest_prompt = max(self.dearest_prompt, self.terms.cost(given, 0))


def flaw(text: str, finish: str | None = "stop") -> str | None:
    """Why an answer is discarded: the first of FILTERS that finds it, or None."""
    import polars as pl

    from sgv_lab.captions.defects import KINDS

    if finish in ("truncated", "refusal", "reasoning"):
        return finish
    row = pl.LazyFrame({"caption": [text], "characters": [len(text)]})
    found = row.select(**{name: KINDS[name].rows for name in FILTERS}).collect()
    return next((name for name in FILTERS if found[name][0]), None)


def data_url(data: bytes, image: Image.Image) -> str:
    """An image as endpoints take it: its own file where that is JPEG, PNG or WebP, else PNG."""
    kind = image.format
    if kind not in ("JPEG", "PNG", "WEBP"):
        image.save(stream := io.BytesIO(), "PNG")
        data, kind = stream.getvalue(), "PNG"
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
