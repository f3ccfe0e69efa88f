from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from sgv_lab.errors import LabError
from sgv_lab.training.collate import Collator
from sgv_lab.training.segments import IGNORED, IMAGE_ID

SIDE = 6
COLLATE = Collator(pad_id=0, image_token_id=50, image_tokens=3, image_size=SIDE)
PACK = Collator(pad_id=0, image_token_id=50, image_tokens=3, image_size=SIDE, packed=True)


def sample(ids: list[int], answer: int, name: str = "r") -> dict[str, Any]:
    """A sample whose last ``answer`` tokens are supervised."""
    labels = [IGNORED] * (len(ids) - answer) + ids[len(ids) - answer :]
    images = [torch.full((3, SIDE, SIDE), float(ids[-1]))] * ids.count(IMAGE_ID)
    return {"id": name, "input_ids": ids, "labels": labels, "images": images}


SAMPLES = [sample([1, IMAGE_ID, 7, 8, 2], 2, "a"), sample([1, 9, 2], 1, "b")]


def test_padded_batch() -> None:
    batch = COLLATE(SAMPLES)
    x = IGNORED
    assert batch["input_ids"].tolist() == [[1, 50, 50, 50, 7, 8, 2], [1, 9, 2, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[x, x, x, x, x, 8, 2], [x, x, 2, x, x, x, x]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 3 + [0] * 4]
    assert batch["position_ids"].tolist() == [list(range(7))] * 2
    assert batch["loss_weights"].tolist() == [[0] * 5 + [1] * 2, [0, 0, 1] + [0] * 4]
    assert batch["pixel_values"].shape == (1, 3, SIDE, SIDE)


def test_packed_batch() -> None:
    batch = PACK([*SAMPLES, sample([1, IMAGE_ID, 2], 1, "c")])
    assert batch["input_ids"].tolist() == [[1, 50, 50, 50, 7, 8, 2, 1, 9, 2, 1, 50, 50, 50, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 7, 10, 15]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == batch["max_length_k"] == 7
    assert "attention_mask" not in batch  # its absence makes transformers look at the positions
    assert batch["pixel_values"].shape == (2, 3, SIDE, SIDE)


def test_text_alone_has_no_pixels() -> None:
    assert "pixel_values" not in COLLATE([SAMPLES[1]])


def test_a_first_token_is_never_asked_for() -> None:
    # ChatML supervises its first token. In a pack that would be asked of the sample before.
    everything = sample([5, 6, 7], 3)
    labels = PACK([everything, everything])["labels"]
    assert labels.tolist() == [[IGNORED, 6, 7, IGNORED, 6, 7]]


@pytest.mark.parametrize("packed", [False, True])
def test_per_sample_weights_make_samples_equal(packed: bool) -> None:
    collate = Collator(0, 50, 3, SIDE, per_sample=True, packed=packed)
    long = sample([1, *range(3, 23), 2], 20, "long")
    batch = collate([long, SAMPLES[1]])
    logits = torch.randn(*batch["labels"].shape, 60, generator=torch.Generator().manual_seed(0))
    losses = cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none"
    )
    weighted = (losses * batch["loss_weights"][:, 1:].flatten()).sum() / 2
    own = losses[batch["labels"][:, 1:].flatten() != IGNORED]
    assert torch.allclose(weighted, (own[:20].mean() + own[20:].mean()) / 2)
    assert batch["loss_weights"].sum() == pytest.approx(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": [1, IMAGE_ID, 50, 8, 2]}, "its text holds the image token"),
        ({"images": [torch.zeros(3, 8, 8)]}, "shape (3, 8, 8), the model takes (3, 6, 6)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError) as error:
        COLLATE([{**SAMPLES[0], **change}])
    assert message in str(error.value) and "'a'" in str(error.value)


def test_a_typed_image_token_in_text_alone_is_refused_but_qwens_span_is_not() -> None:
    with pytest.raises(LabError, match="holds the image token"):
        COLLATE([sample([1, 50, 2], 1)])
    spelt = sample([1, 50, 50, 50, 2], 1)
    spelt["images"] = [torch.zeros(3, SIDE, SIDE)]
    assert COLLATE([spelt])["input_ids"].tolist() == [[1, 50, 50, 50, 2]]
