import dataclasses
import json
import shutil

import pytest
import simulated
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.training import estimates, kernels, plan, processes, trainer
from sgv_lab.training.collate import collator
from sgv_lab.training.config import FULL_SIZE, Machine, base
from sgv_lab.training.survey import image_folders
from sgv_lab.training.trainable import count_trainable, set_trainable

KEY = "llava-1.5-7b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A miniature checkpoint, eight images and nine records, one of them without its image."""
    root = tmp_path_factory.mktemp("plan")
    records = []
    for number in range(9):
        path = f"coco/{number % 2}/{number}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if number != 4:
            Image.new("RGB", (40, 30), (number * 20, 90, 9)).save(root / path)
        turns = [("human", "<image>\nWhat is this?"), ("gpt", f"Image number {number}.")]
        turns = [{"from": who, "value": text} for who, text in turns]
        records.append({"id": f"r{number}", "image": path, "conversations": turns})
    (root / "records.json").write_text(json.dumps(records))
    tokenizer = mini.train_tokenizer(t["value"] for r in records for t in r["conversations"])
    processor = families.processor(KEY, "mini", tokenizer)
    checkpoints.save(families.build(KEY, "mini", 0), processor, root / "model")
    return root


def _plan(folder, **given):
    processor = checkpoints.load(folder / "model")[1]
    recipe = given.pop("recipe", base("sft"))
    return plan.plan(
        families.config(KEY, "mini"),
        processor,
        folder / "records.json",
        folder,
        recipe,
        folder / "run",
        **given,
    )


def test_missing_images_are_named_and_counted_by_folder(folder):
    report = _plan(folder)
    counts = [{"images": 5, "missing": 1}, {"images": 4, "missing": 0}]
    assert report.images == dict(zip(("coco/0", "coco/1"), counts, strict=True))
    lacks = "record 'r4' (number 4 from 0): image missing: coco/0/4.png (no such file)"
    assert report.broken == [lacks]
    assert report.obstacles == ["1 of 9 records cannot be trained on"]
    assert lacks in str(report) and "image missing (1)" in str(report)
    assert not _plan(folder, drop_broken=True, max_dropped=0.2).obstacles


def test_training_refuses_the_set_unless_told_to_drop_and_count(folder, tmp_path):
    model, processor = checkpoints.load(folder / "model")
    recipe = base("sft", {"samples_per_step": 4})
    given = (model, processor, folder / "records.json", folder, recipe, tmp_path / "run", 0)
    with pytest.raises(
        LabError,
        match=r"1 of 9 records cannot be trained on \(image missing \(1\)\): record 'r4'",
    ):
        trainer.train(*given, progress=False)
    assert not (tmp_path / "run").exists()
    dropping = {"drop_broken": True, "max_dropped": 0.2}
    out = trainer.train(*given, max_steps=3, **dropping, progress=False, packing=True)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["records"], manifest["records_dropped"]) == (8, 1)


def _spoilt(record, root, how):
    """A record and its image file, spoilt in one way."""
    path = root / record["image"]
    turns = record["conversations"]
    if how == "empty file":
        path.write_bytes(b"")
    elif how == "web page":
        path.write_text("<html>gone</html>")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "path out":
        record["image"] = "../" + record["image"]
    elif how == "list of images":
        record["image"] = [record["image"]]
    elif how == "no tag":
        turns[0]["value"] = "What is this?"
    elif how == "no turns":
        record["conversations"] = []
    elif how == "two questions":
        turns.insert(0, turns[0])
    elif how == "empty answer":
        turns[1]["value"] = ""
    elif how == "half an emoji":
        turns[1]["value"] = "It is \ud83d."
    return record


