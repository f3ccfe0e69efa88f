import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_llava
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints
from sgv_lab.training import card, checkpointing, commands, metrics
from sgv_lab.training.step_data import SampleOrder
from sgv_lab.training.trainer import supervised_loss


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory):
    """The run that the others are held to: 8 samples a step in one batch."""
    return tiny_llava.fit(tmp_path_factory.mktemp("one_batch"), micro_batch=8)


def _same(a, b, tolerance=1e-5):
    assert tiny_llava.losses(a) == pytest.approx(tiny_llava.losses(b), abs=tolerance)
    theirs = tiny_llava.weights(b)
    for name, tensor in tiny_llava.weights(a).items():
        if name.endswith("k_proj.bias"):  # softmax cancels it: its gradient is rounding noise,
            continue  # which AdamW scales up to whole steps
        torch.testing.assert_close(tensor, theirs[name], atol=tolerance, rtol=0, msg=name)


@pytest.mark.parametrize("micro_batch", [4, 1])
def test_the_same_update_in_smaller_batches(tmp_path, trajectory, micro_batch):
    out = tiny_llava.fit(tmp_path, micro_batch=micro_batch)
    assert metrics.read(out / "metrics.jsonl")[0]["batches"] == 8 // micro_batch
    _same(out, trajectory)


@pytest.mark.parametrize("tokens", [40, 400])
def test_packed_samples_train_as_padded_ones(tmp_path, trajectory, tokens):
    out = tiny_llava.fit(tmp_path, packing=True, tokens_per_batch=tokens)
    rows = metrics.read(out / "metrics.jsonl")
    assert all(row["positions"] == row["tokens"] for row in rows)
    assert (rows[0]["batches"] > 1) == (tokens == 40)
    _same(out, trajectory)


def test_gradient_checkpointing_changes_nothing(tmp_path, trajectory):
    recipe = tiny_llava.recipe(gradient_checkpointing=False)
    _same(tiny_llava.fit(tmp_path, recipe=recipe), trajectory)


@pytest.mark.parametrize("loss", ["token", "sample"])
def test_the_first_loss_is_the_models_own(tmp_path, loss):
    """Second method: transformers' loss, sample by sample, on full logits."""
    tiny_llava.fit(tmp_path, loss=loss, max_steps=1, micro_batch=4)
    model, samples = tiny_llava.model(), tiny_llava.Samples()
    means, counts = [], []
    for index in SampleOrder(40, seed=0).slice(0, 8):
        batch = tiny_llava.collator()([samples[index]])
        inputs = {k: v for k, v in batch.items() if k != "loss_weights"}
        means.append(model(**inputs).loss.item())
        counts.append(sum(x != -100 for x in samples[index]["labels"][1:]))
    total = sum(m * n for m, n in zip(means, counts, strict=True)) / sum(counts)
    expected = total if loss == "token" else sum(means) / len(means)
    assert tiny_llava.losses(tmp_path)[0] == pytest.approx(expected, abs=1e-6)


def test_gradients_equal_those_of_full_logits():
    batch = tiny_llava.collator()([tiny_llava.Samples()[i] for i in range(6)])
    ours, theirs = tiny_llava.model(), tiny_llava.model()
    supervised = sum(int((row[1:] != -100).sum()) for row in batch["labels"])
    loss = supervised_loss(ours, batch, supervised)
    inputs = {k: v for k, v in batch.items() if k != "loss_weights"}
    full = theirs(**inputs).loss
    assert loss.item() == pytest.approx(full.item(), abs=1e-6)
    loss.backward()
    full.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)


def test_only_supervised_positions_reach_the_output_head():
    batch = tiny_llava.collator()([tiny_llava.Samples()[i] for i in range(6)])
    model, shapes = tiny_llava.model(), []
    model.lm_head.register_forward_hook(lambda m, i, o: shapes.append(tuple(i[0].shape)))
    supervised_loss(model, batch, 1.0)
    assert shapes == [(int((batch["labels"][:, 1:] != -100).sum()), 32)]


