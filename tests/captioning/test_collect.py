"""Collecting from an endpoint: what goes wrong, what is kept, what is never told."""

import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from image_kinds import make_broken, make_odd

from sgv_lab.captioning import client, endpoint, prompts, writer
from sgv_lab.captioning import collect as module
from sgv_lab.captioning.collect import Terms, collect, flaw
from sgv_lab.captioning.merge import discarded, merge, outcome, table
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.images import load_image
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import MINIATURE

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, and no key unless a test sets one."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)


@pytest.fixture
def few(many, tmp_path) -> Path:
    """A dozen of the plain images."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(many.iterdir())[:12]:
        shutil.copy(path, folder)
    return folder


def colour(image, prompt, seed):
    """What an image of one colour is called; other words for another seed."""
    return f"A plain image of {image.getpixel((0, 0))}, number {seed}.", "stop"


def merged(out: Path) -> bytes:
    return merge(out).read_bytes()


def undisturbed(few, tmp_path) -> bytes:
    with endpoint.serve(colour) as url:
        return merged(collect(url, "m", few, tmp_path / "undisturbed"))


@pytest.mark.parametrize("fault", [*endpoint.FAULTS, "empty", "hang"])
def test_whatever_the_endpoint_does_every_image_gets_its_caption_once(few, tmp_path, fault):
    want = undisturbed(few, tmp_path)
    faults = itertools.islice(itertools.cycle([fault, None, None]), 6 if fault == "empty" else 30)
    odd = faults if fault in ("empty", "hang") else iter(())

    def answer(*given):
        """No words, or for longer than is waited nothing at all, where that is the fault."""
        due = next(odd, None)
        time.sleep(2 * (due == "hang"))
        return ("", "stop") if due == "empty" else colour(*given)

    terms = Terms(connections=4, timeout=1.0 if fault == "hang" else 20.0)
    with endpoint.serve(answer, () if fault in ("empty", "hang") else faults) as url:
        out = collect(url, "m", few, tmp_path / "out", terms)
    # after an empty answer the next seed's is taken
    assert re.sub(rb"number \d", b"number 0", merged(out)) == want
    assert set(discarded(out)["reason"]) == ({"empty"} if fault == "empty" else set())


def test_an_endpoint_that_is_down_stops_the_run_and_nothing_is_lost(few, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "RETRIES", 1)
    monkeypatch.setattr(module, "STOP_AFTER", 2)
    out, terms = tmp_path / "out", Terms(connections=2)
    failing, fails = [None] * 3 + ["500"] * 99, "the endpoint fails: status 500"
    with endpoint.serve(colour, failing) as url, pytest.raises(LabError, match=fails):
        collect(url, "m", few, out, terms)
    with pytest.raises(LabError, match="the endpoint fails: APIConnectionError"):
        collect(url, "m", few, out, terms)  # nobody listens any more
    assert len(table(out)) == 3
    with endpoint.serve(colour) as url:
        assert merged(collect(url, "m", few, out, terms)) == undisturbed(few, tmp_path)


def test_an_image_without_an_answer_stays_to_be_asked_about(few, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "RETRIES", 1)
    with endpoint.serve(colour, [None] * 3 + ["garbage"]) as url:
        with pytest.raises(LabError, match="1 images got no answer: no JSON"):
            collect(url, "m", few, tmp_path / "out", Terms(connections=1))
        assert len(table(tmp_path / "out")) == 11
        out = collect(url, "m", few, tmp_path / "out", Terms(connections=1))
    assert merged(out) == undisturbed(few, tmp_path)


def test_an_endpoint_on_this_network_gets_far_more_requests_at_once(few, tmp_path):
    names = ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "192.168.1.5", "100.64.0.7"]
    near = {client.requests_at_once(f"http://{name}:8000/v1") for name in names}
    assert near == {client.NEAR} and client.requests_at_once("https://8.8.8.8/v1") == client.FAR
    together = threading.Barrier(11)  # all but the first image, which is asked about alone
    asked = itertools.count()

    def answer(*given):
        if next(asked):
            together.wait(20)
        return colour(*given)

    with endpoint.serve(answer) as url:
        assert len(json.loads(merged(collect(url, "m", few, tmp_path / "out")))) == 12
    assert client.FAR < together.parties < client.NEAR


def test_a_thousand_images_at_one_and_at_eight_connections(many, tmp_path, capsys):
    seen, told, files = Counter(), [], []
    lock = threading.Lock()

    def counting(image, prompt, seed):
        with lock:
            seen[image.getpixel((0, 0))] += 1
        return colour(image, prompt, seed)

    for connections in (1, 8):
        faults = itertools.cycle(["429", *[None] * 98, "nothing"])
        with endpoint.serve(counting, faults) as url:
            began = time.perf_counter()
            out = tmp_path / str(connections)
            collect(url, "m", many, out, Terms(connections=connections))
            told.append(f"{connections}: {1_000 / (time.perf_counter() - began):.0f}/s")
        assert len(seen) == 1_000 and set(seen.values()) == {1}
        assert outcome(out)["images"].to_dict() == {"captioned": 1_000}
        files.append(merged(out))
        seen.clear()
    assert files[0] == files[1]
    with capsys.disabled():
        print(f"\nimages at 1 and 8 connections: {', '.join(told)}")


def test_answers_with_a_flaw_are_kept_apart_and_asked_for_again(world, tmp_path, monkeypatch):
    """The drawn world's annotator, every first answer about an image flawed."""
    answer, names = endpoint.annotator(world), tuple(endpoint.FLAWS)
    flaws = itertools.cycle(names)
    monkeypatch.setattr(endpoint, "FLAWS", {})
    lock = threading.Lock()

    def every_first(image, prompt, seed):
        text, _ = answer(image, prompt, seed)
        with lock:
            return (text, "stop") if seed else endpoint.with_flaw(text, next(flaws))

    with endpoint.serve(every_first) as url:
        out = collect(url, "m", world, tmp_path / "out", Terms(price_in=10, price_out=30))
    bad = discarded(out)
    assert len(bad) == 40 and bad["captioned later"].all()
    assert set(bad["reason"]) == {{"leak": "prompt_leakage"}.get(n, n) for n in names}
    assert table(out)["caption"].map(lambda text: flaw(text) is None).all()


