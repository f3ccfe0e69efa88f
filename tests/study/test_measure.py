import signal
import time

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from sgv_lab.captioning.endpoint import serve
from sgv_lab.cli import main
from sgv_lab.files import Journal
from sgv_lab.study import measure

FEW = ("matrix products", "official", "ours", "greedy, batch of 8")


def _run(out, *more):
    given = ["measure", "--size", "mini", "--out", str(out), *map(str, more)]
    return CliRunner().invoke(main, given)


def _few(monkeypatch, *more):
    """Keep fine-tuning's first rows and one of captions, and ``more``."""
    every = measure.rows
    monkeypatch.setattr(
        measure,
        "rows",
        lambda *given: [
            *(r for r in every(*given) if r.row in FEW and r.recipe in ("check", "sft", "caption")),
            *more,
        ],
    )


def test_rows_are_on_disk_one_by_one_and_not_measured_again(tmp_path, monkeypatch):
    def killed():
        seen.append(len(Journal(tmp_path / "rows.jsonl").read()))
        if len(seen) == 1:
            raise KeyboardInterrupt
        raise torch.OutOfMemoryError("too large")

    seen: list[int] = []
    _few(monkeypatch, measure.Row("last", "", "killed", 1, killed))
    assert _run(tmp_path).exit_code == 1
    before = Journal(tmp_path / "rows.jsonl").read()
    assert seen == [4] and {row["status"] for row in before} == {"ok"}
    done = _run(tmp_path)
    assert done.exit_code == 0, done.output
    after = Journal(tmp_path / "rows.jsonl").read()
    assert after[:4] == before and after[4]["status"] == "out of memory: too large"
    table = pd.read_csv(tmp_path / "throughput.csv").set_index("row")
    assert (table["mfu"].dropna() > 0).all() and table["mfu"].count() == 2
    assert table.loc["official", "ratio"] == 1 and table.loc["ours", "ratio"] > 0
    assert table.loc["greedy, batch of 8", "captions_per_second"] > 0
    assert table["device"].nunique() == 1 and table["revision"].notna().all()


def test_errors_are_rows_and_what_has_no_time_left_is_skipped(tmp_path, monkeypatch):
    def wrong():
        raise ValueError("no such kernel")

    _few(monkeypatch, measure.Row("last", "", "wrong", 0, wrong))
    done = _run(tmp_path, "--seconds", 0)
    assert done.exit_code == 0, done.output
    statuses = [row["status"] for row in Journal(tmp_path / "rows.jsonl").read()]
    assert statuses == ["skipped: 0 s left"] * 5
    assert "skipped: 0 s left" in done.output
    monkeypatch.setattr(measure, "FEW", (), raising=False)
    late = measure._measured(measure.Row("last", "", "wrong", 0, wrong), 1.0, "mini")
    assert late["status"] == "ValueError: no such kernel"


def test_shares_are_of_both_ceilings_and_of_the_first_row():
    shared = {"size": "paper", "model": "m", "device": "NVIDIA H200", "status": "ok"}
    rows = [
        shared | {"recipe": "check", "row": "matrix products", "useful_tflops": 790.0},
        *(
            shared | {"recipe": "sft", "row": r, "useful_tflops": n, "tokens_per_second": n}
            for r, n in (("official", 197.5), ("ours", 395.0))
        ),
    ]
    table = measure.table({(row["row"],): row for row in rows}).set_index("row")
    assert table.loc["ours", "mfu"] == pytest.approx(0.5)
    assert table.loc["ours", "mfu_vendor"] == pytest.approx(395 / 989)
    assert table.loc["ours", "ratio"] == 2
    assert table.loc[["matrix products"], ["mfu", "ratio"]].isna().all(axis=None)


