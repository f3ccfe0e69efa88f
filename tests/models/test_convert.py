"""Conversion of original layouts: whole in, whole out, or refused by name."""

import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path

import originals
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, commands, families
from sgv_lab.models.convert import convert
from sgv_lab.models.tokenizers import QWEN_VL_SPECIAL

ROWS = 320  # of the original vocabulary
TOWER = "tuned-clip-l12"


@pytest.fixture(scope="module")
def model():
    return families.build("llava-1.5-7b", "mini", 0, vocab_size=384, image_token_id=ROWS)


def lay_out(
    model, folder: Path, *, tower: bool, ending: str = "safetensors", shards: int = 3, **changes
) -> Path:
    """``model`` in ShareGPT4V's layout: shards, with or without the tower's weights."""
    folder.mkdir(parents=True)
    state = originals.original_llava(model)
    if not tower:
        state = {n: t for n, t in state.items() if "vision_tower" not in n}
    originals.write_shards(state, folder, shards, ending)
    text = model.config.text_config
    settings = {
        "model_type": "share4v",
        "mm_vision_tower": f"someone/{TOWER}",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "hidden_act": "silu",
        "vocab_size": ROWS,
    }
    for name in (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("rms_norm_eps", "max_position_embeddings"),
    ):
        settings[name] = getattr(text, name)
    if tower:
        settings["vision_config"] = model.config.vision_config.to_dict()
    settings = {k: v for k, v in (settings | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    originals.write_sentencepiece(folder / "tokenizer.model", ROWS)
    return folder


def lay_out_tower(model, folder: Path) -> Path:
    """The vision tower alone, as transformers saves it."""
    tower = CLIPVisionModel(model.config.vision_config)
    tower.load_state_dict(model.model.vision_tower.state_dict())
    tower.save_pretrained(folder)
    return folder


def same(model, converted: Path) -> None:
    """The converted weights are the model's own, but for the rows added."""
    ours, _ = checkpoints.load(converted)
    theirs = model.state_dict()
    for name, tensor in ours.state_dict().items():
        rows = ROWS if name.endswith(("embed_tokens.weight", "lm_head.weight")) else len(tensor)
        assert torch.equal(tensor[:rows], theirs[name][:rows]), name
        if rows != len(tensor):
            assert torch.allclose(
                tensor[rows:], tensor[:rows].mean(0).expand(len(tensor) - rows, -1)
            )


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_whole_checkpoint(model, tmp_path, ending):
    source = lay_out(model, tmp_path / "source", tower=True, ending=ending)
    result = CliRunner().invoke(commands.convert, [str(source), str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    same(model, tmp_path / "new")
    _, processor = checkpoints.load(tmp_path / "new")
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == ROWS
    assert "ASSISTANT" in processor.chat_template
    assert (
        json.loads((tmp_path / "new" / "generation_config.json").read_text())["eos_token_id"] == 2
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "source"]


@pytest.mark.parametrize("place", ["inside", "beside", "full CLIP"])
def test_tower_in_a_folder_of_its_own(model, tmp_path, place):
    source = lay_out(model, tmp_path / "source", tower=False)
    folder = source / "vision_tower" if place == "inside" else tmp_path / TOWER
    lay_out_tower(model, folder)
    if place == "full CLIP":  # the other half of CLIP is left aside
        state = {
            f"vision_model.{n}": t.clone() for n, t in model.model.vision_tower.state_dict().items()
        }
        state |= {"text_model.x": torch.zeros(2), "logit_scale": torch.zeros(())}
        save_file(state, folder / "model.safetensors")
    tower = None if place == "inside" else folder
    same(model, convert(source, tmp_path / "new", vision_tower=tower))


def test_projector_in_a_file_of_its_own(model, tmp_path):
    source = lay_out(model, tmp_path / "source", tower=True)
    state = originals.original_llava(model)
    projector = {n: t for n, t in state.items() if "mm_projector" in n}
    originals.write_shards({n: t for n, t in state.items() if n not in projector}, source)
    with pytest.raises(LabError, match=r"4 weights missing: model.multi_modal_projector"):
        convert(source, tmp_path / "new")
    torch.save(projector, source / "mm_projector.bin")
    same(model, convert(source, tmp_path / "new"))


def test_missing_tower_is_refused_by_name(model, tmp_path):
    source = lay_out(model, tmp_path / "source", tower=False)
    with pytest.raises(LabError, match=TOWER):
        convert(source, tmp_path / "new")
    wrong = lay_out_tower(model, tmp_path / "clip-vit-large-patch14-336")
    with pytest.raises(LabError, match=f"trained with the vision tower 'someone/{TOWER}', not"):
        convert(source, tmp_path / "new", vision_tower=wrong)
    assert not (tmp_path / "new").exists()


def rewrite(source: Path, change) -> None:
    """Change the state of a safetensors layout and write it again."""
    state = {}
    for file in sorted(source.glob("model-*.safetensors")):
        state |= load_file(file)
    change(state)
    originals.write_shards(state, source)


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda s: rewrite(s, lambda t: t.pop(NORM)),
            "1 weights missing: model.language_model.layers.1.input",
        ),
        (lambda s: rewrite(s, lambda t: t.update(odd=torch.zeros(1))), "1 weights unknown: odd"),
        (
            lambda s: rewrite(s, lambda t: t.update({NORM: torch.zeros(3)})),
            rf"1 weights misshapen: {NORM} \(3,\), not \(128,\)",
        ),
        (
            lambda s: (s / "model-00002-of-00003.safetensors").unlink(),
            "model-00002-of-00003.safetensors: this shard is missing",
        ),
        (
            lambda s: (s / "model-00002-of-00003.safetensors").write_bytes(b"\x08" + b"\x00" * 20),
            "model-00002-of-00003.safetensors: is damaged or cut short",
        ),
        (lambda s: (s / "tokenizer.model").unlink(), "tokenizer.model: is no sentencepiece model"),
        (
            lambda s: originals.write_sentencepiece(s / "tokenizer.model", 330),
            "330 tokens, but the model has 320",
        ),
        (lambda s: (s / "config.json").unlink(), "config.json: cannot be read as JSON"),
        (lambda s: (s / "config.json").write_text("[1]"), "config.json: is not a JSON object"),
    ],
    ids=["missing", "extra", "shape", "shard", "cut", "no tokens", "tokens", "config", "list"],
)
def test_damage_is_refused_by_name(model, tmp_path, damage, message):
    source = lay_out(model, tmp_path / "source", tower=True)
    damage(source)
    with pytest.raises(LabError, match=message):
        convert(source, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "config.json: has no 'hidden_size'"),
        ({"model_type": None}, "config.json: has no 'model_type'"),
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not an original layout"),
        ({"mm_projector_type": "mlp9x"}, "mm_projector_type is 'mlp9x'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"text_config": {}}, "in Hugging Face format already"),
        ({"num_hidden_layers": 4}, "9 weights missing"),
    ],
)
def test_settings_are_refused_by_name(model, tmp_path, changes, message):
    source = lay_out(model, tmp_path / "source", tower=True, **changes)
    with pytest.raises(LabError, match=message):
        convert(source, tmp_path / "new")


