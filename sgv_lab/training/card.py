"""The model card that lies beside a trained checkpoint."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

# official file names -> where the hub has them
_DATASETS = {
    "sharegpt4v_*": "Lin-Chen/ShareGPT4V",
    "share-captioner_*": "Lin-Chen/ShareGPT4V",
    "llava_v1_5_mix665k*": "liuhaotian/LLaVA-Instruct-150K",
    "llava_instruct_*": "liuhaotian/LLaVA-Instruct-150K",
    "blip_laion_cc_sbu_*": "liuhaotian/LLaVA-Pretrain",
}
_LOADS = """\
Loads with `AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained`."""
_LOADS_HERE = """\
Transformers has no class for it: `sgv_lab.models.checkpoints.load` loads it, and so do the Auto
classes in a program that imports `sgv_lab.models.checkpoints`."""
_ADAPTERS = """\
These are merged weights. `adapter/` holds the adapters and the projector alone, for
`peft.PeftModel.from_pretrained` on the base model.
"""


def hub_name(base: str) -> str:
    """A base's name on the hub, if it lies in the hub's cache; else its folder's.

    A path of this machine has no place in what may be published.
    """
    cached = [part for part in Path(base).parts if part.startswith("models--")]
    if cached:
        return cached[0].removeprefix("models--").replace("--", "/")
    return Path(base).name


def card(manifest: dict[str, Any]) -> str:
    """The checkpoint's README in Markdown, from the run's manifest."""
    recipe, origin = manifest["recipe"], manifest["provenance"]
    packages = origin["packages"]
    model_type, started = manifest["model_type"], manifest["base"] or "random weights"
    file = manifest.get("records_file", "")
    head = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["sgv-lab", recipe["name"]],
        base_model=started if "/" in started else None,
        datasets=[name for pattern, name in _DATASETS.items() if fnmatch(file, pattern)] or None,
        license="other",
        license_name="terms-of-base-model-and-data",
    )
    rows = "\n".join(
        f"| {module} | {n['total']:,} | {n['nominal']:,} | {n['effective']:,} |"
        for module, n in manifest["trainable"].items()
    )
    changes = ", ".join(f"{k} {a} → {b}" for k, (a, b) in manifest["changed"].items())
    return f"""---
{head.to_yaml()}
---
# {model_type} trained by the recipe `{recipe["name"]}`

Trained with sgv-lab from `{started}` on {manifest["records"]:,} records\
{f" of `{file}`" if file else ""} (left out: {manifest.get("records_dropped", 0):,})
for {manifest["steps"]:,} steps of {recipe["samples_per_step"]} samples, seed
{manifest["seed"]}. Last training loss: {manifest["final_loss"]:.4f}.
Settings come from {recipe["source"]}\
{f"; changed: {changes}" if changes else ""}.

| module | parameters | marked trainable | of these learning |
|---|---|---|---|
{rows}

- learning rate {recipe["learning_rate"]:g}, cosine, warm-up {recipe["warmup_ratio"]:g} of the
  steps, weight decay {recipe["weight_decay"]:g}
- template `{recipe["template"]}`, images `{recipe["aspect"]}` (its processor does that)
- weights in {manifest["dtype"]}\
{", bf16 autocast" if manifest["bf16_autocast"] else ""}
- device: {origin["device"]}, {manifest["processes"]} process(es), peak memory
  {manifest["peak_bytes"] / 1e9:.2f} GB
- code: revision {origin["revision"]}, clean tree: {origin["clean"]}; torch {packages["torch"]},
  transformers {packages["transformers"]}

{_LOADS if model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES else _LOADS_HERE}
{_ADAPTERS if recipe["language_model"] == "lora" else ""}
The terms of the base model and of the data apply. Do not use it for anything it was not tested on.
"""
