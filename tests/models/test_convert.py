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
import transformers
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families
from sgv_lab.models.convert import convert
from sgv_lab.models.tokenizers import QWEN_VL_SPECIAL

ROWS = 320  # of the original vocabulary
TOWER = "tuned-clip-l12"


@pytest.fixture(scope="module")
def model():
    return families.build(
        "llava-1.5-7b", "mini", 0, text_config={"vocab_size": 384}, image_token_index=ROWS
    )


@pytest.fixture(scope="module")
def wide():
    """As wide as OpenAI's large tower for images of 336 pixels, and two blocks deep."""
    sizes = {"hidden_size": 1024, "image_size": 336, "patch_size": 14}
    sizes |= {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16}
    text = {"vocab_size": 384}
    return families.build(
        "llava-1.5-7b", "mini", 0, text_config=text, vision_config=sizes, image_token_index=ROWS
    )


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
    result = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    same(model, tmp_path / "new")
    _, processor = checkpoints.load(tmp_path / "new")
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == ROWS
    assert "ASSISTANT" in processor.chat_template
    assert (
        json.loads((tmp_path / "new" / "generation_config.json").read_text())["eos_token_id"] == 2
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "source"]
    (tmp_path / "usual").touch()
    modes = {p.stat().st_mode for p in (*(tmp_path / "new").iterdir(), tmp_path / "usual")}
    assert len(modes) == 1, "colleagues may read the weights as any other file"


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
    with pytest.raises(LabError, match=r'Missing key.*"model.multi_modal_projector'):
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
            r'Missing key.*: "model.language_model.layers.1.input[^,]*"\.',
        ),
        (
            lambda s: rewrite(s, lambda t: t.update(odd=torch.zeros(1))),
            r'Unexpected key.*: "odd"\.',
        ),
        (
            lambda s: rewrite(s, lambda t: t.update({NORM: torch.zeros(3)})),
            r"size mismatch for .*layers.1.input_layernorm.weight: .*\[3\]\).*\[128\]\)",
        ),
        (
            lambda s: (s / "model-00002-of-00003.safetensors").unlink(),
            "shards are missing: model-00002-of-00003.safetensors",
        ),
        (
            lambda s: (s / "model-00002-of-00003.safetensors").write_bytes(b"\x08" + b"\x00" * 20),
            "model-00002-of-00003.safetensors: is damaged or cut short",
        ),
        (lambda s: (s / "tokenizer.model").unlink(), "tokenizer.model: is no sentencepiece model"),
        (
            lambda s: originals.write_sentencepiece(s / "tokenizer.model", 330),
            "the tokenizer's image token is 330, the model's is 320",
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
        ({"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters"),
        ({"text_config": {}}, "in Hugging Face format already"),
        ({"num_hidden_layers": 4}, r"Missing key.*layers\.3\.self_attn\.q_proj"),
    ],
)
def test_settings_are_refused_by_name(model, tmp_path, changes, message):
    source = lay_out(model, tmp_path / "source", tower=True, **changes)
    with pytest.raises(LabError, match=message):
        convert(source, tmp_path / "new")


CLIP = "clip-vit-large-patch14-336"


def write_tower_settings(model, folder: Path, form: str, **changes) -> None:
    """The tower's config.json as older releases of transformers left it."""
    vision = model.config.vision_config.to_dict()
    short = ("hidden_size", "image_size", "intermediate_size", "num_attention_heads")
    short = {key: vision[key] for key in (*short, "num_hidden_layers", "patch_size")} | changes
    written = {
        "short": {"model_type": "clip", "vision_config": short},
        "alone": {"model_type": "clip_vision_model", **short},
        "dict": {"model_type": "clip", "vision_config": {}, "vision_config_dict": short},
    }
    (folder / "config.json").write_text(json.dumps(written[form]))


@pytest.mark.parametrize("form", ["short", "alone", "dict"])
def test_settings_left_out_are_the_classes_defaults(model, tmp_path, form):
    left_out = {"hidden_act": None, "max_position_embeddings": None, "rms_norm_eps": None}
    source = lay_out(model, tmp_path / "source", tower=False, **left_out)
    folder = lay_out_tower(model, tmp_path / TOWER)
    write_tower_settings(model, folder, form)
    same(model, convert(source, tmp_path / "new", vision_tower=folder))
    made = checkpoints.configuration(tmp_path / "new")
    assert made.vision_config.hidden_act == "quick_gelu"
    assert made.text_config.rms_norm_eps == 1e-6  # LlamaConfig's, not LLaVA-1.5's
    assert made.text_config.max_position_embeddings == 2048
    assert made.text_config.rope_parameters["rope_theta"] == 10000


