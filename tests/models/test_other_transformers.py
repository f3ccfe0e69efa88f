"""What is converted and trained here loads in transformers 4 and 5, without this library.

Transformers 4 comes from the package index into a folder of its own; torch is the one here.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import test_convert
from PIL import Image

from sgv_lab.models import checkpoints, families
from sgv_lab.models.convert import convert
from sgv_lab.training import trainer
from sgv_lab.training.config import base

pytestmark = pytest.mark.slow
OLDER = ["transformers==4.57.6", "tokenizers==0.22.2", "huggingface-hub==0.36.2"]
LOAD = """
import json, sys
sys.path[:0] = sys.argv[1].split()  # before what is installed
import torch, transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
found = {"version": transformers.__version__}
for folder in sys.argv[3:]:
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder)
    said = [{"type": "image"}, {"type": "text", "text": "the  red in there"}]
    said = [{"role": "user", "content": said}]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    given = processor(images=Image.open(sys.argv[2]), text=text, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**given).logits
    found[folder] = {
        "unlike": {kind: sorted(map(str, names)) for kind, names in report.items() if names},
        "ids": given["input_ids"].tolist(),
        "pixels": given["pixel_values"].double().sum().item(),
        "logits": logits.flatten().tolist(),
    }
assert "sgv_lab" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Converted with either projector, and trained from that, whole and by adapters."""
    out, draw = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    turns = [("human", "<image>\nthe red"), ("gpt", "there in the")]
    turns = [{"from": who, "value": text} for who, text in turns]
    records = []
    for number in range(4):
        noise = draw.integers(0, 256, (48, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(out / f"{number}.png")
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    changes = {"text_config": {"vocab_size": 384}, "image_token_index": test_convert.ROWS}
    for key, kind in (("llava-1.5-7b", "mlp2x_gelu"), ("llava-7b", "linear")):
        model = families.build(key, "mini", 0, **changes)
        original = test_convert.lay_out(
            model, out / f"original-{key}", tower=True, mm_projector_type=kind
        )
        convert(original, out / key)
    for name, start in (("sft", "llava-7b"), ("sft-lora", "llava-1.5-7b"), ("sft", "llava-1.5-7b")):
        recipe = base(name, {"samples_per_step": 4, "max_steps": 2})
        given = (*checkpoints.load(out / start), records, out, recipe, out / f"{start}-{name}", 0)
        trainer.train(*given, progress=False, device="cpu")
    return out / "0.png", [path for path in sorted(out.glob("llava*")) if path.is_dir()]


def loaded(folders, *before) -> dict:
    image, paths = folders
    words = [sys.executable, "-c", LOAD, " ".join(map(str, before)), image, *paths]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, cwd=image.parent, check=False,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(image.parent), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_transformers_4_and_5_compute_the_same(folders, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path]
    got = subprocess.run([*map(str, pip), *OLDER], capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"transformers 4 cannot be installed: {got.stderr.strip()[-200:]}")
    four, five = loaded(folders, tmp_path), loaded(folders)
    assert four.pop("version") == "4.57.6" and five.pop("version").startswith("5.")
    assert len(four) == 5
    for folder, made in four.items():
        assert made["unlike"] == five[folder]["unlike"] == {}, folder
        assert made["ids"] == five[folder]["ids"], folder
        assert made["pixels"] == five[folder]["pixels"], folder
        assert made["logits"] == five[folder]["logits"], folder
