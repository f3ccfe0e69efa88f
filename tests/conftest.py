"""What all tests share."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
# Bars of a process and its forks share a lock; a fork killed while it holds it would stop them all.
tqdm.set_lock(threading.RLock())


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of real data and outputs of official tools; skips where it is absent."""
    folder = Path(os.environ.get("SGV_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference folder at {folder} (set SGV_REFERENCE)")
    return folder


@pytest.fixture
def chat_server(monkeypatch) -> Iterator[Callable[[Callable[[dict], Any]], str]]:
    """Start an endpoint: a function of the request's body -> what is sent back; gives its address.

    What is sent back is a dict (JSON, with status 200), or (status, dict or bytes).
    """
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    servers = []

    def start(answer: Callable[[dict], Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body["authorization"] = self.headers["Authorization"]
                sent = answer(body)
                status, sent = sent if isinstance(sent, tuple) else (200, sent)
                data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
