"""Original research checkpoints in, complete Hugging Face checkpoints out."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from sgv_lab.errors import LabError
from sgv_lab.files import atomic
from sgv_lab.models import architectures, convert_llava, convert_qwen
from sgv_lab.models.shards import Piece, compare, read_json, refuse_delta, write


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
    Qwen-VL-Chat layout. Weights keep their precision. One shard (``max_shard_size``) is in memory
    at a time. ``tokenizer`` is taken instead of the one in ``source``.

    Raises LabError, before anything is written, when a file or a weight is missing, left over,
    misshapen or damaged, when the weights are LoRA adapters or a delta, when the vision tower is
    not there or not the one named, when the tokenizer does not fit, or when a file could only be
    unpickled. ``target`` appears whole or not at all; it must not exist.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise LabError("is already there", where=target, fix="choose another folder")
    original = read_json(source / "config.json")
    try:
        config, pieces, tokenizer = _prepare(source, original, vision_tower, tokenizer)
    except KeyError as error:
        raise LabError(
            f"has no {error.args[0]!r}", where=source / "config.json", fix="download it again"
        ) from error
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    compare(pieces, model, source)
    refuse_delta(pieces, source)
    config.architectures, config.dtype = [type(model).__name__], pieces["lm_head.weight"].dtype
    text = config.get_text_config()
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    qwen = config.model_type == "qwen_vl"
    make = architectures.qwen_vl_processor if qwen else architectures.llava_processor
    with atomic(target) as folder:
        folder.mkdir()
        write(pieces, folder, max_shard_size)
        config.save_pretrained(folder)
        make(config, tokenizer).save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
    return target


def _prepare(
    source: Path,
    original: dict,
    vision_tower: str | Path | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[PreTrainedConfig, dict[str, Piece], PreTrainedTokenizerBase]:
    """Configuration, weights and tokenizer of ``source`` in the new form; nothing is written."""
    kind = original["model_type"]
    if "text_config" in original:
        raise LabError("is in Hugging Face format already", where=source, fix="use it as it is")
    if kind in convert_llava.MODEL_TYPES:
        folder = None if vision_tower is None else Path(vision_tower)
        folder = convert_llava.tower(source, folder, original)
        config = convert_llava.config(original, source, folder)
        rows = config.text_config.vocab_size - original["vocab_size"]
        pieces = convert_llava.pieces(source, folder, rows)
        return config, pieces, tokenizer or convert_llava.tokenizer(source, original)
    if kind in convert_qwen.MODEL_TYPES and "visual" in original:
        config = convert_qwen.config(original, source)
        pieces = convert_qwen.pieces(source)
        return config, pieces, tokenizer or convert_qwen.tokenizer(source, original)
    known = ", ".join((*convert_llava.MODEL_TYPES, *convert_qwen.MODEL_TYPES))
    raise LabError(
        f"model_type {kind!r} is not an original layout",
        where=source / "config.json",
        fix=f"known are {known}",
    )