def test_a_study_runs_in_what_time_is_left(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("no plan")
    row = measure.Row("study", "", "plan", 0, lambda: measure._study(plan, tmp_path))
    found = measure._measured(row, 600.0, "mini")
    assert found["runs"] == 0 and "ended with 1: plan.txt" in found["status"]
    assert measure._measured(row, 0.01, "mini")["status"].startswith("stopped")


def test_a_row_is_stopped_when_the_time_is_over():
    """Also where it would go on after an error; what the alarm did before, it does again."""

    def long():
        for _ in range(100):
            try:
                time.sleep(1)
            except Exception:
                continue

    usual = signal.getsignal(signal.SIGALRM)
    found = measure._measured(measure.Row("last", "", "long", 0, long), 0.5, "mini")
    assert found["status"] == "stopped: the time is over" and found["took"] < 60
    assert signal.getsignal(signal.SIGALRM) is usual


def test_the_bare_command_ends_with_the_committed_plans_that_have_no_records(tmp_path, monkeypatch):
    plans = [path.stem for path in measure.unrecorded()]
    committed = sorted((measure.publishing.folder() / "plans").glob("study-*.yaml"))
    assert plans == [
        one.stem for one in committed if not measure.publishing.load_study(one.stem)[1]
    ]
    asked = []
    monkeypatch.setattr(measure.throughput, "usable_device", lambda size: "cpu")
    monkeypatch.setattr(measure, "rows", lambda *given: asked.append(given[2]) or [])
    measured = CliRunner().invoke(main, ["measure", "--out", str(tmp_path)])
    assert measured.exit_code == 0, measured.output
    named = CliRunner().invoke(
        main, ["measure", "--out", str(tmp_path), "--study", str(committed[0])]
    )
    assert named.exit_code == 0, named.output
    assert _run(tmp_path).exit_code == 0  # a rehearsal runs none
    assert [[path.stem for path in one] for one in asked] == [plans, [committed[0].stem], []]


def test_official_pretraining_has_the_authors_batch():
    trained = [row for row in measure.rows("paper", "", ()) if row.recipe in ("sft", "pretrain")]
    ways = {(row.recipe, row.row): row.measure.args[3] for row in trained}
    assert ways["pretrain", "official"]["micro_batch"] == 16
    assert "micro_batch" not in ways["sft", "official"]  # the recipe's own: 8


def _engine_row(engine=""):
    (row,) = (r for r in measure.rows("mini", "", (), engine) if r.row == "by an engine")
    return measure._measured(row, 1000.0, "mini")


def test_an_engine_is_measured_where_there_is_one(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(measure.importlib.util, "find_spec", lambda name: None)
        assert _engine_row()["status"] == "skipped: no engine is installed"
    seen = []
    with serve(lambda image, prompt, seed: seen.append(image.tobytes()) or ("x", "stop")) as url:
        found = _engine_row(url)
    assert found["status"] == "ok" and found["captions_per_second"] > 0, found
    assert len(seen) == len(set(seen)) == 64  # no image twice, which an engine would know again


VLLM = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv if "=" in word)
config = json.loads(Path(given["model"], "config.json").read_text())
assert config["architectures"] == ["LlavaForConditionalGeneration"]
files = {path.name for path in Path(given["model"]).iterdir()}
assert {"tokenizer.json", "processor_config.json"} <= files
ready = []

class Handler(BaseHTTPRequestHandler):
    def _send(self, status, value):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def do_GET(self):
        if self.path == "/health":
            ready.append(1)
            return self._send(200 if len(ready) > 1 else 503, {})
        self._send(200, {"object": "list", "data": [{"id": "it", "object": "model"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["model"] == "it" and asked["ignore_eos"]
        choice = {"message": {"content": "x"}, "finish_reason": "length"}
        used = {"prompt_tokens": 5, "completion_tokens": asked["max_tokens"]}
        self._send(200, {"choices": [choice], "usage": used})

ThreadingHTTPServer((given["host"], int(given["port"])), Handler).serve_forever()
"""


def test_vllm_is_started_asked_and_stopped_where_it_is_installed(tmp_path, monkeypatch):
    package = tmp_path / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(VLLM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = _engine_row()
    assert found["status"] == "ok" and found["tokens_per_caption"] == 24, found
    (package / "api_server.py").write_text("raise SystemExit('no GPU')")
    assert "vLLM: ended with 1: no GPU" in _engine_row()["status"]


@pytest.mark.slow
def test_all_rows_are_rehearsed_in_miniature(tmp_path):
    with serve(lambda image, prompt, seed: ("A tree.", "stop")) as url:
        done = _run(tmp_path, "--seconds", 10_000, "--engine", url)
    assert done.exit_code == 0, done.output
    rows = Journal(tmp_path / "rows.jsonl").read()
    assert {row["row"]: row["status"] for row in rows if row["status"] != "ok"} == {}
    assert len(rows) == len(measure.rows("mini", tmp_path, ()))