def test_an_image_that_is_always_refused_ends_with_the_reason(few, tmp_path):
    def refuses(image, prompt, seed):
        if image.getpixel((0, 0))[0] == 3:
            return "I'm sorry, but I can't assist with that request.", "stop"
        return colour(image, prompt, seed)

    with endpoint.serve(refuses) as url:
        out = collect(url, "m", few, tmp_path / "out")
    row = table(out).iloc[3]
    assert pd.isna(row["caption"]) and row["reason"] == "filtered: refusal"
    assert [one["reason"] for one in row["discarded"]] == ["refusal"] * 3
    assert outcome(out)["images"].to_dict() == {"captioned": 11, "filtered": 1}
    assert len(json.loads(merged(out))) == 11


def test_the_endpoint_rejecting_one_image_is_a_reason_and_all_of_them_an_error(few, tmp_path):
    def rejects(image, prompt, seed):
        if image.getpixel((0, 0))[0] in (0, 5):
            raise LabError("content policy")
        return colour(image, prompt, seed)

    def all_of_them(image, prompt, seed):
        raise LabError("no such parameter")

    with endpoint.serve(rejects) as url:
        rows = table(collect(url, "m", few, tmp_path / "out"))
    assert list(rows.index[rows["caption"].isna()]) == [0, 5]
    assert "content policy" in rows["reason"][0] and "rejected: 400" in rows["reason"][0]
    with endpoint.serve(all_of_them) as url, pytest.raises(LabError, match="no such parameter"):
        collect(url, "m", few, tmp_path / "none", Terms(connections=2))
    assert list(writer.rows(tmp_path / "none")) == []  # nothing is held against the images


def test_the_budget_is_never_exceeded_and_more_of_it_goes_on(few, tmp_path):
    terms = {"connections": 4, "max_tokens": 100, "price_in": 10.0, "price_out": 30.0}
    with endpoint.serve(colour) as url:
        whole = collect(url, "m", few, tmp_path / "whole", Terms(**terms))
        cost = Terms(**terms).cost(*table(whole)[["tokens_in", "tokens_out"]].sum())
        budget = 0.8 * cost
        with pytest.raises(LabError, match=r"the budget of .* allows no more"):
            collect(url, "m", few, tmp_path / "out", Terms(**terms, budget=budget))
        part = table(tmp_path / "out")
        assert 1 <= len(part) < 12
        assert Terms(**terms).cost(*part[["tokens_in", "tokens_out"]].sum()) <= budget
        out = collect(url, "m", few, tmp_path / "out", Terms(**terms, budget=10 * cost))
    assert merged(out) == merged(whole)


def test_a_rate_limit_spaces_requests(few, tmp_path):
    with endpoint.serve(colour) as url:
        began = time.perf_counter()
        collect(url, "m", few, tmp_path / "out", Terms(per_minute=1_200))
    assert time.perf_counter() - began >= 11 * 60 / 1_200


