"""The miniature tokenizer: LLaMA's make, the same every time, nothing lost."""

import pytest
from transformers import AutoTokenizer

from sgv_lab.models import mini

TEXTS = [
    "A red circle is left of 12 blue squares.\nUSER: How many circles are there?",
    "There are 3 green triangles above the yellow star on a grey background. ASSISTANT: 3.",
] * 5
HARD = ["a  b", "tab\tnew\nline", "漢字 é 🙂 \u0000", "x" * 300, "12345 ½", "A b  ", "</s>on", ""]


@pytest.fixture(scope="module")
def tokenizer():
    return mini.train_tokenizer(TEXTS, 450)


def test_special_ids(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<image>", "<pad>"]) == [
        0,
        1,
        2,
        259,
        260,
    ]
    assert tokenizer("\n", add_special_tokens=False).input_ids[-1] == 13  # <0x0A>, as in LLaMA
    assert len(tokenizer) <= 450


@pytest.mark.parametrize("text", HARD)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids[:1] != [1]
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < len(tokenizer)


def test_digits_stay_apart(tokenizer):
    tokens = tokenizer.tokenize("There are 1234.")
    assert tokens[-5:] == ["1", "2", "3", "4", "."]


def test_same_texts_same_tokenizer_and_reload(tokenizer, tmp_path):
    again = mini.train_tokenizer(iter(TEXTS), 450)
    assert again.get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, *HARD, "hi</s>USER: <image>\nwhat?"]:
        assert loaded(text).input_ids == tokenizer(text).input_ids == again(text).input_ids


def test_text_after_a_special_token_has_no_extra_space(tokenizer):
    assert tokenizer.tokenize("</s>USER")[1] != tokenizer.tokenize("USER")[0]
    assert tokenizer.decode(tokenizer("a</s>USER: b").input_ids[1:]) == "a</s>USER: b"
