"""Fetching from the hub, from a stand-in on this machine that breaks off."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sgv_lab.captions import sources
from sgv_lab.captions.convert import convert
from sgv_lab.errors import LabError

TURNS = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A dog."}]
DATA = json.dumps([{"id": str(i), "conversations": TURNS} for i in range(2_000)]).encode()


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does; ``broken`` downloads stop half way."""

    broken, ranges, digest = 0, [], hashlib.sha256(DATA).hexdigest()

    def do_HEAD(self) -> None:
        self.head(200, len(DATA))

    def do_GET(self) -> None:
        if "/resolve/" not in self.path:  # the client also asks for lists of its own
            self.send_error(404)
            return
        Hub.ranges.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        self.head(206 if start else 200, len(DATA) - start)
        if Hub.broken:
            Hub.broken -= 1
            self.wfile.write(DATA[start : start + len(DATA) // 2])
            self.close_connection = True
            return
        self.wfile.write(DATA[start:])

    def head(self, code: int, length: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{Hub.digest}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    Hub.broken, Hub.ranges, Hub.digest = 0, [], hashlib.sha256(DATA).hexdigest()
    yield Hub
    server.shutdown()


def test_fetched_once_and_usable_its_size_told_first(hub: type[Hub], monkeypatch) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(
        sources.log, "warning", lambda *words: told.append((words[0] % words[1:], len(hub.ranges)))
    )
    path = sources.resolve("hub:ShareGPT4V")
    size = f"{path.name}: fetching {len(DATA) / 1e6:.1f} MB from Lin-Chen/ShareGPT4V"
    assert told == [(size, 0)]  # before anything was fetched
    assert path.read_bytes() == DATA
    assert path.name == "sharegpt4v_instruct_gpt4-vision_cap100k.json"
    assert convert(path).rows().collect().height == 2_000
    assert sources.resolve("hub:ShareGPT4V") == path
    assert len(hub.ranges) == len(told) == 1


def test_a_broken_connection_is_taken_up_again(hub: type[Hub]) -> None:
    hub.broken = 1
    assert sources.resolve("hub:LLaVA-23K").read_bytes() == DATA
    assert len(hub.ranges) == 2


def test_what_the_hub_does_not_have() -> None:
    with pytest.raises(LabError, match="not on the hub"):
        sources.resolve("hub:COCO-Caption")
    with pytest.raises(LabError, match="Did you mean 'ShareGPT4V'"):
        sources.resolve("hub:ShareGPT4")
    with pytest.raises(LabError, match="nothing behind it yet"):
        sources.resolve("world:ShareGPT4V-PT")


def test_what_the_network_raises_is_one_line(monkeypatch, tmp_path):
    class Cut(Exception):  # as of httpx: neither the hub's own nor the system's
        pass

    def fail(*given, **more):
        raise Cut("peer closed the connection")

    monkeypatch.setenv("SGV_STORE", str(tmp_path))
    monkeypatch.setattr(sources, "hf_hub_download", fail)
    with pytest.raises(LabError, match=r"ShareGPT4V: cannot be fetched \(peer closed"):
        sources.resolve("hub:ShareGPT4V")
