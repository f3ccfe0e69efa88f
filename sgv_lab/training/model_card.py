"""The README of a trained checkpoint, made from its manifest."""

from typing import Any

_TEXT = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [sgv-lab, {recipe}]
---
# {kind} trained by the recipe `{recipe}`

Trained with sgv-lab on {records:,} records for {updates:,} updates of {samples} samples,
seed {seed}. Last training loss: {loss:.4f}. Settings come from {source}{changed}.

| module | parameters | marked trainable | of these learning |
|---|---|---|---|
{rows}

- learning rate {rate:g}, cosine, warm-up {warmup:g} of the updates, weight decay {decay:g}
- template `{template}`, pictures `{aspect}`, weights in {dtype}{autocast}
- device: {device}, {processes} process(es), peak memory {peak:.2f} GB
- code: revision {revision}, clean tree: {clean}; torch {torch}, transformers {transformers}

Loads with `AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained`.
The terms of the base model and of the data apply. What it was not tested for, it is not fit for.
"""


def card(manifest: dict[str, Any]) -> str:
    """Markdown from a run's manifest (see ``trainer.fit``)."""
    recipe, origin = manifest["recipe"], manifest["provenance"]
    rows = [
        f"| {module} | {n['total']:,} | {n['nominal']:,} | {n['effective']:,} |"
        for module, n in manifest["trainable"].items()
    ]
    changes = ", ".join(f"{k} {a} → {b}" for k, (a, b) in manifest["changed"].items())
    return _TEXT.format(
        kind=manifest["model_type"],
        recipe=recipe["name"],
        records=manifest["records"],
        updates=manifest["updates"],
        samples=recipe["samples_per_update"],
        seed=manifest["seed"],
        loss=manifest["final_loss"],
        source=recipe["source"],
        changed=f"; changed: {changes}" if changes else "",
        rows="\n".join(rows),
        rate=recipe["learning_rate"],
        warmup=recipe["warmup_ratio"],
        decay=recipe["weight_decay"],
        template=recipe["template"],
        aspect=recipe["aspect"],
        dtype=manifest["dtype"],
        autocast=", bf16 autocast" if manifest["bf16_autocast"] else "",
        device=origin["device"],
        processes=manifest["processes"],
        peak=manifest["peak_bytes"] / 1e9,
        revision=origin["revision"],
        clean=origin["clean"],
        torch=origin["packages"]["torch"],
        transformers=origin["packages"]["transformers"],
    )
