"""Qwen3-VL: batches as transformers' own processor makes them, the loss as its own forward."""

import json
from typing import Any

import made_up
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.training import metrics, recipes, trainer
from sgv_lab.training.collate import collator
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


@pytest.fixture(scope="module")
def lab():
    """A random miniature and its processor."""
    texts = [turn["value"] for record in RECORDS for turn in record["conversations"]]
    tokenizer = mini.train_tokenizer(texts * 3, make="qwen")
    model = families.build(KEY, "mini", 0)
    # Biases and norms start at 0 and 1; a comparison should see them.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=_draw(parameter)))
    return model, families.processor(KEY, "mini", tokenizer)


def _draw(parameter: torch.Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(parameter.numel())


def _samples(root, processor) -> list[dict[str, Any]]:
    data = RecordDataset(RECORDS, root, processor, recipes.recipe("sft-qwen3"))
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
    """transformers' own call, and labels by a search through its ids as in Qwen's code."""
    tokenizer = processor.tokenizer
    batch = processor.apply_chat_template(
        [_messages(record, root) for record in records],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    start, end = (tokenizer.convert_tokens_to_ids(f"<|im_{x}|>") for x in ("start", "end"))
    answers = tokenizer("assistant\n").input_ids
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for row, ids in enumerate(batch["input_ids"].tolist()):
        for at in range(len(ids)):
            first = at + 1 + len(answers)
            if ids[at] == start and ids[at + 1 : first] == answers:
                last = ids.index(end, first) + 2
                labels[row, first:last] = batch["input_ids"][row, first:last]
    return dict(batch) | {"labels": labels}


def test_a_batch_is_the_processors_own(root, lab) -> None:
    model, processor = lab
    ours = collator(model.config)(_samples(root, processor))
    theirs = _official(root, processor)
    for key in ("input_ids", "attention_mask", "labels", "pixel_values", "image_grid_thw"):
        assert torch.equal(ours[key], theirs[key]), key
    assert ours["image_grid_thw"].unique(dim=0).shape[0] > 1  # pictures keep their own shapes
    positions, _ = model.model.get_rope_index(
        theirs["input_ids"],
        theirs["mm_token_type_ids"],
        theirs["image_grid_thw"],
        attention_mask=theirs["attention_mask"],
    )
    real = theirs["attention_mask"].bool()
    assert torch.equal(ours["position_ids"][1:][:, real], positions[:, real])
    assert (ours["position_ids"][1] != ours["position_ids"][2])[real].any()


def test_the_loss_is_a_plain_forwards(root, lab) -> None:
    model, processor = lab
    ours = collator(model.config)(_samples(root, processor))
    count = (ours["labels"][:, 1:] != IGNORED).sum()
    theirs = _official(root, processor)
    model.zero_grad()
    plain = model(**theirs).loss
    plain.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    loss = supervised_loss(model, ours, count)
    loss.backward()
    assert abs(loss - plain) < 1e-5
    for name, parameter in model.named_parameters():
        assert (parameter.grad - expected[name]).abs().max() < 1e-5, name
        assert expected[name].abs().max() > 0, name


def test_packed_equals_padded(root, lab) -> None:
    model, processor = lab
    samples, found = _samples(root, processor), []
    for packed in (False, True):
        model.zero_grad()
        batch = collator(model.config, packed=packed)(samples)
        loss = supervised_loss(model, batch, 10.0)
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    assert batch["position_ids"].shape == (4, 1, batch["input_ids"].shape[1])
    assert abs(found[0][0] - found[1][0]) < 1e-5
    assert max((a - b).abs().max() for a, b in zip(found[0][1], found[1][1], strict=True)) < 1e-5
    together = torch.arange(batch["input_ids"].shape[1]).repeat(4, 1, 1)
    batch["position_ids"] = together  # the comparison would notice
    assert abs(supervised_loss(model, batch, 10.0) - found[0][0]) > 1e-3


def test_lengths_come_from_the_files_headers(root, lab, monkeypatch) -> None:
    model, processor = lab
    data = RecordDataset(RECORDS, root, processor, recipes.recipe("sft-qwen3"))
    expected = [
        collator(model.config)([sample])["labels"].numel() for sample in _samples(root, processor)
    ]
    monkeypatch.setattr(Image.Image, "convert", None)  # decodes
    assert survey(data, None, progress=False).lengths.tolist() == expected


def test_asked_as_taught(lab) -> None:
    _, processor = lab
    for record in RECORDS:
        encoded = encode(record, processor.tokenizer, "qwen3")
        prompt = prompt_ids(
            record["conversations"][:-1], processor.tokenizer, "qwen3", "image" in record
        )
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
        encode(record, lab[1].tokenizer, "qwen3")


def test_pictures_of_another_patch_size_are_refused(root, lab) -> None:
    model, processor = lab
    samples = _samples(root, processor)
    samples[0]["images"] = [torch.zeros(4, 4, 3)]
    with pytest.raises(LabError, match=r"'r1'.*\(4, 4, 3\).*'height', 'width', 384"):
        collator(model.config)(samples)


def test_a_literal_image_token_is_refused(root, lab) -> None:
    model, processor = lab
    samples = _samples(root, processor)
    samples[1]["input_ids"][-2] = model.config.image_token_id
    with pytest.raises(LabError, match=r"'text'.*holds the image token"):
        collator(model.config)(samples)


def test_lora_copies_every_merger(root, lab) -> None:
    model, report = set_trainable(
        families.build(KEY, "mini", 0), recipes.recipe("sft-qwen3", {"language_model": "lora"})
    )
    copied = {n.split(".modules_to_save")[0] for n in report.effective if "modules_to_save" in n}
    assert {n.removeprefix("base_model.model.model.visual.") for n in copied} == {
        "merger", "deepstack_merger_list.0", "deepstack_merger_list.1",
    }  # fmt: skip
    batch = collator(lab[0].config)(_samples(root, lab[1]))
    supervised_loss(model, batch, 1.0).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(report.effective)


@pytest.mark.parametrize("vision_from", [None, 1, -1])
def test_the_effective_set_is_what_gets_a_gradient(root, lab, vision_from) -> None:
    model = families.build(KEY, "mini", 0)
    _, report = set_trainable(model, recipes.recipe("sft-qwen3", {"vision_from": vision_from}))
    model.requires_grad_(True)
    supervised_loss(model, collator(model.config)(_samples(root, lab[1])), 1.0).backward()
    learning = {n for n, p in model.named_parameters() if p.grad is not None}
    assert set(report.nominal) == set(report.effective) <= learning
    blocks = {n.split("blocks.")[1][0] for n in report.effective if "visual.blocks." in n}
    assert blocks == {None: set(), 1: {"1", "2"}, -1: {"0", "1", "2"}}[vision_from]


@pytest.mark.parametrize("packing", [False, True])
def test_seeds_and_packing_in_a_run(root, tmp_path, lab, packing) -> None:
    """The same seed gives the same weights, another seed others."""
    changes = {"samples_per_update": 2, "learning_rate": 1e-3, "weight_decay": 0.0}
    recipe = recipes.recipe("sft-qwen3", changes)
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
    given += ["--images", root, "--recipe", "sft-qwen3", "--set", "samples_per_update=2"]
    given += ["--out", tmp_path / "run", "--max-steps", 2]
    planned = CliRunner().invoke(main, [*map(str, ["plan", *given]), "--json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.output)["memory"]["activations"] > 0
    done = CliRunner().invoke(main, [*map(str, ["train", *given]), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    model, processor = checkpoints.load(tmp_path / "run")
    assert model.config.model_type == "qwen3_vl"
    assert processor.image_processor.merge_size == 2
