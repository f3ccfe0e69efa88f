"""The rebuilt tokenizers against the originals' own libraries and the official outputs."""

import json
import random
import unicodedata

import pytest
import sentencepiece
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from sgv_lab.errors import LabError
from sgv_lab.models import mini
from sgv_lab.models.tokenizers import QWEN_VL_SPECIAL, llama_tokenizer, qwen_vl_tokenizer

HARD = [
    "a.  The   cat",
    "\n\n  indented\tcode {x: 1}",
    "漢字と仮名 🙂 e\u0301 ½ \u00a0",
    "12345 3.14",
    "    return",
    "naïve café — “quoted”…",
]


def random_texts(count: int) -> list[str]:
    draw = random.Random(0)
    letters = "abc ABC  .,!?'\"\n12é漢🙂-_<>"
    return ["".join(draw.choices(letters, k=draw.randint(1, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def captions(reference) -> list[str]:
    folder = reference / "data" / "sharegpt4v"
    records = json.loads((folder / "sharegpt4v_gpt4v_excerpt.json").read_text())
    turns = [turn["value"] for record in records for turn in record["conversations"]]
    return [turn.replace("<image>", "") for turn in turns]


@pytest.mark.reference
def test_llama_is_sentencepiece(reference, captions, tmp_path):
    path = reference / "data" / "tokenizers" / "llama" / "tokenizer.model"
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    llama_tokenizer(path).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == 32002
    assert loaded.convert_tokens_to_ids(["<image>", "<pad>"]) == [32000, 32001]
    for text in [*HARD, *captions, *random_texts(500)]:
        if not text.startswith(" ") and "<unk>" not in text:
            assert loaded(text).input_ids == [1, *original.encode(text)], repr(text)


@pytest.mark.reference
def test_qwen_is_tiktoken(reference, captions, tmp_path):
    path = reference / "data" / "tokenizers" / "qwen" / "qwen.tiktoken"
    made = qwen_vl_tokenizer(path)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    golden = json.loads((reference / "golden" / "tokenisation_qwen.json").read_text())
    for token, id_ in golden["meta"]["special_tokens"].items():
        assert loaded.convert_tokens_to_ids(token) == id_
    assert len(loaded) == golden["meta"]["n_vocab"]
    assert loaded.pad_token_id == golden["meta"]["pad_token_id"]
    probes = [p for p in golden["tokenizer_probes"] if "ids" in p and "<img>" not in p["text"]]
    assert len(probes) >= 5
    for probe in probes:
        assert loaded(probe["text"]).input_ids == probe["ids"], probe["text"]
    original = tiktoken.Encoding(
        "qwen",
        pat_str=PRETOKENIZE_REGEX,
        mergeable_ranks=load_tiktoken_bpe(str(path)),
        special_tokens={},
    )
    for text in [*HARD, *captions, *random_texts(500)]:
        expected = original.encode_ordinary(unicodedata.normalize("NFC", text))
        assert loaded(text).input_ids == expected, repr(text)


def test_damaged_files_are_refused(tmp_path):
    bad = tmp_path / "tokenizer.model"
    bad.write_bytes(b"\x00\x01nonsense")
    with pytest.raises(LabError, match="no sentencepiece model"):
        llama_tokenizer(bad)
    with pytest.raises(LabError, match="no tiktoken file"):
        qwen_vl_tokenizer(bad)


def test_qwen_vl_special_tokens_are_as_many_as_released():
    assert len(QWEN_VL_SPECIAL) == 217
    assert QWEN_VL_SPECIAL.index("<img>") == 151857 - 151643


@pytest.fixture(scope="module")
def mini_qwen():
    return mini.train_tokenizer(
        ["A red circle.", "How many circles are there? 3."] * 5, 400, "qwen"
    )


@pytest.mark.parametrize("text", ["a  b", " lead", "tab\tnew\nline", "漢字 é 🙂", "12345", ""])
def test_mini_qwen_gives_any_text_back(mini_qwen, text):
    assert mini_qwen.decode(mini_qwen(text).input_ids) == text


def test_mini_qwen_ids(mini_qwen, tmp_path):
    assert mini_qwen.convert_tokens_to_ids("<imgpad>") == 256 + mini.QWEN_SPECIAL.index("<imgpad>")
    assert mini_qwen("<|im_end|>").input_ids == [256 + mini.QWEN_SPECIAL.index("<|im_end|>")]
    assert len(mini_qwen) <= 400
    mini_qwen.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in HARD:
        assert loaded(text).input_ids == mini_qwen(text).input_ids
