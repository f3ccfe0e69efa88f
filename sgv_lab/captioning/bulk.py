"""Captioning many images with a model: batches, images loaded ahead, resumable.

Batches are made of all images of a file of the writer, whatever is there already, so a run that
was killed ends with the captions of one that was not, sampled ones too. A batch waits for its
longest caption; an engine (`collect`) does not, and is the way for many images.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import BatchFeature, DynamicCache, PreTrainedModel, ProcessorMixin

from sgv_lab.captioning.image_lists import ImageList, list_images
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.captioning.writer import CaptionRun, Row
from sgv_lab.errors import LabError
from sgv_lab.files import in_threads
from sgv_lab.models import checkpoints
from sgv_lab.training.chat import shared_start
from sgv_lab.training.collate import padded_left, prompts

LOADERS = 2  # threads that read images ahead


@dataclass(frozen=True)
class Decoding:
    """How captions are decoded; the defaults are greedy. Share-Captioner's way: ORIGINAL."""

    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    static: bool = False  # a key-value cache of fixed size, which transformers compiles on a GPU

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``generate``; what only sampling uses is left out without it."""
        given = asdict(self)
        if given.pop("static"):
            given["cache_implementation"] = "static"
        if not self.do_sample:
            given |= {"temperature": None, "top_p": None}
        return given | {"top_k": 0 if self.do_sample else None, "use_cache": True}


ORIGINAL = Decoding(max_new_tokens=500, do_sample=True, num_beams=3, repetition_penalty=1.5)
"""As tools/share-cap_batch_infer.py of ShareGPT4V decodes, four images at a time, unseeded."""


def load(model: str | Path, device: str = "auto") -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a checkpoint: in bfloat16 on this process's GPU, if there is one."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return checkpoints.load(model)
    place = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return checkpoints.load(model, device=place, dtype=torch.bfloat16)


def caption(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    images: str | Path | ImageList,
    out: str | Path,
    *,
    name: str = "",
    prompt: str = CAPTIONER,
    batch_size: int = 32,
    decoding: Decoding = Decoding(),
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Caption ``images`` (see `image_lists.list_images`) into the run ``out``.

    Rows as `writer.Row`, with "tokens" (of the caption) and "ended" (False: cut at the limit).
    The same call goes on where a killed one stopped. ``name``: what the model is called in the
    rows; ``seed``: of sampling. Raises LabError as `CaptionRun` does.
    """
    listed = list_images(images)
    aspect = usual_aspect(model)
    turns = [{"from": "human", "value": f"<image>\n{prompt}"}]
    revision = checkpoints.weights_hash(model)
    settings = {"model": name or model.config.model_type, "revision": revision, "seed": seed}
    settings |= {"prompt": prompt, "aspect": aspect, "dtype": str(model.dtype)}
    settings |= {"batch_size": batch_size, **asdict(decoding)}

    def load(numbers: Sequence[int]) -> tuple[list[Row], BatchFeature | None]:
        """A batch's rows, and what ``generate`` takes for the images that can be captioned."""
        found = [listed.read(number) for number in numbers]
        fit = [image for *_, image in found if image is not None]
        asked = [turns] * len(fit)
        inputs = prompts(model.config, processor, asked, fit, aspect) if fit else None
        return [row for row, *_ in found], inputs

    with CaptionRun(out, listed, settings, shard) as run, tqdm(unit="caption", disable=None) as bar:
        batches = _batches(run, batch_size)
        for rows, inputs in in_threads(load, batches, LOADERS, in_order=False):
            first = f"{seed}/{rows[0]['index']}"
            said = decode(model, processor, inputs, decoding, first) if inputs else []
            for row, words in zip((r for r in rows if "reason" not in r), said, strict=True):
                row |= words
            bar.update(run.add(rows))
    return Path(out)


def _batches(run: CaptionRun, size: int) -> Iterator[Sequence[int]]:
    """Batches of each file's images, unless all have a row."""
    for numbers, missing in run.missing():
        for batch in (numbers[i : i + size] for i in range(0, len(numbers), size)):
            if not set(batch).isdisjoint(missing):
                yield batch


def usual_aspect(model: PreTrainedModel) -> str:
    """How the model's family is fine-tuned: LLaVA-1.5 on padded images, the others not."""
    return "pad" if model.config.model_type == "llava" else "square"


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    inputs: BatchFeature,
    decoding: Decoding,
    seed: object = 0,
    words: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """A "caption" for each of the (B, T) prompts, with its "tokens" and whether it "ended".

    ``words``: two tokens; then there is a "margin", too: the first one's logit where the answer
    begins, less the second one's. The caller's random state is left alone. Raises LabError if the
    device's memory is too small.
    """
    width = inputs["input_ids"].shape[1]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(hashlib.sha256(str(seed).encode()).hexdigest()[:15], 16))
        try:
            output = model.generate(
                **inputs.to(model.device, model.dtype),
                **decoding.arguments(),
                return_dict_in_generate=True,
                output_logits=bool(words),
            )
        except torch.OutOfMemoryError as error:
            problem = f"{len(inputs['input_ids'])} images at once need too much memory"
            raise LabError(problem, fix="batch fewer") from error
    stop = torch.atleast_1d(torch.tensor(model.generation_config.eos_token_id)).tolist()
    said = []
    for row, ids in enumerate(output.sequences[:, width:].tolist()):
        end = next((i for i, token in enumerate(ids) if token in stop), len(ids))
        text = processor.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
        said.append({"caption": text, "tokens": end, "ended": end < len(ids)})
        if words:
            first, other = output.logits[0][row, words]
            said[row]["margin"] = (first - other).item()
    return said


@torch.inference_mode()
def prefill(
    model: PreTrainedModel,
    groups: Sequence[Sequence[list[int]]],
    pixels: Mapping[str, torch.Tensor],
) -> DynamicCache:
    """The cache, N rows, of what the prompts about each of N images begin with.

    ``groups``: an image's prompts as ids, for each image; ``pixels``: the images as ``forward``
    takes them. All rows are as long as the shortest beginning, which always holds the image. What
    all prompts begin with before it is computed once, not N times.
    """
    firsts = [group[0] for group in groups]
    shortest = min(len(ids) for group in groups for ids in group)
    end = min(shortest - 1, *(shared_start(*group) for group in groups))
    head, image = firsts[0][: shared_start(*firsts)], model.config.image_token_id
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
