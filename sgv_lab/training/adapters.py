"""LoRA's adapters, saved as peft loads them."""

import copy
from collections.abc import Collection
from pathlib import Path

from peft import PeftModel
from safetensors.torch import save_file


def save_adapters(model: PeftModel, trained: Collection[str], folder: Path) -> None:
    """Write ``folder``, which `PeftModel.from_pretrained` puts onto the model the run began with.

    ``trained``: the names of the tensors that learned. The projector's, which learned whole, are
    peft's ``modules_to_save``.
    """
    tensors = {name: p.detach() for name, p in model.named_parameters() if name in trained}
    names = [name.removeprefix("base_model.model.") for name in tensors if ".lora_" not in name]
    owners = {name.rpartition(".")[0] for name in names}
    inner = {one for one in owners for other in owners if one.startswith(other + ".")}
    config = copy.copy(model.peft_config["default"])
    config.modules_to_save, config.inference_mode = sorted(owners - inner) or None, True
    config.save_pretrained(folder)
    kept = {name.replace(".default.", "."): t.cpu().contiguous() for name, t in tensors.items()}
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})
