"""The official files in small, under their own names, and a tiny checkpoint in its own layout."""

import json
from pathlib import Path

import numpy as np
import test_convert
import torch
from PIL import Image
from transformers import PreTrainedModel

from sgv_lab.models import families
from sgv_lab.models.convert import convert
from sgv_lab.study import official, pretraining_data
from sgv_lab.world import benchmarks

FAMILY = "llava-1.5-7b"
TOWER = "openai/clip-vit-large-patch14-336"
COCO = [f"coco/train2017/{number:012d}.jpg" for number in range(1, 31)]
LCS = [f"llava/llava_pretrain/images/00000/{number:09d}.jpg" for number in range(1, 9)]
SAM = [f"sam/images/sa_{number}.jpg" for number in range(1, 9)]
ASKED = ("mme", "mmbench", "seed", "qbench", "vqav2", "vizwiz")


def record(image: str | None, *texts: str, key: str = "") -> dict:
    """A conversation about an image, under the image's name as officially."""
    turns = [{"from": "human" if i % 2 == 0 else "gpt", "value": v} for i, v in enumerate(texts)]
    turns[0]["value"] = ("<image>\n" if image else "") + turns[0]["value"]
    shown = {"image": image} if image else {}
    return {"id": key or Path(image).stem, **shown, "conversations": turns}


def lay(root: Path) -> Path:
    """Images, caption files and benchmarks below ``root``, as a researcher has them."""
    rng = np.random.default_rng(0)
    for name in (*COCO, *LCS, *SAM):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(root / name)
    blind = [record(name, "Describe it.", f"A blind caption of {name}.") for name in COCO[:4]]
    asked = [record(name, "Is it day?", "Yes", "How many?", "2") for name in COCO]
    texts = [record(None, "Write code.", "def f(x): return x", key=f"text_{i}") for i in range(6)]
    seen = [record(name, "Describe it.", f"GPT4-Vision sees {name}.") for name in (*COCO, *SAM)]
    dense = [record(name, "Describe it.", f"A dense caption of {name}.")
             for name in (*COCO, *LCS, *SAM)]  # fmt: skip
    short = [record(name, "Caption it.", f"a short caption {name[-5]}") for name in LCS]
    inner = [{**one, "image": one["image"].removeprefix(pretraining_data.LCS)} for one in short]
    detail = [{**one, "image": Path(one["image"]).name} for one in blind]
    files = {
        official.FILES["mix"]: [*blind, *asked, *texts],
        official.FILES["detail"]: detail,
        official.FILES["captions"]: seen,
        official.FILES["released"]: [*seen[-4:], *asked, *texts],
        pretraining_data.FILES["share"]: dense,
        pretraining_data.FILES["blip"]: inner,
    }
    (root / "sharegpt4v").mkdir()
    for name, rows in files.items():
        (root / "sharegpt4v" / name).write_text(json.dumps(rows))
    benchmarks.write(root / "benchmarks", ASKED, images=1)
    return root


def original(folder: Path) -> Path:
    """``folder`` with ORIGINAL and its vision tower CLIP, laid out as docs/full_size.md says."""
    source, projector = test_convert.apart(
        model(), folder / "ORIGINAL", tower=False, mm_vision_tower=TOWER
    )
    torch.save(projector, source / "mm_projector.bin")
    written = test_convert.lay_out_tower(model(), folder / "CLIP") / "config.json"
    # a tower this small cannot be known by its sizes
    written.write_text(json.dumps(json.loads(written.read_text()) | {"_name_or_path": TOWER}))
    return folder


def base(models: Path) -> Path:
    """A models root with a tiny checkpoint of FAMILY, converted from the original layout."""
    laid = original(models.with_name("original"))
    convert(laid / "ORIGINAL", models / FAMILY, vision_tower=laid / "CLIP")
    return models


def model() -> PreTrainedModel:
    """Narrow, with as many blocks in its vision tower as the paper's recipes count on."""
    rows = {"text_config": {"vocab_size": 384}, "image_token_index": test_convert.ROWS}
    return families.build(FAMILY, "mini", 0, vision_config={"num_hidden_layers": 24}, **rows)