class Spy:
    """Runs when unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))

    def __init__(self, path):
        self.path = str(path)


def test_unpickling_is_refused_and_does_not_happen(model, tmp_path):
    source = lay_out(model, tmp_path / "source", tower=True, ending="bin")
    file = source / "pytorch_model-00001-of-00003.bin"
    torch.save({"a": Spy(tmp_path / "ran")}, file)
    with pytest.raises(LabError, match=f"{file.name}: can only be loaded by unpickling code"):
        convert(source, tmp_path / "new")
    file.write_bytes(pickle.dumps({"a": Spy(tmp_path / "ran")}))
    with pytest.raises(LabError, match=file.name):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "ran").exists()


def test_an_existing_target_and_a_failed_write(model, tmp_path, monkeypatch):
    source = lay_out(model, tmp_path / "source", tower=True)
    (tmp_path / "there").mkdir()
    with pytest.raises(LabError, match="already there"):
        convert(source, tmp_path / "there")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sgv_lab.models.shards.save_file", full)
    with pytest.raises(OSError, match="No space"):
        convert(source, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "there"]


QWEN_RANKS = 260  # the 256 bytes and four merges


@pytest.fixture(scope="module")
def qwen():
    image = QWEN_RANKS + QWEN_VL_SPECIAL.index("<imgpad>")
    return families.build("qwen-vl-chat", "mini", 0, vocab_size=512, image_token_id=image)


def lay_out_qwen(model, folder: Path, **changes) -> Path:
    """``model`` in Qwen-VL-Chat's layout: three shards and qwen.tiktoken."""
    folder.mkdir()
    originals.write_shards(originals.original_qwen(model), folder, 3, "bin")
    vision, text = model.config.vision_config, model.config.text_config
    settings = {
        "model_type": "qwen",
        "no_bias": True,
        "rotary_pct": 1.0,
        "rotary_emb_base": 10000,
        "kv_channels": text.hidden_size // text.num_attention_heads,
        "seq_length": model.config.seq_length,
        "layer_norm_epsilon": text.rms_norm_eps,
        "intermediate_size": 2 * text.intermediate_size,
        "visual": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "heads": vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "output_dim": vision.output_size,
            "n_queries": vision.num_queries,
            "image_start_id": model.config.image_start_id,
        },
    }
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        settings[name] = getattr(text, name)
    (folder / "config.json").write_text(json.dumps(settings | changes))
    tokens = [bytes([i]) for i in range(256)] + [b"th", b"the", b"in", b"ing"]
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    (folder / "qwen.tiktoken").write_text("\n".join(lines))
    return folder