HOW = ("empty file", "web page", "folder", "path out", "list of images", "no tag", "no turns",
       "two questions", "empty answer", "half an emoji")  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_what_the_plan_calls_broken_training_refuses_or_drops(folder, tmp_path, how):
    records = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (30, 40), (9, 9, number)).save(path)
        turns = [("human", "<image>\nWhat is this?"), ("gpt", "It.")]
        turns = [{"from": who, "value": text} for who, text in turns]
        records.append({"id": f"r{number}", "image": path.name, "conversations": turns})
    records[1] = _spoilt(records[1], tmp_path, how)
    (tmp_path / "records.json").write_text(json.dumps(records))
    given = [tmp_path / "records.json", tmp_path, base("sft", {"samples_per_step": 2})]
    model, processor = checkpoints.load(folder / "model")
    report = plan.plan(model.config, processor, *given, tmp_path / "run")
    assert report.obstacles == ["1 of 3 records cannot be trained on"]
    assert len(report.broken) == 1 and report.broken[0].startswith("record 'r1' (number 1 from 0")
    assert report.broken[0] in str(report)
    with pytest.raises(LabError, match=r"1 of 3 records cannot be trained on .*'r1'"):
        trainer.train(model, processor, *given, tmp_path / "run", 0, progress=False)
    assert not (tmp_path / "run").exists()
    left_out = {"drop_broken": True, "max_dropped": 0.5}
    dropping = plan.plan(model.config, processor, *given, tmp_path / "run", **left_out)
    assert dropping.obstacles == [] and dropping.broken == report.broken
    out = trainer.train(model, processor, *given, tmp_path / "run", 0, progress=False,
                        max_steps=1, **left_out)  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["records"], manifest["records_dropped"]) == (2, 1)
    assert list(manifest["dropped_for"].values()) == [1]
    assert report.reasons == f"{next(iter(manifest['dropped_for']))} (1)"


