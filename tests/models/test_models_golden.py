"""The converted golden checkpoints give the official code's numbers, to 1e-4 in float32."""

import json
from functools import partial

import numpy as np
import originals
import pytest
import torch
from torch.nn import functional

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, convert_llava, convert_qwen
from sgv_lab.models.architectures import passes_on
from sgv_lab.models.convert import convert
from sgv_lab.models.qwen_vl_visual import QwenVLVisionConfig, QwenVLVisual, initialise

pytestmark = pytest.mark.reference
TOLERANCE = 1e-4
LLAVA = [(k, s) for k in ("mlp2x_gelu", "linear") for s in ("share4v", "llava")]


def worst(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return (ours.detach() - torch.from_numpy(theirs)).abs().max().item()


@pytest.fixture(scope="module", params=LLAVA, ids="-".join)
def llava(request, reference, tmp_path_factory):
    """(model, golden arrays, golden folder, stack) of one converted LLaVA."""
    kind, stack = request.param
    folder = tmp_path_factory.mktemp("llava")
    golden = originals.golden_llava(reference, kind, stack, folder / "original")
    convert(folder / "original", folder / "converted")
    model, _ = checkpoints.load(folder / "converted")
    return model, golden, reference / "golden" / "tiny_llava" / kind, stack


def llava_inputs(golden, sample: int, image_id: int, patches: int) -> dict[str, torch.Tensor]:
    """One sample, unpadded, the image at ``patches`` positions of the new image token."""
    keep = golden["attention_mask"][sample]
    ids, labels = [], []
    for token, label in zip(
        golden["input_ids"][sample][keep], golden["labels"][sample][keep], strict=True
    ):
        times = patches if token == -200 else 1
        ids += [image_id if token == -200 else token] * times
        labels += [label] * times
    inputs = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
    if image_id in ids:
        inputs["pixel_values"] = torch.from_numpy(golden["pixel_values"][sample : sample + 1])
    return inputs


def official_loss(logits: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """The official mean over supervised tokens, on the original classes only."""
    return functional.cross_entropy(
        logits[:, :-1, :classes].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )


def llava_batch(model, golden) -> dict[str, torch.Tensor]:
    samples = [llava_inputs(golden, i, model.config.image_token_id, 4) for i in range(4)]
    pad = model.config.text_config.pad_token_id
    length = max(s["input_ids"].shape[1] for s in samples)

    def padded(key: str, value: int) -> torch.Tensor:
        rows = [functional.pad(s[key], (0, length - s[key].shape[1]), value=value) for s in samples]
        return torch.cat(rows)

    ids = padded("input_ids", pad)
    images = torch.cat([s["pixel_values"] for s in samples if "pixel_values" in s])
    return {
        "input_ids": ids,
        "labels": padded("labels", -100),
        "attention_mask": (ids != pad).long(),
        "pixel_values": images,
    }


def test_llava_single_samples(llava):
    model, golden, _, _ = llava
    for sample in range(4):
        inputs = llava_inputs(golden, sample, model.config.image_token_id, 4)
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        assert worst(logits[..., :128], golden[f"single{sample}_logits"]) < TOLERANCE
        loss = official_loss(logits, labels, 128)
        assert worst(loss, golden[f"single{sample}_loss"]) < TOLERANCE


def test_llava_batch_features_and_gradients(llava):
    model, golden, folder, stack = llava
    inputs = llava_batch(model, golden)
    mask = golden["batch_merged_attention_mask"]
    assert np.array_equal(inputs["attention_mask"].numpy().astype(bool), mask)
    labels = inputs.pop("labels")
    assert np.array_equal(labels.numpy()[mask], golden["batch_merged_labels"][mask])
    tower = model.model.vision_tower(
        torch.from_numpy(golden["pixel_values"]), output_hidden_states=True
    )
    for ours, theirs in zip(tower.hidden_states, golden["vision_hidden_states"], strict=True):
        assert worst(ours, theirs) < TOLERANCE
    projected = model.model.multi_modal_projector(tower.hidden_states[-2][:, 1:])
    assert worst(projected, golden["projected_features"]) < TOLERANCE
    logits = model(**inputs).logits
    assert (
        worst(logits[..., :128][torch.from_numpy(mask)], golden["batch_logits"][mask]) < TOLERANCE
    )
    loss = official_loss(logits, labels, 128)
    assert worst(loss, golden["batch_loss"]) < TOLERANCE
    if stack == "share4v":
        compare_gradients(model, loss, folder, partial(llava_names, model.config))


def llava_names(config, name: str) -> list[str]:
    renamed = convert_llava._llava(0, name, torch.zeros(3, 1))
    return [new for new in renamed if not passes_on(config, new)]


def qwen_names(name: str) -> list[str]:
    return list(convert_qwen.rename(1, name, torch.zeros(3)))


def compare_gradients(model, loss, folder, rename) -> None:
    """Norms of all parameters' gradients against grad_norms.json; c_attn's three as one."""
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    theirs = json.loads((folder / "grad_norms.json").read_text())["grad_norm"]
    compared = 0
    for name, norm in theirs.items():
        ours = [gradients[new] for new in rename(name)]
        assert ours, name
        if norm is None:
            assert all(g is None or g.abs().max() == 0 for g in ours), name
            continue
        total = torch.stack([g.norm() for g in ours]).norm().item()
        assert total == pytest.approx(norm, rel=1e-4, abs=1e-6), name
        compared += 1
    assert compared >= 30


def test_llava_greedy(llava):
    model, golden, folder, stack = llava
    greedy = json.loads((folder / f"greedy_{stack}.json").read_text())["greedy"]
    for key, expected in greedy.items():
        sample = int(key.removeprefix("single"))
        inputs = llava_inputs(golden, sample, model.config.image_token_id, 4)
        inputs.pop("labels")
        ids = inputs["input_ids"]
        assert ids.shape[1] == expected["n_prompt_tokens"] + 3 * ("pixel_values" in inputs)
        made = model.generate(
            **inputs,
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=None,
            attention_mask=torch.ones_like(ids),
        )
        new = expected["new_tokens"][-16:]  # 4.37.2 put a <s> in front of them
        assert made[0, ids.shape[1] :].tolist() == new


@pytest.fixture(scope="module")
def qwen(reference, tmp_path_factory):
    """(model, golden arrays, golden folder) of the converted Qwen-VL."""
    folder = tmp_path_factory.mktemp("qwen")
    golden = originals.golden_qwen(reference, folder / "original")
    convert(folder / "original", folder / "converted", tokenizer=originals.qwen_tokenizer(300))
    model, _ = checkpoints.load(folder / "converted")
    return model, golden, reference / "golden" / "tiny_qwen_vl"


def images(golden, folder, rows: np.ndarray) -> torch.Tensor | None:
    """The images whose names are spelt in ``rows``, in order of appearance."""
    names = json.loads((folder / "meta.json").read_text())["image_names"]
    flat = rows.flatten().tolist()
    starts = [i for i, token in enumerate(flat) if token == 300]
    spelt = [bytes(t for t in flat[i + 1 : i + 17] if t != 302).decode() for i in starts]
    order = [names.index(name) for name in spelt]
    return torch.from_numpy(golden["pixel_values"][order]) if order else None


def test_qwen_visual_stages(qwen):
    model, golden, _ = qwen
    visual = model.model.visual
    embedded = visual.embed(torch.from_numpy(golden["pixel_values"]))
    patches = visual.transformer(visual.ln_pre(embedded)).last_hidden_state
    pooled = visual.attn_pool(patches)
    output = visual(torch.from_numpy(golden["pixel_values"]))
    for ours, key in (
        (embedded, "patch_plus_position"),
        (patches, "visual_transformer_output"),
        (pooled, "attn_pool_output"),
        (output, "visual_output"),
    ):
        assert worst(ours, golden[key]) < TOLERANCE


def test_qwen_single_samples(qwen):
    model, golden, folder = qwen
    for sample in range(3):
        keep = golden["attention_mask"][sample]
        ids = golden["input_ids"][sample : sample + 1][:, keep]
        labels = torch.from_numpy(golden["labels"][sample : sample + 1][:, keep])
        out = model(
            input_ids=torch.from_numpy(ids),
            pixel_values=images(golden, folder, ids),
            labels=labels,
        )
        assert worst(out.logits, golden[f"single{sample}_logits"]) < TOLERANCE
        assert worst(out.loss, golden[f"single{sample}_loss"]) < TOLERANCE


@pytest.mark.parametrize("mode", ["batch", "batch_train"])
def test_qwen_batch_and_gradients(qwen, mode):
    model, golden, folder = qwen
    names = json.loads((folder / "grad_norms.json").read_text())["requires_grad"]
    trained = {new for name in names for new in qwen_names(name)}
    for name, parameter in model.named_parameters():  # the official freezing
        parameter.requires_grad_(name in trained)
    mask = torch.from_numpy(golden["attention_mask"])
    out = model.train(mode == "batch_train")(
        input_ids=torch.from_numpy(golden["input_ids"]),
        attention_mask=mask.long(),
        pixel_values=images(golden, folder, golden["input_ids"]),
        labels=torch.from_numpy(golden["labels"]),
    )
    model.eval()
    assert worst(out.logits[mask], golden[f"{mode}_logits"][mask.numpy()]) < TOLERANCE
    assert worst(out.loss, golden[f"{mode}_loss"]) < TOLERANCE
    compare_gradients(model, out.loss, folder, qwen_names)


def test_qwen_beyond_its_trained_length_is_refused(qwen):
    model, golden, folder = qwen
    ids = golden["long_input_ids"]
    with pytest.raises(LabError, match="134 tokens; the model was trained on 64"):
        model(input_ids=torch.from_numpy(ids), pixel_values=images(golden, folder, ids))


def test_qwen_visual_at_its_true_geometry(reference):
    from safetensors.torch import load_file

    folder = reference / "golden" / "tiny_qwen_vl"
    numbers = json.loads((folder / "visual448.json").read_text())
    visual = QwenVLVisual(
        QwenVLVisionConfig(
            hidden_size=numbers["width"],
            intermediate_size=int(numbers["width"] * numbers["mlp_ratio"]),
            num_hidden_layers=numbers["layers"],
            num_attention_heads=numbers["heads"],
            num_queries=numbers["n_queries"],
            output_size=numbers["output_dim"],
        )
    )
    weights = load_file(folder / "visual448.safetensors")
    initialise(visual.attn_pool)  # the fixed table is computed, not only read
    assert worst(visual.attn_pool.pos_embed, weights["attn_pool.pos_embed"].numpy()) < 1e-6
    front, state = "model.visual.", {}
    for name, tensor in weights.items():
        state |= convert_qwen.rename(numbers["heads"], f"transformer.visual.{name}", tensor)
    visual.load_state_dict({name.removeprefix(front): tensor for name, tensor in state.items()})
    channel, row, column = np.ogrid[0:3, 0:448, 0:448]
    image = np.sin(0.37 * channel + 0.3 + 0.013 * row * (channel + 1) + 0.017 * column)
    pixels = torch.from_numpy(image.astype(np.float32))[None]
    golden = np.load(folder / "visual448_outputs.npz")
    assert worst(pixels[:, :, ::64, ::64], golden["input_sample"]) < 1e-6
    assert worst(visual(pixels), golden["output"]) < TOLERANCE
