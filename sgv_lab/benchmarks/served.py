"""Ask a model behind an OpenAI-compatible endpoint: vLLM, SGLang, ``transformers serve``, OpenAI.

The server prepares images and puts the prompt into the model's chat template. It gets an image
before the question, so that what questions about it share is computed once where prefixes are
cached.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sgv_lab.benchmarks.tasks import Question, Task
from sgv_lab.captioning.client import (
    Answer,
    Client,
    NoAnswer,
    RequestRefused,
    about_content,
    requests_at_once,
)
from sgv_lab.captioning.collect import STOP_AFTER, TRIES, data_url
from sgv_lab.errors import LabError
from sgv_lab.files import in_threads

ROOM = 4096  # tokens for models that think before they answer
log = logging.getLogger(__name__)


class Chat(Client):
    """A client for answers that are used as they are, by a model that may think first."""

    room = 0  # tokens more than were asked for

    def usable(self, messages: list[dict[str, Any]], max_tokens: int, **settings: Any) -> Answer:
        """An answer without a problem, of TRIES. Raises as `ask` does, RequestRefused without one.

        If only reasoning comes, or the limit is too low, all get ROOM more tokens from then on.
        """
        left = TRIES
        while left:
            room = self.room  # other threads may raise it meanwhile
            try:
                found = self.ask(messages, **{"max_tokens": max_tokens + room, **settings})
                cut = found.finish == "truncated" and not found.text.strip()
                thinks = not found.problem and (cut or found.finish == "reasoning")
                problem = "only reasoning" if thinks else found.problem
            except RequestRefused as error:
                if room or not re.search(r"max_\w*tokens|output limit", str(error)):
                    raise
                thinks = True
            if thinks and not room:
                if not self.room:
                    told = "%s gets %d tokens more: it has no room to answer in"
                    log.warning(told, self.model, ROOM)
                self.room = ROOM
            elif problem:
                left -= 1
            else:
                return found
        raise RequestRefused(f"no answer: {problem}")


class Served:
    """A served model, asked greedily with ``connections`` requests at once (`requests_at_once`).

    ``name``: what the endpoint calls it; None is its first. ``request``: more fields of a request;
    None leaves one out. Raises LabError as `Client` does.
    """

    def __init__(
        self,
        url: str,
        name: str | None = None,
        connections: int | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = Chat(url, name or Client(url, "").first_model())
        self.connections = connections or requests_at_once(url)
        self.request = dict(request or {})

    def known(self) -> dict[str, Any]:
        """What decides its answers; several servers may have the model, each for a part."""
        return {"model": self.client.model, "request": self.request}

    def answer(
        self, questions: Sequence[Question], task: Task, data: Path
    ) -> Iterator[list[tuple[Question, dict[str, Any]]]]:
        """Yield (question, its "text") as they come, in batches of one; no margins are known.

        A question whose content is refused has an empty text and a "reason". Raises LabError for an
        endpoint that fails, and in the end for questions without an answer.
        """

        def ask(question: Question) -> tuple[Question, dict[str, Any] | None, str]:
            return question, *self._ask(question, task, data)

        failed, in_a_row, answered = 0, 0, False
        with tqdm(total=len(questions), unit="question", disable=None) as bar:
            answers = in_threads(ask, questions, self.connections, spare=0, in_order=False)
            for question, said, problem in answers:
                if said is not None:
                    in_a_row, answered = 0, True
                    bar.update()
                    yield [(question, said)]
                    continue
                failed, in_a_row, why = failed + 1, in_a_row + 1, problem
                if in_a_row >= STOP_AFTER + self.connections * answered:
                    raise LabError(f"the endpoint fails: {why}", fix="mend it and run again")
        if failed:
            raise LabError(f"{failed} questions got no answer: {why}", fix="run again to go on")

    def _ask(self, question: Question, task: Task, data: Path) -> tuple[dict[str, Any] | None, str]:
        """What is kept of the answer, or None and the problem."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question.prompt}]
        if (image := question.image(data)) is not None:
            url = data_url(question.file(data), image)
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "user", "content": content}]
        limit, fields = question.max_new_tokens or task.max_new_tokens, {"temperature": 0}
        try:
            found = self.client.usable(messages, limit, **fields | self.request)
        except RequestRefused as error:
            refused = {"text": "", "reason": str(error)} if about_content(str(error)) else None
            return refused, f"rejected: {error}"
        except NoAnswer as error:
            return None, str(error)
        return {"text": found.text.strip()}, ""
