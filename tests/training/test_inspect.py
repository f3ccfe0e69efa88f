import json
from pathlib import Path
from typing import Any

import made_up
import official
import pytest
from click.testing import CliRunner

from sgv_lab.cli import main
from sgv_lab.training.conversation import encode
from sgv_lab.training.segments import load_tokenizer


def run(*arguments: object) -> str:
    """Output of ``sgv-lab inspect``, which must succeed."""
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def written(folder: Path, records: list[Any]) -> Path:
    """The records as a JSON file."""
    (folder / "records.json").write_text(json.dumps(records))
    return folder / "records.json"


@pytest.mark.reference
@pytest.mark.parametrize("variant", official.VARIANTS)
@pytest.mark.parametrize("template", ["v1", "plain"])
def test_json_of_the_stored_records(
    reference: Path, tmp_path: Path, template: str, variant: str
) -> None:
    file = official.read(reference, f"tokenisation_{template}")
    path = written(tmp_path, [record["record"] for record in file["records"]])
    options = ["--template", template, "--variant", variant, "--json"]
    rows = json.loads(run(path, "--tokenizer", reference / "data/tokenizers/llama", *options))
    assert [row["id"] for row in rows] == [record["id"] for record in file["records"]]
    for row, record in zip(rows, file["records"], strict=True):
        if record["id"] in official.lost(file, variant):
            assert set(row) == {"id", "error"} and record["id"] in row["error"]
        else:
            stored = official.variant(record, variant)
            assert row == {k: stored[k] for k in ("input_ids", "labels")} | {"id": record["id"]}


@pytest.mark.reference
def test_json_of_the_stored_qwen_records(reference: Path, tmp_path: Path) -> None:
    records = official.read(reference, "tokenisation_qwen")["records"]
    path = written(tmp_path, [{k: r[k] for k in ("id", "conversations")} for r in records])
    vocabulary = reference / "data/tokenizers/qwen/qwen.tiktoken"
    rows = json.loads(run(path, "--tokenizer", vocabulary, "--template", "qwen", "--json"))
    assert rows == [{k: r[k] for k in ("id", "input_ids", "labels")} for r in records]


def test_text_marks_what_is_supervised(tmp_path: Path) -> None:
    model = made_up.sentencepiece_model(tmp_path)
    records = [
        made_up.record("<image>\nWhat is it?", "A cat.", "Is it red?", " No", name="good"),
        made_up.record("<image>\nWhat is it?", "", name="empty"),
        {"id": "odd", "conversations": "none"},
    ]
    shown = run(written(tmp_path, records), "--tokenizer", model)
    assert "USER: <image> \nWhat is it? ASSISTANT:[[ A cat.</s>]]USER: Is it red?" in shown
    assert "ASSISTANT:[[  No</s>]]" in shown
    supervised = encode(records[0], load_tokenizer(model)).supervised
    assert f"{supervised} supervised, 0 truncated, 2 refused" in shown
    assert "refused: record 'empty'" in shown and "has no conversations" in shown


def test_qwens_images_are_shown_by_path(tmp_path: Path) -> None:
    vocabulary = made_up.tiktoken_file(tmp_path)
    path = written(tmp_path, [made_up.record("<image>\nWhat?", "A cat.", image="katze_ä.png")])
    shown = run(path, "--tokenizer", vocabulary, "--template", "qwen")
    assert "user\nPicture 1: <img>katze_ä.png</img>\nWhat?[[<|im_end|>" in shown
    assert "assistant\n[[A cat.<|im_end|>\n]]" in shown


def test_bad_input_is_an_error(tmp_path: Path) -> None:
    model = made_up.sentencepiece_model(tmp_path)
    (tmp_path / "broken.json").write_text("[{")
    for records, tokenizer in [("broken.json", model), ("tokenizer.vocab", model)]:
        arguments = ["inspect", str(tmp_path / records), "--tokenizer", str(tokenizer)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1 and result.output.startswith("Error: ")
        assert records in result.output


def test_inspect_shows_what_training_would_say(tmp_path: Path) -> None:
    model = made_up.sentencepiece_model(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    records = [
        made_up.record("What is it?", "A cat.", name="no tag"),
        made_up.record("<image>\nWhat?", "A cat.", image="empty.png", name="no image"),
        made_up.record("<image>\nWhat?", "half \ud83d", name="half"),
        ["no record"],
        {"conversations": made_up.record("What?", "A cat.")["conversations"]},
    ]
    lines = "\n\n".join(map(json.dumps, records))
    (tmp_path / "records.txt").write_text("\ufeff" + lines, encoding="utf-8")
    rows = json.loads(run(tmp_path / "records.txt", "--tokenizer", model, "--images", tmp_path,
                          "--json"))  # fmt: skip
    assert [row["id"] for row in rows] == ["no tag", "no image", "half", "3", "4"]
    said = ["has an image and 0 turns with <image>", "image empty: empty.png", "half of a",
            "not an object"]  # fmt: skip
    for number, (row, what) in enumerate(zip(rows, said, strict=False)):
        assert (
            what in row["error"]
            and f"number {number} from 0, line {1 + 2 * number}" in row["error"]
        )
    assert "input_ids" in rows[4]
