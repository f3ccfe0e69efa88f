"""Asking a model: batches, resuming, official submissions. A tiny random LLaVA answers."""

import base64
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from image_kinds import make_broken, make_odd
from PIL import Image

from sgv_lab.benchmarks import evaluate as module
from sgv_lab.benchmarks import mmbench, mme
from sgv_lab.benchmarks.evaluate import answer, evaluate
from sgv_lab.benchmarks.tasks import TASKS, Question
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.images import load_image
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.preprocessing import prepare
from sgv_lab.world import benchmarks as world

WORDS = "Is there a red ball in the image? Yes No answer the question using a single word phrase"


@pytest.fixture(scope="module")
def loaded():
    texts = [SYSTEM, WORDS, *WORDS.split()]
    tokenizer = mini.train_tokenizer(texts, 600)
    model = families.build("llava-1.5-7b", "mini", seed=0)
    return model, families.processor("llava-1.5-7b", "mini", tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two MME subtasks of four pictures, questions of very different lengths."""
    folder = tmp_path / "data"
    for subtask in ("existence", "color"):
        (folder / subtask).mkdir(parents=True)
        for n in range(4):
            colour = (60 * n, 200 - 40 * n, 90)
            Image.new("RGB", (40 + 30 * n, 64), colour).save(folder / subtask / f"{n}.png")
            long = "very " * (7 * n)
            (folder / subtask / f"{n}.txt").write_text(
                f"Is there a {long}red ball? Please answer yes or no.\tYes\n"
                f"Is there a {long}blue ball? Please answer yes or no.\tNo\n"
            )
    return folder


TASK = replace(TASKS["mme"], max_new_tokens=24)


def texts(loaded, data: Path, batch_size: int, questions: list[Question]) -> dict[str, str]:
    found = {}
    for asked, said in answer(*loaded, questions, TASK, data, batch_size):
        found |= {q.id: text for q, text in zip(asked, said, strict=True)}
    return found


def test_batches_answer_as_single_questions_do_and_faster(loaded, data: Path, capsys) -> None:
    questions = list(TASK.questions(data))
    questions.append(Question("text", "Is there a question without a picture?"))
    texts(loaded, data, 17, questions[:2])  # warm up
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two on a busy core wait for each other
    times: dict[int, list[float]] = {1: [], 17: []}
    answers = {}
    try:
        for size in (1, 17) * 3:
            start = time.perf_counter()
            answers[size] = texts(loaded, data, size, questions)
            times[size].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    assert answers[17] == answers[1] and len(set(answers[1].values())) > 3
    ratio = min(times[1]) / min(times[17])
    with capsys.disabled():
        print(f"\nbatch of 17 against single questions: {ratio:.1f} times as fast")
    assert ratio > 1


def test_generation_is_the_official_prompt_greedily_continued(loaded, data: Path) -> None:
    """A second method: one forward pass a token on the unpadded prompt, no cache."""
    model, processor = loaded
    question = list(TASK.questions(data))[-1]
    ids = module._ids(question, model, processor, SYSTEM)
    text = processor.tokenizer.decode([i for i in ids if i != model.config.image_token_id])
    assert text.endswith("single word or phrase. ASSISTANT:") and text.count("USER:") == 1
    assert ids.count(model.config.image_token_id) == 16
    image = question.image(data)
    pixels = prepare(image, processor.image_processor, "pad")[None]
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < TASK.max_new_tokens:
            logits = model(input_ids=torch.tensor([ids + new]), pixel_values=pixels).logits
            new.append(int(logits[0, -1].argmax()))
            if new[-1] == processor.tokenizer.eos_token_id:
                break
    want = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert texts(loaded, data, 1, [question])[question.id] == want


@pytest.mark.parametrize("key", ["qwen-vl-chat", "qwen3-vl-8b"])
def test_other_families_answer_in_their_own_way(key: str, data: Path) -> None:
    """A batch against transformers' own processor and template, one question at a time."""
    tokenizer = mini.train_tokenizer([WORDS, *WORDS.split()], 600, "qwen")
    model, processor = families.build(key, "mini", 0), families.processor(key, "mini", tokenizer)
    questions = [*list(TASK.questions(data))[::3], Question("text", "Is there no picture?")]
    task = replace(TASK, max_new_tokens=6)
    found = {}
    for asked, said in answer(model, processor, questions, task, data, len(questions)):
        found |= {q.id: text for q, text in zip(asked, said, strict=True)}
    for question in questions:
        image = question.image(data)
        content = [{"type": "text", "text": question.prompt}]
        content = content if image is None else [{"type": "image"}, *content]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(text=text, images=image, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        want = tokenizer.decode(made[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        assert found[question.id] == want.strip()
    assert len(set(found.values())) > 2


def test_a_killed_run_goes_on_and_scores(loaded, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(TASKS, "mme", TASK)
    checkpoint, out = checkpoints.save(*loaded, tmp_path / "model"), tmp_path / "out"
    whole = evaluate(checkpoint, "MME", data, tmp_path / "whole", loaded=loaded)
    assert {"existence", "color", "perception"} <= whole.keys() and whole["missing"] == 0
    lines = (tmp_path / "whole/answers.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 16 and {"question_id", "prompt", "text"} == json.loads(lines[0]).keys()
    out.mkdir()
    (out / "answers.jsonl").write_text("".join(lines[:5]) + lines[5][:20])  # killed while writing
    asked = []
    spy = module._generate
    monkeypatch.setattr(module, "_generate", lambda *a: asked.extend(a[2]) or spy(*a))
    assert evaluate(checkpoint, "mme", data, out) == whole
    assert len(asked) == 11
    assert evaluate(checkpoint, "mme", data, out) == whole and len(asked) == 11
    assert mme.score(out / "mme", data) == whole
    other = shutil.copytree(checkpoint, tmp_path / "other")
    (other / "chat_template.jinja").write_text("another")
    with pytest.raises(LabError, match="holds answers of"):
        evaluate(other, "mme", data, out, loaded=loaded)
    with monkeypatch.context() as patch, pytest.raises(LabError, match=r"not of .*'edited'"):
        patch.setattr(module, "digest", lambda *_: "edited")  # the code that answers
        evaluate(checkpoint, "mme", data, out)
    row = json.loads(lines[0]) | {"question_id": "color/9"}
    (out / "answers.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(LabError, match="'color/9' is not in"):
        evaluate(checkpoint, "mme", data, out, loaded=loaded)


def test_only_q_bench_asks_as_a_curious_human(loaded) -> None:
    question = Question("0", "Is it sharp?")
    text = {
        name: loaded[1].tokenizer.decode(module._ids(question, *loaded, task.system))
        for name, task in TASKS.items()
    }
    human = {name for name, said in text.items() if "between a curious human and" in said}
    assert human == {"qbench"} and "the human's questions. USER:" in text["qbench"]


def test_crop_and_pad_are_the_official_choice() -> None:
    cropped = {name for name, task in TASKS.items() if task.aspect == "square"}
    assert cropped == {"mmvet", "llava-w", "qbench", "scienceqa"}
    short = {name for name, task in TASKS.items() if task.max_new_tokens == 128}
    assert short == {"mme", "seed", "vqav2", "vizwiz", "pope", "captions"}


def test_vizwiz_lies_as_its_release_unpacks_and_known_answers_come_first(tmp_path: Path) -> None:
    row = {"image": "VizWiz_1.jpg", "question": "What is it?"}
    (tmp_path / "test.json").write_text(json.dumps([row | {"image": "VizWiz_test.jpg"}]))
    known = row | {"answers": [{"answer": "a cup", "answer_confidence": "yes"}] * 10}
    (tmp_path / "test").mkdir()
    (question,) = TASKS["vizwiz"].questions(tmp_path)
    assert question.picture == "test/VizWiz_test.jpg"
    (tmp_path / "val.json").write_text(json.dumps([known]))
    (tmp_path / "val").mkdir()
    (question,) = TASKS["vizwiz"].questions(tmp_path)
    assert question.picture == "val/VizWiz_1.jpg"
    scored = TASKS["vizwiz"].write([question], {question.id: "a cup"}, tmp_path, tmp_path)
    assert scored["annotations"] == tmp_path / "val.json"


def test_mmbench_scores_the_answers_and_its_submission_alike(tmp_path: Path) -> None:
    world.write(tmp_path, ["mmbench"], pictures=8)
    questions = list(TASKS["mmbench"].questions(tmp_path / "mmbench"))
    said = ["A", "B.", "The answer is C", "(D)\nas it is green", "none"]
    answers = {q.id: said[number % 5] for number, q in enumerate(questions)}
    arguments = TASKS["mmbench"].write(questions, answers, tmp_path / "mmbench", tmp_path)
    scores = mmbench.score(**arguments)
    sheet = mmbench.score(tmp_path / "mmbench.xlsx", arguments["annotations"])
    (told,), (sheet_told,) = scores.pop("warnings"), sheet.pop("warnings")
    assert scores == sheet
    assert "several lines" in told and "several lines" in sheet_told
    assert 0 < scores["vanilla_all_rows"] < 100


def test_mmbench_is_read_in_the_language_that_is_asked(tmp_path: Path) -> None:
    head = "index\tquestion\tA\tB\tanswer\timage\n"
    (tmp_path / "MMBench_DEV_EN.tsv").write_text(head + "1\tWhat?\tx\ty\tA\taGk=\n")
    (tmp_path / "MMBench_DEV_CN.tsv").write_text(head + "2\t什么?\tx\ty\tA\taGk=\n")
    assert [q.id for q in TASKS["mmbench"].questions(tmp_path)] == ["1"]
    assert [q.id for q in TASKS["mmbench-cn"].questions(tmp_path)] == ["2"]
    (tmp_path / "MMBench_TEST_EN.tsv").write_text(head)
    with pytest.raises(LabError, match="holds 2 tables of MMBench in 'en'"):
        list(TASKS["mmbench"].questions(tmp_path))


def test_linked_folders_hold_the_same_questions(data: Path, tmp_path: Path) -> None:
    expected = [(q.id, q.prompt) for q in TASK.questions(data)]
    disk = tmp_path / "disk"
    (disk / "images").mkdir(parents=True)
    (disk / "texts").mkdir()
    for path in (data / "color").iterdir():
        shutil.move(path, disk / ("texts" if path.suffix == ".txt" else "images") / path.name)
    (data / "color" / "images").symlink_to(disk / "images")
    (data / "color" / "questions_answers_YN").symlink_to("../../disk/texts")
    shutil.move(data / "existence", disk / "existence")
    (data / "existence").symlink_to(disk / "existence")
    (tmp_path / "root").symlink_to(data)
    questions = list(TASK.questions(tmp_path / "root"))
    assert [(q.id, q.prompt) for q in questions] == expected
    for question in questions:
        assert question.image(tmp_path / "root").height == 64


@pytest.mark.parametrize("encoded", [False, True])
def test_questions_see_images_as_training_does(tmp_path: Path, encoded: bool) -> None:
    def question(name: str) -> Question:
        if not encoded:
            return Question("q7", "What?", name)
        data = base64.b64encode((tmp_path / name).read_bytes()).decode()
        return Question("q7", "What?", None, data)

    for name in make_odd(tmp_path):
        image = question(name).image(tmp_path)
        assert image.tobytes() == load_image(tmp_path, name)[1].tobytes()
    for name, words in make_broken(tmp_path).items():
        if not (encoded and words.startswith("missing")):
            with pytest.raises(LabError, match=words) as error:
                question(name).image(tmp_path)
            assert "'q7'" in str(error.value)
    with pytest.raises(LabError, match="'q7'"):
        Question("q7", "What?", None, "no base64").image(tmp_path)


def test_broken_images_are_refused_before_the_model_is_loaded(data: Path, tmp_path: Path) -> None:
    (data / "color" / "0.png").write_bytes(b"")
    (data / "color" / "1.png").write_text("<html>")
    arguments = ["evaluate", "--model", str(tmp_path / "none"), "--benchmark", "mme"]
    found = CliRunner().invoke(
        main, [*arguments, "--data", str(data), "--out", str(tmp_path / "out")]
    )
    assert found.exit_code == 1
    assert "lacks the picture color/0.png (empty: 0 bytes) and 1 more" in found.output
    assert not (tmp_path / "out").exists()
