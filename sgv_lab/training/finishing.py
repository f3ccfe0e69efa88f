"""The beginning and end of a run's folder: is it the same run, is it done, and its last files."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.provenance import provenance
from sgv_lab.training import metrics, saving
from sgv_lab.training.lab_trainer import LabTrainer
from sgv_lab.training.trainable import Trainable


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of the first numbers of every tensor: tells starting weights apart, cheaply."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether ``out`` holds this run, complete. Raises LabError if it holds another one."""
    plain = json.loads(json.dumps(settings))
    if (out / "run.json").is_file():
        before = json.loads((out / "run.json").read_bytes())
        changed = [k for k in {*before, *plain} if before.get(k) != plain.get(k)]
        if changed:
            raise LabError(
                f"holds a run with other settings ({', '.join(sorted(changed))})",
                where=out,
                fix="choose another folder, or delete this one",
            )
    return (out / "manifest.json").is_file()


def finish(trainer: LabTrainer, trainable: Trainable, settings: dict[str, Any], out: Path) -> None:
    """Write the checkpoint, its card, and last the manifest."""
    scratch = out / ".final"
    if trainer.recipe.language_model == "lora":  # a whole checkpoint, not adapters for another one
        trainer.model = trainer.model.merge_and_unload()
    with saving.refusing_full_disk(out):
        if trainer.is_world_process_zero():
            shutil.rmtree(scratch, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()  # a late removal would take files just saved
        trainer.save_model(str(scratch))
    if not trainer.is_world_process_zero():
        return
    (scratch / "training_args.bin").unlink()  # pickled code; run.json says the same
    rows = metrics.read(out / "metrics.jsonl")
    manifest = {
        **settings,
        "model_type": trainer.model.config.model_type,
        "changed": trainer.recipe.differences(),
        "final_loss": rows[-1]["loss"],
        "seconds": sum(row["seconds"] for row in rows),
        "trainable": trainable.counts,
        "processes": trainer.args.world_size,
        "dtype": str(trainer.model.dtype).removeprefix("torch."),
        "bf16_autocast": trainer.args.bf16,
        "peak_bytes": metrics.peak_bytes(trainer.args.device.type == "cuda"),
        "provenance": provenance(),
    }
    with saving.refusing_full_disk(out):
        (scratch / "README.md").write_text(card(manifest), encoding="utf-8")
        for path in scratch.iterdir():
            path.replace(out / path.name)
        scratch.rmdir()
        write_json(out / "manifest.json", manifest)
    shutil.rmtree(out / "checkpoints")


def card(manifest: dict[str, Any]) -> str:
    """The checkpoint's README in Markdown, from the run's manifest."""
    recipe, origin = manifest["recipe"], manifest["provenance"]
    packages = origin["packages"]
    rows = "\n".join(
        f"| {module} | {n['total']:,} | {n['nominal']:,} | {n['effective']:,} |"
        for module, n in manifest["trainable"].items()
    )
    changes = ", ".join(f"{k} {a} → {b}" for k, (a, b) in manifest["changed"].items())
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [sgv-lab, {recipe["name"]}]
---
# {manifest["model_type"]} trained by the recipe `{recipe["name"]}`

Trained with sgv-lab on {manifest["records"]:,} records for {manifest["updates"]:,} updates of
{recipe["samples_per_update"]} samples, seed {manifest["seed"]}. Last training loss:
{manifest["final_loss"]:.4f}. Settings come from {recipe["source"]}\
{f"; changed: {changes}" if changes else ""}.

| module | parameters | marked trainable | of these learning |
|---|---|---|---|
{rows}

- learning rate {recipe["learning_rate"]:g}, cosine, warm-up {recipe["warmup_ratio"]:g} of the
  updates, weight decay {recipe["weight_decay"]:g}
- template `{recipe["template"]}`, pictures `{recipe["aspect"]}`, weights in {manifest["dtype"]}\
{", bf16 autocast" if manifest["bf16_autocast"] else ""}
- device: {origin["device"]}, {manifest["processes"]} process(es), peak memory
  {manifest["peak_bytes"] / 1e9:.2f} GB
- code: revision {origin["revision"]}, clean tree: {origin["clean"]}; torch {packages["torch"]},
  transformers {packages["transformers"]}

Loads with `AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained`.
The terms of the base model and of the data apply. What it was not tested for, it is not fit for.
"""
