"""Current models: batches as transformers' own processors make them, the loss as their forward."""

import copy
import json
from typing import Any

import made_up
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    Qwen2_5_VLConfig,
)

from sgv_lab.captioning.bulk import Decoding, decode
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import architectures, checkpoints, families, mini
from sgv_lab.training import metrics, trainer
from sgv_lab.training.collate import collator, prompts
from sgv_lab.training.config import base
from sgv_lab.training.conversation import IGNORED, encode, prompt_ids
from sgv_lab.training.data import RecordDataset
from sgv_lab.training.survey import survey
from sgv_lab.training.trainable import set_trainable
from sgv_lab.training.trainer import supervised_loss

KEY = "qwen3-vl-8b"
RECORDS = [
    made_up.record("<image>\nWhat is it?", "A cat.", "Is it red?", " No. ", image="wide.png"),
    made_up.record("How many\n", "3.", image=None, name="text"),
    made_up.record("What is it? <image>", "A tall tower.", image="tall.png", name="tall"),
    made_up.record("<image>", "Nothing.", image="small.png", name="small"),
]
SIZES = {"wide.png": (100, 64), "tall.png": (30, 90), "small.png": (9, 8)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("native")
    for number, (name, size) in enumerate(SIZES.items()):
        noise = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 255, (size[1], size[0], 3), dtype=torch.uint8, generator=noise)
        Image.fromarray(pixels.numpy()).save(folder / name)
    return folder


GEMMA = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + (message['role'] "
    "if message['role'] == 'user' else 'model') + '\n' }}{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
IDEFICS = (  # with marks of its own around what is learned
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize + ':\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{% for part in message['content'] %}"
    "{{ part['text'] }}{% endfor %}<end_of_utterance>\n{% endgeneration %}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
WIDTHS = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4}


def _tokenizer(*special: str):
    texts = [turn["value"] for record in RECORDS for turn in record["conversations"]]
    tokenizer = mini.train_tokenizer(texts * 3, make="qwen")
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


def _qwen3():
    return families.config(KEY, "mini"), families.processor(KEY, "mini", _tokenizer())


def _qwen2_5():
    config, processor = _qwen3()
    text = config.text_config.to_dict() | {"model_type": "qwen2_5_vl_text"}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [6, 5, 5],
    }
    vision = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 4,
              "patch_size": 8, "out_hidden_size": 128, "window_size": 32,
              "fullatt_block_indexes": [1]}  # fmt: skip
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: getattr(config, name) for name in names}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    kind = architectures.processor_class(type(config))
    return config, kind(processor.image_processor, processor.tokenizer,
                        chat_template=processor.chat_template)  # fmt: skip


