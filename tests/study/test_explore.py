"""Pages without a browser: what buttons do, what is marked, what a model is asked."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as w
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from sgv_lab import notebook, store, widgets
from sgv_lab.captions import convert, sources
from sgv_lab.errors import LabError
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.study import explore, official, publishing
from sgv_lab.study.judging import Pair, Votes
from sgv_lab.training.conversation import IMAGE_ID, SYSTEM, prompt_ids
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import MINIATURE, scene
from sgv_lab.world.vocabulary import KINDS

KEY = "llava-1.5-7b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [caption(scene(i, difficulty=MINIATURE), ANNOTATORS["oracle"]) for i in range(50)]
    processor = families.processor(KEY, "mini", mini.train_tokenizer([SYSTEM, *words]))
    model = families.build(KEY, "mini", 0)
    return checkpoints.save(model, processor, tmp_path_factory.mktemp("models") / "untrained")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    return sources.world(3, 0, 64, split="eval", difficulty=MINIATURE)


def found(page: w.Widget, name: str) -> list:
    """The widgets of a page with this class."""
    inner = [one for child in getattr(page, "children", ()) for one in found(child, name)]
    return inner + ([page] if name in getattr(page, "_dom_classes", ()) else [])


def words(page: w.Widget) -> list[list[str]]:
    return [[one.value for one in box.children] for box in found(page, "sgv-words")]


def test_a_conversation_is_asked_as_the_model_was_trained(folder: Path, monkeypatch) -> None:
    model = explore.Model(folder)
    asked, said = ["Describe it.", "What color is it?", "Sure?"], ["A red star.", "Red"]
    seen = []
    loaded, processor = model.loaded
    generate = loaded.generate
    monkeypatch.setattr(
        loaded, "generate", lambda **k: seen.append(k["input_ids"]) or generate(**k)
    )
    model.say(Image.new("RGB", (40, 20), "red"), asked, said)
    turns = [{"from": side, "value": text} for pair in zip(asked, [*said, ""], strict=True)
             for side, text in zip(("human", "gpt"), pair, strict=True)][:-1]  # fmt: skip
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    ids = prompt_ids(turns, processor.tokenizer, "v1")
    place = [loaded.config.image_token_id] * loaded.config.image_seq_length
    assert seen[0][0].tolist() == [i for t in ids for i in (place if t == IMAGE_ID else [t])]


def test_a_model_is_asked_on_the_gpu_where_there_is_one(folder: Path, monkeypatch) -> None:
    load, given = checkpoints.load, []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(checkpoints, "load", lambda path, **how: given.append(how) or load(path))
    assert explore.Model(folder).loaded[0].device.type == "cpu"  # there is none here
    assert given == [{"device": "cuda:0", "dtype": torch.bfloat16}]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_broken_upload_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(LabError, match=r"^my\.png: .*Try another image: PNG, JPEG or WebP"):
        explore.uploaded("my.png", data)


def test_models_are_those_given_trained_and_shipped(
    folder: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore.shipped, "ROOT", folder.parent)
    for kind, key in (("share-captioner", "ab"), ("share-captioner", "cd"), ("lesson", "ef")):
        trained = store.root() / kind / key / "model"
        trained.mkdir(parents=True)
        (trained / "config.json").write_text("{}")
        (trained.parent / store.MANIFEST).write_text('{"settings": {"seed": 7}}')
    recorded = {name: explore.Model(folder) for name in ("none", "before", "after")}
    monkeypatch.setattr(explore, "recorded", lambda: recorded)
    names = list(explore.models(["some/where"]))
    again = "Share-Captioner, seed 7 (2)"
    assert names[:2] == ["before", "after"]  # on which the page opens
    assert names[2:] == ["none", "where", "Share-Captioner, seed 7", again, "base untrained"]


def test_the_page_describes_answers_and_starts_over(folder: Path, world: Path) -> None:
    captions = convert.load(world)
    paths = sorted(p.relative_to(world).as_posix() for p in world.rglob("*.png"))
    page = widgets.explorer(world, paths, explore.models([folder]), captions, MINIATURE)
    (pick,), (describe,), (question,), (message,) = (
        found(page, f"sgv-{name}") for name in ("pick", "describe", "question", "message")
    )
    first, second = found(page, "sgv-who")
    second.value = "ShareGPT4V"
    (text,) = convert.captions_of(captions, paths[0])["ShareGPT4V"]
    assert words(page) == [[], [widgets.marked_html(text, scene_of(paths[0], MINIATURE))]]
    describe.click()
    question.value = "Is it <b>red</b>?"
    assert question.value == "" and message.value == ""
    assert [len(column) for column in words(page)] == [4, 1]
    assert words(page)[0][2] == "<i>Is it &lt;b&gt;red&lt;/b&gt;?</i>"
    pick.value = paths[1]
    assert words(page)[0] == [] and words(page)[1] != [text]

    (upload,), stream = found(page, "sgv-upload"), io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "PNG")
    sent = {"name": "a.png", "type": "image/png", "size": 1, "last_modified": datetime.now(UTC)}
    upload.value = [sent | {"content": memoryview(stream.getvalue())}]
    assert words(page)[0] == [] and "(says nothing about this image)" in words(page)[1][0]
    upload.value = [sent | {"content": memoryview(b"<i>no</i>"), "name": "<b>.png"}]
    assert "&lt;b&gt;.png: corrupt" in message.value
    first.value = "COCO-Caption"
    describe.click()
    assert "only models answer" in message.value


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """A function that runs a notebook up to a cell, with a model that says little; its values."""
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SGV_PROFILE", "smoke")
    model = SimpleNamespace(about="says little", say=lambda *_: "A photo.")
    monkeypatch.setattr(explore, "recorded", lambda: {"none": model})
    plt.close("all")

    def run(name: str, last: str, **given: object) -> dict:
        cells = nbformat.read(notebook.folder() / f"{name}.ipynb", as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        values = {"__name__": "__main__", "display": lambda _: None}
        for cell in code[: [cell.id for cell in code].index(last) + 1]:
            exec(cell.source, values)
            values |= given if cell is code[0] else {}
        return values

    return run


def record(image: str, text: str) -> dict:
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": text}]
    return {"id": image, "image": image, "conversations": turns}


def test_notebook_09_shows_photos_with_their_captions_first_and_on_its_page(
    ran: Callable[..., dict], tmp_path: Path
) -> None:
    told = {"a.png": "Red <i>alone</i>.", "b.png": "Blue."}
    for name in told:
        Image.new("RGB", (30, 20), "red").save(tmp_path / name)
    rows = [record(*one) for one in told.items()]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    (tmp_path / "share_captioner.json").write_text(json.dumps(rows[1:]))
    values = ran(
        "09_explore", "explore-11", images=str(tmp_path), files=[str(tmp_path / "own.json")]
    )
    shown = values["at_hand"]
    assert len(shown) == 1 and plt.get_fignums() == [shown[0].number, shown[0].number + 1]
    assert values["first"].name == "a.png"
    first, second = found(values["page"], "sgv-who")
    first.value = "own"
    assert words(values["page"])[0] == [widgets.marked_html(told["a.png"], None)]
    second.value = "ShareGPT4V-PT"
    assert "(says nothing about this image)" in words(values["page"])[1][0]


@pytest.mark.reference
def test_notebook_04_shows_photos_of_the_official_files_first(
    ran: Callable[..., dict], reference: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "sharegpt4v").mkdir(parents=True)
    (data / "coco").symlink_to(reference / "data/coco")
    seen = reference / "data/sharegpt4v/sharegpt4v_gpt4v_excerpt.json"
    (data / "sharegpt4v" / official.FILES["captions"]).write_bytes(seen.read_bytes())
    blind = [record(f"{number:012d}.jpg", "A blind caption.") for number in (110, 42, 9)]
    (data / "sharegpt4v" / official.FILES["detail"]).write_text(json.dumps(blind))
    values = ran("04_sft_substitution", "before-after-figure", data_root=str(data))
    numbers = [figure.number for figure in values["at_hand"]]
    assert len(numbers) == 2 and plt.get_fignums() == [*numbers, numbers[-1] + 1]


def test_what_is_wrong_is_marked_and_nothing_is_taken_for_html() -> None:
    drawn = scene(0, "eval", None, MINIATURE)
    kinds = {thing.kind for thing in drawn.things}
    absent = next(kind for kind in KINDS if kind not in kinds)
    there = drawn.things[0].kind
    html = widgets.marked_html(f"There is a {there}. There is a {absent} <script>.", drawn)
    assert (
        f'class="sgv-invented" title="invented" style="color:#C03A00;font-weight:bold">{absent}'
        in html
    )
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert 'class="sgv-true"' in html


def test_the_caption_browser_names_stand_ins_and_shows_what_is_chosen(world: Path) -> None:
    page = widgets.caption_browser(convert.load(world), world)
    (controls, sources_box), (frame, cards) = (row.children for row in page.children)
    heads = [card.children[0].value for card in cards.children]
    assert any("captioned by a stand-in for GPT4-Vision" in head for head in heads)
    assert all("a stand-in for" in head for head in heads)
    before = frame.children[0].value
    controls.children[0].value = 1  # the next image
    assert frame.children[0].value != before
    sources_box.value = ["ShareGPT4V"]
    assert len(cards.children) == 1
    (world / "difficulty.json").unlink()
    real = widgets.caption_browser(convert.load(world), world)  # as if they were photos
    assert "stand-in" not in real.children[1].children[1].children[0].children[0].value


def test_judging_by_button_keeps_every_answer_and_goes_on(tmp_path: Path) -> None:
    asked = [Pair(f"{i}.png", (("a", f"<i>{i}</i>"), ("b", f"other {i}"))) for i in range(3)]
    votes = Votes(tmp_path / "votes.jsonl")
    page = widgets.judging_page(asked, tmp_path, votes, "ann")
    (state,), (row,) = found(page, "sgv-judged"), found(page, "sgv-judge")
    shown = page.children[1].children[1:]
    assert any("&lt;i&gt;" in text.value for text in shown)
    row.children[2].click()
    row.children[1].click()
    assert votes.table()["choice"].tolist() == ["right", "same"]
    again = widgets.judging_page(asked, tmp_path, votes, "ann")
    assert found(again, "sgv-judged")[0].value == state.value == "2 of 3 judged by ann"
    found(again, "sgv-judge")[0].children[0].click()
    assert all(button.disabled for button in found(again, "sgv-judge")[0].children)
    assert set(votes.table()["pair"]) == {pair.key for pair in asked}


def test_recorded_arms_are_the_base_with_what_their_runs_learned() -> None:
    found = explore.recorded()
    study, runs, _ = publishing.load_study("pilot-a-llava-1.5-7b")
    with safe_open(explore.RECORDED, "pt") as file:
        about, keys = file.metadata(), list(file.keys())
    assert about["plan"] == study.name
    of_seed = {run.arm: run for run in runs if run.seed == int(about["seed"])}
    assert set(found) - {"none"} <= set(of_seed)
    assert {of_seed[name].base for name in set(found) - {"none"}} == {about["base"]}
    assert all("multi_modal_projector" in key for key in keys)  # all that pilot A trains
    weights = {
        name: one.loaded[0].get_parameter(keys[0].partition("/")[2]) for name, one in found.items()
    }
    assert not torch.equal(weights["none"], weights["before"])
    assert not torch.equal(weights["before"], weights["after"])


@pytest.mark.slow
def test_a_recorded_arm_is_its_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    study, _, _ = publishing.load_study("pilot-a-llava-1.5-7b")
    shipped = {key: value for key, value in load_file(explore.RECORDED).items() if "before" in key}
    monkeypatch.setattr(explore, "RECORDED", tmp_path / "again.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again = load_file(publishing.keep_models(study, ["before"]))
    torch.set_num_threads(threads)
    # to the bit on one kind of processor; others add up in another order
    torch.testing.assert_close(again, shipped, rtol=0, atol=1e-6)
