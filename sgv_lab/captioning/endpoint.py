"""A local endpoint that speaks OpenAI's chat protocol over HTTP: a stand-in for GPT4-Vision.

It is a real server on 127.0.0.1. Behind it stands the drawn world's GPT4-Vision annotator, which
recognises an image by its pixels, or any function of an image, a prompt and a seed, such as a
model. It can be told to misbehave as real endpoints do.
"""

import base64
import hashlib
import io
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from sgv_lab.captioning.image_lists import list_images
from sgv_lab.captioning.prompts import END
from sgv_lab.errors import LabError
from sgv_lab.images import load_image
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import MINIATURE

Responder = Callable[[Image.Image, str, int], tuple[str, str]]
"""(image, prompt, seed) -> (text, finish reason); LabError: the request is refused."""
MODEL = "gpt4-vision-annotator"
FAULTS = ("429", "500", "garbage", "half", "nothing")
"""Ways to fail a request: too many requests, server error, no JSON, half a response, a closed
connection."""
# Shares of the annotator's answers that a collector has to notice. Citations: more than 500 of the
# 100K have them [InternLM-XComposer#119]; the others are assumed.
FLAWS = {"refusal": 0.02, "citation": 0.005, "truncated": 0.01, "list_form": 0.01, "leak": 0.005}
IMAGE_TOKENS = 85  # counted for an image


def opened(url: str, images: str | Path) -> AbstractContextManager[str]:
    """The endpoint at ``url``, or without one a local one that knows ``images``."""
    return nullcontext(url) if url else serve(annotator(images))


@contextmanager
def serve(answer: Responder, faults: Iterable[str | None] = ()) -> Iterator[str]:
    """The URL of an endpoint that runs while the context lasts.

    ``faults``: what goes wrong with the first, second, ... request (one of FAULTS, or None).
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.answer, server.faults, server.lock = answer, iter(faults), threading.Lock()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def annotator(images: str | Path) -> Responder:
    """GPT4-Vision's answers about images of the drawn world's miniature, some with FLAWS.

    The seed decides the words, and together with the image whether the answer is flawed.
    """
    lock, names = threading.Lock(), dict[str, str]()

    def answer(image: Image.Image, prompt: str, seed: int) -> tuple[str, str]:
        with lock:
            if not names:  # made at the first request: there may be none
                listed = list_images(images)
                names.update((pixels(load_image(listed.root, one)[1]), one) for one in listed.names)
            name = names.get(pixels(image), "")
        try:
            one = scene_of(name, MINIATURE)
        except LabError as error:
            raise LabError("the image is not of the drawn world") from error
        rates = [*FLAWS.values(), 1 - sum(FLAWS.values())]
        flaw = random.Random(f"{name}/{seed}").choices([*FLAWS, ""], rates)[0]
        return with_flaw(caption(one, ANNOTATORS["gpt4_vision"], seed), flaw)

    return answer


def pixels(image: Image.Image) -> str:
    """A hash of what an image shows, whatever its file format."""
    shown = image.convert("RGB").tobytes()
    return hashlib.sha256(repr(image.size).encode() + shown).hexdigest()


def with_flaw(text: str, flaw: str) -> tuple[str, str]:
    """(text, finish reason) with one of FLAWS; any other name changes nothing."""
    changed = {
        "refusal": "I'm sorry, but I can't assist with that request.",
        "citation": f"{text} I couldn't find any relevant information about it from my search "
        "results[^1^][^2^].",
        "truncated": text[: len(text) * 2 // 3].rsplit(" ", 1)[0],
        "list_form": "\n".join(f"- {sentence}" for sentence in text.split(". ")),
        "leak": f"{text} {END.partition('.')[0].replace('Instead of', 'I was')}.",
    }
    return changed.get(flaw, text), "length" if flaw == "truncated" else "stop"


class _Server(ThreadingHTTPServer):
    """Gets its ``answer``, its ``faults`` and their ``lock`` from `serve`."""

    request_queue_size = 512  # many connections at once

    def handle_error(self, *request: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    wbufsize = -1  # head and body leave in one piece

    def log_message(self, *given: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The list of models."""
        self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        """Answer a chat request, or fail as told."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            fault = next(self.server.faults, None)
        if fault == "nothing":
            self.close_connection = True
        elif fault in ("429", "500"):
            self._send(int(fault), {"error": {"message": "try again"}})
        else:
            self._send(*self._answer(body), fault)

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            image, prompt, seed = _asked(body)
            text, reason = self.server.answer(image, prompt, seed)
        except LabError as error:
            return 400, {"error": {"message": str(error), "code": "invalid_image"}}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": reason, "message": message}
        usage = {"prompt_tokens": len(json.dumps(prompt)) // 4 + IMAGE_TOKENS}
        usage |= {"completion_tokens": -(-len(text) // 4)}
        usage |= {"total_tokens": sum(usage.values())}
        value = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": MODEL}
        return 200, value | {"choices": [choice], "usage": usage}

    def _send(self, status: int, value: Any, fault: str | None = None) -> None:
        data = b"<html>Bad gateway" if fault == "garbage" else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("retry-after-ms", "20")  # of an error
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.close_connection |= fault == "half"
        self.wfile.write(data[: len(data) // 2] if fault == "half" else data)


def _asked(body: dict[str, Any]) -> tuple[Image.Image, str, int]:
    """Image, prompt and seed of a request. LabError for one without an image it can read."""
    parts = [part for turn in body["messages"] for part in turn["content"]]
    prompt = " ".join(part["text"] for part in parts if part["type"] == "text")
    (url,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    try:
        data = base64.b64decode(url.partition("base64,")[2], validate=True)
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError) as error:
        raise LabError("the image cannot be read") from error
    return image, prompt, int(body.get("seed", 0))
