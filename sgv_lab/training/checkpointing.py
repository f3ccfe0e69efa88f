"""How a run is saved, resumed and finished: whatever lies in its folder is complete, or not there.

A checkpoint holds what training changes: the tensors that learn, the optimizer's moments, the
schedule, and the state of torch's random numbers; a process that has a shard of its own writes a
file of its own. It is written beside its place and renamed. The final checkpoint is a Hugging Face
one; `manifest.json` is written last and says that the run is done.
"""

import copy
import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LRScheduler
from transformers import ProcessorMixin

from sgv_lab.errors import LabError
from sgv_lab.files import full_disk, write_json
from sgv_lab.models import checkpoints as weights
from sgv_lab.provenance import provenance
from sgv_lab.training import metrics
from sgv_lab.training.card import card
from sgv_lab.training.config import RunConfig
from sgv_lab.training.preprocessing import as_trained
from sgv_lab.training.processes import gathered, local, reshard
from sgv_lab.training.trainable import Trainable

ADAPTER = "adapter"  # the folder of LoRA's own weights, beside the merged ones
TOLD = ("base", "records_file")  # where a run's inputs lay: hashes say what they were
MARKER = "complete.json"  # written last: the size of every other file


@dataclass
class TrainingState:
    """What of a run changes from step to step; loaded from and saved to ``folder``."""

    folder: Path
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    processes: PartialState

    def __post_init__(self) -> None:
        self.tensors = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.sharded = any(isinstance(p, DTensor) for p in self.tensors.values())

    def save(self, step: int) -> None:
        """Write a checkpoint; the older ones are deleted when it is complete."""
        scratch = self.folder / ".saving"
        with _saving(self.folder):
            if self.processes.is_main_process:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
            self.processes.wait_for_everyone()  # a late removal would take files just saved
            kept: dict[str, Any] = {"step": step, "processes": self.processes.num_processes}
            kept["random"] = torch.get_rng_state()
            if self.processes.device.type == "cuda":
                kept["random_gpu"] = torch.cuda.get_rng_state()
            if self.sharded or self.processes.is_main_process:
                kept["model"] = local({n: p.detach() for n, p in self.tensors.items()})
                kept["optimizer"] = local(self.optimizer.state_dict())
                kept["schedule"] = self.schedule.state_dict()
            torch.save(kept, _file(scratch, self.processes.process_index))
            self.processes.wait_for_everyone()
            if self.processes.is_main_process:
                complete(scratch, self.folder / f"checkpoint-{step}")

    def load(self) -> int:
        """The step of the last complete checkpoint, which is loaded; 0 if there is none."""
        found = checkpoints(self.folder)
        if not found:
            return 0
        kept = torch.load(_file(found[-1], 0), "cpu", weights_only=True)
        if self.sharded and kept["processes"] != self.processes.num_processes:
            raise LabError(
                f"was saved in shards by {kept['processes']} processes",
                where=found[-1],
                fix="resume with as many, or delete it to begin again",
            )
        if (file := _file(found[-1], self.processes.process_index)).is_file():
            own = torch.load(file, "cpu", weights_only=True)
            kept = own if self.sharded else kept | {k: own[k] for k in own if "random" in k}
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                (tensor.to_local() if self.sharded else tensor).copy_(kept["model"][name])
        self.optimizer.load_state_dict(reshard(self.optimizer, kept["optimizer"]))
        self.schedule.load_state_dict(kept["schedule"])
        torch.set_rng_state(kept["random"])
        if "random_gpu" in kept:
            torch.cuda.set_rng_state(kept["random_gpu"])
        return kept["step"]


def _file(checkpoint: Path, process: int) -> Path:
    return checkpoint / f"process-{process}.pt"


@contextmanager
def _saving(folder: Path) -> Iterator[None]:
    """Turn a full disk into a LabError; transformers' own bars, which break a run's, are hidden."""
    fix = "free some space and give the same command again: it goes on from the last checkpoint"
    with weights.without_bars(), full_disk(folder, fix):
        try:
            yield
        except (SafetensorError, RuntimeError) as error:
            # what torch and safetensors make of it
            if re.search(r"write|inline_container|os error (27|28|122)", str(error)):
                raise OSError(errno.ENOSPC, str(error)) from error
            raise


