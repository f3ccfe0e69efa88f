from pathlib import Path

import made_up
import official
import pytest

from sgv_lab.errors import LabError
from sgv_lab.models.tokenizers import qwen_vl_tokenizer
from sgv_lab.training import qwen_vl_chat
from sgv_lab.training.conversation import IGNORED, IMAGE_ID, encode, prompt_ids
from sgv_lab.training.segments import TextTokenizer, load_tokenizer

RECORD = made_up.record("<image>\nWhat?", "A cat.", "Is it <ref>red</ref>?", "No.")


@pytest.fixture
def qwen(tmp_path: Path) -> TextTokenizer:
    return load_tokenizer(made_up.tiktoken_file(tmp_path))


@pytest.mark.reference
def test_equals_the_official_code(reference: Path) -> None:
    file = official.read(reference, "tokenisation_qwen")
    tokenizer = load_tokenizer(reference / "data/tokenizers/qwen")
    names = file["meta"]["special_tokens"]
    assert {name: tokenizer.special[name] for name in names} == names
    for record in file["records"]:
        encoded = encode(record, tokenizer, "qwen")
        assert encoded.input_ids == record["input_ids"], record["id"]
        assert encoded.labels == record["labels"], record["id"]
        assert encoded.untruncated == record["n_tokens_before_truncation"]


@pytest.mark.reference
def test_probes_of_the_official_tokenizer(reference: Path) -> None:
    file = official.read(reference, "tokenisation_qwen")
    tokenizer = load_tokenizer(reference / "data/tokenizers/qwen")
    raised = 0
    for probe in file["tokenizer_probes"]:
        if "ids" in probe:
            assert qwen_vl_chat.text_ids(probe["text"], tokenizer) == probe["ids"], probe["text"]
        else:
            raised += 1
            with pytest.raises(LabError):
                qwen_vl_chat.text_ids(probe["text"], tokenizer)
    assert 0 < raised < len(file["tokenizer_probes"])


@pytest.mark.reference
def test_llava_records_become_the_same_conversations(reference: Path) -> None:
    # The stored inputs were made from the LLaVA records; every fourth is without "Picture 1: ".
    tokenizer = load_tokenizer(reference / "data/tokenizers/qwen")
    records = {r["id"]: r["record"] for r in official.read(reference, "tokenisation_v1")["records"]}
    compared = 0
    for stored in official.read(reference, "tokenisation_qwen")["records"]:
        first = "".join(turn["value"] for turn in stored["conversations"][:2])
        if "image" in records[stored["id"]] and "Picture 1: " not in first:
            continue
        compared += 1
        encoded = encode(records[stored["id"]], tokenizer, "qwen")
        assert encoded.input_ids == stored["input_ids"], stored["id"]
    assert compared > 20


@pytest.mark.reference
def test_hugging_face_tokenizer_agrees(reference: Path) -> None:
    # The rebuilt tokenizer has no path bytes; there an image is -200 between <img> and </img>.
    tokenizer = qwen_vl_tokenizer(reference / "data/tokenizers/qwen/qwen.tiktoken")
    first = tokenizer.convert_tokens_to_ids("<img>")
    for record in official.read(reference, "tokenisation_qwen")["records"]:
        ids, labels, position = [], [], 0
        while position < len(record["input_ids"]):
            token = record["input_ids"][position]
            ids.append(token)
            labels.append(record["labels"][position])
            position += 1
            if token == first:
                ids.append(IMAGE_ID)
                labels.append(IGNORED)
                position += 256
        encoded = encode(record, tokenizer, "qwen")
        assert encoded.input_ids == ids, record["id"]
        assert encoded.labels == labels, record["id"]


def test_stream_and_mask(qwen: TextTokenizer) -> None:
    encoded = encode(RECORD, qwen, "qwen")
    start, end, newline = qwen.special["<|im_start|>"], qwen.special["<|im_end|>"], 10
    # Supervised: every <|im_start|>, every <|im_end|> with its newline, and the answers.
    expected = [start, end, newline]  # system
    for answer in ("A cat.", "No."):
        expected += [start, end, newline, start, *qwen.ids(answer), end, newline]
    assert [label for label in encoded.labels if label != IGNORED] == expected
    at = encoded.input_ids.index(qwen.special["<img>"])
    span = encoded.input_ids[at + 1 : at + 257]
    assert span == [*b"a.png", *[qwen.special["<imgpad>"]] * 251]
    assert encoded.input_ids[at + 257] == qwen.special["</img>"]
    assert qwen.special["<ref>"] in encoded.input_ids  # tags in a text are tokens


def test_asked_as_taught(qwen: TextTokenizer) -> None:
    encoded = encode(RECORD, qwen, "qwen")
    prompt = prompt_ids(RECORD["conversations"][:-1], qwen, "qwen", has_image=True)
    at = prompt.index(qwen.special["<img>"])
    hidden = slice(at + 1, at + 257)  # the image's place, which the model overwrites
    prompt[hidden] = encoded.input_ids[hidden]
    assert encoded.input_ids[: len(prompt)] == prompt
    assert qwen.text(encoded.input_ids[len(prompt) : -2]) == "No."


def test_texts_are_normalised(qwen: TextTokenizer) -> None:
    composed, decomposed = made_up.record("e?", "\u00e9"), made_up.record("e?", "e\u0301")
    for record in (composed, decomposed):
        del record["image"]
    assert encode(composed, qwen, "qwen") == encode(decomposed, qwen, "qwen")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<img>a.png", "<img> without </img>"),
        (f"<img>{'a' * 257}</img>", "longer than 256 bytes"),
        ("<img>a<ref>b</img>", "special token"),
    ],
)
def test_broken_spans_are_refused(qwen: TextTokenizer, text: str, message: str) -> None:
    with pytest.raises(LabError, match=f"'r1'.*{message}"):
        encode(made_up.record(text, "A cat.", image=None), qwen, "qwen")


def test_no_cut_inside_an_image_and_no_question_alone(qwen: TextTokenizer) -> None:
    with pytest.raises(LabError, match=r"'r1'.*cut at 100 tokens falls into an image"):
        encode(RECORD, qwen, "qwen", max_length=100)
    with pytest.raises(LabError, match="no answer"):
        encode(made_up.record("<image>\nWhat?"), qwen, "qwen")


def test_a_mended_file_is_read_anew(tmp_path: Path) -> None:
    path = made_up.tiktoken_file(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    before = [len(load_tokenizer(path).ids(" cat")), len(qwen_vl_tokenizer(path))]
    path.write_text("\n".join(lines))
    after = [len(load_tokenizer(path).ids(" cat")), len(qwen_vl_tokenizer(path))]
    assert [before[0] - after[0], after[1] - before[1]] == [1, 1]


def test_needs_a_tokenizer_with_chat_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(made_up.sentencepiece_model(tmp_path))
    with pytest.raises(LabError, match=r"needs a tokenizer with <\|im_start\|>"):
        encode(RECORD, tokenizer, "qwen")


def test_v1_needs_a_tokenizer_with_its_end(qwen: TextTokenizer) -> None:
    with pytest.raises(LabError, match="tokenizer with </s>"):
        encode(RECORD, qwen, "v1")