def test_the_base_of_the_positions_is_kept(model, tmp_path):
    source = lay_out(
        model,
        tmp_path / "source",
        tower=True,
        rope_theta=5e6,
        max_position_embeddings=None,
        max_sequence_length=99,
    )
    convert(source, tmp_path / "new")
    made = checkpoints.configuration(tmp_path / "new").text_config
    assert (made.rope_parameters["rope_theta"], made.max_position_embeddings) == (5e6, 99)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "config.json: the tower's hidden_act is 'gelu'"),
        ({"layer_norm_eps": 1e-6}, "config.json: the tower's layer_norm_eps is 1e-06"),
        ({"hidden_size": "wide"}, "config.json: is no configuration of a CLIP vision tower"),
    ],
)
def test_a_towers_settings_are_refused_naming_its_file(model, tmp_path, changes, message):
    source = lay_out(model, tmp_path / "source", tower=False)
    folder = lay_out_tower(model, tmp_path / TOWER)
    write_tower_settings(model, folder, "short", **changes)
    with pytest.raises(LabError, match=f"{TOWER}/{message}"):
        convert(source, tmp_path / "new", vision_tower=folder)


def test_a_default_that_is_not_the_weights_is_refused(model, tmp_path):
    source = lay_out(model, tmp_path / "source", tower=False)
    folder = lay_out_tower(model, tmp_path / TOWER)
    write_tower_settings(model, folder, "short")
    settings = json.loads((folder / "config.json").read_text())
    del settings["vision_config"]["image_size"]  # 224, where the weights say 64
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(LabError, match=r"size mismatch for .*position_embedding"):
        convert(source, tmp_path / "new", vision_tower=folder)


@pytest.mark.parametrize(
    ("named", "folder", "fits"),
    [
        ("openai/clip-vit-large-patch14", CLIP, False),  # the one's name begins the other's
        (f"openai/{CLIP}", "clip-vit-large-patch14", False),
        (f"openai/{CLIP}", f"{CLIP}-cache/other", False),
        (f"openai/{CLIP}", f"models--openai--{CLIP}/snapshots/ce19dc", True),
        (f"openai/{CLIP}", f"{CLIP}/snapshots/ce19dc", True),
        (f"openai/{CLIP}", f"models--someone--{CLIP}/snapshots/ce19dc", False),
        (f"openai/{CLIP}", CLIP, True),
        (f"/data/{CLIP}/", CLIP, True),
        (f"someone/{TOWER}", "CLIP", False),
    ],
)
def test_a_tower_is_known_by_a_whole_name(model, tmp_path, named, folder, fits):
    source = lay_out(model, tmp_path / "source", tower=False, mm_vision_tower=named)
    tower = lay_out_tower(model, tmp_path / folder)
    if fits:
        convert(source, tmp_path / "new", vision_tower=tower)
    else:
        with pytest.raises(LabError, match="was trained with the vision tower"):
            convert(source, tmp_path / "new", vision_tower=tower)


@pytest.mark.parametrize(("folder", "fits"), [("CLIP", True), ("models--a--b/snapshots/1", False)])
def test_a_tower_is_known_by_the_name_in_its_configuration(model, tmp_path, folder, fits):
    """But not in the hub's cache: what somebody tuned still names what it was loaded from."""
    source = lay_out(model, tmp_path / "source", tower=False)
    tower = lay_out_tower(model, tmp_path / folder)
    settings = json.loads((tower / "config.json").read_text())
    (tower / "config.json").write_text(json.dumps(settings | {"_name_or_path": f"someone/{TOWER}"}))
    if fits:
        same(model, convert(source, tmp_path / "new", vision_tower=tower))
    else:
        with pytest.raises(LabError, match="was trained with the vision tower"):
            convert(source, tmp_path / "new", vision_tower=tower)


