"""What another harness logged scores as the same answers in the official files do."""

import json
from pathlib import Path

import openpyxl
import pytest
from test_edges import mmbench_rows, mme_data, pope_files, seed_truth
from written import lines, tsv

from sgv_lab.benchmarks import core, mmbench, mme, pope, seed_bench, vqa
from sgv_lab.errors import LabError


def logged(question: dict[str, object], answer: str) -> dict[str, object]:
    """A line of lmms-eval's --log_samples."""
    return {"doc_id": 0, "doc": question, "target": "", "filtered_resps": [answer], "doc_hash": "x"}


def test_samples_of_lmms_eval_score_as_llavas_answers(tmp_path: Path) -> None:
    answers = {"color": ["Yes", "No", "No", "No"]}
    data = mme_data(tmp_path / "data", answers)
    places = [{"question_id": f"color/{i // 2}.png", "category": "color"} for i in range(4)]
    asked = [f"Q{i}? Please answer yes or no." for i in range(4)]
    given = list(zip(places, asked, answers["color"], strict=True))
    ours = [{**place, "prompt": said, "text": text} for place, said, text in given]
    theirs = [logged({**place, "question": said}, text) for place, said, text in given]
    mine = mme.score(lines(tmp_path / "a.jsonl", ours), data)
    assert mme.score(lines(tmp_path / "b.jsonl", theirs), data) == mine
    assert mine["color"] == 75 + 50

    truth = seed_truth(tmp_path / "SEED-Bench.json")
    letters = [("A", n) for n in range(10)]
    ours = [{"question_id": n, "text": text} for text, n in letters]
    theirs = [logged({"question_id": str(n), "answer": "C"}, text) for text, n in letters]
    mine = seed_bench.score(lines(tmp_path / "c.jsonl", ours), truth)
    assert seed_bench.score(lines(tmp_path / "d.jsonl", theirs), truth) == mine


def test_samples_without_their_question_are_told_by_metrics_and_prompt(tmp_path: Path) -> None:
    """Later releases of lmms-eval drop ``doc``; before 0.7 an answer is a list of one."""
    answers = {"color": ["Yes", "No", "No", "No"]}
    data = mme_data(tmp_path / "data", answers)
    asked = [f"Q{i}?{mme.SUFFIX}" for i in range(4)]
    ours, theirs = [], []
    for n, (prompt, text) in enumerate(zip(asked, answers["color"], strict=True)):
        about = {"question_id": f"color/{n // 2}.png", "category": "color"}
        ours.append(about | {"prompt": prompt, "text": text})
        metric = {"mme_perception_score": about | {"score": 1.0}}
        said = {"input": prompt, "target": ("Yes", "No")[n % 2], "filtered_resps": [[text]]}
        theirs.append({"doc_id": n, "doc_hash": "x"} | metric | said)
    mine = mme.score(lines(tmp_path / "a.jsonl", ours), data)
    assert mme.score(lines(tmp_path / "b.jsonl", theirs), data) == mine


def test_lmms_evals_samples_of_vizwiz_name_their_image(tmp_path: Path) -> None:
    truth = [{"image": f"VizWiz_val_{n}.jpg", "answers": [{"answer": "cat"}] * 10}
             for n in range(2)]  # fmt: skip
    (tmp_path / "val.json").write_text(json.dumps(truth))
    told = [{"question_id": f"VizWiz_val_{n}", "question": "What?"} for n in range(2)]
    said = [logged(doc, text) for doc, text in zip(told, ("A Cat.", "dog"), strict=True)]
    found = vqa.score(lines(tmp_path / "samples.jsonl", said), tmp_path / "val.json")
    assert (found["overall"], found["missing"]) == (50, 0)


def workbook(path: Path, rows: list[dict[str, object]]) -> Path:
    """What VLMEvalKit writes by default."""
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(path)
    return path


def test_vlmevalkits_files_score_as_the_official_ones(tmp_path: Path) -> None:
    given = {"color": ["Yes", "No", "No", "No"]}
    data = mme_data(tmp_path / "data", given)
    ours, theirs = [], []
    for n, text in enumerate(given["color"]):
        asked, image = f"Q{n}? {mme.ASK}", f"color/{n // 2}.png"
        ours.append({"question_id": image, "prompt": f"Q{n}?{mme.SUFFIX}", "text": text})
        row = {"index": n, "question": asked, "answer": ("Yes", "No")[n % 2], "category": "color"}
        theirs.append(row | {"image_path": image, "prediction": text})
    mine = mme.score(lines(tmp_path / "a.jsonl", ours), data)
    table = workbook(tmp_path / "LLaVA_MME.xlsx", [theirs[n] for n in (0, 2, 1, 3)])
    assert mme.score(table, data) == mine and mine["color"] == 75 + 50
    wrong = [theirs[0] | {"answer": "No"}, *theirs[1:]]
    with pytest.raises(LabError, match=r"is no question on color/0\.png"):
        mme.score(tsv(tmp_path / "b.tsv", wrong), data)

    truth = core.entries(seed_truth(tmp_path / "SEED-Bench.json"))[0]["questions"]
    rows = [{"index": q["question_id"], "question": "Q", "answer": q["answer"], "category": "Scene",
             "prediction": "A"} for q in truth[:10]]  # fmt: skip
    found = seed_bench.score(workbook(tmp_path / "LLaVA_SEEDBench_IMG.xlsx", rows))
    assert (found["image_correct"], found["image_rows"]) == (3, 10)

    rows = [{**r, "split": "dev", "prediction": r["answer"]} for r in mmbench_rows()]
    found = mmbench.score(workbook(tmp_path / "LLaVA_MMBench_DEV_EN.xlsx", rows))
    assert (found["correct"], found["n"], found["unparsed"]) == (12, 12, 0)


def test_a_harness_asks_popes_shared_questions_once(tmp_path: Path) -> None:
    answers, folder, questions = pope_files(tmp_path)
    official = pope.score(answers, folder, questions)
    said = {e["question_id"]: e["text"] for e in core.entries(answers)}
    labels = {split: core.entries(folder / f"coco_pope_{split}.json")
              for split in ("random", "popular")}  # fmt: skip
    rows, number = [], 0
    for split, entries in labels.items():
        for label in entries:
            about = {"question": label["text"], "answer": label["label"].capitalize()}
            row = {"index": number, **about, "category": split, "image_path": label["image"]}
            rows.append(row | {"prediction": said[number]})
            number += 1
    assert pope.score(tsv(tmp_path / "LLaVA_POPE.tsv", rows)) == official
    both = pope.score(tsv(tmp_path / "b.tsv", [rows[0] | {"category": "random,popular"}]))
    assert both["random"]["n"] == both["popular"]["n"] == 1
    with pytest.raises(LabError, match="the truth is 'Perhaps', not Yes or No"):
        pope.score(tsv(tmp_path / "b.tsv", [rows[0] | {"answer": "Perhaps"}]))
