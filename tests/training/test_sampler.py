from pathlib import Path

import official
import pytest
import torch

from sgv_lab.errors import LabError
from sgv_lab.training.sampler import grouped_by_length, grouped_by_modality

LENGTHS = [n if i % 3 else -n for i, n in enumerate(range(5, 65))]


@pytest.mark.reference
def test_equals_the_official_orders(reference: Path) -> None:
    file = official.read(reference, "sampler_order")
    lengths = file["modality_lengths"]
    words = [abs(n) for n in lengths]
    for run in file["runs"]:
        batch, count = run["batch_size"], run["world_size_times_accumulation"]
        seed = run["torch_manual_seed"]
        assert grouped_by_modality(lengths, batch, count, seed) == run["order_group_by_modality"]
        one_kind = grouped_by_modality(words, batch, count, seed)
        assert one_kind == run["order_group_by_modality_single_modality"]
        generator = torch.Generator().manual_seed(seed)
        plain = grouped_by_length(words, batch, count, generator)
        assert plain == run["order_not_by_modality_abs_lengths"]
    assert len(file["runs"]) >= 4


def test_groups_hold_one_modality_and_everything_once() -> None:
    order = grouped_by_modality(LENGTHS, batch_size=4, batches=2, seed=1)
    assert sorted(order) == list(range(60))
    whole = order[: (40 // 8 + 20 // 8 - 1) * 8]  # the last group of either kind is mixed
    for first in range(0, len(whole), 8):
        assert len({LENGTHS[i] > 0 for i in whole[first : first + 8]}) == 1
    assert order != grouped_by_modality(LENGTHS, 4, 2, seed=2)
    state = torch.random.get_rng_state()
    grouped_by_modality(LENGTHS, 4, 2, seed=1)
    assert (torch.random.get_rng_state() == state).all()


def test_a_record_without_words_is_refused() -> None:
    with pytest.raises(LabError, match="record number 2 has no words"):
        grouped_by_modality([4, -3, 0], 1, 1, seed=0)