@pytest.mark.parametrize(
    ("folder", "named", "refused"),
    [
        ("CLIP", CLIP, ""),
        ("CLIP", "clip-vit-large-patch14", "is for images of 336 pixels in patches of 14"),
        ("CLIP", "clip-vit-base-patch16", "was trained with the vision tower"),
        ("CLIP", TOWER, "was trained with the vision tower"),
        # the same sizes under another name in the hub's cache: somebody tuned it
        (f"models--someone--{TOWER}/snapshots/1", CLIP, "was trained with the vision tower"),
        (f"models--openai--{CLIP}/snapshots/1", CLIP, ""),
    ],
)
def test_openais_towers_are_known_by_their_sizes(wide, tmp_path, folder, named, refused):
    source = lay_out(wide, tmp_path / "source", tower=False, mm_vision_tower=f"openai/{named}")
    tower = lay_out_tower(wide, tmp_path / folder)
    if refused:
        with pytest.raises(LabError, match=refused):
            convert(source, tmp_path / "new", vision_tower=tower)
    else:
        same(wide, convert(source, tmp_path / "new", vision_tower=tower))


def test_a_tower_of_another_size_is_refused_under_the_right_name(model, tmp_path):
    source = lay_out(model, tmp_path / "source", tower=False, mm_vision_tower=f"openai/{CLIP}")
    tower = lay_out_tower(model, tmp_path / CLIP)
    size = {"hidden_size": 1024, "image_size": 224, "patch_size": 14}
    write_tower_settings(model, tower, "short", **size)
    with pytest.raises(LabError, match=r"config.json: is for images of 224 pixels"):
        convert(source, tmp_path / "new", vision_tower=tower)


def apart(model, folder: Path, *, tower=True, **changes) -> tuple[Path, dict[str, torch.Tensor]]:
    """A source without its projector, and the projector's tensors."""
    source, projector = lay_out(model, folder, tower=tower, **changes), {}

    def take(state):
        projector.update({n: state.pop(n) for n in list(state) if "mm_projector" in n})

    rewrite(source, take)
    return source, projector


@pytest.mark.parametrize(
    "before", ["base_model.model.", "module.", "", "short", "model.", "_orig_mod.module."]
)
def test_a_projector_saved_under_a_prefix(model, tmp_path, before):
    source, projector = apart(model, tmp_path / "source")
    cut = len("model.") if before == "short" else 0
    named = {("" if cut else before) + name[cut:]: t for name, t in projector.items()}
    torch.save(named, source / "mm_projector.bin")
    same(model, convert(source, tmp_path / "new"))


@pytest.mark.parametrize("before", ["base_model.model.", "module.", "model.", "_orig_mod."])
def test_a_whole_model_saved_under_a_prefix(model, tmp_path, before):
    source = lay_out(model, tmp_path / "source", tower=True)
    rewrite(source, lambda state: [state.update({before + n: state.pop(n)}) for n in list(state)])
    same(model, convert(source, tmp_path / "new"))


def test_files_of_old_releases_and_of_trainers(model, tmp_path):
    source, projector = apart(model, tmp_path / "source")
    torch.save(projector, source / "mm_projector.bin", _use_new_zipfile_serialization=False)
    same(model, convert(source, tmp_path / "new"))
    torch.save({"state_dict": projector, "epoch": 1}, source / "mm_projector.bin")
    same(model, convert(source, tmp_path / "newer"))
    for value, message in (
        ({**projector, "epoch": 1}, "'epoch' is a int, not a tensor"),
        (list(projector.values()), "holds a list, not tensors by name"),
    ):
        torch.save(value, source / "mm_projector.bin")
        with pytest.raises(LabError, match=f"mm_projector.bin: {message}"):
            convert(source, tmp_path / "none")
    cut = (source / "mm_projector.bin").read_bytes()[:-200]
    (source / "mm_projector.bin").write_bytes(cut)
    with pytest.raises(LabError, match=r"mm_projector.bin: is damaged or cut short"):
        convert(source, tmp_path / "none")


