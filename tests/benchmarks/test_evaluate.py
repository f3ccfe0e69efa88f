"""Asking a model: batches, resuming, official submissions. A tiny random LLaVA answers."""

import base64
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from image_kinds import make_broken, make_odd
from PIL import Image

from sgv_lab import paper
from sgv_lab.benchmarks import evaluate as module
from sgv_lab.benchmarks import mmbench, mme, model_card
from sgv_lab.benchmarks.evaluate import answer, evaluate
from sgv_lab.benchmarks.tasks import TASKS, Question
from sgv_lab.captioning import bulk
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.images import load_image
from sgv_lab.models import checkpoints, families, mini
from sgv_lab.models.shipped import shipped
from sgv_lab.training.collate import collator, prompts
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.preprocessing import prepare
from sgv_lab.world import benchmarks as world
from sgv_lab.world.scene import MINIATURE

WORDS = "Is there a red ball in the image? Yes No answer the question using a single word phrase"


@pytest.fixture(scope="module")
def loaded():
    texts = [SYSTEM, WORDS, *WORDS.split()]
    tokenizer = mini.train_tokenizer(texts, 600)
    model = families.build("llava-1.5-7b", "mini", seed=0)
    return model, families.processor("llava-1.5-7b", "mini", tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two MME subtasks of four images, questions of very different lengths."""
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
    for batch in answer(*loaded, questions, TASK, data, batch_size):
        found |= {q.id: said["text"] for q, said in batch}
    return found


def test_batches_answer_as_single_questions_do_and_faster(loaded, data: Path, capsys) -> None:
    questions = list(TASK.questions(data))
    questions.append(Question("text", "Is there a question without an image?"))
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


def test_the_next_images_are_prepared_while_the_model_answers(
    loaded, data: Path, monkeypatch
) -> None:
    questions, ready, answered = list(TASK.questions(data)), threading.Event(), []
    decode, prepared = bulk.decode, []

    def preparing(*given):
        found = prepare(*given)
        prepared.append(found)
        if len(prepared) == 2:
            ready.set()
        return found

    def waiting(*given, **more):
        assert ready.wait(60)  # for the second image, at the first one's questions
        answered.append(given)
        return decode(*given, **more)

    monkeypatch.setattr(module, "prepare", preparing)
    monkeypatch.setattr(bulk, "decode", waiting)
    assert len(texts(loaded, data, 1, questions[-4:])) == 4 == len(answered)


def test_generation_is_the_official_prompt_greedily_continued(loaded, data: Path) -> None:
    """A second method: one forward pass a token on the unpadded prompt, no cache."""
    model, processor = loaded
    question = list(TASK.questions(data))[-1]
    ids = (
        collator(model.config)
        .expand_image_tokens(module._ids(question, model, processor, SYSTEM))[0]
        .tolist()
    )
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
    questions = [*list(TASK.questions(data))[::3], Question("text", "Is there no image?")]
    task = replace(TASK, max_new_tokens=6)
    found = {}
    for batch in answer(model, processor, questions, task, data, len(questions)):
        found |= {q.id: said["text"] for q, said in batch}
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


@pytest.fixture(scope="module")
def exam(tmp_path_factory) -> Path:
    """Some 350 questions about twelve scenes, open ones and captions among them."""
    size = {"images": 12, "difficulty": MINIATURE}
    return world.write(tmp_path_factory.mktemp("exam"), ["exam"], **size)[0]


def whole(model, processor, questions: list[Question], task, data: Path) -> dict[str, dict]:
    """A second method: every prompt whole, with its own image, captions apart."""
    found = {}
    for limit in {q.max_new_tokens for q in questions}:
        some = [q for q in questions if q.max_new_tokens == limit]
        some.sort(key=lambda q: -len(q.prompt))
        decoding = bulk.Decoding(max_new_tokens=limit or task.max_new_tokens)
        for start in range(0, len(some), 64):
            asked = some[start : start + 64]
            turns = [[{"from": "human", "value": f"<image>\n{q.prompt}"}] for q in asked]
            images = [q.image(data) for q in asked]
            given = prompts(model.config, processor, turns, images, "pad")
            said = bulk.decode(model, processor, given, decoding)
            found |= {q.id: one["caption"] for q, one in zip(asked, said, strict=True)}
    return found


def test_what_prompts_share_changes_no_answer_and_saves_time(exam: Path, capsys) -> None:
    loaded, task = checkpoints.load(shipped("llava-1.5-7b")), TASKS["exam"]
    questions = list(task.questions(exam))

    def shared() -> dict[str, str]:
        batches = answer(*loaded, questions, task, exam, 64, progress=False)
        return {q.id: said["text"] for batch in batches for q, said in batch}

    found, times, threads = {}, {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for ask in (shared, whole) * 2:
            start = time.process_time()
            found[ask] = ask() if ask is shared else whole(*loaded, questions, task, exam)
            times[ask] = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    assert found[shared] == found[whole] and len(questions) > 300
    assert max(len(text.split()) for text in found[shared].values()) > 5  # a caption
    with capsys.disabled():
        print(f"\nprompts' beginnings shared: {times[whole] / times[shared]:.1f} times as fast")
    assert times[whole] / times[shared] > 1.5


@pytest.mark.parametrize("key", ["llava-1.5-7b", "qwen-vl-chat", "qwen3-vl-8b"])
def test_the_margin_is_of_the_first_words_logits(key: str, data: Path) -> None:
    """Against one forward pass over the whole prompt, unpadded."""
    made = "llama" if key == "llava-1.5-7b" else "qwen"
    tokenizer = mini.train_tokenizer([SYSTEM, WORDS, *WORDS.split()], 600, made)
    model, processor = families.build(key, "mini", 0), families.processor(key, "mini", tokenizer)
    aspect = "pad" if made == "llama" else "square"
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
    questions = list(TASK.questions(data))[::3]
    task = replace(TASK, max_new_tokens=2, margin=("Yes", "No"))
    for batch in answer(model, processor, questions, task, data, 4):
        for q, said in batch:
            turns = [{"from": "human", "value": f"<image>\n{q.prompt}"}]
            given = prompts(model.config, processor, [turns], [q.image(data)], aspect)
            with torch.inference_mode():
                logits = model(**given).logits[0, -1]
            assert said["margin"] == pytest.approx(float(logits[yes] - logits[no]), abs=2e-4)


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
    spy = module.answer
    monkeypatch.setattr(module, "answer", lambda *a: asked.extend(a[2]) or spy(*a))
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
    half = loaded[0].to(torch.bfloat16), loaded[1]
    with pytest.raises(LabError, match=r"not of .*bfloat16"):
        evaluate(checkpoint, "mme", data, out, loaded=half)
    loaded[0].float()
    image = next(data.rglob("*.png"))
    shown = image.read_bytes()
    Image.new("RGB", (64, 64)).save(image)
    with pytest.raises(LabError, match="holds answers of"):  # to what another image showed
        evaluate(checkpoint, "mme", data, out)
    image.write_bytes(shown)
    row = json.loads(lines[0]) | {"question_id": "color/9"}
    (out / "answers.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(LabError, match="'color/9' is not in"):
        evaluate(checkpoint, "mme", data, out, loaded=loaded)


def test_a_checkpoint_s_card_gets_its_scores_beside_the_paper_s(
    loaded, data: Path, tmp_path: Path, monkeypatch
) -> None:
    folder = checkpoints.save(*loaded, tmp_path / "model")
    others = world.write(tmp_path / "world", ["seed"], images=2, size=32)[0]
    card, known = folder / "README.md", checkpoints.fingerprint(folder)

    def run(benchmark: str, asked: Path, out: str) -> dict[str, Any]:
        words = ["evaluate", "--model", folder, "--benchmark", benchmark, "--data", asked]
        done = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / out)])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    card.write_text("# Ours\n\nTerms apply.\n")
    run("mme", data, "mme")
    assert card.read_text() == "# Ours\n\nTerms apply.\n"  # made by others: left alone
    (folder / "manifest.json").write_text('{"recipe": {}}')
    mme_score = run("mme", data, "mme")["perception"]
    assert card.read_text().startswith("# Ours\n\nTerms apply.\n\n## Scores\n")
    head, _, row = card.read_text().splitlines()[-3:]
    assert head == "| benchmark | questions | here |"  # of this size the paper has no model
    assert row == f"| MME-P | 16 | {mme_score:.1f} |"
    seed_score = run("seed", others, "seed")["image_accuracy"]
    size = loaded[0].num_parameters()
    monkeypatch.setitem(model_card.PRINTED, size, ("LLaVA (Vicuna-7B)", "Shikra (Vicuna-13B)"))
    run("mme", data, "mme")
    head, _, mme_row, seed_row = card.read_text().splitlines()[-4:]
    theirs = head.split("here")[1]
    assert theirs == " | the paper's LLaVA (Vicuna-7B) | the paper's Shikra (Vicuna-13B) |"
    assert mme_row == f"| MME-P | 16 | {mme_score:.1f} | 807.0 | – |"
    assert seed_row.startswith("| SEED-I | ") and f" | {seed_score:.1f} |" in seed_row
    assert checkpoints.fingerprint(folder) == known


def test_the_paper_s_models_of_a_size_are_those_of_the_families() -> None:
    keys = ("llava-7b", "llava-1.5-7b", "llava-1.5-13b", "qwen-vl-chat")
    sizes = [families.build(key, "paper", 0, device="meta").num_parameters() for key in keys]
    assert sizes == list(model_card.PRINTED)
    rows = {name for names in model_card.PRINTED.values() for name in names}
    assert rows <= set(paper.facts("table3")["row"])


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
    assert question.path == "test/VizWiz_test.jpg"
    (tmp_path / "val.json").write_text(json.dumps([known]))
    (tmp_path / "val").mkdir()
    (question,) = TASKS["vizwiz"].questions(tmp_path)
    assert question.path == "val/VizWiz_1.jpg"
    scored = TASKS["vizwiz"].write([question], {question.id: "a cup"}, tmp_path, tmp_path)
    assert scored["annotations"] == tmp_path / "val.json"


def test_mmbench_scores_the_answers_and_its_submission_alike(tmp_path: Path) -> None:
    world.write(tmp_path, ["mmbench"], images=8)
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
    assert "lacks the image color/0.png (empty: 0 bytes) and 1 more" in found.output
    assert not (tmp_path / "out").exists()


def test_releases_are_read_as_they_unpack(tmp_path: Path) -> None:
    world.write(tmp_path, ["mme", "vizwiz", "vqav2"], images=1)
    asked = {name: list(TASKS[name].questions(tmp_path / name)) for name in ("mme", "vizwiz")}
    inner = tmp_path / "unpacked" / "MME_Benchmark_release_version"
    inner.parent.mkdir()
    (tmp_path / "mme").rename(inner)
    found = list(TASKS["mme"].questions(inner.parent))
    assert [q.prompt for q in found] == [q.prompt for q in asked["mme"]]
    assert all((inner.parent / q.path).is_file() for q in found)
    said = {q.id: "Yes" for q in found}
    assert mme.score(**TASKS["mme"].write(found, said, inner.parent, tmp_path))["perception"] > 0

    vizwiz = tmp_path / "vizwiz"
    (vizwiz / "Annotations").mkdir()
    for path in vizwiz.glob("*.json"):
        path.rename(vizwiz / "Annotations" / path.name)
    found = list(TASKS["vizwiz"].questions(vizwiz))
    assert [q.path for q in found] == [q.path for q in asked["vizwiz"]]

    vqav2 = tmp_path / "vqav2"
    (questions,) = vqav2.glob("*OpenEnded*questions.json")
    (truth,) = vqav2.glob("*annotations.json")
    for year in ("train2014", "val2014"):
        shown = json.loads(questions.read_text()) | {"data_subtype": year}
        (vqav2 / f"v2_OpenEnded_mscoco_{year}_questions.json").write_text(json.dumps(shown))
        (vqav2 / f"v2_mscoco_{year}_annotations.json").write_text(truth.read_text())
    found = list(TASKS["vqav2"].questions(vqav2))
    assert all(q.path.startswith("val2014/") for q in found)
    scored = TASKS["vqav2"].write(found, {q.id: "cat" for q in found}, vqav2, tmp_path)
    assert scored["annotations"] == vqav2 / "v2_mscoco_val2014_annotations.json"


def test_chair_says_what_it_needs_before_it_asks(tmp_path: Path) -> None:
    world.write(tmp_path, ["chair"], images=1)
    assert list(TASKS["chair"].questions(tmp_path / "chair"))
    (tmp_path / "chair" / "synonyms.txt").unlink()
    with pytest.raises(LabError, match=r"object words\. Save there data/synonyms\.txt"):
        list(TASKS["chair"].questions(tmp_path / "chair"))