def test_a_sample_that_no_pack_holds_is_an_obstacle_and_refused_at_once(folder, tmp_path):
    """Also behind the first thousand records."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
    long = [turns[0], {"from": "gpt", "value": "It. " * 200}]
    records = [{"id": str(i), "conversations": turns} for i in range(1100)]
    records.append({"id": "long", "conversations": long})
    model, processor = checkpoints.load(folder / "model")
    given = (records, tmp_path, base("sft", {"packing": True, "tokens_per_batch": 300}))
    report = plan.plan(model.config, processor, *given, tmp_path / "run")
    assert report.obstacles == [report.too_long] and "1 sample is longer" in report.too_long
    with pytest.raises(LabError, match="longer than a pack of 300 tokens, the longest"):
        trainer.train(model, processor, *given, tmp_path / "run", 0, progress=False)
    assert not (tmp_path / "run").exists()
    roomy = given[2].changed({"tokens_per_batch": 2000})
    given = (*given[:2], roomy, tmp_path / "run")
    assert not plan.plan(model.config, processor, *given).obstacles


def test_a_set_of_broken_records_alone_cannot_be_trained_on(folder, tmp_path):
    records = [{"id": "a", "conversations": []}, None]
    model, processor = checkpoints.load(folder / "model")
    given = (records, tmp_path, base("sft"), tmp_path / "run")
    report = plan.plan(model.config, processor, *given, drop_broken=True)
    assert report.obstacles == ["no record is left to train on"]
    with pytest.raises(LabError, match="no record is left to train on"):
        trainer.train(model, processor, *given, 0, drop_broken=True, progress=False)


@pytest.mark.parametrize("command", ["plan", "train"])
def test_options_that_are_ignored_are_refused_by_name(folder, tmp_path, command):
    given = [command, "--model", folder / "model", "--records", folder / "records.json",
             "--images", folder, "--recipe", "sft", "--out", tmp_path / "run"]  # fmt: skip
    given = list(map(str, given))
    for more in (
        ["--tokens-per-batch", "300"],
        ["--packing", "--micro-batch", "2"],
        ["--max-dropped", "0.2"],
    ):
        done = CliRunner().invoke(main, [*given, *more])
        assert done.exit_code == 1 and f"takes no {more[-2]}" in done.output
    assert CliRunner().invoke(main, [*given, "--max-steps", "0"]).exit_code == 2


def _without_a_tensor(model, run):
    file = model / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("language_model.model.norm.weight")
    save_file(tensors, file, {"format": "pt"})


def _cut_shards(model, run):
    checkpoints.load(model)[0].save_pretrained(model, max_shard_size="1MB")
    (model / "model.safetensors").unlink()
    first, second, *_ = sorted(model.glob("model-*.safetensors"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])


def _another_run(model, run):
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"recipe": {"name": "pretrain"}, "steps": 3}))


OBSTACLES = {
    "1 missing keys": _without_a_tensor,
    "shards are missing: model-00001": _cut_shards,
    "holds LoRA adapters": lambda model, run: (model / "adapter_config.json").write_text("{}"),
    "other settings": _another_run,
    "run": lambda model, run: run.write_text("a file"),
}


@pytest.mark.parametrize("told", OBSTACLES)
def test_what_keeps_a_run_from_starting_plan_and_train_both_say(folder, tmp_path, told):
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(folder / "model", model)
    given = ["--model", model, "--records", folder / "records.json", "--images", folder,
             "--recipe", "sft", "--out", run, "--drop-broken", "--max-dropped", "0.2",
             "--max-steps", "1", "--set", "samples_per_step=1"]  # fmt: skip
    given = list(map(str, given))
    ready = CliRunner().invoke(main, ["plan", *given])
    assert ready.exit_code == 0 and "weights                            whole" in ready.output
    OBSTACLES[told](model, run)
    for command in ("plan", "train"):
        done = CliRunner().invoke(main, [command, *given])
        assert done.exit_code == 1 and told in done.output, command


def test_time_and_cost_by_hand(folder):
    report = _plan(
        folder,
        recipe=base("sft", {"samples_per_step": 4, "epochs": 2}),
        tokens_per_second=10.0,
        price_per_hour=3.0,
        devices=2,
    )
    assert report.steps == 5  # two epochs of nine: what is left out has its place taken
    expected = report.tokens / 8 * 20 / 10 / 2 / 3600
    assert report.hours == pytest.approx(expected)
    assert report.cost == pytest.approx(expected * 3 * 2)


def test_too_little_memory_and_bad_weights_stand_in_the_way(folder):
    left_out = {"drop_broken": True, "max_dropped": 0.2}
    report = _plan(folder, **left_out, device_bytes=10_000, weights=folder)
    assert len(report.obstacles) == 2
    assert "config.json: cannot be read" in report.obstacles[0]
    assert "memory" in report.obstacles[1]


@pytest.mark.parametrize(
    ("precision", "learns", "still"),
    [("fp32", 16, 4), ("bf16", 18, 2), ("bf16_32", 16, 2), ("bf16_24", 7.125, 2)],
)
def test_memory_of_full_fine_tuning_at_true_size(precision, learns, still):
    """Bytes a number that learns (weight, gradient, AdamW's state, copies), and a frozen one."""
    config = families.config(KEY, "paper")
    recipe = base("sft", {"precision": precision})
    counts = count_trainable(config, recipe)
    batch = estimates.LargestBatch(8 * 1024, 2000, 8)
    learning, total = counts.total("effective"), counts.total("total")

    def state(**how):
        parts = estimates.step_memory(config, counts, recipe, batch, **how)
        return sum(parts[k] for k in ("weights", "autocast copies", "gradients", "optimiser"))

    assert state() == learns * learning + still * (total - learning)
    shared = state(shards=8)
    assert shared == pytest.approx((learns * learning + still * (total - learning)) / 8, rel=0.15)
    if precision == "bf16":  # copies are made of one block at a time; elsewhere it is float32
        assert state(on_gpu=False) == 16 * learning + 4 * (total - learning)


@pytest.mark.parametrize(
    ("recipe", "changes", "devices", "why"),
    [
        ("sft", {"precision": "bf16_24"}, 2, "fsdp: 24-bit masters are not sharded"),
        ("sft-lora", {}, 2, "fsdp: adapters are not sharded"),
        ("sft", {}, 1, "fsdp: one process has nobody to share with"),
        ("sft", {"samples_per_step": 2}, 4, "2 samples for 4 processes"),
    ],
)
def test_what_training_would_not_begin_is_an_obstacle(
    folder, monkeypatch, recipe, changes, devices, why
):
    """The plan tells it in the words of the refusal."""
    made, run = base(recipe, changes), Machine(fsdp=True, device="cpu", progress=False)
    monkeypatch.setenv("WORLD_SIZE", str(devices))
    with pytest.raises(LabError, match=why) as refused:
        processes.start(made, run)
    how = {"drop_broken": True, "max_dropped": 0.2, "run": run, "devices": devices}
    assert _plan(folder, recipe=made, **how).obstacles == [str(refused.value)]
    shared = base("sft", {"precision": "bf16_32"})
    assert not _plan(folder, recipe=shared, **how | {"devices": 2}).obstacles


def test_a_lacking_library_is_an_obstacle_where_there_is_a_gpu(folder, monkeypatch):
    how = {"drop_broken": True, "max_dropped": 0.2, "recipe": base("sft", {"precision": "bf16_24"})}
    assert not _plan(folder, **how).obstacles
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "24-bit weights need flashoptim" in _plan(folder, **how).obstacles[0]


def test_what_shards_gather_is_whole_however_many_they_are():
    config, recipe = families.config(KEY, "paper"), base("sft", {"precision": "bf16_24"})
    counts, batch = count_trainable(config, recipe), estimates.LargestBatch(8192, 5000, 8)
    parts = [estimates.step_memory(config, counts, recipe, batch, shards=n) for n in (1, 2, 8)]
    assert "gathered" not in parts[0] and parts[1]["gathered"] == parts[2]["gathered"]
    blocks = counts.counts["language model"]["total"] / config.text_config.num_hidden_layers
    assert parts[1]["gathered"] > 3 * 2 * blocks
    assert parts[1]["weights"] == parts[0]["weights"] / 2
    assert parts[0]["activations"] == parts[2]["activations"]


def _true_size(name):
    """Memory of a recipe at true size: (recipe, GPUs that share it) -> part -> bytes."""
    config = families.config(KEY, "paper")
    counts = count_trainable(config, base(name))
    batch = estimates.LargestBatch(8192, 5000, 8)

    def memory(recipe, shards):
        tokens = recipe.tokens_per_batch if recipe.packing else 16384
        largest = dataclasses.replace(batch, positions=tokens)
        return estimates.step_memory(config, counts, recipe, largest, shards=shards)

    return memory


def test_the_cheapest_setting_that_fits_is_named(folder):
    """One GPU rather than several; the own precision where that is no more work."""

    def named(room, devices, longest=1000):
        given = (base("sft"), _true_size("sft"), int(room * 1e9), devices, longest)
        return plan._cheapest(*given)

    one = named(80, 1)
    assert "precision=bf16_24 --set gradient_checkpointing=False" in one and "4096" in one
    assert "on 1 GPU: " in one and named(80, 8) == one
    assert "--tokens-per-batch 8192" in named(80, 1, longest=5000)
    assert "precision=bf16 " in named(141, 1) and named(40, 1) == ""
    assert named(26, 8).endswith("--fsdp") and named(26, 2) == ""
    how = {"drop_broken": True, "max_dropped": 0.2}
    report = _plan(folder, device_bytes=1000, **how)
    assert report.cheapest == "" and "no setting known here fits" in report.obstacles[-1]
    assert "cheapest on this GPU               no setting known here fits" in str(report)
    roomy = _plan(folder, device_bytes=10**12, **how)  # told where the run itself fits, too
    assert roomy.obstacles == [] and "on 1 GPU: --packing" in roomy.cheapest
    assert f"cheapest on this GPU               {roomy.cheapest}" in str(roomy)
    assert "cheapest" not in str(_plan(folder, **how))


@pytest.mark.parametrize("name", ["sft", "sft-lora"])
@pytest.mark.parametrize(("room", "devices"), [(141, 1), (80, 8), (48, 8), (26, 8), (18, 3)])
def test_no_other_setting_that_fits_takes_less_work(name, room, devices):
    """Second method: the work of all that fits, of which the named one has the least."""
    memory, work = _true_size(name), {}
    for kind in ("bf16", "bf16_32", "bf16_24"):
        for again, flops in ((False, 3), ("selective", 3), (True, 4)):  # forward, twice, again
            for shards in range(1, devices + 1):
                if shards > 1 and (kind == "bf16_24" or name == "sft-lora"):
                    continue  # neither is sharded
                changes = {"precision": kind, "gradient_checkpointing": again, "packing": True}
                recipe = base(name, changes | {"tokens_per_batch": 4096})
                if sum(memory(recipe, shards).values()) <= room * 1e9:
                    key = (
                        f"on {shards} GPU",
                        f"precision={kind} --set gradient_checkpointing={again}",
                    )
                    work[key] = flops * shards
    found = plan._cheapest(base(name), memory, int(room * 1e9), devices, 1000)
    assert bool(found) == bool(work)
    named = [cost for words, cost in work.items() if all(f"{one}" in found for one in words)]
    assert not work or named == [min(work.values())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision", "again", "packing"),
    [
        ("sft", "bf16_24", "selective", True),
        ("sft", "bf16_24", False, True),
        ("sft", "bf16_32", True, True),
        ("pretrain", "bf16_24", "selective", True),
        ("sft", "fp32", True, False),
        ("sft", "bf16", True, False),  # float32 under autocast
        ("sft", "bf16_32", True, False),  # the authors' way
        ("sft-lora", "bf16", True, False),
        ("sft-lora", "bf16", "selective", True),
    ],
)
def test_planned_memory_is_that_of_a_simulated_step(name, precision, again, packing):
    """Second method, at true size: fake tensors' storages are counted while they live."""
    changes = {"precision": precision, "gradient_checkpointing": again, "packing": packing}
    recipe = base(name, changes)
    peak, counts, largest = simulated.peak(KEY, recipe, samples=8, length=1024)
    parts = estimates.step_memory(families.config(KEY, "paper"), counts, recipe, largest)
    assert sum(parts.values()) == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("name", ["sft", "pretrain", "sft-lora", "projector-only"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_equal_what_autograd_keeps(name, checkpointing, monkeypatch):
    """Second method: every tensor that the forward pass saves for the backward one."""
    # as on a GPU, where a dropout keeps a mask of bytes
    monkeypatch.setattr(torch.nn.Dropout, "forward", simulated.dropout)
    changes = {"gradient_checkpointing": checkpointing}
    changes |= {"vision_from": 0} if name == "pretrain" else {}
    recipe = base(name, changes)
    deep = {"num_hidden_layers": 8}
    model = families.build(KEY, "mini", 0, text_config=deep, vision_config=deep).train()
    config = model.config
    model, _ = set_trainable(model, recipe)
    kernels.checkpoint(model, recipe)
    image = torch.zeros(3, 64, 64)
    ids = [1, -200] + [300] * 240
    sample = {"id": "", "input_ids": ids, "labels": [-100] * 2 + [300] * 240, "images": [image]}
    batch = collator(config)([sample] * 4)
    kept = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = {k: v for k, v in batch.items() if k not in ("labels", "loss_weights")}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        bare = model.get_base_model() if name == "sft-lora" else model
        output = bare.model(**inputs, use_cache=False).last_hidden_state
    positions = batch["labels"].numel()
    expected = estimates.activations(
        config, recipe, estimates.LargestBatch(positions, 960, 4), size=4
    )
    if checkpointing:  # the one unfolded block exists in the backward pass only
        inner = dataclasses.replace(recipe, gradient_checkpointing=False)
        shallow = families.config(
            KEY,
            "mini",
            text_config={"num_hidden_layers": 1},
            vision_config={"num_hidden_layers": 2},
        )
        block = estimates.activations(
            shallow, inner, estimates.LargestBatch(positions, 960, 4), size=4
        )
        expected -= block - 2 * positions * config.text_config.hidden_size * 4
    assert sum(kept.values()) == pytest.approx(expected, rel=0.1)
    assert output.shape[1] * 4 == positions


def test_the_command_says_what_is_missing_and_fails(folder):
    given = ["plan", "--model", str(folder / "model"), "--records", str(folder / "records.json")]
    given += ["--images", str(folder), "--recipe", "sft", "--out", str(folder / "run")]
    done = CliRunner().invoke(main, [*given, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["images"]["coco/0"] == {"images": 5, "missing": 1}
    few = [*given, "--drop-broken"]
    refused = CliRunner().invoke(main, few)
    assert refused.exit_code == 1
    assert "1 of 9 records cannot be trained on, more than 5.0%" in refused.output
    done = CliRunner().invoke(main, [*few, "--max-dropped", "0.2", "--set", "samples_per_step=2"])
    assert done.exit_code == 0, done.output
    assert "samples_per_step, original 128" in done.output
    mistyped = CliRunner().invoke(main, [*given[:-3], "sfd", "--out", "x"])
    assert "'sft'" in mistyped.output


def _lacking(paths, folder, tmp_path, recipe="sft"):
    """The plan for a caption of each path; no image is there."""
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "It."}]
    records = [{"id": path, "image": path, "conversations": turns} for path in paths]
    return plan.plan(
        families.config(KEY, "mini"),
        checkpoints.load_processor(folder / "model"),
        records,
        tmp_path,
        base(recipe, {"vision_from": 1} if recipe == "pretrain" else {}),
        tmp_path / "run",
    )


@pytest.mark.parametrize("recipe", ["pretrain", "sft"])
def test_what_lacks_is_counted_by_the_layouts_folders_with_source_and_terms(
    folder, tmp_path, recipe
):
    inner = [f"llava/llava_pretrain/images/00{i}/4.jpg" for i in range(3)]
    outer = [f"{place}/7.jpg" for place in image_folders()]
    report = _lacking([*inner, *outer, "own/x.jpg"], folder, tmp_path, recipe)
    counts = {name: {"images": 1, "missing": 1} for name in image_folders()}
    counts |= {
        "llava/llava_pretrain/images": {"images": 4, "missing": 4},
        "own": {"images": 1, "missing": 1},
    }
    assert report.images == dict(sorted(counts.items()))
    assert report.sources == image_folders()
    text, told = str(report), json.loads(report.to_json())
    for place in image_folders().values():
        assert place["where"] in text and place["terms"] in text
    assert told["sources"] == image_folders()


def test_a_whole_set_names_no_source(folder, tmp_path):
    path = tmp_path / "coco" / "train2017" / "1.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)
    report = _lacking(["coco/train2017/1.jpg"], folder, tmp_path)
    assert report.images == {"coco/train2017": {"images": 1, "missing": 0}}
    assert report.sources == {}
    assert "get it at" not in str(report)


REFERENCE = ("llava/llava_excerpt.json", "sharegpt4v/sharegpt4v_gpt4v_excerpt.json")
CAPTIONS = (*REFERENCE[1:], "sharegpt4v/share_captioner_excerpt.json")
LACKING = {  # the excerpts that are committed nowhere have these records without their photo
    "000000033471": "coco/train2017/000000033471.jpg",
    "000000052846": "coco/train2017/000000052846.jpg",
    "000000312621": "coco/train2017/000000312621.jpg",
    "000000261414": "coco/train2017/000000261414.jpg",
    "000000442786": "000000442786.jpg",
    "004539375": "00453/004539375.jpg",
}


@pytest.mark.reference
@pytest.mark.parametrize(
    ("recipe", "files", "lacking"), [("pretrain", CAPTIONS, {}), ("sft", REFERENCE, LACKING)]
)
def test_the_command_says_which_records_of_the_reference_lack_images(
    reference, folder, tmp_path, recipe, files, lacking
):
    data = reference / "data"
    records = [record for file in files for record in json.loads((data / file).read_text())]
    (tmp_path / "records.json").write_text(json.dumps(records))
    block = ["--set", "vision_from=1"] if recipe == "pretrain" else []
    given = ["--model", folder / "model", "--records", tmp_path / "records.json", "--images", data]
    given = [*map(str, given), "--recipe", recipe, "--out", str(tmp_path / "run"), *block]
    done = CliRunner().invoke(main, ["plan", *given, "--json"])
    told = json.loads(done.output)
    named = [one for one in told["broken"] if "image missing: " in one]
    for name, path in lacking.items():
        assert any(f"{name!r}" in one and f": {path} (" in one for one in named)
    assert len(named) == len(lacking) and done.exit_code == bool(lacking)
    assert set(told["sources"]) == ({"coco/train2017"} if lacking else set())
    small = ["--max-steps", "1", "--set", "samples_per_step=2", "--device", "cpu"]
    trained = CliRunner().invoke(main, ["train", *given, *small])
    if not lacking:
        assert trained.exit_code == 0, trained.output
        return
    wrong = f"{len(lacking)} of {len(records)} records cannot be trained on"
    assert trained.exit_code and wrong in str(trained.output) + str(trained.exception)
    dropped = CliRunner().invoke(
        main, ["train", *given, *small, "--drop-broken", "--max-dropped", "1"]
    )
    assert dropped.exit_code == 0, dropped.output
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["records_dropped"] == len(lacking)
    assert manifest["records"] == len(records) - len(lacking)


@pytest.mark.reference
def test_the_reference_folders_records_that_lack_images(reference, folder):
    data = reference / "data"
    processor = checkpoints.load(folder / "model")[1]
    files = ("llava/llava_excerpt.json", "sharegpt4v/sharegpt4v_gpt4v_excerpt.json")
    records = [record for file in files for record in json.loads((data / file).read_text())]
    report = plan.plan(families.config(KEY, "mini"), processor, records, data, base("sft"), folder)
    missing = {r["id"] for r in records if not (data / r["image"]).is_file()}
    lack = {line.split("'")[1] for line in report.broken if "image missing" in line}
    assert lack == missing
    assert 0 < len(missing) < report.records == len(records)


def test_the_settings_of_full_size_are_planned_and_trained_by_the_commands(folder, tmp_path):
    """On a CPU, where 24-bit masters are carried out with 32 bits."""
    given = ["--model", folder / "model", "--records", folder / "records.json", "--images", folder]
    given += ["--recipe", "sft", "--out", tmp_path / "run", "--max-steps", 2, "--drop-broken"]
    given += ["--max-dropped", "0.2", "--packing", "--set", "samples_per_step=4"]
    for name in ("precision", "gradient_checkpointing"):
        given += ["--set", f"{name}={FULL_SIZE[name]}"]
    given = list(map(str, given))
    full = CliRunner().invoke(main, ["plan", *given, "--gpu-memory", "0.001", "--gpus", "8"])
    assert full.exit_code == 1 and "no setting known here fits" in full.output
    shared = ["plan", *given, "--gpus", "4", "--fsdp"]
    refused = CliRunner().invoke(main, shared)
    assert refused.exit_code == 1 and "24-bit masters are not sharded" in refused.output
    shared = CliRunner().invoke(main, [*shared, "--set", "precision=bf16_32"])
    assert shared.exit_code == 0 and "gathered" in shared.output, shared.output
    done = CliRunner().invoke(main, ["train", *given])
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["dtype"] == "bfloat16" and manifest["recipe"]["packing"]
    model, _ = checkpoints.load(tmp_path / "run", dtype=torch.bfloat16)
    base_model, _ = checkpoints.load(folder / "model", dtype=torch.bfloat16)
    assert not torch.equal(model.lm_head.weight, base_model.lm_head.weight)


def test_where_weights_are_sharded_the_first_process_alone_reads_them(
    folder, tmp_path, monkeypatch
):
    devices = []
    monkeypatch.setattr(trainer, "train", lambda model, *_, **__: devices.append(model.device.type))
    given = ["train", "--model", folder / "model", "--records", folder / "records.json"]
    given += ["--images", folder, "--recipe", "sft", "--out", tmp_path / "run", "--fsdp"]
    for rank in ("0", "1"):
        done = CliRunner(env={"RANK": rank}).invoke(main, list(map(str, given)))
        assert done.exit_code == 0, done.output
    assert devices == ["cpu", "meta"]