@pytest.mark.parametrize(
    "adapters",
    [
        ["adapter_model.bin"],
        ["adapter_model.safetensors"],
        ["adapter_config.json"],
        ["non_lora_trainables.bin"],
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_adapters_are_named(model, tmp_path, adapters, alone):
    source = lay_out(model, tmp_path / "source", tower=True)
    for name in adapters:
        (source / name).write_bytes(b"")
    for file in source.glob("model*") if alone else ():
        file.unlink()
    with pytest.raises(LabError, match=rf"source: holds LoRA adapters \({adapters[0]}\). Merge"):
        convert(source, tmp_path / "new")


def test_adapters_among_the_weights_and_a_projector_alone_are_named(model, tmp_path):
    source = lay_out(model, tmp_path / "source", tower=True)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    rewrite(source, lambda state: state.update({name: torch.zeros(4, 4)}))
    with pytest.raises(LabError, match=r"q_proj.lora_A.default.weight belongs to a LoRA adapter"):
        convert(source, tmp_path / "new")
    for file in source.glob("model*"):
        file.unlink()
    torch.save({}, source / "mm_projector.bin")
    with pytest.raises(LabError, match="source: no weights here but a projector"):
        convert(source, tmp_path / "new")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_difference_to_a_base_is_named(model, tmp_path, ending):
    source = lay_out(model, tmp_path / "LLaVA-7b-delta-v0", tower=True)
    noise = torch.Generator().manual_seed(0)

    def delta(state):
        for name, tensor in state.items():
            if "vision_tower" not in name and "mm_projector" not in name:
                state[name] = torch.randn(tensor.shape, generator=noise) * 0.004

    whole = {}
    rewrite(source, lambda state: (delta(state), whole.update(state)))
    if ending == "bin":
        for file in source.glob("model*"):
            file.unlink()
        originals.write_shards(whole, source, 2, "bin")
    with pytest.raises(LabError, match="delta-v0: holds delta weights, a difference to a base"):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # the name alone says nothing: what was added to its base keeps it
    applied = lay_out(model, tmp_path / "delta-applied", tower=True, _name_or_path="a/b-delta-v0")
    same(model, convert(applied, tmp_path / "new"))


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

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        convert(source, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "there"]


QWEN_RANKS = 260  # the 256 bytes and four merges


@pytest.fixture(scope="module")
def qwen():
    image = QWEN_RANKS + QWEN_VL_SPECIAL.index("<imgpad>")
    return families.build(
        "qwen-vl-chat", "mini", 0, text_config={"vocab_size": 512}, image_start_id=image - 2
    )


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
    result = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / "new")])
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
        ({"num_hidden_layers": 2}, r"Unexpected key.*language_model\.layers\.2\."),
        ({"vocab_size": 400}, "the tokenizer has 477 tokens, the model 400"),
        ({"vocab_size": 480}, r"size mismatch for .*embed_tokens.*\[512, 128\]\).*\[480, 128\]\)"),
    ],
)
def test_qwen_settings_are_refused_by_name(qwen, tmp_path, changes, message):
    source = lay_out_qwen(qwen, tmp_path / "source", **changes)
    with pytest.raises(LabError, match=message):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_qwen_under_a_prefix_with_settings_left_out_and_as_a_delta(qwen, tmp_path):
    source = lay_out_qwen(qwen, tmp_path / "source")
    settings = json.loads((source / "config.json").read_text())
    for name in ("no_bias", "rotary_pct", "rotary_emb_base", "layer_norm_epsilon"):
        del settings[name]
    (source / "config.json").write_text(json.dumps(settings))
    for file in source.glob("pytorch_model*"):
        file.unlink()
    state = originals.original_qwen(qwen)
    originals.write_shards({f"module.{n}": t for n, t in state.items()}, source, 2, "bin")
    loaded, _ = checkpoints.load(convert(source, tmp_path / "new"))
    for name, tensor in qwen.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.config.text_config.rms_norm_eps == 1e-6
    delta = {n: t if "visual" in n else t * 0.01 for n, t in state.items()}
    originals.write_shards(delta, source, 2, "bin")
    with pytest.raises(LabError, match="holds delta weights"):
        convert(source, tmp_path / "newer")


def test_qwen_with_another_tokenizer(qwen, tmp_path):
    source = lay_out_qwen(qwen, tmp_path / "source")
    lines = (source / "qwen.tiktoken").read_text().splitlines()
    (source / "qwen.tiktoken").write_text("\n".join(lines[:-1]))
    with pytest.raises(LabError, match="image token is 475, the model's is 476"):
        convert(source, tmp_path / "new")


MEASURE = """
import sys, threading, time
from pathlib import Path
from sgv_lab.models.convert import convert
def kilobytes():  # without the files that are mapped, which the system may drop and read again
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
for folder in sys.argv[1:]:
    before, seen, done = kilobytes(), [], threading.Event()
    def watch():
        while not done.wait(0.002):
            seen.append(kilobytes())
    watcher = threading.Thread(target=watch)
    watcher.start()
    convert(folder, folder + "-new", max_shard_size=10_000_000)
    done.set()
    watcher.join()
    print(max(seen) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured by Linux's /proc")
def test_weights_stay_in_their_files_until_they_are_written(tmp_path):
    sizes = {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "vocab_size": 384,
    }
    big = families.build("llava-1.5-7b", "mini", 0, text_config=sizes, image_token_index=ROWS)
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
        assert share < 0.6
