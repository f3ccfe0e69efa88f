"""Checkpoints in Hugging Face format: written whole, read only if whole."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from sgv_lab.errors import LabError
from sgv_lab.files import atomic
from sgv_lab.models import families  # noqa: F401  (registers our own classes with transformers)


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: str | Path) -> Path:
    """Write weights (safetensors), configuration, processor, tokenizer and chat template.

    ``folder`` must not exist; it appears complete or not at all. Raises LabError if it is there.
    """
    folder = Path(folder)
    if folder.exists():
        raise LabError("is already there", where=folder, fix="choose another folder")
    with atomic(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    return folder


def load(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Read a checkpoint folder: ``(model, processor)``, the model in evaluation mode.

    Weights come from safetensors only and no code from the folder is run. Raises LabError when a
    weight is missing, left over or of another shape, or the tokenizer does not fit the model.
    """
    path = Path(path)
    model, report = AutoModelForImageTextToText.from_pretrained(
        path,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(map(str, sorted(report[kind])[:3]))
            raise LabError(
                f"{kind.replace('_', ' ')}: {len(report[kind])} ({names} …)",
                where=path,
                fix="convert or download the checkpoint again",
            )
    # PIL by name: torchvision, where installed, prepares pictures a little differently.
    processor = AutoProcessor.from_pretrained(
        path, backend="pil", trust_remote_code=False, local_files_only=True
    )
    return model.to(device).eval(), processor
