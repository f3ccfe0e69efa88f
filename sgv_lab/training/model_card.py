"""The README of a trained checkpoint, made from its manifest."""

from typing import Any


def card(manifest: dict[str, Any]) -> str:
    """Markdown from a run's manifest (see ``trainer.fit``)."""
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
