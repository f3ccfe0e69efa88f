"""Weight files: found, checked, and mapped into memory by name, so that they are read when used."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sgv_lab.errors import LabError
from sgv_lab.files import leaves_root

State = dict[str, torch.Tensor]
# what peft, DeepSpeed, torch.compile and FSDP put before a model's own names
_WRAPPED = re.compile(r"^((base_model\.model|module|_orig_mod|_fsdp_wrapped_module)\.)+")
_ADAPTERS = ("adapter_config.json", "adapter_model.*", "non_lora_trainables.bin")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; LabError if it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError("cannot be read as JSON", where=path, fix="download it again") from error
    if not isinstance(value, dict):
        raise LabError("is not a JSON object", where=path, fix="download it again")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder; safetensors go before pytorch_model.bin.

    LabError if there are none, naming the shards that are listed but missing, and for a LoRA run's
    adapters, which are no model by themselves.
    """
    if adapters := [file.name for kind in _ADAPTERS for file in sorted(folder.glob(kind))]:
        raise LabError(
            f"holds LoRA adapters ({', '.join(adapters)})",
            where=folder,
            fix="merge them with their base first (LLaVA: scripts/merge_lora_weights.py)",
        )
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{ending}.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise LabError("has no weight_map", where=index, fix="download it again")
            names = sorted(set(weight_map.values()))
            if outside := [name for name in names if leaves_root(name)]:
                what = f"the path {outside[0]!r} leaves its root"
                raise LabError(what, where=index, fix="use a path below the root")
            shards = [folder / name for name in names]
            if missing := [shard.name for shard in shards if not shard.is_file()]:
                what = f"shards are missing: {', '.join(missing)}"
                raise LabError(what, where=folder, fix="download them")
            return shards
        if (folder / f"{stem}.{ending}").is_file():
            return [folder / f"{stem}.{ending}"]
    alone = " but a projector" if (folder / "mm_projector.bin").is_file() else ""
    raise LabError(
        f"no weights here{alone}",
        where=folder,
        fix="it should hold model.safetensors or pytorch_model.bin, or shards with their index",
    )


def open_weights(file: Path) -> State:
    """The tensors of a weight file by name, mapped and not yet read; nothing is unpickled.

    LabError for a file that is cut short, and for one that holds anything but tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        mapped = zipfile.is_zipfile(file)  # a file of torch before 1.6 is none, and has to be read
        state = torch.load(file, map_location="cpu", mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as error:
        raise LabError(
            "can only be loaded by unpickling code, which could do anything",
            where=file,
            fix="get a safetensors copy from someone you trust",
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(
            f"is damaged or cut short ({reason})", where=file, fix="download it again"
        ) from error
    if not isinstance(state, dict):
        raise LabError(f"holds a {type(state).__name__}, not tensors by name", where=file)
    if isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise LabError(
                f"{name!r} is a {type(value).__name__}, not a tensor",
                where=file,
                fix="save the model's state_dict alone",
            )
    return state


def renamed(files: list[Path], rename: Callable[[str, torch.Tensor], State]) -> State:
    """The tensors of ``files`` by their names in the new model.

    ``rename`` gives, for a tensor and its name (without what a wrapper put before it), the new
    tensors by name; none for what is left out on purpose. LabError if two claim the same name.
    """
    found: State = {}
    for file in files:
        for name, tensor in open_weights(file).items():
            if ".lora_" in name:
                raise LabError(
                    f"{name} belongs to a LoRA adapter",
                    where=file,
                    fix="merge the adapters with their base first",
                )
            made = rename(_WRAPPED.sub("", name), tensor)
            if made.keys() & found.keys():
                raise LabError(f"{name} is there twice", where=file, fix="keep one of the two")
            found |= made
    return found


def refuse_settings(found: dict[str, tuple[Any, tuple]], where: Path) -> None:
    """Raise LabError where a setting, name -> (value, known values), has none of these.

    Under such a setting a converted model would compute something else.
    """
    for name, (value, known) in found.items():
        if value not in known:
            raise LabError(
                f"{name} is {value!r}; known: {', '.join(map(str, known))}",
                where=where,
                fix="this checkpoint cannot be converted",
            )
