"""A checkpoint is written whole, and refused unless it is whole."""

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini

TEXTS = ["A red circle is left of 12 blue squares.", "How many? 3.", "USER: ASSISTANT:"] * 5


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "checkpoint"
    model = families.build("llava-1.5-7b", "mini", 0)
    tokenizer = mini.train_tokenizer(TEXTS)
    return checkpoints.save(model, families.processor("llava-1.5-7b", "mini", tokenizer), folder)


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "copy")


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_half_precision_comes_back_as_float32(tmp_path, good):
    model, processor = checkpoints.load(good)
    folder = checkpoints.save(model.half(), processor, tmp_path / "half")
    assert (folder / "model.safetensors").stat().st_size < 3.5e6  # 1.6 M numbers of 2 bytes
    words = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"backend", "is_local", "local_files_only"} & words.keys()  # of how it was loaded
    again, _ = checkpoints.load(folder)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert type(again.config.text_config).__name__ == "LlamaConfig"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_model_is_the_loaded_one_without_its_weights(good, dtype):
    loaded, empty = (
        load(good, dtype=dtype)[0] for load in (checkpoints.load, checkpoints.load_empty)
    )
    assert {tensor.device.type for tensor in _tensors(empty).values()} == {"meta"}
    ours, theirs = (
        {n: (t.shape, t.dtype) for n, t in _tensors(m).items()} for m in (empty, loaded)
    )
    assert ours == theirs


def _tensors(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def test_an_existing_folder_is_not_touched(good):
    model, processor = checkpoints.load(good)
    before = sorted(p.name for p in good.iterdir())
    with pytest.raises(LabError, match="already there"):
        checkpoints.save(model, processor, good)
    assert sorted(p.name for p in good.iterdir()) == before


def test_a_failed_save_leaves_nothing(tmp_path, good, monkeypatch):
    model, processor = checkpoints.load(good)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(processor, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(model, processor, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder(tmp_path):
    with pytest.raises(LabError, match=r"absent: no such folder"):
        checkpoints.load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match=r"empty/config.json: cannot be read"):
        checkpoints.load(tmp_path / "empty")


def test_other_layouts_of_the_same(copy, good):
    """CLIP's names one level higher, as transformers 5 alone has them; the processor in two files.

    What is written has the names of llava-hf/llava-1.5-7b-hf.
    """
    state = load_file(copy / "model.safetensors")
    parts = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight",
             "vision_tower.vision_model.pre_layrnorm.bias",
             "multi_modal_projector.linear_2.bias")  # fmt: skip
    assert not [name for name in parts if name not in state]
    state = {n.replace("vision_model.", ""): t for n, t in state.items()}
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((copy / "processor_config.json").read_text())
    images = settings.pop("image_processor") | {"processor_class": "LlavaProcessor"}
    (copy / "preprocessor_config.json").write_text(json.dumps(images))
    (copy / "processor_config.json").write_text(json.dumps(settings))
    model, processor = checkpoints.load(copy)
    expected, _ = checkpoints.load(good)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert type(processor.image_processor).__name__ == "CLIPImageProcessorPil"
    assert processor.image_processor.crop_size["height"] == 64


@pytest.mark.parametrize("length", [4, 1000, -1000])
def test_truncated_weights(copy, length):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(LabError, match=r"model.safetensors: is damaged or cut short"):
        checkpoints.load(copy)


def test_missing_shard(tmp_path, good):
    model, processor = checkpoints.load(good)
    folder = tmp_path / "sharded"
    model.save_pretrained(folder, max_shard_size="2MB")
    processor.save_pretrained(folder)
    checkpoints.load(folder)
    linked = tmp_path / "linked"  # as in the hub's cache
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    checkpoints.load(linked)
    shard = sorted(folder.glob("model-*-of-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(LabError, match=f"shards are missing: {shard.name}"):
        checkpoints.load(folder)


def test_an_index_may_not_leave_its_folder(tmp_path, copy):
    (copy / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LabError, match="leaves its root"):
        checkpoints.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("vision_tower.vision_model.pre_layrnorm.bias"),
            "1 missing keys: .*pre_layrnorm.bias",
        ),
        (lambda s: s.update(stray=torch.zeros(2)), "1 unexpected keys: stray"),
        (
            lambda s: s.update({"multi_modal_projector.linear_1.bias": torch.zeros(7)}),
            r"1 mismatched keys: .*linear_1.bias.*7",
        ),
    ],
    ids=["missing", "extra", "misshapen"],
)
def test_weights_that_do_not_fit(copy, change, message):
    state = load_file(copy / "model.safetensors")
    change(state)
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LabError, match=message):
        checkpoints.load(copy)


@pytest.mark.parametrize("key", ["model_type", "text_config", "vision_config"])
def test_configuration_without_a_key(copy, key):
    edit_json(copy / "config.json", lambda value: value.pop(key))
    with pytest.raises(LabError, match=rf"config.json: has no '{key}'"):
        checkpoints.load(copy)


def test_configuration_of_another_size(copy):
    edit_json(copy / "config.json", lambda value: value["text_config"].pop("hidden_size"))
    with pytest.raises(LabError, match=r"\d+ mismatched keys: .*lm_head.weight"):
        checkpoints.load(copy)


def test_pickled_weights_are_not_read(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(LabError, match=r"pytorch_model.bin: is no safetensors file"):
        checkpoints.load(copy)


def test_tokenizers_of_other_models(copy, good):
    words = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=4)]
    big = mini.train_tokenizer([" ".join(words)], 2000)
    assert len(big) > 1024
    big.save_pretrained(copy)
    with pytest.raises(LabError, match=f"the tokenizer has {len(big)} tokens, the model 1024"):
        checkpoints.load(copy)
    qwen = mini.train_tokenizer(TEXTS, make="qwen")
    qwen.add_tokens(["<image>"], special_tokens=True)
    qwen.save_pretrained(copy)
    with pytest.raises(LabError, match="image token is"):
        checkpoints.load(copy)
    checkpoints.load(good)


def test_a_fingerprint_is_of_what_is_loaded(copy, good):
    known = checkpoints.fingerprint(good)
    (copy / "gate.csv").write_text("ability,accuracy\n")
    (copy / "manifest.json").write_text("{}")
    assert checkpoints.fingerprint(copy) == known
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    assert checkpoints.fingerprint(copy) != known
