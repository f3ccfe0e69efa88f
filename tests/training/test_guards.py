import pytest
import tiny_llava
import torch

from sgv_lab.errors import LabError
from sgv_lab.training import kernels
from sgv_lab.training.trainable import GradientGuard


@pytest.fixture
def reentrant(monkeypatch):
    """Runs use reentrant gradient checkpointing, the default of transformers 4.46 to 4.57."""

    def checkpoint(model, recipe):
        model.activation_checkpointing_enable({"use_reentrant": True})
        model.disable_input_require_grads()

    monkeypatch.setattr(kernels, "checkpoint", checkpoint)


def test_the_silent_freeze_of_the_vision_tower_is_caught(tmp_path, reentrant):
    message = r"vision_tower\.encoder\.layers\.1.* has no gradient after the first step"
    with pytest.raises(LabError, match=message):
        tiny_llava.fit(tmp_path)


def test_without_the_guard_the_loss_falls_and_the_tower_stays(tmp_path, reentrant, monkeypatch):
    monkeypatch.setattr(GradientGuard, "check", lambda self, model, has_image: None)
    model = tiny_llava.model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tiny_llava.fit(tmp_path, model=model, max_steps=20)
    losses = tiny_llava.losses(tmp_path)
    assert sum(losses[-5:]) < sum(losses[:5])
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if "vision_tower" in k)
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])


def test_gradients_that_stay_zero_stop_the_run_in_the_third_update(tmp_path):
    model = tiny_llava.model()
    weight = model.model.multi_modal_projector.linear_1.weight
    weight.register_hook(torch.zeros_like)
    with pytest.raises(LabError, match=r"multi_modal_projector\.linear_1\.weight had only zero"):
        tiny_llava.fit(tmp_path, model=model)
    assert len(tiny_llava.losses(tmp_path)) == 2


def test_loras_late_gradients_pass(tmp_path):
    tiny_llava.fit(tmp_path, recipe=tiny_llava.recipe("sft-lora", warmup_ratio=0.1))
    assert len(tiny_llava.losses(tmp_path)) == 6


def test_updates_without_an_image_do_not_count():
    layer = torch.nn.Linear(2, 2)
    guard = GradientGuard(["weight", "bias"])
    for _ in range(5):
        guard.check(layer, has_image=False)  # no gradient, but no image either
    with pytest.raises(LabError, match="weight and 1 more"):
        guard.check(layer, has_image=True)


def test_a_non_finite_loss_names_the_records_of_its_batch(tmp_path):
    class Broken(tiny_llava.Samples):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            if index == 13:
                sample["images"][0][0, 0, 0] = float("nan")
            return sample

    model, shown = tiny_llava.model(), []
    model.register_forward_hook(lambda *_: shown.append(1))
    with pytest.raises(LabError, match="the loss is nan in step") as error:
        tiny_llava.fit(tmp_path, samples=Broken(), model=model, micro_batch=2, seed=2)
    named = str(error.value).split("records of the batch: ")[1].split(". ")[0].split(", ")
    assert "record-13" in named
    assert len(named) == 2
    assert len(shown) % 4 == 0  # the device is waited for once a step, not at each of its batches


def test_a_non_finite_gradient_stops_the_run(tmp_path):
    model = tiny_llava.model()
    model.lm_head.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(LabError, match=r"gradient norm is .* in step 1"):
        tiny_llava.fit(tmp_path, model=model)
