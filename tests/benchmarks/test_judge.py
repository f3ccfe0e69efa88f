"""Grading with a judge: a local OpenAI-compatible endpoint that speaks the real protocol."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgv_lab.benchmarks import llava_w, mmvet
from sgv_lab.benchmarks.judge import graded
from sgv_lab.cli import main
from sgv_lab.errors import LabError


class Endpoint(BaseHTTPRequestHandler):
    requests: list[dict] = []  # noqa: RUF012
    name = "judge-0613"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(body)
        content = "8 6\nwords" if "[Assistant 1]" in body["messages"][-1]["content"] else "0.5"
        reply = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": self.name,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": content},
                }
            ],
        }
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    Endpoint.requests.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def mmvet_data(folder: Path) -> Path:
    folder.mkdir()
    row = {"imagename": "a.png", "question": "Q?", "answer": "x<OR>y", "capability": ["rec"]}
    (folder / "mm-vet.json").write_text(json.dumps({"v1_0": row, "v1_1": row}))
    (folder / "prompt.txt").write_text("Compare.\nQuestion | Truth | Prediction | Correctness\n")
    return folder


def test_mmvet_through_the_command(tmp_path: Path, url: str) -> None:
    data = mmvet_data(tmp_path / "data")
    (tmp_path / "results.json").write_text(json.dumps({"v1_0": "an x", "v1_1": "z"}))
    arguments = [
        "score",
        "mmvet",
        "--predictions",
        str(tmp_path / "results.json"),
        "--annotations",
        str(data),
        "--judge",
        "gpt/4",
        "--judge-url",
        url,
        "--runs",
        "2",
    ]
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0, run.output
    printed = json.loads(run.stdout)
    assert printed["total"] == 50 and printed["runs"] == [50, 50]
    assert printed["judge"] == "judge-0613"
    first = Endpoint.requests[0]
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("gpt/4", 3, 0.0)
    assert first["messages"][0]["content"].endswith("Correctness\n\nQ? | x <OR> y | an x | ")
    assert len(Endpoint.requests) == 4 and (tmp_path / "results.gpt-4-grade-2runs.json").is_file()
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert len(Endpoint.requests) == 4  # nothing is asked twice


def test_llava_w_goes_on_after_a_failure(tmp_path: Path, url: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    questions = [
        {"question_id": n, "image": "1.jpg", "text": f"Q{n}", "category": c}
        for n, c in enumerate(("conv", "detail", "complex"))
    ]
    texts = [{"question_id": n, "text": f"A{n}", "answer_id": "r"} for n in range(3)]
    for name, rows in (
        ("questions.jsonl", questions),
        ("answers_gpt4.jsonl", texts),
        ("context.jsonl", [{"image": "1.jpg", "caption": ["C1", "C2"]}]),
        ("../answers.jsonl", texts),
    ):
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = {
        f"llava_bench_{q['category']}": {"role": "Assistant", "prompt": "P"} for q in questions
    }
    (data / "rule.json").write_text(json.dumps(rules))
    answers, asked = tmp_path / "answers.jsonl", []

    def failing(messages: list, temperature: float, max_tokens: int) -> tuple[str, str]:
        if len(asked) == 2:
            raise LabError("the judge failed")
        asked.append(messages)
        return Endpoint.name, "8,6"

    with pytest.raises(LabError, match="the judge failed"):
        graded("llava-w", answers, data, "j", ask=failing)
    folder, truth = graded("llava-w", answers, data, "j", url)
    assert len(Endpoint.requests) == 1  # two of three grades were kept
    printed = llava_w.score(folder, questions=truth)
    assert printed["all"] == [75.0, 80.0, 60.0, 3] and printed["judge"] == "judge-0613"
    assert printed["clusters"] == {"by": "image", "n": 1}
    assert Endpoint.requests[0]["messages"][1]["content"] == (
        "[Context]\nC1\nC2\n\n[Question]\nQ2\n\n[Assistant 1]\nA2\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nA2\n\n[End of Assistant 2]\n\n[System]\nP\n\n"
    )


def test_no_key_and_no_answer_are_refused_before_any_grade(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    data = mmvet_data(tmp_path / "data")
    (tmp_path / "results.json").write_text(json.dumps({"v1_0": "an x"}))
    with pytest.raises(LabError, match="OPENAI_API_KEY is not set"):
        graded("mmvet", tmp_path / "results.json", data, "j")
    with pytest.raises(LabError, match="has no answer to v1_1"):
        graded("mmvet", tmp_path / "results.json", data, "j", ask=lambda *a: ("j", "1"))
    with pytest.raises(LabError, match="pope has no judge"):
        graded("pope", tmp_path / "results.json", data, "j")
    assert mmvet.TRIES == 5
