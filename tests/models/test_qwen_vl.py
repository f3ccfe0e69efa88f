"""The port's parts against other ways of computing them."""

import numpy as np
import pytest
import torch
from PIL import Image

from sgv_lab.errors import LabError
from sgv_lab.models import convert_qwen, families, mini
from sgv_lab.models.qwen_vl import image_processor
from sgv_lab.models.qwen_vl_visual import resized_positions, sincos_positions

IMGPAD_ID = 256 + mini.QWEN_SPECIAL.index("<imgpad>")


@pytest.fixture(scope="module")
def model():
    return families.build("qwen-vl-chat", "mini", 0)


def span(images: int, queries: int = 16) -> list[int]:
    start = IMGPAD_ID - 2
    return [*[70, 71], *([start, *[start + 2] * queries, start + 1, 10] * images), 72, 73]


def pixels(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_resampler_is_attention_written_out(model):
    pool = model.model.visual.attn_pool
    patches = torch.randn(2, 36, 128)
    keys = torch.nn.functional.layer_norm(
        patches @ pool.kv_proj.weight.T, (128,), pool.ln_kv.weight, pool.ln_kv.bias, 1e-6
    )
    query = pool.ln_q(pool.query) + pool.pos_embed
    wq, wk, wv = pool.attn.in_proj_weight.chunk(3)
    bq, bk, bv = pool.attn.in_proj_bias.chunk(3)
    q = query @ wq.T + bq
    k = (keys + resized_positions(pool.pos_embed, 36)) @ wk.T + bk
    v = keys @ wv.T + bv  # values carry no position
    weights = torch.softmax(q @ k.transpose(1, 2) / 128**0.5, dim=-1)
    expected = weights @ v @ pool.attn.out_proj.weight.T + pool.attn.out_proj.bias
    assert torch.allclose(pool(patches), expected, atol=1e-5)


def test_self_attention_takes_heads_one_by_one():
    model = families.build("qwen-vl-chat", "mini", 0)
    attention = model.model.visual.transformer.layers[0].self_attn
    x, joined = torch.randn(1, 5, 128), torch.randn(3 * 128, 128)  # of the original
    front = "transformer.visual.transformer.resblocks.0.attn.in_proj.weight"
    for name, tensor in convert_qwen.rename(4, front, joined).items():
        attention.get_submodule(name.split(".")[-2]).weight.data.copy_(tensor)
    mixed = x @ joined.T
    heads = []
    for h in range(4):
        q, k, v = mixed[..., 96 * h : 96 * (h + 1)].split(32, dim=-1)
        heads.append(torch.softmax(q @ k.transpose(1, 2) / 32**0.5, dim=-1) @ v)
    for part in (attention.q_proj, attention.k_proj, attention.v_proj):
        part.bias.data.zero_()
    assert attention.config._attn_implementation == "sdpa"
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    assert torch.allclose(attention(x)[0], expected, atol=1e-4)


def test_sincos_table():
    table = sincos_positions(8, 3).reshape(3, 3, 8).numpy()  # row, column, channel
    for row in range(3):
        for column in range(3):
            x = [np.sin(column), np.sin(column / 100), np.cos(column), np.cos(column / 100)]
            y = [np.sin(row), np.sin(row / 100), np.cos(row), np.cos(row / 100)]
            assert np.allclose(table[row, column], [*x, *y], atol=1e-6)


def test_images_land_between_the_tags(model):
    ids = torch.tensor([span(2), [*span(1), *[5] * 19]])
    mask = model.model.image_mask(ids, 3)
    assert mask.sum().item() == 48
    assert (ids[mask] == IMGPAD_ID).all()
    images = pixels(3)
    both = model(input_ids=ids, pixel_values=images).logits
    alone = model(input_ids=ids[1:], pixel_values=images[2:]).logits
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    # What stands between the tags is replaced, whatever it is: the original writes a path there.
    named = ids.masked_scatter(mask, torch.arange(48) % 256)
    assert torch.allclose(model(input_ids=named, pixel_values=images).logits, both, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "images", "message"),
    [
        (span(1), 2, r"2 images, but <img> at \[2\], </img> at \[19\]"),
        (span(1)[:10], 1, r"</img> at \[\]"),
        (span(1, queries=15), 1, r"</img> at \[18\].*16 tokens between"),
    ],
)
def test_spans_that_do_not_fit_are_refused(model, ids, images, message):
    with pytest.raises(LabError, match=message):
        model(input_ids=torch.tensor([ids]), pixel_values=pixels(images))


def test_trained_length(model):
    short = families.build("qwen-vl-chat", "mini", 0, seq_length=32)
    ids = torch.arange(33)[None]
    with pytest.raises(LabError, match="33 tokens; the model was trained on 32"):
        short(input_ids=ids)
    assert short(input_ids=ids[:, :32]).logits.shape[1] == 32
    # A packed row may be longer: its documents are not.
    positions = torch.cat([torch.arange(20), torch.arange(13)])[None]
    packed = short(input_ids=ids, position_ids=positions, use_cache=False).logits
    second = short(input_ids=ids[:, 20:]).logits
    assert torch.allclose(packed[:, 20:], second, atol=1e-4)
    with pytest.raises(LabError, match="trained on 32"):
        short.generate(input_ids=ids[:, :30], max_new_tokens=5, min_new_tokens=5)


def test_cached_generation_is_greedy_without_cache(model):
    ids, images = torch.tensor([span(1)]), pixels(1)
    made = model.generate(
        input_ids=ids, pixel_values=images, max_new_tokens=6, min_new_tokens=6, do_sample=False
    )
    for _ in range(6):
        logits = model(input_ids=ids, pixel_values=images).logits[0, -1]
        logits[[256 + mini.QWEN_SPECIAL.index("<|im_end|>")]] = -torch.inf  # min_new_tokens
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    assert made.tolist() == ids.tolist()


def test_gradient_checkpointing_gives_the_same_gradients():
    grads = []
    for checkpointing in (False, True):
        model = families.build("qwen-vl-chat", "mini", 0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids = torch.tensor([span(1)])
        model(input_ids=ids, pixel_values=pixels(1), labels=ids).loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, grad in grads[0].items():
        assert grad is not None, name
        assert torch.allclose(grad, grads[1][name], atol=1e-6), name


def test_images_are_squeezed_not_cropped():
    image = Image.new("RGB", (80, 20), "red")
    image.paste("blue", (60, 0, 80, 20))
    made = image_processor(8)(image, return_tensors="pt").pixel_values[0]
    assert made.shape == (3, 8, 8)
    assert made[0, 4, 1] > made[2, 4, 1] and made[2, 4, 7] > made[0, 4, 7]
