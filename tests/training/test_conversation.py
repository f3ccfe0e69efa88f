from pathlib import Path

import made_up
import official
import pytest
import sentencepiece
from transformers import PreTrainedTokenizerBase

from sgv_lab.errors import LabError
from sgv_lab.models.mini import train_tokenizer
from sgv_lab.training.conversation import IGNORED, IMAGE_ID, encode, prompt_ids
from sgv_lab.training.segments import (
    TextTokenizer,
    load_tokenizer,
    text_tokenizer,
)

CASES = {
    "one turn": made_up.record("<image>\nWhat is it?", "A cat is on the mat."),
    "two turns": made_up.record("Is it\n<image>", "No.", "What is on the mat?", " A  cat\n猫"),
    "text only": made_up.record("What?", "\nA cat", "Is it <image>?", "2 cats", image=None),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load_tokenizer(made_up.sentencepiece_model(tmp_path_factory.mktemp("sp")))


@pytest.fixture(scope="module")
def fast() -> PreTrainedTokenizerBase:
    return train_tokenizer(made_up.TEXTS, 400)


@pytest.mark.reference
@pytest.mark.parametrize("variant", official.VARIANTS)
@pytest.mark.parametrize("template", ["v1", "plain"])
def test_equals_the_official_code(reference: Path, template: str, variant: str) -> None:
    file = official.read(reference, f"tokenisation_{template}")
    tokenizer = load_tokenizer(reference / "data/tokenizers/llama")
    lost = official.lost(file, variant)
    for record in file["records"]:
        if record["id"] in lost:
            with pytest.raises(LabError, match=record["id"]):
                encode(record["record"], tokenizer, template, variant)
            continue
        stored = official.variant(record, variant)
        encoded = encode(record["record"], tokenizer, template, variant)
        assert encoded.input_ids == stored["input_ids"], record["id"]
        assert encoded.labels == stored["labels"], record["id"]
        assert encoded.supervised == stored["n_supervised"], record["id"]
    assert len(file["records"]) > len(lost)


@pytest.mark.reference
def test_no_token_of_llama_crosses_into_a_space(reference: Path) -> None:
    # What makes it exact to encode an answer apart from the text in front of it.
    path = reference / "data/tokenizers/llama/tokenizer.model"
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [original.id_to_piece(i) for i in range(original.vocab_size())]
    assert len(pieces) == 32000
    assert not [piece for piece in pieces if "▁" in piece.lstrip("▁")]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["llama", "fast"])
def test_supervised_tokens_are_the_answers(
    case: str, kind: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = text_tokenizer(request.getfixturevalue(kind))
    record = CASES[case]
    encoded = encode(record, tokenizer)
    runs, previous = [], IGNORED
    for label in encoded.labels:
        if label != IGNORED and previous == IGNORED:
            runs.append([])
        if label != IGNORED:
            runs[-1].append(label)
        previous = label
    answers = [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
    assert [run.pop() for run in runs] == [tokenizer.eos_id] * len(answers)
    assert [tokenizer.text(run) for run in runs] == [f" {answer}" for answer in answers]
    kept = [(i, label) for i, label in enumerate(encoded.labels) if label != IGNORED]
    assert all(encoded.input_ids[i] == label for i, label in kept)
    assert encoded.input_ids.count(IMAGE_ID) == ("image" in record)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["llama", "fast"])
def test_asked_as_taught(case: str, kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(kind)
    record = CASES[case]
    encoded = encode(record, tokenizer)
    prompt = prompt_ids(record["conversations"][:-1], tokenizer, "v1", "image" in record)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert set(encoded.labels[: len(prompt)]) >= {IGNORED}
    answer = encoded.input_ids[len(prompt) :]
    assert encoded.labels[len(prompt) :] == answer  # nothing but the last answer is left, all of it
    assert encoded.labels[len(prompt) - 1] == IGNORED


def test_plain_supervises_all_but_the_image(llama: TextTokenizer) -> None:
    record = made_up.record("<image>\nDescribe it.", " A cat")
    encoded = encode(record, llama, "plain")
    assert encoded.input_ids[:2] == [llama.bos_id, IMAGE_ID]
    assert encoded.labels == [IGNORED, IGNORED, *encoded.input_ids[2:]]
    assert llama.text(encoded.labels[2:]) == "  A cat\n"


def test_variants_differ_only_behind_the_first_answer(llama: TextTokenizer) -> None:
    one = {str(encode(CASES["one turn"], llama, "v1", v)) for v in official.VARIANTS}
    two = {v: encode(CASES["two turns"], llama, "v1", v) for v in official.VARIANTS}
    assert len(one) == 1
    first = two["llava_tf4.37.2_legacy_false"]
    other = two["llava_tf4.37.2_legacy_true"]
    end = first.input_ids.index(llama.eos_id) + 1
    assert first.input_ids[:end] == other.input_ids[:end]
    assert first.input_ids[end:] != other.input_ids[end:]
    answers = [[i for i in e.labels if i != IGNORED] for e in two.values()]
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (("<image>\nWhat?", ""), "tell question and answer apart"),
        (("<image>\nWhat?", "A.", "And?"), "tell question and answer apart"),
        (("<image>\nWhat?", "It says </s> there."), "tell question and answer apart"),
        (("<image>\nWhat?", "A cat.</s>"), "tell question and answer apart"),
        (("<image>\nWhat?", "He says USER: hi ASSISTANT: no"), "tell question and answer apart"),
        (("<image>\nWhat?", "It says <unk> there."), "<unk>"),
    ],
)
def test_refuses_what_the_official_code_loses(
    llama: TextTokenizer, turns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LabError, match=message) as error:
        encode(made_up.record(*turns, name="bad_7"), llama)
    assert "bad_7" in str(error.value)