def _gemma3():
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
             "eoi_token": "<end_of_image>"}  # fmt: skip
    tokenizer = _tokenizer("<start_of_turn>", "<end_of_turn>", *names.values())
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer._set_model_specific_special_tokens(names)
    image, first, last = tokenizer.convert_tokens_to_ids([*names.values()])
    text = WIDTHS | HEADS | {"vocab_size": len(tokenizer), "num_key_value_heads": 2,
                             "head_dim": 16, "pad_token_id": tokenizer.pad_token_id,
                             "sliding_window": 8}  # fmt: skip
    config = Gemma3Config(
        text_config=text,
        vision_config=WIDTHS | HEADS | {"image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_index=image,
        boi_token_index=first,
        eoi_token_index=last,
    )
    size = {"height": 32, "width": 32}
    return config, Gemma3Processor(
        Gemma3ImageProcessorPil(size=size), tokenizer, GEMMA, image_seq_length=4
    )


def _idefics3():
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
        ),
        _tokenizer(),
        image_seq_len=4,
        chat_template=IDEFICS,
    )
    tokenizer = processor.tokenizer
    text = WIDTHS | HEADS | {"model_type": "llama", "vocab_size": len(tokenizer),
                             "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    config = Idefics3Config(
        text_config=text,
        vision_config=WIDTHS | HEADS | {"image_size": 32, "patch_size": 8},
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return config, processor


def _built(make) -> tuple[Any, Any]:
    config, processor = make()
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    # Biases and norms start at 0 and 1; a comparison should see them.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=_draw(parameter)))
    return model, processor


@pytest.fixture(scope="module")
def lab():
    """A random miniature and its processor."""
    return _built(_qwen3)


@pytest.fixture(scope="module", params=[_qwen3, _qwen2_5, _gemma3, _idefics3])
def any_lab(request):
    """The same of several architectures."""
    return _built(request.param)


def _draw(parameter: torch.Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(parameter.numel())


def _samples(root, processor) -> list[dict[str, Any]]:
    data = RecordDataset(RECORDS, root, processor, base("sft-qwen3"))
    return [data[i] for i in range(len(data))]


def _messages(record: dict[str, Any], root) -> list[dict[str, Any]]:
    """The record as Qwen's own code makes messages of it."""
    messages = []
    for turn in record["conversations"]:
        if turn["from"] == "gpt":
            content = [{"type": "text", "text": turn["value"]}]
            messages.append({"role": "assistant", "content": content})
            continue
        content = []
        for number, part in enumerate(turn["value"].split("<image>")):
            if number:
                content.append({"type": "image", "image": Image.open(root / record["image"])})
            if part.strip():
                content.append({"type": "text", "text": part.strip()})
        messages.append({"role": "user", "content": content})
    return messages


def _official(root, processor, records=RECORDS) -> dict[str, torch.Tensor]:
    """transformers' own call, and labels by a search through its ids for each answer in turn."""
    batch = processor.apply_chat_template(
        [_messages(record, root) for record in records],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for row, record in enumerate(records):
        ids, at = batch["input_ids"][row].tolist(), 0
        answers = [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
        ending = processor.apply_chat_template(_messages(record, root))
        ending = ending[ending.rindex(answers[-1]) + len(answers[-1]) :]
        for answer in answers:
            answer = processor.tokenizer(answer + ending, add_special_tokens=False)["input_ids"]
            at = next(i for i in range(at, len(ids)) if ids[i : i + len(answer)] == answer)
            labels[row, at : at + len(answer)] = torch.tensor(answer)
            at += len(answer)
    return dict(batch) | {"labels": labels}


def test_a_batch_is_the_processors_own(root, any_lab) -> None:
    model, processor = any_lab
    ours = collator(model.config)(_samples(root, processor))
    theirs = _official(root, processor)
    assert theirs.keys() <= ours.keys() and ours.keys() - theirs.keys() == {"loss_weights"}
    for key, wanted in theirs.items():
        if len(wanted) > len(ours[key]):  # Idefics 3 has a row of nothing for a text alone, too
            wanted = wanted[["image" in record for record in RECORDS]]
        assert torch.equal(ours[key], wanted), key


def test_the_loss_is_a_plain_forwards(root, any_lab) -> None:
    model, processor = any_lab
    ours = collator(model.config)(_samples(root, processor))
    count = (ours["labels"][:, 1:] != IGNORED).sum()
    theirs = _official(root, processor)
    model.zero_grad()
    plain = model(**theirs).loss
    plain.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = supervised_loss(model, ours, count)
    loss.backward()
    assert abs(loss - plain) < 1e-5
    for name, wanted in expected.items():
        assert (model.get_parameter(name).grad - wanted).abs().max() < 1e-5, name
    assert len(expected) > 0.8 * len(list(model.named_parameters()))


def test_packed_equals_padded(root, any_lab) -> None:
    model, processor = any_lab
    if model.config.model_type == "gemma3":
        with pytest.raises(LabError, match="cannot be packed"):
            collator(model.config, packed=True, processor=processor)
        return
    samples, found = _samples(root, processor), []
    for packed in (False, True):
        model.zero_grad()
        batch = collator(model.config, packed=packed)(samples)
        loss = supervised_loss(model, batch, 10.0)
        loss.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((loss.detach(), grads))
    assert abs(found[0][0] - found[1][0]) < 1e-5
    assert max((a - b).abs().max() for a, b in zip(found[0][1], found[1][1], strict=True)) < 1e-5
    together = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["position_ids"])
    batch["position_ids"] = together  # the comparison would notice
    assert abs(supervised_loss(model, batch, 10.0) - found[0][0]) > 1e-3


def test_lengths_come_from_the_files_headers(root, any_lab, monkeypatch) -> None:
    model, processor = any_lab
    data = RecordDataset(RECORDS, root, processor, base("sft-qwen3"))
    expected = [
        collator(model.config)([sample])["labels"].numel() for sample in _samples(root, processor)
    ]
    monkeypatch.setattr("sgv_lab.training.data.open_image", None)  # decodes
    assert survey(data, None, progress=False).lengths.tolist() == expected


def test_a_batch_of_questions_is_the_processors_own(root, any_lab) -> None:
    """What captioning and evaluation give to ``generate``, with and without an image."""
    model, processor = any_lab
    turns = [record["conversations"][:1] for record in RECORDS]
    images = [Image.open(root / r["image"]) if "image" in r else None for r in RECORDS]
    ours = prompts(model.config, processor, turns, images, "square")
    theirs = processor.apply_chat_template(
        [_messages({**record, "conversations": record["conversations"][:1]}, root)
         for record in RECORDS],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )  # fmt: skip
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert torch.equal(ours[key], theirs[key]), key
    said = decode(model, processor, ours, Decoding(max_new_tokens=3))
    assert len(said) == len(RECORDS) and all(one["tokens"] <= 3 for one in said)


def test_any_is_trained_and_comes_back(root, tmp_path, any_lab) -> None:
    model, processor = copy.deepcopy(any_lab[0]), any_lab[1]
    before = model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    changes = {"samples_per_step": 2, "learning_rate": 1e-3, "vision_from": 1}
    recipe = base("sft-qwen3", changes)
    out = trainer.train(model, processor, RECORDS, root, recipe, tmp_path / "run", 0,
                        max_steps=3, progress=False)  # fmt: skip
    trained, again = checkpoints.load(out)
    assert type(trained) is type(model) and again.chat_template == processor.chat_template
    moved = {n for n, tensor in trained.state_dict().items() if not tensor.equal(before[n])}
    assert {architectures.part(name) for name in moved} >= {
        "projector",
        "vision tower",
        "language model",
    }
    assert {architectures.vision_block(name) for name in moved} <= {-1, 1, 2}


def test_a_checkpoint_is_inspected_in_its_own_template(tmp_path, lab) -> None:
    checkpoints.save(*lab, tmp_path / "model")
    (tmp_path / "records.json").write_text(json.dumps(RECORDS))
    given = ["inspect", tmp_path / "records.json", "--tokenizer", tmp_path / "model"]
    shown = CliRunner().invoke(main, [*map(str, given), "--template", "chat"])
    assert shown.exit_code == 0, shown.output
    assert "assistant\n[[A cat.<|im_end|>\n]]" in shown.output


def test_asked_as_taught(lab) -> None:
    _, processor = lab
    for record in RECORDS:
        encoded = encode(record, processor, "chat")
        prompt = prompt_ids(record["conversations"][:-1], processor, "chat", "image" in record)
        answer = record["conversations"][-1]["value"]
        assert encoded.input_ids[: len(prompt)] == prompt
        assert processor.tokenizer.decode(encoded.input_ids[len(prompt) :]) == (
            f"{answer}<|im_end|>\n"
        )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (made_up.record("<image> and <image>", "A."), "one image for 2 places"),
        (made_up.record("What?", "A."), "one image for 0 places"),
        (made_up.record("<image>\nWhat?"), "no answer"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(lab, record, message) -> None:
    with pytest.raises(LabError, match=f"'r1'.*{message}"):
        encode(record, lab[1], "chat")


def test_an_image_processor_of_another_patch_size_is_refused(lab) -> None:
    _, processor = lab
    config = families.config(KEY, "paper")
    with pytest.raises(LabError, match="patch_size 8, the model takes 16"):
        collator(config, processor=processor)


def test_a_literal_image_token_is_refused(any_lab) -> None:
    _, processor = any_lab
    text = made_up.record("Is it?", f"A {processor.image_token}.", image=None, name="text")
    with pytest.raises(LabError, match=r"'text'.*holds the image token"):
        encode(text, processor, "chat")


def test_a_template_that_rewrites_what_was_said_is_refused(lab) -> None:
    """As templates do that leave the reasoning of earlier answers out."""
    processor = copy.copy(lab[1])
    processor.chat_template = processor.chat_template.replace(
        "part['text']", "part['text'] if loop.last and messages | length < 3 else '...'"
    )
    with pytest.raises(LabError, match=r"'r1'.*answer 1 cannot be told"):
        encode(RECORDS[0], processor, "chat")


def test_lora_trains_every_merger(root, lab) -> None:
    model, report = set_trainable(
        families.build(KEY, "mini", 0), base("sft-qwen3", {"language_model": "lora"})
    )
    front = "base_model.model.model.visual."
    rest = {n.removeprefix(front) for n in report.effective if ".lora_" not in n}
    assert {n.rsplit(".", 2)[0] for n in rest} == {
        "merger", "deepstack_merger_list.0", "deepstack_merger_list.1",
    }  # fmt: skip
    batch = collator(lab[0].config)(_samples(root, lab[1]))
    supervised_loss(model, batch, 1.0).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(report.effective)


@pytest.mark.parametrize("vision_from", [None, 1, -1])
def test_the_effective_set_is_what_gets_a_gradient(root, lab, vision_from) -> None:
    model = families.build(KEY, "mini", 0)
    _, report = set_trainable(model, base("sft-qwen3", {"vision_from": vision_from}))
    model.requires_grad_(True)
    supervised_loss(model, collator(model.config)(_samples(root, lab[1])), 1.0).backward()
    learning = {n for n, p in model.named_parameters() if p.grad is not None}
    assert set(report.nominal) == set(report.effective) <= learning
    blocks = {n.split("blocks.")[1][0] for n in report.effective if "visual.blocks." in n}
    assert blocks == {None: set(), 1: {"1", "2"}, -1: {"0", "1", "2"}}[vision_from]


@pytest.mark.parametrize("packing", [False, True])
def test_seeds_and_packing_in_a_run(root, tmp_path, lab, packing) -> None:
    """The same seed gives the same weights, another seed others."""
    changes = {"samples_per_step": 2, "learning_rate": 1e-3, "weight_decay": 0.0}
    recipe = base("sft-qwen3", changes)
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        model = families.build(KEY, "mini", 0)
        out = trainer.train(
            model, lab[1], RECORDS, root, recipe, tmp_path / str(number), seed,
            max_steps=4, progress=False, packing=packing, tokens_per_batch=128,
        )  # fmt: skip
        assert len(metrics.read(out / "metrics.jsonl")) == 4
        weights.append({n: p.detach() for n, p in model.named_parameters()})
    one, same, other = weights
    assert all(torch.equal(one[n], same[n]) for n in one)
    moved = {n for n in one if not torch.equal(one[n], other[n])}
    assert moved and not any(".visual.blocks." in n for n in moved)


def test_the_commands_plan_and_train_it(root, tmp_path, lab) -> None:
    checkpoints.save(*lab, tmp_path / "base")
    (tmp_path / "records.json").write_text(json.dumps(RECORDS))
    given = ["--model", tmp_path / "base", "--records", tmp_path / "records.json"]
    given += ["--images", root, "--recipe", "sft-qwen3", "--set", "samples_per_step=2"]
    given += ["--out", tmp_path / "run", "--max-steps", 2]
    planned = CliRunner().invoke(main, [*map(str, ["plan", *given]), "--json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.output)["memory"]["activations"] > 0
    done = CliRunner().invoke(main, [*map(str, ["train", *given]), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    model, processor = checkpoints.load(tmp_path / "run")
    assert model.config.model_type == "qwen3_vl"
    assert processor.image_processor.merge_size == 2