def complete(scratch: Path, target: Path) -> None:
    """Mark ``scratch`` as complete, on the disk, and move it to ``target``; delete older ones."""
    sizes = {}
    for path in scratch.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sizes[path.name] = path.stat().st_size
    write_json(scratch / MARKER, sizes)
    if target.exists():
        shutil.rmtree(target)
    scratch.replace(target)
    for path in target.parent.glob("checkpoint-*"):
        if path != target:
            shutil.rmtree(path)


def is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and every file it lists has its size."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_bytes())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except FileNotFoundError:
        return False


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints below ``folder``, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if is_complete(path)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether ``out`` holds this run, complete. Raises LabError if it holds another one."""
    if changed := changed_settings(out, settings):
        what = f"holds a run with other settings ({', '.join(changed)})"
        raise LabError(what, where=out, fix="choose another folder, or delete this one")
    return (out / "manifest.json").is_file()


def changed_settings(out: Path, settings: dict[str, Any], names: Collection[str] = ()) -> list[str]:
    """Which of ``names`` (none: of all) the run that ``out`` holds has another setting for."""
    if not (out / "run.json").is_file():
        return []
    before, ours = json.loads((out / "run.json").read_bytes()), json.loads(json.dumps(settings))
    names = names or {*before, *ours}.difference(TOLD)
    return [name for name in sorted(names) if before.get(name) != ours.get(name)]


def finish(
    model: torch.nn.Module,
    processor: ProcessorMixin | None,
    recipe: RunConfig,
    trainable: Trainable,
    settings: dict[str, Any],
    out: Path,
    processes: PartialState,
    autocast: bool,
) -> None:
    """Write the checkpoint, its card, and last the manifest; adapters beside the merged model."""
    scratch, first = out / ".final", processes.is_main_process
    if first:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
    if recipe.language_model == "lora":  # which is never sharded
        if first:
            with _saving(out):
                learned = set(trainable.effective)
                _save_adapters(model, learned, settings["base"], scratch / ADAPTER)
        model = model.merge_and_unload()
    model = gathered(model, processes)
    if not first:
        return
    rows = metrics.read(out / "metrics.jsonl")
    manifest = {
        **settings,
        "model_type": model.config.model_type,
        "changed": recipe.differences(),
        "final_loss": rows[-1]["loss"],
        "seconds": sum(row["seconds"] for row in rows),
        "trainable": trainable.counts,
        "processes": processes.num_processes,
        "dtype": str(model.dtype).removeprefix("torch."),
        "bf16_autocast": autocast,
        "peak_bytes": metrics.peak_bytes(processes.device.type == "cuda"),
        "provenance": provenance(),
    }
    with _saving(out):
        weights.write(model, processor and as_trained(processor, recipe.aspect), scratch)
        (scratch / "README.md").write_text(card(manifest), encoding="utf-8")
        shutil.rmtree(out / ADAPTER, ignore_errors=True)  # a killed move's
        for path in scratch.iterdir():
            path.replace(out / path.name)
        scratch.rmdir()
        write_json(out / "manifest.json", manifest)
    shutil.rmtree(out / "checkpoints")


def _save_adapters(model: PeftModel, trained: Collection[str], base: str, folder: Path) -> None:
    """Write ``folder``, which `PeftModel.from_pretrained` puts onto the model the run began with.

    ``trained``: the names of the tensors that learned. The projector's, which learned whole, are
    peft's ``modules_to_save``. ``base``: the first model's name, as it may be published.
    """
    tensors = {name: p.detach() for name, p in model.named_parameters() if name in trained}
    names = [name.removeprefix("base_model.model.") for name in tensors if ".lora_" not in name]
    owners = {name.rpartition(".")[0] for name in names}
    inner = {one for one in owners for other in owners if one.startswith(other + ".")}
    config = copy.copy(model.peft_config["default"])
    config.modules_to_save, config.inference_mode = sorted(owners - inner) or None, True
    config.base_model_name_or_path = base
    config.save_pretrained(folder)
    kept = {name.replace(".default.", "."): t.cpu().contiguous() for name, t in tensors.items()}
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})
