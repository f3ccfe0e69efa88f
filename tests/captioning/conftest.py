"""A drawn world on disk and a tiny model with random weights, for all tests of captioning."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.render import render
from sgv_lab.world.scene import MINIATURE, scene


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of the miniature world in the official layout."""
    root = tmp_path_factory.mktemp("world")
    for seed in range(40):
        one = scene(seed, difficulty=MINIATURE)
        path = root / one.image_name
        path.parent.mkdir(parents=True, exist_ok=True)
        render(one, 64).save(path)
    return root


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand plain images of different colours, as fast to make as to recognise."""
    root = tmp_path_factory.mktemp("many")
    for n in range(1_000):
        Image.new("RGB", (16, 16), (n % 256, n // 256, 99)).save(root / f"{n:04d}.png")
    return root


@pytest.fixture(scope="session")
def loaded() -> tuple[Any, Any]:
    """(model, processor) of LLaVA-1.5 in miniature; what it writes is gibberish, and its own."""
    from sgv_lab.models import families, mini
    from sgv_lab.training.conversation import SYSTEM

    texts = [SYSTEM] + [caption(scene(n), ANNOTATORS["gpt4_vision"]) for n in range(30)]
    tokenizer = mini.train_tokenizer(texts)
    model = families.build("llava-1.5-7b", "mini", seed=0)
    return model, families.processor("llava-1.5-7b", "mini", tokenizer)