def test_whole_qwen(qwen, tmp_path):
    source = lay_out_qwen(qwen, tmp_path / "source")
    result = CliRunner().invoke(commands.convert, [str(source), str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    loaded, processor = checkpoints.load(tmp_path / "new")
    for name, tensor in qwen.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert processor.tokenizer("thing the").input_ids == [256, 259, ord(" "), 257]
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
        add_generation_prompt=True,
    )
    assert "Picture 1: <img><imgpad></img>\nWhat?<|im_end|>" in text
    inputs = processor(text=text, images=Image.new("RGB", (30, 20)), return_tensors="pt")
    assert loaded.model.image_mask(inputs.input_ids, 1).sum() == 16
    assert loaded(**inputs).logits.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"no_bias": False}, "no_bias is False"),
        ({"visual": {}}, "config.json: has no 'output_dim'"),
        ({"num_hidden_layers": 2}, "12 weights unknown: transformer.h.2"),
        ({"vocab_size": 400}, "477 tokens with <img> at 474, but the model has 400"),
        ({"vocab_size": 480}, r"2 weights misshapen: .*wte.* \(512, 128\), not \(480, 128\)"),
    ],
)
def test_qwen_settings_are_refused_by_name(qwen, tmp_path, changes, message):
    source = lay_out_qwen(qwen, tmp_path / "source", **changes)
    with pytest.raises(LabError, match=message):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_qwen_with_another_tokenizer(qwen, tmp_path):
    source = lay_out_qwen(qwen, tmp_path / "source")
    lines = (source / "qwen.tiktoken").read_text().splitlines()
    (source / "qwen.tiktoken").write_text("\n".join(lines[:-1]))
    with pytest.raises(LabError, match="<img> at 473, but the model has 512 with <img> at 474"):
        convert(source, tmp_path / "new")


MEASURE = """
import sys
from pathlib import Path
from sgv_lab.models.convert import convert
def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
for folder in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before = kilobytes("VmRSS")
    convert(folder, folder + "-new", max_shard_size=10_000_000)
    print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's /proc")
def test_one_shard_at_a_time_is_in_memory(tmp_path):
    sizes = {"text_width": 512, "text_mlp": 1408, "text_layers": 8}
    big = families.build("llava-1.5-7b", "mini", 0, vocab_size=384, image_token_id=ROWS, **sizes)
    size = sum(p.numel() for p in big.parameters()) * 4
    assert size > 1e8
    folders = [
        str(lay_out(big, tmp_path / ending, tower=True, ending=ending, shards=12))
        for ending in ("safetensors", "bin")
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *folders], capture_output=True, text=True, check=True
    )
    for folder, more in zip(folders, done.stdout.split(), strict=True):
        share = int(more) * 1024 / size
        print(f"{folder}: {size / 1e6:.0f} MB of weights, {share:.0%} of that more at the peak")
        assert 0 < share < 0.6
