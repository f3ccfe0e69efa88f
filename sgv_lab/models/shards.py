"""Weight files read by name, shard by shard, and written as safetensors shards."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from sgv_lab.errors import LabError

Cut = Callable[[torch.Tensor], torch.Tensor]
# what peft, DeepSpeed, torch.compile and FSDP put before a model's own names
_WRAPPED = re.compile(r"^((base_model\.model|module|_orig_mod|_fsdp_wrapped_module)\.)+")
_ADAPTERS = ("adapter_config.json", "adapter_model.*", "non_lora_trainables.bin")


@dataclass(frozen=True)
class Piece:
    """One tensor of the converted model: ``cut(tensor named source in file)``."""

    file: Path
    source: str
    cut: Cut
    shape: torch.Size  # after the cut
    dtype: torch.dtype


def same(tensor: torch.Tensor) -> torch.Tensor:
    """The cut that takes a tensor as it is."""
    return tensor


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; LabError if it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError("cannot be read as JSON", where=path, fix="download it again") from error
    if not isinstance(value, dict):
        raise LabError("is not a JSON object", where=path, fix="download it again")
    return value


def refuse_settings(found: Iterable[tuple[str, Any, tuple]], where: Path) -> None:
    """Raise LabError where one of (name, value, known values) is not known.

    Under such a setting a converted model would compute something else.
    """
    for name, value, known in found:
        if value not in known:
            raise LabError(
                f"{name} is {value!r}; known: {', '.join(map(str, known))}",
                where=where,
                fix="this checkpoint cannot be converted",
            )


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder; safetensors go before pytorch_model.bin.

    Raises LabError if there are none, or naming the first shard that the index lists in vain, and
    for a LoRA run's adapters, which are no model by themselves.
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
            return [_shard(folder, name) for name in sorted(set(weight_map.values()))]
        if (folder / f"{stem}.{ending}").is_file():
            return [folder / f"{stem}.{ending}"]
    alone = " but a projector" if (folder / "mm_projector.bin").is_file() else ""
    raise LabError(
        f"no weights here{alone}",
        where=folder,
        fix="it should hold model.safetensors or pytorch_model.bin, or shards with their index",
    )


def _shard(folder: Path, name: str) -> Path:
    """The shard ``name`` of ``folder``: a plain name, which may be a link (the hub's cache)."""
    if Path(name).name != name:
        raise LabError(
            f"the shard {name!r} lies outside its folder", where=folder, fix="download it again"
        )
    if not (folder / name).is_file():
        raise LabError("this shard is missing", where=folder / name, fix="download it")
    return folder / name


@contextmanager
def opened(file: Path) -> Iterator[dict[str, Callable[[], torch.Tensor]]]:
    """The tensors of a weight file by name, each read when called; nothing is unpickled.

    Raises LabError for a truncated file, and for one that holds anything but tensors.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as handle:
                yield {name: lambda n=name: handle.get_tensor(n) for name in handle.keys()}  # noqa: SIM118
        else:
            # a file of torch before 1.6 is no zip, and cannot be mapped
            mmap = zipfile.is_zipfile(file)
            state = torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)
            if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
                state = state["state_dict"]
            yield {name: lambda n=name: state[n] for name in _tensors(state, file)}
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


def _tensors(state: Any, file: Path) -> list[str]:
    """The names in ``state``; LabError unless all are tensors'."""
    if not isinstance(state, dict):
        raise LabError(f"holds a {type(state).__name__}, not tensors by name", where=file)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise LabError(
                f"{name!r} is a {type(value).__name__}, not a tensor",
                where=file,
                fix="save the model's state_dict alone",
            )
    return list(state)


def plan(files: list[Path], rename: Callable[[str], list[tuple[str, Cut]]]) -> dict[str, Piece]:
    """What each tensor of the new model is made of; reads names and shapes only.

    ``rename`` gives, for a name in the files (without what a wrapper put before it), the new names
    and the cut each is made by; none for what is left out on purpose. LabError if two tensors
    claim the same name.
    """
    pieces: dict[str, Piece] = {}
    for file in files:
        with opened(file) as tensors:
            for source, read in tensors.items():
                tensor = read().to("meta")
                if ".lora_" in source:
                    raise LabError(
                        f"{source} belongs to a LoRA adapter",
                        where=file,
                        fix="merge the adapters with their base first",
                    )
                for name, cut in rename(_WRAPPED.sub("", source)):
                    if name in pieces:
                        raise LabError(
                            f"{source} is also in {pieces[name].file.name}",
                            where=file,
                            fix="keep one of the two files",
                        )
                    made = cut(tensor)
                    pieces[name] = Piece(file, source, cut, made.shape, made.dtype)
    return pieces


def compare(pieces: dict[str, Piece], model: torch.nn.Module, where: Path) -> None:
    """Raise LabError unless ``pieces`` are exactly the weights of ``model``, name by name."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wrong = {
        "missing": sorted(wanted.keys() - pieces.keys()),
        "unknown": sorted(pieces[name].source for name in pieces.keys() - wanted.keys()),
        "misshapen": [
            f"{pieces[name].source} {tuple(pieces[name].shape)}, not {tuple(shape)}"
            for name, shape in wanted.items()
            if name in pieces and pieces[name].shape != shape
        ],
    }
    found = [
        f"{len(names)} weights {kind}: {'; '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        for kind, names in wrong.items()
        if names
    ]
    if found:
        raise LabError(", and ".join(found), where=where, fix="get the complete checkpoint")


def refuse_delta(pieces: dict[str, Piece], where: Path) -> None:
    """Raise LabError if ``pieces`` are the difference to a base, as LLaVA-7b-delta-v0 is.

    Names do not tell: what was added to the base keeps them. A trained model's RMSNorm weights are
    of the order of 1, but for a first layer; a difference has none.
    """
    sizes = []
    for file in sorted({piece.file for piece in pieces.values()}):
        with opened(file) as tensors:
            for name, piece in pieces.items():
                norm = name.startswith("model.language_model.") and name.endswith("norm.weight")
                if norm and piece.file == file:
                    sizes.append(tensors[piece.source]().float().abs().mean().item())
    if sizes and max(sizes) < 0.1:
        raise LabError(
            f"holds delta weights, a difference to a base (norm weights are {max(sizes):.2g} "
            "or less)",
            where=where,
            fix="add them to their base first (LLaVA: python -m llava.model.apply_delta)",
        )


def write(pieces: dict[str, Piece], folder: Path, max_shard_size: int | str = "4GB") -> None:
    """Write ``pieces`` as safetensors shards with their index; one shard is in memory at a time."""
    meta = {n: torch.empty(p.shape, dtype=p.dtype, device="meta") for n, p in pieces.items()}
    split = split_torch_state_dict_into_shards(meta, max_shard_size=max_shard_size)
    for filename, names in tqdm(split.filename_to_tensors.items(), desc="shards", unit="file"):
        made: dict[str, torch.Tensor] = {}
        for file in sorted({pieces[name].file for name in names}):
            with opened(file) as tensors:
                for name in names:
                    if (piece := pieces[name]).file == file:
                        made[name] = piece.cut(tensors[piece.source]()).clone().contiguous()
        save_file(made, folder / filename, metadata={"format": "pt"})
        del made
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=1), encoding="utf-8"
        )
