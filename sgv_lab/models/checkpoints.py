"""Checkpoints in Hugging Face format: written whole, read only if whole."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.utils import logging

from sgv_lab.errors import LabError
from sgv_lab.files import atomic, sha256, write_json
from sgv_lab.models import qwen_vl  # noqa: F401  (registers our own classes with transformers)
from sgv_lab.models.architectures import processor_class
from sgv_lab.models.weights import open_weights, read_json, weight_files

_LOADED = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken")
# how this library asks transformers to load, which belongs into no file
_ASKED = ("backend", "is_local", "local_files_only", "trust_remote_code")
_MEND = "copy, download or convert (sgv-lab convert) the checkpoint again"


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: str | Path) -> Path:
    """Write weights (safetensors), configuration, processor, tokenizer and chat template.

    ``folder`` must not exist; it appears complete or not at all. Raises LabError if it is there.
    """
    folder = Path(folder)
    if folder.exists():
        raise LabError("is already there", where=folder, fix="choose another folder")
    with atomic(folder) as temporary:
        write(model, processor, temporary)
    return folder


def write(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    folder: Path,
    max_shard_size: int | str = "50GB",
) -> None:
    """Fill ``folder`` with what `save` tells, as the hub has it: any transformers reads it, 4 too.

    Tensors get the hub's names, for LLaVA those of llava-hf/llava-1.5-7b-hf.
    """
    if getattr(model, "hf_quantizer", None) is None:
        # Left alone, transformers 5 keeps its own name of CLIP's tensors unless it loaded others:
        # transformers 4 would take them for none, and start with a random tower.
        model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    for weights in folder.rglob("*.safetensors"):  # which safetensors keeps to their owner
        weights.chmod((folder / "config.json").stat().st_mode)
    if processor is not None:
        processor.save_pretrained(folder)
        _tokenizer_for_all(folder, processor.tokenizer)


def _tokenizer_for_all(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Rewrite tokenizer_config.json so that transformers 4 takes tokenizer.json as it stands."""
    settings = read_json(folder / "tokenizer_config.json")
    for name in (*_ASKED, "model_specific_special_tokens"):
        settings.pop(name, None)
    named, standard = tokenizer.special_tokens_map, tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens", [])
    settings["extra_special_tokens"] = {n: t for n, t in named.items() if n not in standard}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(folder / "tokenizer_config.json", settings)


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide transformers' own bars, which break others."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Read a checkpoint folder: ``(model, processor)``, the model in evaluation mode.

    Weights come from safetensors only and no code from the folder is run. ``device`` "meta": all is
    checked alike, but no weight is read. Raises LabError when a shard is missing or cut short, a
    weight missing, left over or of another shape, or the tokenizer does not fit the model.
    """
    path = Path(path)
    config = configuration(path)
    for file in weight_files(path):
        if file.suffix != ".safetensors":
            raise LabError("is no safetensors file", where=file, fix="sgv-lab convert the folder")
        open_weights(file)  # its header is read, and its length compared with it
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            device_map="meta" if device == "meta" else None,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # to name them all; they are refused below
            output_loading_info=True,
        )
        processor = load_processor(path, config)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"cannot be loaded: {reason}", where=path, fix=_MEND) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(map(str, sorted(report[kind])[:3]))
            raise LabError(
                f"{len(report[kind])} {kind.replace('_', ' ')}: {names}", where=path, fix=_MEND
            )
    refuse_tokenizer(config, processor, path)
    return (model if device == "meta" else model.to(device)).eval(), processor


def load_empty(
    path: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """As `load`, but the model is on the meta device; no weight is read."""
    config = configuration(Path(path))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval(), load_processor(path, config)


def fingerprint(path: str | Path) -> str:
    """The hexadecimal SHA-256 of what a folder's model and processor are loaded from.

    Tables, cards and the record of how it was made, which may lie beside them, do not count.
    """
    files = sorted(p for p in Path(path).iterdir() if p.suffix in _LOADED)
    known = [f"{p.name}\0{sha256(p)}\n" for p in files if p.name != "manifest.json"]
    return hashlib.sha256("".join(known).encode()).hexdigest()


def weights_hash(model: PreTrainedModel) -> str:
    """A hash of the ends of every weight: which weights they are, without reading them all."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.flatten()
        ends = torch.cat([flat[:512], flat[-512:]]).float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + ends.numpy().tobytes())
    return digest.hexdigest()[:16]


def load_processor(path: str | Path, config: PreTrainedConfig | None = None) -> ProcessorMixin:
    """The processor of a checkpoint folder, images prepared by PIL.

    By name, because torchvision, where it is installed, prepares images a little differently.
    """
    config = config or configuration(Path(path))
    return processor_class(type(config)).from_pretrained(
        path, backend="pil", trust_remote_code=False, local_files_only=True
    )


def configuration(path: Path) -> PreTrainedConfig:
    """The configuration of a checkpoint folder; LabError if it lacks what makes it one."""
    if not path.is_dir():
        raise LabError(
            "no such folder",
            where=path,
            fix="give a checkpoint's folder; `hf download OWNER/NAME` fetches one and prints it",
        )
    written = read_json(path / "config.json")
    for key in ("model_type", "text_config", "vision_config"):
        if key not in written:
            raise LabError(f"has no {key!r}", where=path / "config.json", fix=_MEND)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"is no configuration: {reason}", where=path, fix=_MEND) from error


def refuse_tokenizer(config: PreTrainedConfig, processor: ProcessorMixin, where: object) -> None:
    """Raise LabError unless the tokenizer's ids are the model's."""
    tokens, rows = len(processor.tokenizer), config.get_text_config().vocab_size
    fix = "take the tokenizer that belongs to the model"
    if tokens > rows:
        what = f"the tokenizer has {tokens} tokens, the model {rows}"
        raise LabError(what, where=where, fix=fix)
    if config.image_token_id not in (known := processor.image_token_ids):
        raise LabError(
            f"the tokenizer's image token is {known[0]}, the model's is {config.image_token_id}",
            where=where,
            fix=fix,
        )
