"""Weight files read by name, shard by shard, and written as safetensors shards."""

import json
import pickle
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
        value = json.loads(path.read_bytes())
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

    Raises LabError if there are none, or naming the first shard that the index lists in vain.
    """
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{ending}.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise LabError("has no weight_map", where=index, fix="download it again")
            return [_shard(folder, name) for name in sorted(set(weight_map.values()))]
        if (folder / f"{stem}.{ending}").is_file():
            return [folder / f"{stem}.{ending}"]
    raise LabError(
        "no weights here",
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
            state = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            yield {name: lambda n=name: state[n] for name in state}
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


def plan(files: list[Path], rename: Callable[[str], list[tuple[str, Cut]]]) -> dict[str, Piece]:
    """What each tensor of the new model is made of; reads names and shapes only.

    ``rename`` gives, for a name in the files, the new names and the cut each is made by; none for
    what is left out on purpose. LabError if two tensors claim the same name.
    """
    pieces: dict[str, Piece] = {}
    for file in files:
        with opened(file) as tensors:
            for source, read in tensors.items():
                tensor = read().to("meta")
                for name, cut in rename(source):
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
