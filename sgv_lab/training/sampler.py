"""The official order in which fine-tuning sees its records, grouped by modality and length.

Source: share4v_trainer.py of ShareGPT4Omni/ShareGPT4V@b6f70e9 (--group_by_modality_length). It
exists to waste less padding, and is used to measure the official speed; training here shuffles all
samples alike (`updates.Order`), so that arms stay paired. Lengths are the official ones: whitespace
words, negative for text-only records.
"""

from collections.abc import Sequence

import torch

from sgv_lab.errors import LabError


def grouped_by_length(
    lengths: Sequence[int], batch_size: int, batches: int, generator: torch.Generator
) -> list[int]:
    """A shuffle in which samples of one batch have similar lengths.

    Of every ``batches * batch_size`` shuffled samples the longest come first and are dealt, one
    by one, to the batch that so far has the least to do. ``batches``: processes times accumulation.
    """
    drawn = torch.randperm(len(lengths), generator=generator).tolist()
    size = batch_size * batches
    order: list[int] = []
    for first in range(0, len(drawn), size):
        group = sorted(drawn[first : first + size], key=lambda i: lengths[i], reverse=True)
        order += _dealt(group, lengths, batches)
    return order


def _dealt(group: list[int], lengths: Sequence[int], batches: int) -> list[int]:
    if len(group) % batches:  # an incomplete group is dealt in turn, as in the official code
        return [i for first in range(batches) for i in group[first::batches]]
    hands: list[list[int]] = [[] for _ in range(batches)]
    loads = [0.0] * batches
    for i in group:
        least = loads.index(min(loads))
        hands[least].append(i)
        loads[least] += lengths[i]
        if len(hands[least]) == len(group) // batches:
            loads[least] = float("inf")
    return [i for hand in hands for i in hand]


def grouped_by_modality(
    lengths: Sequence[int],
    batch_size: int,
    batches: int,
    seed: int,
) -> list[int]:
    """The official order of fine-tuning: groups of only images or only text, of similar length.

    ``lengths`` (N,): positive with an image, negative for text only, never 0 (LabError). A group
    is ``batch_size * batches`` samples; groups are shuffled, what is left over of both kinds comes
    last. The same as the official sampler after ``torch.manual_seed(seed)``; here the generator is
    its own, so that nothing else is disturbed.
    """
    if empty := [i for i, length in enumerate(lengths) if length == 0]:
        raise LabError(f"record number {empty[0]} has no words", fix="drop it")
    generator = torch.Generator().manual_seed(seed)
    kinds = [
        [i for i, n in enumerate(lengths) if n > 0],
        [i for i, n in enumerate(lengths) if n < 0],
    ]
    size = batch_size * batches
    if not all(kinds):
        return grouped_by_length([abs(n) for n in lengths], batch_size, batches, generator)
    groups: list[list[int]] = []
    rest: list[int] = []
    for kind in kinds:
        own = [abs(lengths[i]) for i in kind]
        order = [kind[i] for i in grouped_by_length(own, batch_size, batches, generator)]
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        groups += parts[:-1]
        rest += parts[-1]
    drawn = torch.randperm(len(groups), generator=generator).tolist()
    return [i for number in drawn for i in groups[number]] + sorted(rest)
