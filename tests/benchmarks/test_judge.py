"""Grading with a judge: a local endpoint that speaks the real protocol."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgv_lab.benchmarks import llava_w
from sgv_lab.benchmarks import mmvet as rule
from sgv_lab.benchmarks.judge import graded
from sgv_lab.cli import main
from sgv_lab.errors import LabError


def reply(content: object, **fields: object) -> dict:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": fields.pop("finish", "stop"), "message": message}
    return {"model": "judge-1", "choices": [choice], **fields}


def mmvet_data(folder: Path) -> Path:
    folder.mkdir()
    row = {"imagename": "a.png", "question": "Q?", "answer": "x<OR>y", "capability": ["rec"]}
    (folder / "mm-vet.json").write_text(json.dumps({"v1_0": row, "v1_1": row}))
    (folder / "prompt.txt").write_text("Compare.\nQuestion | Truth | Prediction | Correctness\n")
    return folder


def test_mmvet_through_the_command(tmp_path: Path, chat_server) -> None:
    asked: list[dict] = []
    url = chat_server(lambda body: asked.append(body) or reply("0.5", model="judge-0613"))
    answers = {"v1_0": "an x", "v1_1": "z"}
    printed = mmvet(tmp_path, url, answers, "gpt/4", runs=2)
    assert printed["total"] == 50 and printed["runs"] == [50, 50]
    assert printed["judge"] == "judge-0613"
    assert (asked[0]["model"], asked[0]["max_tokens"], asked[0]["temperature"]) == ("gpt/4", 3, 0.0)
    said = asked[0]["messages"][0]["content"]
    assert said.endswith("Correctness\n\nQ? | x <OR> y | an x | ")
    assert len(asked) == 4 and (tmp_path / "results.gpt-4-grade-2runs.json").is_file()
    assert mmvet(tmp_path, url, answers, "gpt/4", runs=2) == printed
    assert len(asked) == 4  # nothing is asked twice


def test_llava_w_goes_on_after_a_failure(tmp_path: Path, chat_server) -> None:
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
        return "judge-1", "8,6"

    with pytest.raises(LabError, match="the judge failed"):
        graded("llava-w", answers, data, "j", ask=failing)
    requests: list[dict] = []
    url = chat_server(lambda body: requests.append(body) or reply("8 6\nwords"))
    folder, truth = graded("llava-w", answers, data, "j", url)
    assert len(requests) == 1  # two of three grades were kept
    printed = llava_w.score(folder, questions=truth)
    assert printed["all"] == [75.0, 80.0, 60.0, 3] and printed["judge"] == "judge-1"
    assert printed["clusters"] == {"by": "image", "n": 1}
    assert requests[0]["messages"][1]["content"] == (
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
    assert rule.TRIES == 5


def mmvet(
    tmp_path: Path, url: str, answers: dict[str, str], model: str = "j", runs: int = 1
) -> dict:
    """The scores of these answers, by the command."""
    data = tmp_path / "data"
    if not data.is_dir():
        mmvet_data(data)
    (tmp_path / "results.json").write_text(json.dumps(answers))
    words = ["score", "mmvet", "--predictions", tmp_path / "results.json", "--annotations", data]
    words += ["--judge", model, "--judge-url", url, "--runs", runs]
    done = CliRunner().invoke(main, list(map(str, words)))
    if done.exit_code:
        assert not done.exception or isinstance(done.exception, SystemExit)  # no traceback
        raise LabError(done.output)
    return json.loads(done.stdout)


def test_other_answers_prompts_and_judges_are_graded_anew(tmp_path, chat_server, caplog) -> None:
    asked: list[str] = []

    def judge(body: dict) -> dict:
        asked.append(body["messages"][-1]["content"])
        return reply("1.0" if "| red |" in asked[-1] else "0.0")

    url, blue = chat_server(judge), {"v1_0": "blue", "v1_1": "green"}
    assert mmvet(tmp_path, url, blue)["total"] == 0
    assert mmvet(tmp_path, url, blue)["total"] == 0 and len(asked) == 2
    assert mmvet(tmp_path, url, blue | {"v1_0": "red"})["total"] == 50 and len(asked) == 3
    assert "1 grades of other answers" in caplog.text
    (tmp_path / "data" / "prompt.txt").write_text("Compare in another way.\n")
    assert mmvet(tmp_path, url, blue)["total"] == 0 and len(asked) == 5
    mmvet(tmp_path, url, blue, "j2")
    assert len(asked) == 7
    data = json.loads((tmp_path / "data" / "mm-vet.json").read_text())
    data["v1_1"]["answer"] = "z"
    (tmp_path / "data" / "mm-vet.json").write_text(json.dumps(data))
    mmvet(tmp_path, url, blue)
    assert len(asked) == 8


def test_names_that_share_a_file_do_not_share_grades(tmp_path, chat_server) -> None:
    url = chat_server(lambda body: reply("1.0" if body["model"] == "a/b" else "0.0"))
    answers = {"v1_0": "x", "v1_1": "z"}
    assert mmvet(tmp_path, url, answers, "a/b")["total"] == 100
    assert mmvet(tmp_path, url, answers, "a-b")["total"] == 0


def test_a_log_that_does_not_tell_the_answers_is_not_used(tmp_path, chat_server, caplog) -> None:
    rows = [
        {"key": f"v1_{n}#0", "model": "judge-1", "content": "1", "score": 1.0} for n in range(2)
    ]
    log = tmp_path / "results.j.log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    url = chat_server(lambda body: reply("0.0"))
    assert mmvet(tmp_path, url, {"v1_0": "x", "v1_1": "z"})["total"] == 0
    assert "2 grades of other answers, questions or prompts are not used" in caplog.text


UNUSABLE = {
    "no choices": reply("", choices=[]),
    "null message": reply("", choices=[{"message": None}]),
    "a list": reply([{"type": "text", "text": "1.0"}]),
    "an error": {"error": {"message": "Provider returned error", "code": 502}},
    "a stream": (200, b"data: {}\n\n"),
    "rejected": (400, {"error": {"message": "content policy"}}),
    "reasoning without an end": reply("<think>hm", finish="length"),
    "nothing but reasoning": reply(None, finish="length"),
}


@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_answer_of_the_judge_is_counted(
    tmp_path, chat_server, monkeypatch, caplog, bad
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    mended = []

    def judge(body: dict) -> object:
        bad_one = "| hard |" in body["messages"][-1]["content"] and not mended
        return bad if bad_one else reply("1.0")

    url, answers = chat_server(judge), {"v1_0": "hard", "v1_1": "z"}
    printed = mmvet(tmp_path, url, answers)
    assert (printed["total"], printed["unparsed"], printed["judge"]) == (50, 1, "judge-1")
    assert "1 grades without a usable answer" in caplog.text
    mended.append(True)
    assert mmvet(tmp_path, url, answers)["total"] == 100  # it is asked again


@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE)
def test_a_judge_without_a_usable_answer_fails_and_keeps_nothing(
    tmp_path, chat_server, monkeypatch, bad
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(LabError, match="the judge j failed: "):
        mmvet(tmp_path, chat_server(lambda body: bad), {"v1_0": "x", "v1_1": "z"})
    assert not (tmp_path / "results.j.log.jsonl").exists()


def test_no_answer_at_all_is_no_grade(tmp_path, chat_server, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    down = [True]

    def judge(body: dict) -> object:
        hard = "| hard |" in body["messages"][-1]["content"]
        return (500, {"error": {"message": "down"}}) if hard and down else reply("1.0")

    url, answers = chat_server(judge), {"v1_0": "hard", "v1_1": "z"}
    with pytest.raises(LabError, match="the judge j failed: status 500: down"):
        mmvet(tmp_path, url, answers)
    assert len((tmp_path / "results.j.log.jsonl").read_text().splitlines()) == 1
    down.clear()
    assert mmvet(tmp_path, url, answers)["total"] == 100


def test_a_judge_that_thinks_and_refuses_fields_needs_no_flag(tmp_path, chat_server, caplog):
    asked: list[dict] = []

    def judge(body: dict) -> object:
        asked.append(body)
        if "max_tokens" in body:
            use = "'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
            return 400, {"error": {"message": use}}
        if "temperature" in body:
            return 400, {"error": {"message": "'temperature' does not support 0 with this model."}}
        if body["max_completion_tokens"] < 100:
            return reply("", finish="length")
        return reply("<think>Well.</think>0.5")

    printed = mmvet(tmp_path, chat_server(judge), {"v1_0": "x", "v1_1": "z"})
    assert printed["total"] == 50 and printed["unparsed"] == 0 and len(asked) == 5
    assert caplog.text.count("refuses") == 2 and caplog.text.count("no room to answer") == 1


def test_a_limit_below_a_judges_least_is_raised(tmp_path, chat_server) -> None:
    def judge(body: dict) -> object:
        told = "Could not finish the message because max_tokens or model output limit was reached."
        return reply("0.5") if body["max_tokens"] > 16 else (400, {"error": {"message": told}})

    assert mmvet(tmp_path, chat_server(judge), {"v1_0": "x", "v1_1": "z"})["total"] == 50


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_judges_errors_hold_no_key_and_its_grades_are_as_they_came(
    tmp_path, chat_server, monkeypatch, status
) -> None:
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    monkeypatch.setattr("time.sleep", lambda _: None)
    told = {"error": {"message": f"key {secret}"}}
    with pytest.raises(LabError, match=r"key \[key\]") as error:
        mmvet(tmp_path, chat_server(lambda b: (status, told)), {"v1_0": "x", "v1_1": "z"})
    assert secret not in str(error.value)
    url = chat_server(lambda b: reply(f"0.5 {secret}", model=secret))
    assert mmvet(tmp_path, url, {"v1_0": "x", "v1_1": "z"})["judge"] == secret


@pytest.mark.parametrize(
    ("name", "file", "source"),
    [("mmvet", "prompt.txt", "yuweihao/MM-Vet"), ("llava-w", "rule.json", "haotian-liu/LLaVA")],
)
def test_a_judge_without_its_instructions_says_where_they_come_from(tmp_path, name, file, source):
    (tmp_path / "mm-vet.json").write_text("{}")
    rows = [("questions", "question_id"), ("context", "image"), ("answers_gpt4", "question_id")]
    for stem, key in rows:
        (tmp_path / f"{stem}.jsonl").write_text(json.dumps({key: 0, "caption": "C"}) + "\n")
    with pytest.raises(LabError, match=rf"{file}, are not there\. Save there.*{source}"):
        graded(name, tmp_path / "a.json", tmp_path, "judge", ask=lambda *a: ("j", "1"))
