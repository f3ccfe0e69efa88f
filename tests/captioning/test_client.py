"""Endpoints that answer oddly, refuse fields of a request, or repeat the key."""

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from sgv_lab.captioning import client as module
from sgv_lab.captioning import writer
from sgv_lab.captioning.client import Client, NoAnswer, RequestRefused, read_answer
from sgv_lab.captioning.collect import Terms, collect
from sgv_lab.captioning.merge import merge, outcome, table
from sgv_lab.cli import main
from sgv_lab.errors import LabError

WORDS = "A red ball lies on a wooden table beside a small cup."
USAGE = {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}
CHAT = [{"role": "user", "content": "?"}]


def answer(content: Any = WORDS, choice: dict | None = None, **fields: Any) -> dict[str, Any]:
    """A chat completion, with some fields changed; ... leaves one out."""
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}]
    choices[0]["message"]["content"] = content
    choices[0] |= choice or {}
    value = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
    value |= {"choices": choices, "usage": USAGE} | fields
    choices[0] = {k: v for k, v in choices[0].items() if v is not ...}
    return {name: one for name, one in value.items() if one is not ...}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of one colour each."""
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(4):
        Image.new("RGB", (16, 16), (n * 50, 9, 9)).save(folder / f"{n}.png")
    return folder


def shade(body: dict) -> str:
    """The image that a request holds, as data."""
    return body["messages"][0]["content"][1]["image_url"]["url"]


ODD = {
    "id": [..., None, 7, {"a": 1}],
    "object": [..., None, "text", 3],
    "created": [..., None, "now", 1.5, -1],
    "service_tier": ["on_demand", "standard", None, 5],
    "system_fingerprint": [..., 3],
    "model": [..., None, 4],
    "prompt_filter_results": [[{"a": 1}]],
    "usage": [..., None, [], "none", {}, {"prompt_tokens": None}, {"prompt_tokens": "9"}],
    "error": [None, {}],
}
ODD_CHOICE = {
    "index": [..., None, "0", 3],
    "finish_reason": [..., None, "eos_token", "eos", "STOP", "end_turn", 5],
    "logprobs": ["none"],
    "text": ["x"],
}
ODD_MESSAGE = [
    {"content": WORDS},
    {"role": None, "content": WORDS},
    {"role": "model", "content": WORDS, "reasoning_content": "hm", "tool_calls": []},
    {"role": 3, "content": WORDS, "refusal": None, "annotations": {"a": 1}, "audio": "x"},
]
TAKEN = [answer(**{name: one}) for name, values in ODD.items() for one in values]
TAKEN += [answer(choice={name: one}) for name, values in ODD_CHOICE.items() for one in values]
TAKEN += [answer(choice={"message": one}) for one in ODD_MESSAGE]


def test_whatever_stands_beside_the_text_it_is_taken(chat_server) -> None:
    sent = iter(TAKEN)
    client = Client(chat_server(lambda body: next(sent)), "m")
    for value in TAKEN:
        found = client.ask(CHAT, max_tokens=9)
        assert (found.text, found.problem) == (WORDS, ""), value
        usage = value.get("usage") == USAGE
        assert (found.tokens_in, found.tokens_out) == ((10, 12) if usage else (0, 0)), value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (answer(choices=...), "no choices"),
        (answer(choices=None), "no choices"),
        (answer(choices=[]), "no choices"),
        (answer(choices={"0": 1}), "no choices"),
        (answer(choices=["A ball."]), "a choice without a message"),
        (answer(choice={"message": None}), "a choice without a message"),
        (answer(choice={"message": ...}), "a choice without a message"),
        (answer(choice={"message": "A ball."}), "a choice without a message"),
        (answer([{"type": "text", "text": "A."}]), "content that is no text but list"),
        (answer([]), "content that is no text but list"),
        (answer(5), "content that is no text but int"),
        (answer(False), "content that is no text but bool"),
        (answer("A \ud83d."), "the content is text that is not Unicode: half of a surrogate pair"),
    ],
)
def test_an_answer_without_text_says_which_field_is_wrong_and_is_counted(value, problem) -> None:
    found = read_answer(json.dumps(value).encode())
    assert found.problem.startswith(problem)
    assert (found.tokens_in, found.tokens_out, found.served) == (10, 12, "m")


@pytest.mark.parametrize(
    ("content", "fields", "text", "finish"),
    [
        (None, {}, "", "stop"),
        ("", {"finish_reason": "length"}, "", "truncated"),
        ("A b", {"finish_reason": "MAX_TOKENS"}, "A b", "truncated"),
        ("A b", {"finish_reason": "max_output_tokens"}, "A b", "truncated"),
        ("", {"finish_reason": "content_filter"}, "", "refusal"),
        ("A b", {"finish_reason": "PROHIBITED_CONTENT"}, "A b", "refusal"),
        ("", {"finish_reason": "recitation"}, "", "refusal"),
        ("A b", {"finish_reason": "blocklist"}, "A b", "refusal"),
        ("<think>hm</think>\n\nA ball.", {}, "A ball.", "stop"),
        ("hm</think>A ball.", {}, "A ball.", "stop"),
        ("<think>hm", {"finish_reason": "length"}, "<think>hm", "reasoning"),
        (" A ball.\n", {}, " A ball.\n", "stop"),
    ],
)
def test_how_an_answer_ended(content, fields, text, finish) -> None:
    found = read_answer(json.dumps(answer(content, fields)).encode())
    assert (found.text, found.finish, found.problem) == (text, finish, "")
    assert found.raw == (content or "")


BROKE = {"code": 502, "message": "Provider returned error"}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"error": BROKE, "finish_reason": "error", "message": {"content": ""}}, "an error: Prov"),
        ({"error": BROKE, "finish_reason": "error", "message": {"content": "A b"}}, "an error: P"),
        ({"error": BROKE, "finish_reason": None, "message": None}, "an error: Provider"),
        ({"error": "overloaded", "message": {"content": None}}, "an error: overloaded"),
        ({"finish_reason": "ERROR", "message": {"content": "A b"}}, "an error: the answer broke"),
    ],
)
def test_an_error_inside_a_choice_is_repeated_counted_and_told_in_its_words(
    chat_server, images, tmp_path, choice, told, monkeypatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(module, "RETRIES", 2)
    asked: list[int] = []
    bad = answer(choice=choice)
    client = Client(chat_server(lambda body: asked.append(1) or bad), "m")
    found = client.ask(CHAT)
    assert len(asked) == 2 and found.problem.startswith(told)
    assert (found.tokens_in, found.tokens_out) == (20, 24)
    sent = iter([bad])
    out = collect(chat_server(lambda body: next(sent, answer())), "m", images, tmp_path / "out")
    assert (table(out)["caption"] == WORDS).all()


def test_a_whole_text_beside_an_error_is_taken() -> None:
    for value in (answer(error=BROKE), answer(choice={"error": BROKE})):
        found = read_answer(json.dumps(value).encode())
        assert (found.text, found.problem, found.error) == (WORDS, "", None)


def test_a_refusal_in_its_own_field_is_one() -> None:
    message = {"role": "assistant", "content": None, "refusal": "No."}
    found = read_answer(json.dumps(answer(choice={"message": message})).encode())
    assert (found.text, found.finish) == ("No.", "refusal")


BAD = {
    "no choices": answer(choices=[]),
    "null message": answer(choice={"message": None}),
    "a list": answer([{"type": "text", "text": WORDS}]),
    "an error": {"error": {"message": "Provider returned error", "code": 502}},
    "an error without a code": {"error": "overloaded", "usage": USAGE},
    "a stream": (200, b'data: {"choices":[{"delta":{"content":"A"}}]}\n\ndata: [DONE]\n\n'),
    "null": (200, b"null"),
    "a list of answers": [answer()],
    "rejected": (400, {"error": {"message": "no such image"}}),
    "refused": answer("I’m sorry, but I can’t help with that."),
    "filtered": (400, {"error": {"message": "x", "code": "content_filter"}}),
    "moderated": (403, {"error": {"message": "Your input was flagged"}}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_one_image_ends_with_a_reason_and_the_others_go_on(
    chat_server, images, tmp_path, bad, monkeypatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 2)
    seen: list[str] = []

    def odd(body: dict) -> Any:
        seen.append(shade(body))
        return bad if list(dict.fromkeys(seen)).index(shade(body)) == 1 else answer()

    out = collect(chat_server(odd), "m", images, tmp_path / "out", Terms(connections=1))
    rows = table(out)
    assert rows["caption"].notna().sum() == 3 and rows["reason"].notna().sum() == 1
    reason = rows["reason"].dropna().iloc[0]
    assert reason.startswith(("no answer: ", "filtered: ", "rejected: "))
    assert outcome(out)["images"].sum() == 4
    assert len(json.loads(merge(out).read_text())) == 3
    asked = len(seen)
    collect(chat_server(odd), "m", images, tmp_path / "out", Terms(connections=1))
    assert len(seen) == asked  # the run is whole


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_if_nothing_is_accepted_the_run_fails_and_the_next_one_asks_again(
    chat_server, images, tmp_path, bad, monkeypatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 2)
    monkeypatch.setattr("time.sleep", lambda _: None)
    mended, out = [], tmp_path / "out"
    url = chat_server(lambda body: answer() if mended else bad)
    with pytest.raises(LabError, match=r"no caption was accepted.* \(4 × ") as told:
        collect(url, "m", images, out)
    assert "\n" not in str(told.value)
    assert list(writer.rows(out)) == []
    with pytest.raises(LabError):
        collect(url, "m", images, out)
    mended.append(True)
    collect(url, "m", images, out)
    assert table(out)["caption"].notna().all()


@pytest.mark.parametrize(
    "bad", [BAD["refused"], BAD["no choices"], answer("A b", {"finish_reason": "length"})]
)
def test_what_was_spent_in_vain_stays_spent(chat_server, images, tmp_path, bad):
    mended, asked, out = [], [], tmp_path / "out"
    url = chat_server(lambda body: asked.append(1) or (answer() if mended else bad))
    price = {"price_in": 1e5, "max_tokens": 1}  # one dollar an answer
    with pytest.raises(LabError, match=r"no caption was accepted, 12\.00 spent"):
        collect(url, "m", images, out, Terms(**price))
    assert len(asked) == 12 and list(writer.rows(out)) == []
    mended.append(True)
    for more in ({}, {"temperature": 0.5}):  # also for other settings
        with pytest.raises(LabError, match=r"the budget of 11 allows no more \(12\.00 spent\)"):
            collect(url, "m", images, out, Terms(**price, **more, budget=11))
    assert len(asked) == 12
    collect(url, "m", images, out, Terms(**price, budget=99))
    assert len(asked) == 16 and len(json.loads(merge(out).read_text())) == 4


def test_other_settings_may_take_the_place_of_a_run_without_a_caption(
    chat_server, images, tmp_path
) -> None:
    def short(body: dict) -> Any:
        return answer("A b", {"finish_reason": "length"}) if body["max_tokens"] < 99 else answer()

    url, out = chat_server(short), tmp_path / "out"
    with pytest.raises(LabError, match=r"filtered: truncated.*Raise --max-tokens"):
        collect(url, "m", images, out, Terms(max_tokens=9))
    collect(url, "m", images, out, Terms(max_tokens=999))
    assert table(out)["caption"].notna().all()
    with pytest.raises(LabError, match="holds another run"):
        collect(url, "m", images, out, Terms(max_tokens=9))


def test_images_that_cannot_be_read_are_not_the_endpoints_failure(
    chat_server, images, tmp_path
) -> None:
    for path in images.iterdir():
        path.write_bytes(b"<html>")
    url = chat_server(lambda body: pytest.fail("was asked"))
    with pytest.raises(LabError, match=r"no image can be read \(4 × corrupt"):
        collect(url, "m", images, tmp_path / "out")
    Image.new("RGB", (16, 16)).save(images / "9.png")
    url = chat_server(lambda body: (400, {"error": {"message": "bad field"}}))
    with pytest.raises(LabError, match=r"no caption was accepted.*--request .*null"):
        collect(url, "m", images, tmp_path / "second")
    assert list(writer.rows(tmp_path / "second")) == []
    collect(chat_server(lambda body: answer()), "m", images, tmp_path / "second")
    assert outcome(tmp_path / "second")["images"].to_dict() == {"corrupt": 4, "captioned": 1}


def test_an_endpoint_that_always_fails_ends_early(chat_server, images, tmp_path, monkeypatch):
    for n in range(60):
        Image.new("RGB", (16, 16), (n, 0, 0)).save(images / f"more{n}.png")
    monkeypatch.setattr("time.sleep", lambda _: None)
    asked = []
    url = chat_server(lambda body: asked.append(1) or answer(choices=[]))
    with pytest.raises(LabError, match=r"the endpoint fails: no answer: no choices"):
        collect(url, "m", images, tmp_path / "out")
    assert len(asked) < 30 and list(writer.rows(tmp_path / "out")) == []


def test_unusable_answers_are_paid_for(chat_server, images, tmp_path):
    asked = []
    url = chat_server(lambda body: asked.append(1) or answer(choices=[]))
    terms = Terms(price_in=1e5, price_out=0, budget=5.5, max_tokens=1)  # one dollar an answer
    with pytest.raises(LabError, match=r"3\.00 spent|6\.00 spent"):
        collect(url, "m", images, tmp_path / "out", terms)
    assert len(asked) <= 5.5


def test_tokens_that_are_not_told_are_estimated_and_that_is_said(
    chat_server, images, tmp_path, caplog
):
    out = collect(chat_server(lambda b: answer(usage=None)), "m", images, tmp_path / "out")
    rows = table(out)
    assert rows["estimated"].all() and (rows["tokens_out"] == 14).all()
    assert caplog.text.count("tells no tokens") == 1


def refuses(*names: str, status: int = 400, told: str = "Unsupported parameter: '{}'"):
    """An endpoint that refuses some fields of a request, one after the other."""
    seen: list[dict] = []

    def reply(body: dict) -> Any:
        seen.append(body)
        for name in names:
            if name in body:
                return status, {"error": {"message": told.format(name)}}
        return answer()

    return reply, seen


USE = "'{}' is not supported with this model. Use 'max_completion_tokens' instead."
FIXED = "this model has beta-limitations, {}, top_p and n are fixed at 1"


@pytest.mark.parametrize(
    ("name", "told", "status"),
    [
        ("max_tokens", USE, 400),
        ("temperature", "Unsupported value: '{}' does not support 0.2 with this model.", 400),
        ("temperature", "`{}` is deprecated for this model.", 400),
        ("temperature", "{} may only be set to 1 for this model", 400),
        ("temperature", "invalid {}: only 1 is allowed for this model", 400),
        ("temperature", FIXED, 400),
        ("temperature", "'{}' must be 1 for this model.", 422),
        ("temperature", "Only {}=1 is supported", 400),
        ("temperature", "{}: Input should be 1", 422),
        ("temperature", "Value error, {} can't be changed", 400),
        ("temperature", "This model no longer accepts a Temperature", 400),
        ("temperature", "'{}' is not supported with o3-mini-2025-01-31.", 400),
        ("seed", "`{}` is not a permitted parameter", 400),
        ("max_tokens", "Please use max_completion_tokens", 400),
        ("seed", "Unrecognized request argument supplied: {}", 400),
        ("seed", 'Invalid JSON payload received. Unknown name "{}": Cannot find field.', 400),
        ("seed", "[{{'type': 'extra_forbidden', 'loc': ['body', '{}']}}]", 422),
    ],
)
def test_what_an_endpoint_refuses_is_learned_once_and_kept(
    chat_server, images, tmp_path, caplog, name, told, status
):
    reply, seen = refuses(name, status=status, told=told)
    url, out = chat_server(reply), tmp_path / "out"
    collect(url, "m", images, out, Terms(connections=2))
    assert len(seen) == 5 and table(out)["caption"].notna().all()
    assert caplog.text.count(f"refuses {name}") == 1
    to = "max_completion_tokens" if name == "max_tokens" else None
    assert writer.settings(out)["learned"] == {name: to}
    assert (to is None) or seen[-1][to] == 1024
    merge(out)
    assert f'"{name}": {json.dumps(to)}' in (out / "README.md").read_text()
    Image.new("RGB", (16, 16), "blue").save(images / "3.png")  # the run goes on, and knows
    (out / "rows" / "000000.jsonl").write_text("")
    collect(url, "m", images, out, Terms(connections=2))
    assert len(seen) == 9 and table(out)["caption"].notna().all()


def test_several_fields_are_learned_one_after_the_other(chat_server):
    reply, seen = refuses("max_tokens", "temperature", "seed")
    client = Client(chat_server(reply), "m")
    assert client.ask(CHAT, max_tokens=9, temperature=0.5, seed=1, top_p=0.9, top_k=5).text
    assert len(seen) == 4 and seen[-1].keys() & {"max_tokens", "temperature", "seed"} == set()
    assert (seen[-1]["top_p"], seen[-1]["top_k"]) == (0.9, 5)


@pytest.mark.parametrize(
    "told",
    [
        "'max_tokens' or 'max_completion_tokens' is too large: 99. Context 50 is not supported",
        "temperature must be between 0 and 1",
        "Only values between 0 and 1 are allowed for temperature",
        "temperature: only 0 is allowed to be lower than 0.1",
        "temperature must be 1 or less",
        "temperature should be 1 to 2",
        "Unsupported value: max_tokens must be at most 64",
        "seed exceeds what is supported",
        "top_p is not supported",
        "this model takes no images",
    ],
)
def test_a_request_that_is_wrong_otherwise_is_rejected_with_the_reason(chat_server, told):
    client = Client(chat_server(lambda body: (400, {"error": {"message": told}})), "m")
    with pytest.raises(RequestRefused, match=r"^400 "):
        client.ask(CHAT, max_tokens=99, temperature=2, seed=1)
    assert client.learned == {}


@pytest.mark.parametrize("body", [b"<html>Bad gateway", b"", b'{"choices": [', b"\xff\xfe\x00"])
def test_what_is_no_json_is_asked_for_again_and_then_no_answer(chat_server, body, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    asked = []
    client = Client(chat_server(lambda b: asked.append(1) or (200, body)), "m")
    with pytest.raises(NoAnswer, match=r"^no JSON"):
        client.ask(CHAT)
    assert len(asked) == module.RETRIES


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_an_endpoint_that_will_answer_nothing_is_told_at_once(chat_server, status):
    for sent in ((status, {"detail": "no"}), {"error": {"message": "no", "code": status}}):
        with pytest.raises(LabError, match=rf"the endpoint says {status} no.*/v1"):
            Client(chat_server(lambda body, sent=sent: sent), "m").ask(CHAT)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "127.0.0.1:8000/v1", "api.example.com/v1", "http:/localhost:8000"]
)
def test_an_address_without_scheme_says_how_to_write_it(url, monkeypatch, images, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LabError, match="Write it as http://HOST:PORT/v1"):
        Client(url, "m")
    if url.startswith(("localhost", "127")):
        for command in (["collect", "--url", url, "--model", "m"], ["caption", "--model", url]):
            words = [*command, "--images", str(images), "--out", str(tmp_path / "out")]
            told = CliRunner().invoke(main, words).output
            assert "Write it as http://" in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[::1", "http://h:x/v1", "ftp://h/v1", "a b"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(LabError, match="no address"):
        module.check_address(url)


NEAR = ["localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "[::1]", "192.168.1.7", "10.0.0.3",
        "172.16.9.9", "gpu-box.local", "vllm"]  # fmt: skip


def test_servers_of_this_network_need_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for host in NEAR:
        assert Client(f"http://{host}:8000/v1", "m").key == "none"
    with pytest.raises(LabError, match="OPENAI_API_KEY is not set"):
        Client("https://api.openai.com/v1", "m")


@pytest.mark.parametrize(
    "end", ["\n", "\r\n", " ", "\t", "”", '"', "é", "\u200b", "\u00a0", "\x01"]
)
def test_a_key_that_cannot_be_one_is_refused_at_once_and_not_shown(
    monkeypatch, chat_server, images, tmp_path, end
):
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-abc{end}")
    url = "http://localhost:9/v1"
    words = ["collect", "--url", url, "--model", "m", "--images", str(images)]
    told = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "out")]).output
    assert "OPENAI_API_KEY holds a blank" in told
    assert "sk-abc" not in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize("secret", ["a", "x", "none", "EMPTY", "sk-very-secret-0123456789"])
def test_the_key_is_never_cut_out_of_an_answer(chat_server, images, tmp_path, secret, monkeypatch):
    words = f"A sign that says {secret} hangs near a next of none in an EMPTY hall."
    url = chat_server(lambda body: answer(words, model=f"served by {secret}"))
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    rows = table(collect(url, "m", images, tmp_path / "out"))
    assert (rows["caption"] == words).all() and (rows["served"] == f"served by {secret}").all()
    assert words in merge(tmp_path / "out").read_text()


@pytest.mark.parametrize("secret", ["sk-very-secret-0123456789", "sk-abc", "hunterhunter"])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
def test_an_error_and_its_traceback_hold_no_key(chat_server, secret, status, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("OPENAI_API_KEY", secret)

    def echo(body: dict) -> Any:
        error = {"message": f"Unsupported temperature, key {body['authorization']}", "code": secret}
        return status, {"error": error}

    client = Client(chat_server(echo), "m")
    try:
        told = client.ask(CHAT, temperature=1).problem
    except (LabError, RequestRefused, NoAnswer):
        told = traceback.format_exc()
    assert "[key]" in told and secret not in told and secret not in caplog.text


def test_a_short_word_leaves_errors_readable(chat_server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    told = {"error": {"message": "a bad image"}}
    with pytest.raises(RequestRefused, match="400 a bad image"):
        Client(chat_server(lambda body: (400, told)), "m").ask(CHAT)


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ("temperature must be between 0 and 1", "temperature"),
        ("'max_tokens' is too large: 1024", "max_tokens"),
        ("max_completion_tokens is too large: 1024", "max_completion_tokens"),
        ("[{'loc': ['body', 'top_k'], 'msg': 'unexpected'}]", "top_k"),
        ("bad request", "FIELD"),
    ],
)
def test_the_way_out_names_the_field_that_is_refused(chat_server, images, tmp_path, told, field):
    url = chat_server(lambda body: (400, {"error": {"message": told}}))
    terms = Terms(request={"top_k": 5})
    with pytest.raises(LabError, match=rf"--request '{{\"{field}\": VALUE}}'"):
        collect(url, "m", images, tmp_path / "out", terms)


def test_streams_are_refused_before_anything_is_sent(images, tmp_path):
    with pytest.raises(LabError, match="streams are not read"):
        collect(
            "http://localhost:9/v1", "m", images, tmp_path / "o", Terms(request={"stream": True})
        )
