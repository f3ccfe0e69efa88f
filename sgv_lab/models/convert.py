"""Original research checkpoints in, complete Hugging Face checkpoints out."""

import textwrap
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerBase

from sgv_lab.errors import LabError
from sgv_lab.files import atomic
from sgv_lab.models import checkpoints, convert_llava, convert_qwen
from sgv_lab.models.architectures import PROCESSORS
from sgv_lab.models.weights import State, read_json

LAYOUTS = dict.fromkeys(("llava", "llava_llama", "share4v"), convert_llava) | {"qwen": convert_qwen}
"""The ``model_type`` of an original config.json -> the module that reads its folder."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    vision_tower: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_shard_size: int | str = "4GB",
) -> Path:
    """Convert the checkpoint folder ``source`` to Hugging Face format at ``target``.

    Reads the original LLaVA / ShareGPT4V layout (pytorch_model*.bin or safetensors, with
    mm_projector.bin and a vision tower's folder where they are kept apart) and the original
    Qwen-VL-Chat layout. Weights keep their precision, and stay in their files until they are
    written: little memory is needed. ``tokenizer`` is taken instead of the one in ``source``.

    Raises LabError, before anything is written, for weights that are not whole, not this layout's,
    adapters, a delta or pickled code, for another vision tower than the one named, and for a
    tokenizer that does not fit. ``target`` appears whole or not at all; it must not exist.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise LabError("is already there", where=target, fix="choose another folder")
    original = read_json(source / "config.json")
    try:
        if "text_config" in original:
            raise LabError("is in Hugging Face format already", where=source, fix="use it as it is")
        kind = original["model_type"]
        if kind not in LAYOUTS:
            what, known = f"model_type {kind!r} is not an original layout", ", ".join(LAYOUTS)
            raise LabError(what, where=source / "config.json", fix=f"known are {known}")
        layout = LAYOUTS[kind]
        tower = None if vision_tower is None else Path(vision_tower)
        config, state = layout.read(source, original, tower)
        tokenizer = tokenizer or layout.tokenizer(source, original)
    except KeyError as error:
        raise LabError(
            f"has no {error.args[0]!r}", where=source / "config.json", fix="download it again"
        ) from error
    text = config.get_text_config()
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    processor = PROCESSORS[config.model_type](config, tokenizer)
    checkpoints.refuse_tokenizer(config, processor, source)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    _fill(model, state, source)
    with atomic(target) as folder:
        checkpoints.write(model, processor, folder, max_shard_size)
    return target


def _fill(model: PreTrainedModel, state: State, source: Path) -> None:
    """Give ``model`` the weights in ``state``, which have to be all of its own and no others.

    Weights of a delta, the difference to a base as in LLaVA-7b-delta-v0, are refused. Names do not
    tell: what was added to the base keeps them. A trained model's RMSNorm weights are of the order
    of 1, but for a first layer; a difference has none.
    """
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        wrong = textwrap.shorten(str(error).partition(":")[2], 400, placeholder=" ...")
        raise LabError(wrong, where=source, fix="get the complete checkpoint") from error
    norms = (t for n, t in state.items() if "language_model" in n and n.endswith("norm.weight"))
    largest = max(n.float().abs().mean().item() for n in norms)
    if largest < 0.1:
        raise LabError(
            f"holds delta weights, a difference to a base (norm weights are {largest:.2g} or less)",
            where=source,
            fix="add them to their base first (LLaVA: python -m llava.model.apply_delta)",
        )
