"""Sizes and parameter counts of the families, against the official code's."""

import json

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.models.tokenizers import llama_tokenizer
from sgv_lab.training.conversation import IMAGE_ID, prompt_ids

TEXTS = ["A red circle is left of 12 blue squares.", "How many? 3.", "USER: ASSISTANT:"] * 5


@pytest.mark.reference
@pytest.mark.parametrize("key", ["llava-1.5-7b", "sharegpt4v-7b", "share-captioner"])
def test_llava_counts_are_the_official_ones(reference, key):
    golden = json.loads((reference / "golden" / "trainable_parameters.json").read_text())
    official = golden["true_size_counts"]["7b"]["sft"]["total_by_group"]
    model = families.build(key, "paper", 0, device="meta")
    counts = families.counts(model)
    added = (model.config.text_config.vocab_size - 32000) * 4096  # rows behind Vicuna's 32,000
    assert counts == {
        "vision tower": official["vision_tower"],
        "projector": official["mm_projector"],
        "embeddings": official["embed_tokens"] + added,
        "language model": official["llm_other"],
        "output head": official["lm_head"] + added,
    }
    block = model.model.vision_tower.encoder.layers[0]
    assert sum(p.numel() for p in block.parameters()) == golden["vit_block_params"]


@pytest.mark.reference
def test_qwen_vl_counts_are_the_official_ones(reference):
    golden = json.loads((reference / "golden" / "trainable_parameters.json").read_text())
    official = golden["qwen_vl_chat"]["total_by_group"]
    model = families.build("qwen-vl-chat", "paper", 0, device="meta")
    counts = families.counts(model)
    assert counts["projector"] == official["visual.attn_pool (resampler)"]
    assert counts["vision tower"] == sum(
        count
        for name, count in official.items()
        if name.startswith("visual.") and "pool" not in name
    )
    assert counts["embeddings"] == official["wte"]
    assert counts["language model"] == official["llm_other"]
    assert sum(counts.values()) == golden["qwen_vl_chat"]["total"]


def test_other_counts():
    # Qwen/Qwen3-VL-8B-Instruct's safetensors hold 8,767,123,696 numbers.
    assert _total("qwen3-vl-8b") == 8_767_123_696
    # One linear layer 1024 -> 4096 with bias, and an identity of LLaVA-1.5's second layer's size;
    # CLIP at 224 px has 320 positions fewer.
    assert _total("llava-7b") == _total("llava-1.5-7b") - (577 - 257) * 1024


def _total(key: str) -> int:
    return sum(families.counts(families.build(key, "paper", 0, device="meta")).values())


@pytest.mark.parametrize("key", families.FAMILIES)
def test_every_miniature_sees_answers_and_comes_back(key, tmp_path):
    family = families.family(key)
    tokenizer = mini.train_tokenizer(TEXTS, make=family.tokenizer)
    model = families.build(key, "mini", 0)
    checkpoints.save(model, families.processor(key, "mini", tokenizer), tmp_path / "saved")
    loaded, processor = checkpoints.load(tmp_path / "saved")
    assert type(loaded) is type(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    question = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True
    )
    outputs = []
    for colour in ("red", "blue"):
        inputs = processor(
            text=text, images=Image.new("RGB", (100, 64), colour), return_tensors="pt"
        )
        outputs.append(loaded(**inputs).logits[0, -1])
    assert inputs.input_ids[0].tolist().count(model.config.image_token_id) in (15, 16)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3  # the image reaches the answer
    made = loaded.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert made.shape[1] == inputs.input_ids.shape[1] + 3
    total = sum(p.numel() for p in model.parameters())
    assert 1_000_000 < total < 5_000_000


@pytest.mark.parametrize("key", families.FAMILIES)
def test_seeds(key):
    one, same, other = (families.build(key, "mini", seed) for seed in (0, 0, 1))
    names = [n for n, p in one.named_parameters() if p.ndim > 1 and "pos_embed" not in n]
    for name in names:
        mine = one.get_parameter(name)
        assert torch.equal(mine, same.get_parameter(name)), name
    changed = [n for n in names if not torch.equal(one.get_parameter(n), other.get_parameter(n))]
    assert len(changed) >= len(names) - 1


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    families.build("llava-1.5-7b", "mini", 0)
    assert torch.equal(torch.rand(1), expected)


def test_widths_and_changes():
    model = families.build(
        "llava-1.5-7b", "mini", 0,
        text_config={"num_hidden_layers": 2}, vision_config={"image_size": 32}, image_seq_length=4,
    )  # fmt: skip
    assert model.config.text_config.num_hidden_layers == 2
    assert model.config.image_seq_length == 4
    layer = model.model.language_model.layers[0]
    assert layer.mlp.up_proj.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)


def test_unknown_names():
    with pytest.raises(LabError, match="llava-9b"):
        families.build("llava-9b", "mini", 0)
    with pytest.raises(LabError, match="huge"):
        families.build("llava-7b", "huge", 0)


def test_command_lists_every_family():
    result = CliRunner().invoke(main, ["models", "--size", "paper"])
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.output.splitlines()[1:]}
    assert rows.keys() == families.FAMILIES.keys()
    assert "9,656,935,168" in rows["qwen-vl-chat"]
    assert "projector 20,979,712" in rows["llava-1.5-7b"]


@pytest.mark.parametrize("kind", ["mini", pytest.param("real", marks=pytest.mark.reference)])
@pytest.mark.parametrize("words", [["Who is it?"], [" two\nlines ", "A red car.", "And now?"]])
def test_the_vicuna_template_asks_as_the_official_code_trains(kind, words, request):
    """What a server makes of a chat, the official tokenizing (held to its outputs) makes, too."""
    if kind == "real":
        folder = request.getfixturevalue("reference") / "data" / "tokenizers" / "llama"
        tokenizer = llama_tokenizer(folder / "tokenizer.model")
    else:
        tokenizer = mini.train_tokenizer(TEXTS)
    processor = families.processor("llava-1.5-7b", "mini", tokenizer)
    chat, turns = [], []
    for number, text in enumerate(words):
        role, name = [("user", "human"), ("assistant", "gpt")][number % 2]
        image = [{"type": "image", "image": Image.new("RGB", (64, 64))}] * (number == 0)
        chat.append({"role": role, "content": [{"type": "text", "text": text}, *image]})
        turns.append({"from": name, "value": "<image>\n" * len(image) + text})
    asked = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    (ids,) = asked["input_ids"]
    want = prompt_ids(turns, tokenizer)
    at, patches = want.index(IMAGE_ID), ids.count(processor.image_token_id)
    assert ids == [*want[:at], *[processor.image_token_id] * patches, *want[at + 1 :]]
