"""A model behind an endpoint is asked as a checkpoint is: kept, resumed, in parts, scored."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sgv_lab.benchmarks import mme
from sgv_lab.captioning.endpoint import serve
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.world import benchmarks as world


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return world.write(tmp_path / "world", ["mme"], images=2, size=32)[0]


def run(url: str, data: Path, out: Path, *more: object) -> dict[str, Any]:
    words = ["evaluate", "--model", url, "--benchmark", "mme", "--data", data, "--out", out, *more]
    done = CliRunner().invoke(main, list(map(str, words)))
    if done.exit_code:
        assert not done.exception or isinstance(done.exception, SystemExit)  # no traceback
        raise LabError(done.output)
    return json.loads(done.stdout)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def test_its_answers_are_scored_and_no_question_is_asked_twice(data: Path, tmp_path: Path) -> None:
    asked: list[tuple[str, tuple[int, int]]] = []

    def answer(image, prompt, seed):
        asked.append((prompt, image.size))
        return " yes\n", "stop"

    with serve(answer, faults=["500", None, "429"]) as url:
        found = run(url, data, tmp_path / "out", "--connections", 4)
        subtasks = sum(name in found for name in mme.PERCEPTION)
        assert found["perception"] == 50 * subtasks > 0  # half of each pair
        assert found["missing"] == found["unparsed"] == 0
        assert len(asked) == len(rows(tmp_path / "out")) == sum(found["questions"].values())
        assert {size for _, size in asked} == {(32, 32)}
        assert all(prompt.endswith(mme.SUFFIX.strip()) for prompt, _ in asked)
        assert run(url, data, tmp_path / "out") == found
        assert len(asked) == len(rows(tmp_path / "out"))
        assert mme.score(tmp_path / "out" / "mme", data).items() <= found.items()
        with pytest.raises(LabError, match="holds answers of"):
            run(url, data, tmp_path / "out", "--name", "another")


def test_parts_share_a_folder_and_the_last_scores(data: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(image, prompt, seed):
        asked.append(prompt)
        return ("Yes" if len(prompt) % 3 else "No"), "stop"

    with serve(answer) as url:
        whole, out = run(url, data, tmp_path / "whole"), tmp_path / "parts"
        first = run(url, data, out, "--shard", "0/2")
        total = first["questions"]
        assert 0 < first["answered"] < total == len(rows(tmp_path / "whole"))
        images = {row["question_id"].split("/")[0] for row in rows(out)}
        assert len(images) > 1 and not (out / "score.json").exists()
        assert run(url, data, out, "--shard", "1/2") == whole
        apart = tmp_path / "apart"  # another machine's, whose answers are put behind the first's
        assert run(url, data, apart, "--shard", "0/2") == first
        other = run(url, data, tmp_path / "other", "--shard", "1/2")
        assert first["answered"] + other["answered"] == total
        with (apart / "answers.jsonl").open("a") as file:
            file.write((tmp_path / "other" / "answers.jsonl").read_text())
        asked.clear()
        assert run(url, data, apart) == whole and not asked
        with pytest.raises(LabError, match="no shard 2/2"):
            run(url, data, out, "--shard", "2/2")


def test_refused_content_is_an_empty_answer_and_a_broken_endpoint_keeps_what_came(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    down, asked = [True], []

    def answer(image, prompt, seed):
        asked.append(prompt)
        if len(asked) > 8 and down:
            raise LabError("the image cannot be read")
        if len(asked) == 3:
            raise LabError("content policy violation")
        return "No", "stop"

    with serve(answer) as url:
        with pytest.raises(LabError, match="the endpoint fails: rejected: 400 the image"):
            run(url, data, tmp_path / "out", "--connections", 1)
        kept = rows(tmp_path / "out")
        assert len(kept) == 8 and [row["text"] for row in kept].count("") == 1
        assert "content policy" in kept[2]["reason"]
        down.clear()
        assert run(url, data, tmp_path / "out")["unparsed"] == 1


def test_what_an_endpoint_or_a_checkpoint_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="an endpoint takes no --batch-size"):
        run("http://localhost:1/v1", tmp_path, tmp_path / "out", "--batch-size", 2)
    with pytest.raises(LabError, match="a checkpoint takes no --connections"):
        run(str(tmp_path), tmp_path, tmp_path / "out", "--connections", 2)


def test_a_model_that_thinks_first_gets_room(data: Path, tmp_path: Path, chat_server) -> None:
    limits: list[int] = []

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        limits.append(body["max_tokens"])
        said = "<think>Well.</think>Yes" if limits[-1] > 1000 else "<think>Well"
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        return {"model": "m", "choices": [choice]}

    found = run(chat_server(answer), data, tmp_path / "out", "--name", "m", "--connections", 4)
    assert found["unparsed"] == 0 and {row["text"] for row in rows(tmp_path / "out")} == {"Yes"}
    assert min(limits) == 128 and sum(limit == 128 for limit in limits) <= 4
