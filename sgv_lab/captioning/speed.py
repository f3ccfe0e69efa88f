"""How fast captions are written and questions answered, by the functions that do both.

Weights are random and made on the device, images drawn, of a usual size. No caption ends by itself:
all of a batch are as long as its longest would be on average, with lengths spread as
ShareGPT4V-PT's, so that a larger batch wastes more.
"""

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from sgv_lab.captioning import bulk
from sgv_lab.captioning.client import Client
from sgv_lab.captioning.collect import data_url
from sgv_lab.captioning.image_lists import list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.errors import LabError
from sgv_lab.images import load_image
from sgv_lab.training import throughput
from sgv_lab.world.export import write_images
from sgv_lab.world.scene import scene

TOKENS = {"paper": 192.0, "mini": 24.0}  # of a caption; ShareGPT4V-PT: 826 characters, 4.3 a token
SPREAD = 0.35  # of their logarithm
SCENES = 32  # different ones that are drawn


def time_captions(
    key: str, size: str, batch_size: int, decoding: bulk.Decoding
) -> dict[str, float]:
    """Captions a second of one batch, after a batch that nobody timed."""
    model, processor = untaught(key, size)
    draw, mean = np.random.default_rng(0).lognormal, np.log(TOKENS[size]) - SPREAD**2 / 2
    longest = draw(mean, SPREAD, (1_000, batch_size)).max(1).mean()  # of a batch, on average
    decoding = replace(decoding, max_new_tokens=round(longest))
    with tempfile.TemporaryDirectory() as folder:
        images = list_images(draw_images(Path(folder, "images"), batch_size))
        how = {"batch_size": batch_size, "decoding": decoding}
        for run in ("first", "timed"):
            began = time.monotonic()
            bulk.caption(model, processor, images, Path(folder, run), **how)
    seconds = time.monotonic() - began
    return {"captions_per_second": batch_size / seconds, "seconds_per_batch": seconds}


def time_endpoint(url: str, size: str, count: int) -> dict[str, float]:
    """Captions a second by the model at ``url``, ``count`` at once, after as many nobody timed.

    Where the engine knows "ignore_eos" every caption has the tokens that one has on average. No
    caption is looked at.
    """
    client = Client(url, "")
    client.model = client.first_model()
    fields = {"temperature": 0.0, "max_tokens": round(TOKENS[size]), "ignore_eos": True}

    def ask(url: str) -> int:
        shown = {"type": "image_url", "image_url": {"url": url}}
        content = [{"type": "text", "text": CAPTIONER}, shown]
        return client.ask([{"role": "user", "content": content}], **fields).tokens_out

    with tempfile.TemporaryDirectory() as folder:
        urls = _different_images(draw_images(Path(folder), SCENES), 2 * count)
    pool = ThreadPoolExecutor(count)
    try:
        for some in (urls[:count], urls[count:]):
            began = time.monotonic()
            tokens = sum(pool.map(ask, some))
    finally:  # nobody waits for answers when the time is over
        pool.shutdown(wait=False, cancel_futures=True)
    seconds = time.monotonic() - began
    return {"captions_per_second": count / seconds, "tokens_per_caption": tokens / count}


def _different_images(root: Path, count: int) -> list[str]:
    """Data URLs, no two of one image: an engine computes what it has seen before only once."""
    urls = []
    for number in range(count):
        _, image = load_image(root, f"{number % SCENES}.jpg")
        digits = number % 16, number // 16 % 16, number // 256  # far enough apart for a JPEG
        image.paste(tuple(16 * digit for digit in digits), (0, 0, 16, 16))
        image.save(stream := io.BytesIO(), "JPEG")
        urls.append(data_url(stream.getvalue(), image))
    return urls


@contextmanager
def vllm_server(key: str, size: str, folder: Path) -> Iterator[str]:
    """The address of vLLM's server with family ``key``, random weights; it ends with the context.

    ``folder`` gets the model's configuration and the server's log. LabError if the server ends.
    """
    config, processor = throughput.untaught(key, size)
    config.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[config.model_type]]
    for one in (config, processor):
        one.save_pretrained(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--load-format", "dummy"]
    command += [f"--model={folder / 'model'}", f"--host={host}", f"--port={port}"]
    url, log = f"http://{host}:{port}", folder / "server.log"
    with child(command, log) as server:
        while True:
            if server.poll() is not None:
                told = log.read_text(encoding="utf-8", errors="replace")[-200:]
                raise LabError(f"ended with {server.returncode}: {told}", where="vLLM")
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"{url}/v1"


@contextmanager
def child(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process that writes to ``log``; it is killed with the context, and what it started, too."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def untaught(key: str, size: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model that ends no answer, and its processor. LabError at paper size without a GPU."""
    device = throughput.usable_device(size)
    config, processor = throughput.untaught(key, size)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = throughput.random_model(config, dtype).eval()
    model.generation_config.eos_token_id = config.get_text_config().vocab_size  # no token
    return model, processor


def draw_images(folder: Path, count: int) -> Path:
    """The folder, with ``count`` drawn images 480 pixels wide, 0.jpg and so on."""
    write_images(folder, {f"{n}.jpg": scene(n % SCENES) for n in range(count)}, 480)
    return folder