def test_longer_samples_weigh_no_more_when_weighted_by_sample(tmp_path):
    class Doubled(tiny_llava.Samples):
        """Every answer twice over: other lengths, the same number of samples."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            answer = [x for x in sample["labels"] if x != -100]
            return sample | {
                "input_ids": sample["input_ids"] + answer,
                "labels": sample["labels"] + answer,
            }

    short = tiny_llava.fit(tmp_path / "short", max_steps=3, loss="sample")
    long = tiny_llava.fit(tmp_path / "long", max_steps=3, loss="sample", samples=Doubled())
    rows = [metrics.read(out / "metrics.jsonl") for out in (short, long)]
    for a, b in zip(*rows, strict=True):
        assert a["samples"] == b["samples"] == 8
        assert 2 * a["supervised_tokens"] == b["supervised_tokens"]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path):
    a, b, c = (tiny_llava.fit(tmp_path / str(i), seed=s) for i, s in enumerate((1, 1, 2)))
    head = "language_model.lm_head.weight"
    first, again, other = map(tiny_llava.weights, (a, b, c))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first[head], other[head])


def test_every_record_is_seen_once_an_epoch():
    order = SampleOrder(10, seed=3)
    first, second = order.slice(0, 10), order.slice(10, 20)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert order.slice(7, 14) == first[7:] + second[:4]


def test_the_run_leaves_a_checkpoint_a_card_and_a_record(tmp_path):
    out = tiny_llava.fit(tmp_path / "run", max_steps=6)
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert model.config.model_type == "llava"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["final_loss"] == tiny_llava.losses(out)[-1]
    assert manifest["peak_bytes"] > 0
    assert manifest["provenance"]["packages"]["torch"] == torch.__version__
    written = (out / "README.md").read_text()
    assert "recipe `pretrain`" in written
    assert "vision_from 12 → 1" in written
    assert ModelCard(written).data.license == "other" and "from `random weights` on 40" in written
    assert not list(out.glob("*.bin"))
    assert not (out / "checkpoints").exists()
    row = metrics.read(out / "metrics.jsonl")[-1]
    assert {"loss", "learning_rate", "grad_norm", "tokens", "supervised_tokens"} <= row.keys()


def test_a_card_claims_what_holds_and_names_base_and_data(tmp_path):
    manifest = json.loads((tiny_llava.fit(tmp_path, max_steps=1) / "manifest.json").read_text())
    hub = "/somewhere/models--owner--name/snapshots/0/"
    manifest |= {"base": card.hub_name(hub), "records_file": "sharegpt4v_mix665k_cap23k_x.json"}
    written = ModelCard(card.card(manifest))
    assert written.data.base_model == "owner/name"
    assert written.data.datasets == ["Lin-Chen/ShareGPT4V"]
    assert "Loads with `AutoModelForImageTextToText" in written.text
    assert "somewhere" not in str(written) and "adapter/" not in written.text
    manifest |= {"model_type": "qwen_vl", "base": "vicuna", "records_file": "mine.json"}
    manifest["recipe"]["language_model"] = "lora"
    written = ModelCard(card.card(manifest))
    assert written.data.base_model is written.data.datasets is None
    assert "Transformers has no class for it" in written.text and "adapter/" in written.text


def test_a_run_is_pushed_whole_and_privately_its_size_told_first(tmp_path, monkeypatch):
    asked = []

    class Hub:
        def create_repo(self, name, **how):
            asked.append(("made", name, how))

        def upload_folder(self, repo_id, folder_path, ignore_patterns):
            given = [str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*")]
            kept = filter_repo_objects(given, ignore_patterns=ignore_patterns)
            asked.append(("sent", repo_id, set(kept)))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(commands, "HfApi", Hub)
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "metrics.jsonl", "model.safetensors", "manifest.json"):
        (run / name).write_bytes(bytes(1_000_000))
    with pytest.raises(LabError, match=r"run: holds no README\.md"):
        list(commands.push(run, "me/ours"))
    (run / "README.md").write_bytes(bytes(1_000_000))
    told = commands.push(run, "me/ours")
    assert next(told) == "3 files, 0.003 GB, to me/ours" and not asked
    assert list(told) == ["https://hub/me/ours"]
    sent = {"model.safetensors", "manifest.json", "README.md"}
    assert asked[0] == ("made", "me/ours", {"private": True, "exist_ok": True})
    assert asked[1:] == [("sent", "me/ours", sent)]
    list(commands.push(run, "me/ours", public=True))
    assert asked[2][2]["private"] is False
    monkeypatch.setattr(Hub, "create_repo", lambda *a, **k: 1 / 0)
    with pytest.raises(LabError, match=r"me/ours: cannot be published \(division"):
        list(commands.push(run, "me/ours"))


def test_trackers_by_accelerates_names_get_every_step(tmp_path, monkeypatch):
    kept, told = [], {}

    class Kept(GeneralTracker):
        name, requires_logging_directory, main_process_only = "kept", False, True
        tracker = None

        def __init__(self, run_name, **_):
            super().__init__()

        def store_init_configuration(self, values):
            told.update(values)

        def log(self, values, step, **_):
            kept.append((step, values["loss"]))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "kept", Kept)
    tiny_llava.fit(tmp_path / "run", max_steps=2, report_to="kept")
    assert kept == list(enumerate(tiny_llava.losses(tmp_path / "run"), 1))
    assert told.items() >= {"name": "pretrain", "learning_rate": 3e-3, "seed": 0}.items()
    assert all(isinstance(value, bool | int | float | str | None) for value in told.values())
    with pytest.raises(LabError, match="Unsupported logging capability: tensorbored"):
        tiny_llava.fit(tmp_path / "other", report_to="tensorbored")
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(LabError, match="wandb is not installed"):
        tiny_llava.fit(tmp_path / "other", report_to="wandb")


def test_a_notebook_gets_a_live_loss_curve(tmp_path, monkeypatch):
    drawn = []

    class Handle:
        def update(self, figure):
            drawn.append(figure)

    monkeypatch.setattr(metrics, "is_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda display_id: Handle())
    tiny_llava.fit(tmp_path, progress=True)
    line = drawn[-1].axes[0].lines[0]
    assert list(line.get_ydata()) == tiny_llava.losses(tmp_path)


def test_lora_ends_in_one_whole_model(tmp_path):
    """The merged checkpoint computes what base and adapters computed together."""
    trained = {}
    usual = checkpointing.finish

    def finish(model, *given):
        batch = tiny_llava.collator()([tiny_llava.Samples()[1]])
        with torch.no_grad():
            model.eval()
            trained["loss"] = supervised_loss(model, batch, 1.0).item()
        return usual(model, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointing, "finish", finish)
        out = tiny_llava.fit(tmp_path, recipe=tiny_llava.recipe("sft-lora"))
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert {n for n, _ in model.named_parameters()} == {
        n for n, _ in tiny_llava.model().named_parameters()
    }
    batch = tiny_llava.collator()([tiny_llava.Samples()[1]])
    assert supervised_loss(model, batch, 1.0).item() == pytest.approx(trained["loss"], abs=1e-4)
    base = supervised_loss(tiny_llava.model(), batch, 1.0).item()
    assert abs(trained["loss"] - base) > 1e-2


def test_adapters_are_kept_for_peft(tmp_path):
    """Put onto the base they make the merged model; the projector, trained whole, is in them."""
    out = tiny_llava.fit(tmp_path, recipe=tiny_llava.recipe("sft-lora"))
    merged = AutoModelForImageTextToText.from_pretrained(out)
    adapted = PeftModel.from_pretrained(tiny_llava.model(), out / "adapter")
    batch = tiny_llava.collator()([tiny_llava.Samples()[1]])
    losses = [supervised_loss(one.eval(), batch, 1.0).item() for one in (merged, adapted)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    weights = adapted.merge_and_unload().state_dict()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], msg=name)
    assert checkpoints.fingerprint(out)  # which the folder does not disturb


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("home/MODELS/llava-1.5-7b", "llava-1.5-7b"),
        ("models--llava-hf--llava-1.5-7b-hf/snapshots/1", "llava-hf/llava-1.5-7b-hf"),
    ],
)
def test_adapters_name_their_base_without_a_place_on_this_machine(tmp_path, place, name):
    model = tiny_llava.model()
    model.name_or_path = str(tmp_path / place)
    recipe = tiny_llava.recipe("sft-lora")
    out = tiny_llava.fit(tmp_path / "run", model=model, recipe=recipe, max_steps=1)
    told = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == name
    assert str(tmp_path) not in (out / "adapter" / "adapter_config.json").read_text()


def test_the_projectors_own_learning_rate(tmp_path):
    slow = tiny_llava.recipe("sft-lora", projector_learning_rate=1e-9, warmup_ratio=0.0)
    model = tiny_llava.model()
    before = model.model.multi_modal_projector.linear_1.weight.detach().clone()
    out = tiny_llava.fit(tmp_path, model=model, recipe=slow)
    after = tiny_llava.weights(out)["multi_modal_projector.linear_1.weight"]
    assert 0 < (after - before).abs().max() < 1e-7
    assert metrics.read(out / "metrics.jsonl")[0]["learning_rate"] == slow.learning_rate


def test_sharding_over_one_process_is_refused(tmp_path):
    with pytest.raises(LabError, match="one process has nobody to share with"):
        tiny_llava.fit(tmp_path, fsdp=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LabError, match="no GPU is there"):
        tiny_llava.fit(tmp_path, device="cuda")


def test_only_the_first_process_clears_what_a_killed_save_left(tmp_path):
    """Another one, late, would take the files that the first has just saved."""
    at_the_barrier = []
    second = SimpleNamespace(
        is_main_process=False,
        process_index=1,
        num_processes=2,
        device=torch.device("cpu"),
        wait_for_everyone=lambda: at_the_barrier.append(sorted(p.name for p in scratch.iterdir())),
    )
    scratch = tmp_path / ".saving"
    scratch.mkdir()
    (scratch / "process-0.pt").write_text("just saved")
    checkpointing.TrainingState(tmp_path, torch.nn.Linear(1, 1), None, None, second).save(1)
    assert at_the_barrier == [["process-0.pt"], ["process-0.pt", "process-1.pt"]]


def test_what_one_arm_leaves_out_moves_no_other_record():
    whole, lacking = SampleOrder(1000, 0).slice(0, 2500), SampleOrder(1000, 0, [17, 400])
    shown = lacking.slice(0, 2500)
    differ = {a for a, b in zip(whole, shown, strict=True) if a != b}
    assert differ == {17, 400} and not {17, 400} & set(shown)
    both = SampleOrder(1000, 0, [17, 400, 800]).slice(0, 2500)  # the same take the same places
    assert {a for a, b in zip(shown, both, strict=True) if a != b} == {800}