def test_each_source_is_asked_with_its_prompt_and_a_path_cannot_leave_the_root(world, tmp_path):
    asked = []

    def listening(image, prompt, seed):
        asked.append(prompt)
        return "A thing. Another thing.", "stop"

    names = [str(path.relative_to(world)) for path in sorted(world.rglob("*.png"))[:5]]
    names += ["../secret.png", str(tmp_path / "secret.png")]
    shutil.copy(world / names[0], tmp_path / "secret.png")
    shutil.copytree(world, tmp_path / "data")
    (tmp_path / "list.json").write_text(json.dumps(names))
    with endpoint.serve(listening) as url:
        found = module.list_images(tmp_path / "list.json", tmp_path / "data")
        rows = table(collect(url, "m", found, tmp_path / "out"))
    assert list(rows["reason"][5:]) == ["unsafe: leads out of the root"] * 2
    assert Counter(asked) == Counter(map(prompts.prompt, names[:5]))
    landmark = prompts.prompt("web-landmark/images/1.jpg")
    assert landmark.startswith(prompts.BEGIN) and landmark.endswith(prompts.END)
    assert "geographical location" in landmark and landmark != prompts.prompt("coco/train2017/1")
    assert len(prompts.table()) == 2 + len(set(prompts.PARTS.values()))


def test_an_endpoint_is_shown_what_training_reads(tmp_path):
    shown = set()

    def listening(image, prompt, seed):
        shown.add(image.tobytes())
        return "A thing. Another thing.", "stop"

    kinds = make_odd(tmp_path / "data")
    reasons = make_broken(tmp_path / "data")
    with endpoint.serve(listening) as url:
        rows = table(collect(url, "m", tmp_path / "data", tmp_path / "out")).set_index("image")
    assert shown == {load_image(tmp_path / "data", name)[1].tobytes() for name in kinds}
    for name, reason in reasons.items():
        assert rows.loc[name, "reason"].startswith(reason)


class _Hostile(BaseHTTPRequestHandler):
    """Tells the key it was sent wherever it can: in errors, headers and the status line."""

    turns = itertools.count()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Authorization"]
        turn = next(self.turns)
        message = {"role": "assistant", "content": "A sign hangs here."}
        value = {"id": "1", "object": "chat.completion", "created": 0, "model": "model"}
        value["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        status = (200, 400, 200, 500)[turn % 4] if turn < 40 else 401
        if status != 200:
            value = {"error": {"message": f"Incorrect API key provided: {key}"}}
        data = json.dumps(value).encode()
        self.send_response(status, f"No {key}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", str(key))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_the_key_reaches_the_endpoint_and_nothing_else(few, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, out = f"http://127.0.0.1:{server.server_port}/v1", tmp_path / "out"
    try:
        collect(url, "m", few, out, Terms(connections=2))
        merge(out)
        rows = table(out)
        assert rows["caption"].notna().any() and rows["reason"].notna().any()
        for _ in range(40):
            next(_Hostile.turns)
        said = CliRunner(env={"OPENAI_API_KEY": KEY}).invoke(
            main, ["collect", "--url", url, "--model", "m", "--images", str(few), "--out",
                   str(tmp_path / "second")])  # fmt: skip
        assert said.exit_code == 1 and "401" in said.output and "OPENAI_API_KEY" in said.output
        program = f"import sgv_lab.cli as c; c.main(['caption', '--model', {url!r}, '--images',"
        program += f" {str(few)!r}, '--out', {str(tmp_path / 'third')!r}, '--name', 'm'])"
        env = os.environ | {"OPENAI_LOG": "debug", "OPENAI_API_KEY": KEY}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True)
        assert done.returncode == 1
    finally:
        server.shutdown()
    texts = [said.output.encode(), done.stdout, done.stderr, caplog.text.encode()]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 20 and not any(KEY.encode() in text for text in texts)


def test_without_a_key_openai_is_not_asked(few, tmp_path):
    with pytest.raises(LabError, match="OPENAI_API_KEY is not set"):
        collect("https://api.openai.com/v1", "m", few, tmp_path / "out")


def test_the_command_collects_goes_on_and_merges(world, tmp_path):
    out = tmp_path / "out"
    with endpoint.opened("", world) as url:
        command = ["collect", "--url", url, "--model", endpoint.MODEL, "--images", str(world)]
        command += ["--out", str(out), "--price-out", "30", "--request", '{"top_p": 0.9}']
        first = CliRunner().invoke(main, command)
        again = CliRunner().invoke(main, command)
    assert first.exit_code == again.exit_code == 0, first.output
    assert CliRunner().invoke(main, ["caption", "--merge", "--out", str(out)]).exit_code == 0
    records = json.loads((out / "captions.json").read_text())
    flawed = set(discarded(out)["image"])
    assert len(records) == 40 and len(flawed) < 10
    for record in records:
        if record["image"] not in flawed:  # the annotator's own words
            want = caption(scene_of(record["image"], MINIATURE), ANNOTATORS["gpt4_vision"], 0)
            assert record["conversations"][1]["value"] == want
    assert writer.settings(out)["settings"]["extra"] == {"top_p": 0.9}
    bad = CliRunner().invoke(main, [*command[:-1], "[1"])
    assert bad.exit_code == 2 and "Invalid value for '--request'" in bad.output
