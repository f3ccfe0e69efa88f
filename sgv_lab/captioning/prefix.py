"""What prompts begin with, computed once for all of them: keys and values of a cache."""

from collections.abc import Mapping, Sequence

import torch
from transformers import BatchFeature, DynamicCache, PreTrainedModel

from sgv_lab.training.collate import padded_left


@torch.inference_mode()
def prefill(
    model: PreTrainedModel,
    groups: Sequence[Sequence[list[int]]],
    pixels: Mapping[str, torch.Tensor],
) -> DynamicCache:
    """The cache, N rows, of what the prompts about each of N images begin with.

    ``groups``: an image's prompts as ids, for each image; ``pixels``: the images as ``forward``
    takes them, none for text alone. All rows are as long as the shortest beginning, which always
    holds the image. What all prompts begin with before it is computed once, not N times.
    """
    firsts = [group[0] for group in groups]
    shortest = min(len(ids) for group in groups for ids in group)
    end = min(shortest - 1, *(_alike(group) for group in groups))
    head, image = firsts[0][: _alike(firsts)], model.config.image_token_id
    # one token earlier than the image itself: Qwen-VL takes <img> together with what follows
    start = min(end, head.index(image) - 1 if image in head else len(head))
    cache = DynamicCache(config=model.config.get_text_config())

    def extend(ids: list[list[int]], **images: torch.Tensor) -> None:
        given = BatchFeature({"input_ids": torch.tensor(ids), **images})
        given = given.to(model.device, model.dtype)
        model(**given, past_key_values=cache, use_cache=True, logits_to_keep=1)

    if start:
        extend([head[:start]])
        cache.batch_repeat_interleave(len(groups))
    if end > start:
        extend([ids[start:end] for ids in firsts], **pixels)
    return cache


def _alike(rows: Sequence[list[int]]) -> int:
    """How many ids all rows begin with."""
    columns = enumerate(zip(*rows, strict=False))
    return next((at for at, ids in columns if len(set(ids)) > 1), min(map(len, rows)))


def continued(
    cache: DynamicCache, numbers: Sequence[int], prompts: Sequence[list[int]], pad_id: int
) -> BatchFeature:
    """What ``generate`` takes to go on from rows ``numbers`` of the cache with whole prompts (B).

    Padding stands behind what is in the cache already.
    """
    length, rows = cache.get_seq_length(), torch.tensor(numbers)
    given = padded_left([torch.tensor(ids) for ids in prompts], pad_id, length)
    given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    given["past_key_values"] = DynamicCache([(k[rows], v[rows]) for k, v, *_ in cache])
    return BatchFeature(given)
