"""Captioning with a model, a tiny one with random weights."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from image_kinds import make_broken, make_cut, make_odd

from sgv_lab.captioning import bulk, endpoint, writer
from sgv_lab.captioning.bulk import Decoding, caption
from sgv_lab.captioning.merge import merge, outcome, table
from sgv_lab.captioning.prompts import CAPTIONER
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.images import load_image
from sgv_lab.models import checkpoints
from sgv_lab.training.collate import prompts
from sgv_lab.training.conversation import IMAGE_ID, prompt_ids

SHORT = Decoding(max_new_tokens=12)
SAMPLED = Decoding(max_new_tokens=12, do_sample=True, temperature=1.5)


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(writer, "CHUNK", 16)


def run(loaded, images, out, **given) -> bytes:
    return merge(caption(*loaded, images, out, **{"batch_size": 6, "decoding": SHORT} | given)
                 ).read_bytes()  # fmt: skip


def asked(loaded, images, prompt=CAPTIONER):
    model, processor = loaded
    turns = [{"from": "human", "value": f"<image>\n{prompt}"}]
    return prompts(model.config, processor, [turns] * len(images), images, "pad")


def test_the_prompt_is_the_one_trained_with(loaded, world):
    model, processor = loaded
    images = [Path(p).relative_to(world) for p in sorted(world.rglob("*.png"))[:2]]
    images = [load_image(world, str(p))[1] for p in images]
    inputs = asked(loaded, images)
    turns = [{"from": "human", "value": f"<image>\n{CAPTIONER}"}]
    want = prompt_ids(turns, processor.tokenizer)
    at = want.index(IMAGE_ID)
    want[at : at + 1] = [model.config.image_token_id] * 16
    assert inputs["input_ids"].tolist() == [want] * 2


def test_batches_decode_as_one_image_after_another(loaded, world):
    """A second method: one forward pass a token, no cache."""
    model, processor = loaded
    paths = sorted(world.rglob("*.png"))[:5]
    images = [load_image(world, str(path.relative_to(world)))[1] for path in paths]
    inputs = asked(loaded, images)
    said = bulk.decode(model, processor, inputs, SHORT)
    assert len({one["caption"] for one in said}) > 1
    for image, one in zip(images[:2], said, strict=False):
        given = asked(loaded, [image])
        ids = given["input_ids"][0].tolist()
        new: list[int] = []
        with torch.inference_mode():
            while len(new) < SHORT.max_new_tokens:
                tokens = torch.tensor([ids + new])
                logits = model(input_ids=tokens, pixel_values=given["pixel_values"]).logits
                new.append(int(logits[0, -1].argmax()))
                if new[-1] == processor.tokenizer.eos_token_id:
                    break
        ended = new[-1] == processor.tokenizer.eos_token_id
        text = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        assert one == {"caption": text, "tokens": len(new) - ended, "ended": ended}


@pytest.mark.parametrize("decoding", [SHORT, SAMPLED])
def test_part_by_part_gives_what_an_undisturbed_run_gives(loaded, world, tmp_path, decoding):
    whole = run(loaded, world, tmp_path / "whole", decoding=decoding)
    assert run(loaded, world, tmp_path / "again", decoding=decoding) == whole
    out = tmp_path / "parts"
    shutil.copytree(tmp_path / "whole", out)
    for number, keep in enumerate([3, 0, 7]):  # rows that are there, within batches too
        file = out / f"rows/{number:06d}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:keep]))
    assert run(loaded, world, out, decoding=decoding) == whole
    caption(*loaded, world, tmp_path / "two", batch_size=6, decoding=decoding, shard=(1, 2))
    assert len(table(tmp_path / "two")) == 16
    assert run(loaded, world, tmp_path / "two", decoding=decoding, shard=(0, 2)) == whole
    other = run(loaded, world, tmp_path / "other", decoding=decoding, seed=1)
    assert (other == whole) == (not decoding.do_sample)


def test_a_row_tells_what_made_it_and_another_model_is_refused(loaded, world, tmp_path):
    state = torch.random.get_rng_state()
    run(loaded, world, tmp_path / "out", name="tiny", decoding=SAMPLED)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's is left alone
    row = table(tmp_path / "out").iloc[0]
    assert (row["model"], row["revision"]) == ("tiny", checkpoints.weights_hash(loaded[0]))
    assert row["image"] == sorted(str(p.relative_to(world)) for p in world.rglob("*.png"))[0]
    assert row["tokens"] <= 12 and len(row["sha256"]) == 64
    weight = loaded[0].lm_head.weight
    before = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] += 1
    try:
        with pytest.raises(LabError, match=r"holds another run.*revision was"):
            caption(*loaded, world, tmp_path / "out", name="tiny", batch_size=6, decoding=SAMPLED)
    finally:
        with torch.no_grad():
            weight[0, 0] = before


def test_bad_images_become_reasons(loaded, world, tmp_path):
    folder = tmp_path / "data"
    reasons = make_broken(folder) | make_cut(folder)
    odd = make_odd(folder)
    good = sorted(world.rglob("*.png"))[:5]
    for number, path in enumerate(good):
        shutil.copy(path, folder / f"good{number}.png")
    rows = table(caption(*loaded, folder, tmp_path / "out", batch_size=4, decoding=SHORT))
    found = rows.set_index("image")
    for name, reason in reasons.items():
        assert found.loc[name, "reason"].startswith(reason)
        assert pd.isna(found.loc[name, "caption"])
    captioned = found[found["caption"].notna()]
    assert set(captioned.index) == {*odd, *(f"good{n}.png" for n in range(5))}
    assert outcome(tmp_path / "out")["images"]["captioned"] == 5 + len(odd)
    assert len(json.loads(merge(tmp_path / "out").read_text())) == 5 + len(odd)


def test_the_commands_caption_by_a_folder_and_by_an_address_alike(loaded, world, tmp_path):
    """A real model behind a real server answers as the model itself does."""
    folder = checkpoints.save(*loaded, tmp_path / "tiny")
    model, processor = loaded

    def answer(image, prompt, seed):
        inputs = asked(loaded, [image], prompt)
        (said,) = bulk.decode(model, processor, inputs, SHORT)
        return f"{said['caption']} 1. 2.", "stop"  # words that no filter discards

    shared = ["--images", str(world), "--max-tokens", "12"]
    with endpoint.serve(answer) as url:
        served = CliRunner().invoke(
            main, ["caption", "--model", url, "--out", str(tmp_path / "url"), *shared]
        )
    assert served.exit_code == 0, served.output
    command = ["caption", "--model", str(folder), "--out", str(tmp_path / "dir"), *shared]
    assert CliRunner().invoke(main, [*command, "--shard", "1/2"]).exit_code == 0
    rest = CliRunner(env={"RANK": "0", "WORLD_SIZE": "2"}).invoke(main, command)  # as torchrun says
    assert rest.exit_code == 0, rest.output
    by_url, by_folder = table(tmp_path / "url"), table(tmp_path / "dir")
    assert list(by_url["caption"]) == [f"{text} 1. 2." for text in by_folder["caption"]]
    assert set(by_url["model"]) == {endpoint.MODEL} and list(by_url["sha256"]) == list(
        by_folder["sha256"]
    )
    done = CliRunner().invoke(main, ["caption", "--merge", "--out", str(tmp_path / "dir")])
    assert done.exit_code == 0 and len(json.loads(Path(done.output.strip()).read_text())) == 40


@pytest.mark.parametrize(
    ("model", "ignored"),
    [
        ("a/checkpoint", ["--request", '{"top_p": 0.1, "nonsense": true}']),
        ("a/checkpoint", ["--connections", "999"]),
        ("a/checkpoint", ["--per-minute", "3"]),
        ("a/checkpoint", ["--timeout", "3"]),
        ("a/checkpoint", ["--name", "x"]),
        ("http://localhost:9/v1", ["--batch-size", "2"]),
        ("http://localhost:9/v1", ["--static"]),
    ],
)
def test_options_that_the_model_cannot_take_are_refused_by_name(world, tmp_path, model, ignored):
    out = tmp_path / "out"
    given = ["caption", "--model", model, "--images", str(world), "--out", str(out), *ignored]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 1 and f"takes no {ignored[0]}. Leave it out" in done.output
    assert not out.exists()


def test_merging_takes_the_folder_alone(tmp_path):
    given = ["caption", "--merge", "--out", str(tmp_path), "--batch-size", "2", "--seed", "1"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 1 and "takes no --seed, --batch-size" in done.output