@pytest.mark.parametrize("question", ["He says </s>", "Say ASSISTANT: hello", ""])
def test_an_unclear_question_is_not_asked(llama: TextTokenizer, question: str) -> None:
    with pytest.raises(LabError, match="tell question and answer apart"):
        prompt_ids([{"from": "human", "value": question}], llama, "v1", has_image=False)


def test_refuses_turns_out_of_order(llama: TextTokenizer) -> None:
    twice = made_up.record("<image>\nWhat?", "A cat.")
    twice["conversations"].insert(0, {"from": "human", "value": "Hello?"})
    with pytest.raises(LabError, match=r"r1.*wrong side"):
        encode(twice, llama)
    with pytest.raises(LabError, match="no conversation"):
        encode({"id": "r1", "conversations": [{"from": "gpt", "value": "Hi"}]}, llama)
    with pytest.raises(LabError, match="unknown role 'robot'"):
        encode({"id": "r1", "conversations": [{"from": "robot", "value": "Hi"}]}, llama)


@pytest.mark.parametrize("turns", [("<image>\nWhat?", "A", "B?", "C"), ("What?", "A cat.")])
def test_plain_refuses_other_than_one_captioned_image(
    llama: TextTokenizer, turns: tuple[str, ...]
) -> None:
    with pytest.raises(LabError, match=r"r1.*plain template"):
        encode(made_up.record(*turns), llama, "plain")


def test_cuts_at_the_limit_and_counts(llama: TextTokenizer) -> None:
    record = made_up.record("<image>\nWhat?", "A cat is on the mat. " * 50)
    whole = encode(record, llama)
    cut = encode(record, llama, max_length=100)
    assert not whole.truncated
    assert cut.truncated and cut.untruncated == len(whole.input_ids)
    assert cut.input_ids == whole.input_ids[:100] and cut.labels == whole.labels[:100]
    with pytest.raises(LabError, match="'r1': no supervised token within 20 tokens"):
        encode(record, llama, max_length=20)


def test_what_lies_behind_the_cut_is_not_checked(llama: TextTokenizer) -> None:
    # As the official code, which checks only samples that are shorter than the limit.
    turns = ("<image>\nWhat?", "A cat is on the mat. " * 50, "And?", "")
    cut = encode(made_up.record(*turns), llama, max_length=100)
    assert cut.labels == encode(made_up.record(*turns[:2]), llama, max_length=100).labels
    with pytest.raises(LabError):
        encode(made_up.record(*turns), llama)


def test_tokenizers_are_found_by_file_or_folder(
    tmp_path: Path, fast: PreTrainedTokenizerBase
) -> None:
    model = made_up.sentencepiece_model(tmp_path)
    record = CASES["two turns"]
    assert encode(record, load_tokenizer(model)) == encode(record, load_tokenizer(tmp_path))
    fast.save_pretrained(tmp_path / "hf")
    for path in (tmp_path / "hf", tmp_path / "hf" / "tokenizer.json"):
        assert encode(record, load_tokenizer(path)) == encode(record, fast)
    with pytest.raises(LabError, match=r"tokenizer\.model, qwen\.tiktoken"):
        load_tokenizer(tmp_path / "nothing")
    (tmp_path / "broken.model").write_bytes(b"not a model")
    with pytest.raises(LabError, match=r"broken\.model: is no sentencepiece model"):
        load_tokenizer(tmp_path / "broken.model")
    (tmp_path / "broken.tiktoken").write_bytes(b"not a vocabulary")
    with pytest.raises(LabError, match=r"broken\.tiktoken: is no tiktoken file"):
        load_tokenizer(tmp_path / "broken.tiktoken")


def test_a_question_is_asked_to_its_last_line_break(llama: TextTokenizer) -> None:
    def asked(text: str) -> list[int]:
        return prompt_ids([{"from": "human", "value": text}], llama, "v1")

    whole = asked("<image>\nA cat\n")  # as Q-Bench's questions end
    stripped = asked("<image>\nA cat")
    assert len(whole) > len(stripped) and whole[:10] == stripped[:10]
    assert asked("A cat\n<image>") == stripped  # an image that stands behind is moved, as before


def test_the_image_tag_in_a_text_is_tokenised_as_text(fast: PreTrainedTokenizerBase) -> None:
    """As officially, also where the model's tokenizer has the tag as a token of its own."""
    with_token = train_tokenizer(made_up.TEXTS, 400)
    with_token.add_tokens(["<image>"], special_tokens=True)
    record = made_up.record("Is it <image>?", "It is <image>.", image=None)
    expected = encode(record, fast)
    found = encode(record, with_token)
    assert (found.input_ids, found.labels) == (expected.input_ids, expected.labels)
    assert with_token.convert_tokens_to_ids("<image>") not in found.input_ids
    shown = made_up.record("<image>\nIs it?", "It is.")
    assert encode(shown, with_token).input_ids == encode(shown, fast).input_ids
