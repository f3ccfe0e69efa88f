"""Each edge of the scoring rules, on files made here."""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from written import lines, tsv

from sgv_lab import benchmarks
from sgv_lab.benchmarks import (
    chair,
    core,
    llava_w,
    mmbench,
    mme,
    mmvet,
    pope,
    qbench,
    scienceqa,
    seed_bench,
    vqa,
)
from sgv_lab.errors import LabError
from sgv_lab.intervals import clustered_mean

# --- names and files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("MMBench_CN", "mmbench-cn"),
        ("llava_w", "llava-w"),
        ("SEED-Bench", "seed"),
        ("SQA-I", "scienceqa"),
    ],
)
def test_aliases(spelling: str, name: str) -> None:
    assert benchmarks.canonical(spelling) == name
    assert benchmarks.module(spelling).score.__annotations__["return"]


def test_unknown_benchmark_is_refused() -> None:
    with pytest.raises(LabError, match="unknown benchmark 'mmmu'"):
        benchmarks.canonical("mmmu")


def test_four_ways_to_write_records(tmp_path: Path) -> None:
    rows = [{"question_id": 1, "text": "a\nb"}, {"question_id": 2, "text": "}{"}]
    written = {
        "array": json.dumps(rows),
        "lines": "\n".join(map(json.dumps, rows)) + "\n",
        "commas": ",\n".join(map(json.dumps, rows)),
        "joined": "".join(json.dumps(row, indent=1) for row in rows),
    }
    for name, text in written.items():
        path = tmp_path / name
        path.write_text(text)
        assert [entry.row for entry in core.entries(path)] == rows
    assert core.entries(tmp_path / "joined")[1].where.endswith("line 4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ('{"a": 1}\n{"a": \n', "line 2: is not JSON"),
        ('{"a": 1}\n\n[2]\n', "line 3: .* is not a JSON object"),
        ("[{}, 3]", "record 2: 3 is not a JSON object"),
        ("[]", "holds no record"),
    ],
)
def test_unreadable_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(text)
    with pytest.raises(LabError, match=message):
        core.entries(path)


def test_interval_is_the_textbook_one_for_single_clusters() -> None:
    values = np.random.default_rng(0).random(200)
    low, high = clustered_mean(values, range(200), 1.0)
    half = 1.9719565 * values.std(ddof=1) / np.sqrt(200)  # t(199)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-6)


def test_interval_covers_and_widens_with_clusters() -> None:
    """400 draws of 60 clusters × 8 equal answers: coverage near 95 %, far from the naive one."""
    rng, inside, naive = np.random.default_rng(1), 0, 0
    clusters = np.repeat(np.arange(60), 8)
    for _ in range(400):
        values = np.repeat(rng.random(60) < 0.6, 8)
        low, high = clustered_mean(values, clusters, 1.0)
        inside += low <= 0.6 <= high
        low, high = clustered_mean(values, range(480), 1.0)
        naive += low <= 0.6 <= high
    assert 0.92 <= inside / 400 <= 0.98
    assert naive / 400 < 0.7


# --- MME ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes\n", "yes"),
        ("yes no", "yes"),
        (" No.", "no"),
        ("not sure", "no"),
        ("none", "no"),
        ("I do", "other"),
        ("\n", "other"),
        ("the answer is yes", "other"),
        ("noyes", "no"),
        ("eyes", "yes"),
    ],
)
def test_mme_reads_four_characters(answer: str, read: str) -> None:
    assert mme.parse(answer) == read


def mme_folder(
    folder: Path, answers: dict[str, list[str]], images: list[str] | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    for subtask, given in answers.items():
        names = images or [f"{i // 2}.png" for i in range(len(given))]
        (folder / f"{subtask}.txt").write_text(
            "".join(
                f"{names[i]}\tQ{i}? Please answer yes or no.\t{('Yes', 'No')[i % 2]}\t{a}\n"
                for i, a in enumerate(given)
            )
        )
    return folder


def mme_data(folder: Path, answers: dict[str, list[str]]) -> Path:
    for subtask, given in answers.items():
        inner = folder / subtask / "questions_answers_YN"
        inner.mkdir(parents=True)
        for i in range(0, len(given), 2):
            (inner / f"{i // 2}.txt").write_text(
                f"Q{i}?  Please answer yes or no.\tYes\nQ{i + 1}? Please answer yes or no.\tNo\n"
            )
    return folder


def test_mme_scores_and_a_lost_pair(tmp_path: Path) -> None:
    answers = {name: ["Yes", "No", "Yes", "Yes"] for name in mme.OFFICIAL_QUESTIONS}
    printed = mme.score(mme_folder(tmp_path / "r", answers))
    assert printed["existence"] == 75 + 50
    assert (printed["perception"], printed["cognition"]) == (1250, 500)
    assert printed["missing"] == 2374 - 14 * 4
    answers["landmark"] = ["Yes", "No"]  # a lost pair only changes the denominator
    again = mme.score(mme_folder(tmp_path / "r", answers))
    assert again["landmark"] == 200 and again["missing"] == printed["missing"] + 2


def test_mme_answers_file_joins_questions_with_two_blanks(tmp_path: Path) -> None:
    given = {"color": ["Yes", "No", "No", "No"]}
    data = mme_data(tmp_path / "data", given)
    rows = [
        {"question_id": f"color/{i // 2}.png", "prompt": f"Q{i}?{mme.SUFFIX}", "text": a}
        for i, a in enumerate(given["color"])
    ]
    printed = mme.score(lines(tmp_path / "a.jsonl", rows), data)
    assert printed["color"] == 75 + 50 and printed["missing"] == 0
    assert "cognition" not in printed
    for bad, message in [
        (rows[:3], "0.png has no second|1.png has no second"),
        ([rows[0], rows[2], rows[1], rows[3]], "no second question beside it"),
        ([*rows, rows[0], rows[0]], "stands twice, and the other question is missing"),
        ([rows[0] | {"text": "Yes\tno"}, *rows[1:]], "line 1: .* holds a tab or a newline"),
        ([rows[0] | {"question_id": "color/7.png"}, *rows[1:]], "no question on color/7.png"),
    ]:
        with pytest.raises(LabError, match=message):
            mme.score(lines(tmp_path / "a.jsonl", bad), data)


@pytest.mark.parametrize(
    ("answers", "images", "message"),
    [
        (["Yes", "No", "Yes"], None, "existence.txt, line 3: .* no second question"),
        (["Yes\tYes", "No"], None, "existence.txt, line 1: has 5 tab-separated fields"),
        (["Yes\nNo", "No"], None, "existence.txt, line 2: has 1 tab-separated fields"),
        (["Yes"] * 4, ["a", "b", "b", "a"], "existence.txt, line 1: a has no second"),
    ],
)
def test_mme_refuses(tmp_path: Path, answers: list[str], images: Any, message: str) -> None:
    with pytest.raises(LabError, match=message):
        mme.score(mme_folder(tmp_path / "r", {"existence": answers}, images))


def test_mme_refuses_an_incomplete_folder(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="has no OCR, artwork"):
        mme.score(mme_folder(tmp_path / "r", {"existence": ["Yes", "No"]}))
    (tmp_path / "r" / "existence.txt").write_text("")
    with pytest.raises(LabError, match="is empty"):
        mme.score(tmp_path / "r")


# --- MMBench -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C)", "C"),
        ("The answer is D.", "D"),
        ("It is a RED car", "A"),
        ("A dog and B", None),
        ("A small red car is here", "A"),  # "A" is an article; the option's text decides
        ("green or red", None),
        ("E", None),
        ("", None),
        ("b", None),
    ],
)
def test_mmbench_extraction(answer: str, letter: str | None) -> None:
    choices = {"A": "red", "B": "green", "C": "blue", "D": "none of these"}
    assert mmbench.extract(answer, choices) == letter


def mmbench_rows(n: int = 12) -> list[dict[str, Any]]:
    """Questions with 2, 3 or 4 rotations; one kind has 3 rows for 4 options."""
    rows = []
    for q in range(n):
        texts = [f"t{q}{c}" for c in "wxyz"[: 2 + q % 3]]
        passes = 3 if q % 6 == 5 else len(texts)
        for k in range(passes):
            turned = texts[k:] + texts[:k]
            rows.append(
                {
                    "index": q + k * 10**6,
                    "question": f"Q{q}",
                    **{letter: (turned + [""] * 4)[i] for i, letter in enumerate("ABCD")},
                    "answer": "ABCD"[turned.index(texts[0])],
                    "category": f"c{q % 2}",
                    "l2-category": "L",
                }
            )
    return rows


def test_a_control_character_in_an_answer_is_no_reason_to_fail(tmp_path: Path) -> None:
    rows = mmbench_rows(1)
    said = {str(r["index"]): r["answer"] + "\x00\x0b" for r in rows}
    mmbench.submission(rows, said, tmp_path / "p.xlsx")
    assert mmbench.score(tmp_path / "p.xlsx", tsv(tmp_path / "q.tsv", rows))["correct"] == 1


def test_a_table_is_read_as_pandas_writes_it(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text('index\tA\tB\n1\t"x\ty"\tnan\n2\t\t5" long\n')
    rows = [{"index": "1", "A": "x\ty", "B": "nan"}, {"index": "2", "A": "", "B": '5" long'}]
    assert [entry.row for entry in core.table(tmp_path / "q.tsv")] == rows
    (tmp_path / "q.tsv").write_text("index\tA\n1\t2\t3\n")
    with pytest.raises(LabError, match="more cells than the header"):
        core.table(tmp_path / "q.tsv")
    (tmp_path / "q.xlsx").write_text("no workbook")
    with pytest.raises(LabError, match="is not a table"):
        core.table(tmp_path / "q.xlsx")


def test_circular_eval_by_brute_force(tmp_path: Path) -> None:
    rows, rng = mmbench_rows(60), random.Random(0)
    said = {r["index"]: r["answer"] if rng.random() < 0.8 else "A" for r in rows}
    predictions = tmp_path / "p.xlsx"
    mmbench.submission(rows, {str(k): v for k, v in said.items()}, predictions)
    header = [c.value for c in next(openpyxl.load_workbook(predictions).active.iter_rows())]
    assert header == ["index", "question", "A", "B", "C", "D", "prediction", "answer"]
    printed = mmbench.score(predictions, tsv(tmp_path / "q.tsv", rows))
    right = 0
    for q in range(60):
        mine = [r for r in rows if r["index"] % 10**6 == q]
        right += all(said[r["index"]] == r["answer"] for r in mine)
    assert (printed["correct"], printed["n"]) == (right, 60)
    assert printed == mmbench.score(predictions) | {
        key: printed[key] for key in ("category", "l2-category")
    }
    rates = [
        sum(said[r["index"]] == r["answer"] for r in part) / len(part)
        for part in (rows[:], [r for r in rows if r["index"] < 10**6])
    ]
    assert printed["vanilla_all_rows"] == pytest.approx(100 * rates[0])
    assert printed["vanilla_first_pass"] == pytest.approx(100 * rates[1])
    assert printed["accuracy"] < min(100 * rate for rate in rates)
    low, high = printed["interval"]["accuracy"]
    assert low < printed["accuracy"] < high and printed["clusters"]["n"] == 60


def test_mmbench_refuses_and_counts_missing(tmp_path: Path) -> None:
    rows = mmbench_rows()
    truth = tsv(tmp_path / "q.tsv", rows)
    answers = [r | {"prediction": r["answer"]} for r in rows]
    assert mmbench.score(tsv(tmp_path / "p.tsv", answers), truth)["accuracy"] == 100
    lost = mmbench.score(tsv(tmp_path / "p.tsv", answers[:-1]), truth)
    assert lost["missing"] == 1 and lost["correct"] == 11
    shifted = [
        r | {"prediction": answers[i - 1]["prediction"], "question": rows[i - 1]["question"]}
        for i, r in enumerate(answers)
    ]
    for bad, message in [
        (shifted, "line 2: answers 'Q11', but the question is 'Q0'"),
        ([*answers, answers[0] | {"index": 77}], "question '77' is not in"),
        (rows, "has no 'prediction or text'"),
    ]:
        with pytest.raises(LabError, match=message):
            mmbench.score(tsv(tmp_path / "p.tsv", bad), truth)
    with pytest.raises(LabError, match="rotation of 0, which is not in"):
        mmbench.score(tsv(tmp_path / "p.tsv", answers[1:]))


def test_mmbench_prompt_stops_at_the_first_empty_option() -> None:
    row = {"hint": "nan", "question": "Q", "A": "x", "B": "y", "C": "nan", "D": "z"}
    assert mmbench.prompt(row) == f"Q\nA. x\nB. y{mmbench.SUFFIX['en']}"
    assert mmbench.prompt(row | {"hint": "H"}, "cn") == "H\nQ\nA. x\nB. y\n请直接回答选项字母。"


# --- SEED, POPE --------------------------------------------------------------------------------


def seed_truth(path: Path) -> Path:
    questions = [
        {"question_id": str(n), "answer": "ABCD"[n % 4], "question_type_id": 1 + n % 2}
        for n in range(10)
    ]
    questions += [{"question_id": "49914", "answer": "B", "question_type_id": 1}] * 2
    types = {"Scene": 1, "Count": 2}
    path.write_text(json.dumps({"questions": questions, "question_type": types}))
    return path


def test_seed_is_an_exact_match(tmp_path: Path) -> None:
    truth = seed_truth(tmp_path / "SEED-Bench.json")
    rows = [{"question_id": n, "text": "ABCD"[n % 4]} for n in range(10)]
    rows += [{"question_id": "49914", "prediction": "B"}] * 2 + [{"question_id": "v3", "text": "A"}]
    printed = seed_bench.score(lines(tmp_path / "p.jsonl", rows), truth)
    assert printed["image_correct"] == printed["image_rows"] == 12
    assert printed["video_rows_without_gt"] == 1
    rows[0]["text"] = "A."
    strict = seed_bench.score(lines(tmp_path / "p.jsonl", rows), truth)
    assert strict["image_correct"] == 11 and strict["unparsed"] == 1
    lenient = seed_bench.score(tmp_path / "p.jsonl", truth, variant="first_character")
    assert lenient["image_correct"] == 12
    assert strict["dimensions"] == {"Scene": pytest.approx(100 * 6 / 7), "Count": 100}
    macro = seed_bench.score(tmp_path / "p.jsonl", truth, variant="macro")["image_accuracy"]
    assert macro == pytest.approx((100 * 6 / 7 + 100) / 2)
    absent = seed_bench.score(lines(tmp_path / "p.jsonl", rows[1:]), truth)
    assert (absent["image_rows"], absent["image_correct"], absent["missing"]) == (12, 11, 1)
    for bad, message in [
        ([*rows, {"question_id": 11, "text": "A"}], "line 14: question '11' is not in"),
        ([{"image": "a", "caption": "b"}], "line 1: has no 'question_id'"),
        ([{"question_id": "v1_0", "text": "A"}], "answers no question of"),
    ]:
        with pytest.raises(LabError, match=message):
            seed_bench.score(lines(tmp_path / "p.jsonl", bad), truth)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("No", "no"),
        ("NO", "yes"),
        ("", "yes"),
        ("unknown", "yes"),
        ("I cannot", "yes"),
        ("There is not, sir", "no"),
        ("Yes. No", "yes"),
        ("no,", "no"),
    ],
)
def test_pope_reads_the_first_sentence(answer: str, read: str) -> None:
    assert pope.parse(answer) == read


def pope_files(folder: Path) -> tuple[Path, Path, Path]:
    questions, answers = [], []
    for split in ("random", "popular"):
        labels = []
        for i in range(8):
            text = f"Is there a {split} {i} in the image?"
            labels.append(
                {
                    "question_id": i,
                    "image": f"{i // 2}.jpg",
                    "text": text,
                    "label": ("yes", "no")[i % 2],
                }
            )
            number = len(questions)
            questions.append(
                {
                    "question_id": number,
                    "image": f"{i // 2}.jpg",
                    "text": text + pope.SUFFIX,
                    "category": split,
                }
            )
            answers.append(
                {
                    "question_id": number,
                    "prompt": text + pope.SUFFIX,
                    "text": ("Yes", "No", "No")[i % 3],
                }
            )
        lines(folder / f"coco_pope_{split}.json", labels)
    return lines(folder / "a.jsonl", answers), folder, lines(folder / "q.jsonl", questions)


def test_pope_counts_and_refusals(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    predictions, folder, questions = pope_files(tmp_path / "labels")
    printed = pope.score(predictions, folder, questions)
    part = printed["random"]
    assert part["n"] == 8 and part["TP"] + part["FN"] == 4
    assert part["f1"] == pytest.approx(2 * part["TP"] / (2 * part["TP"] + part["FP"] + part["FN"]))
    answers = [e.row for e in core.entries(predictions)]
    for bad, message in [
        (answers[:-1], "question 15 has no answer"),
        ([*answers[:3], answers[2], *answers[3:]], "line 4: question 2 stands twice, before"),
        ([*answers, answers[2] | {"question_id": 99}], "question '99' is not in"),
        (
            [a | {"prompt": answers[i - 1]["prompt"]} for i, a in enumerate(answers)],
            "line 1: answers",
        ),
    ]:
        with pytest.raises(LabError, match=message):
            pope.score(lines(tmp_path / "b.jsonl", bad), folder, questions)
    mixed = [e.row for e in core.entries(folder / "coco_pope_random.json")]
    lines(folder / "coco_pope_random.json", [mixed[1], mixed[0], *mixed[2:]])
    with pytest.raises(LabError, match="out of step"):
        pope.score(predictions, folder, questions)


def test_pope_own_answer_format(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    _, folder, _ = pope_files(tmp_path / "labels")
    labels = core.entries(folder / "coco_pope_random.json")
    rows = [{"question": e["text"], "answer": e["label"]} for e in labels]
    printed = pope.score(lines(tmp_path / "a.json", rows), folder / "coco_pope_random.json")
    assert printed["mean_f1"] == 1.0


# --- ScienceQA, Q-Bench ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "choices", "index"),
    [
        ("B", 3, 1),
        ("B. because", 3, 1),
        ("B.because", 3, None),
        ("D", 3, None),
        ("The answer is C. BECAUSE: x", 3, 2),
        ("The answer is A. The answer is B.", 3, None),
        ("", 3, None),
        ("AB", 3, None),
        ("b", 3, None),
    ],
)
def test_scienceqa_reading(text: str, choices: int, index: int | None) -> None:
    assert scienceqa.parse(text, choices) == index


def test_scienceqa_official_layout(tmp_path: Path) -> None:
    subjects = ["natural science", "social science", "language science"]
    problems = {
        str(n): {
            "answer": n % 2,
            "choices": ["x", "y"],
            "hint": "h" * (n % 2),
            "image": None if n % 3 else "image.png",
            "grade": f"grade{1 + n}",
            "subject": subjects[n % 3],
        }
        for n in range(12)
    }
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": list(problems), "train": []}))
    rows = [
        {"question_id": str(n), "prompt": "<image>" * (not n % 3), "text": "AB"[n % 2]}
        for n in range(11)
    ]
    printed = scienceqa.score(lines(tmp_path / "a.jsonl", rows), tmp_path)
    assert printed["AVG"] == {"correct": 11, "n": 12, "accuracy": 91.6667}
    assert printed["IMG"] == printed["IMG_prompted"] == {"correct": 4, "n": 4, "accuracy": 100.0}
    assert printed["NO"]["n"] == 4 and printed["TXT"]["n"] == 6 and printed["missing"] == 1
    assert printed["G1-6"]["n"] == 6
    with pytest.raises(LabError, match="'99' is not in"):
        scienceqa.score(
            lines(tmp_path / "a.jsonl", [*rows, rows[0] | {"question_id": "99"}]), tmp_path
        )


def test_qbench_reads_a_letter_before_a_text(tmp_path: Path) -> None:
    candidates = ["Blurry", "Sharp", "Clear"]
    assert qbench.right("Blurry", candidates, "Sharp")  # "B" is the second option
    assert not qbench.right("sharp", candidates, "Sharp")
    assert qbench.right("Sharp edges", candidates, "Sharp")
    assert not qbench.right("", candidates, "Sharp")
    assert not qbench.right("The answer is B", candidates, "Sharp")
    assert qbench.right("The answer is B", candidates, "Sharp", "letter_anywhere")
    question = {
        "type": 2,
        "concern": 0,
        "question": "How?",
        "img_path": "1.jpg",
        "candidates": candidates,
        "correct_ans": "Sharp",
    }
    (tmp_path / "q.json").write_text(json.dumps([question, question | {"img_path": "2.jpg"}]))
    (tmp_path / "a.json").write_text(json.dumps(question | {"response": "B."}))
    printed = qbench.score(tmp_path / "a.json", tmp_path / "q.json")
    assert printed["accuracy"] == 0.5 and printed["missing"] == 1
    assert qbench.prompt(question).endswith("follows:\nA. Blurry\nB. Sharp\nC. Clear\n")


# --- VQA ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "processed"),
    [
        ("Yes.", "yes"),
        ("Two  dogs, a cat", "2 dogs cat"),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("man's", "man 's"),
        ("10:30", "10:30"),
        ("None", "0"),
        ("weren't", "weren't"),
        ("werent", "weren't"),
        ("t-shirt", "t shirt"),
        ("a\tb\nc", "b c"),
        ("", ""),
    ],
)
def test_answers_before_submission(text: str, processed: str) -> None:
    assert vqa.process(text) == processed


@pytest.mark.parametrize("matching", range(11))
def test_leave_one_out_by_brute_force(matching: int) -> None:
    humans = ["x"] * matching + [f"y{i}" for i in range(10 - matching)]
    brute = np.mean([min(1, (humans[:i] + humans[i + 1 :]).count("x") / 3) for i in range(10)])
    assert vqa.accuracy(matching) == pytest.approx(brute)
    assert vqa.accuracy(matching) == pytest.approx([0, 0.3, 0.6, 0.9, *[1] * 7][matching])


def test_vqa_scripts_differ_where_all_humans_agree() -> None:
    humans = ["yes"] * 10
    found = {v: vqa.matches("Yes.", humans, v) for v in ("official", *vqa.VARIANTS)}
    assert found == {"official": 0, "vqaeval_2017": 10, "m4c": 10, "naive": 10, "unprocessed": 0}
    mixed = ["two"] * 9 + ["3"]
    assert vqa.matches("2", mixed) == 9 and vqa.matches("2", mixed, "vqaeval_2017") == 0


def test_vqav2_and_vizwiz_files(tmp_path: Path) -> None:
    truth = [
        {
            "question_id": n,
            "image_id": n // 2,
            "question_type": "what",
            "answer_type": ("yes/no", "other")[n % 2],
            "answers": [{"answer": "yes", "answer_id": i} for i in range(10)],
        }
        for n in range(4)
    ]
    (tmp_path / "t.json").write_text(json.dumps({"annotations": truth}))
    raw = lines(tmp_path / "a.jsonl", [{"question_id": n, "text": "Yes."} for n in range(3)])
    printed = vqa.score(raw, tmp_path / "t.json")
    assert printed["overall"] == 75 and printed["missing"] == 1
    assert printed["perAnswerType"] == {"other": 50, "yes/no": 100}
    assert vqa.score(raw, tmp_path / "t.json", variant="unprocessed")["overall"] == 0
    sent = [{"question_id": n, "answer": "yes"} for n in range(4)]
    (tmp_path / "s.json").write_text(json.dumps(sent))
    assert vqa.score(tmp_path / "s.json", tmp_path / "t.json")["overall"] == 100
    wild = [
        {"image": f"{n}.jpg", "answer_type": "other", "answers": [{"answer": "cat"}] * 10}
        for n in range(2)
    ]
    (tmp_path / "w.json").write_text(json.dumps(wild))
    said = {"0.jpg": "A Cat.", "1.jpg": "dog"}
    upload = [{"image": image, "answer": vqa.process(text)} for image, text in said.items()]
    (tmp_path / "u.json").write_text(json.dumps(upload))
    assert vqa.score(tmp_path / "u.json", tmp_path / "w.json")["overall"] == 50
    with pytest.raises(LabError, match="needs --questions"):
        vqa.score(raw, tmp_path / "w.json")


# --- judged ------------------------------------------------------------------------------------


def test_mmvet_capability_sets(tmp_path: Path) -> None:
    data = {
        "v1_0": {"capability": ["ocr", "math"]},
        "v1_1": {"capability": ["math", "ocr"]},
        "v1_2": {"capability": ["rec"]},
    }
    grades = {
        key: {"model": ["j", "j"], "content": ["1", "0"], "score": [1.0, 0.0]}
        for key in ("v1_0", "v1_2")
    }
    (tmp_path / "d.json").write_text(json.dumps(data))
    (tmp_path / "g.json").write_text(json.dumps(grades))
    printed = mmvet.score(tmp_path / "g.json", tmp_path / "d.json")
    assert printed["runs"] == [66.7, 0.0] and printed["total"] == 33.3 and printed["std"] == 33.3
    assert printed["integration"] == {"math_ocr": 25.0, "rec": 50.0} and printed["missing"] == 1
    grades["v1_0"]["model"] = ["j", "k"]
    (tmp_path / "g.json").write_text(json.dumps(grades))
    with pytest.raises(LabError, match="grades of j, k share a column"):
        mmvet.score(tmp_path / "g.json", tmp_path / "d.json")
    (tmp_path / "g.json").write_text(json.dumps({"v9_0": grades["v1_2"]}))
    with pytest.raises(LabError, match="'v9_0' is not in"):
        mmvet.score(tmp_path / "g.json", tmp_path / "d.json")


def test_mmvet_judge_retries_then_gives_zero() -> None:
    asked = []

    def ask(messages: list[dict[str, str]], temperature: float, max_tokens: int) -> tuple[str, str]:
        asked.append((temperature, messages[-1]["content"][-45:]))
        return "judge", "hm" if len(asked) < 3 else "0.7 of"

    messages = mmvet.judge_messages("Q?", "a<AND>b", "m", "table")
    assert messages[0]["content"] == "table\nQ? | a <AND> b | m | "
    assert mmvet.grade(ask, messages) == ("judge", "0.7", 0.7)
    assert [t for t, _ in asked] == [0.0, 0.0, 0.5] and "digit" in asked[1][1]
    assert mmvet.grade(lambda *a: ("judge", "1.5"), messages) == ("judge", "1.5", 0.0)


def test_llava_w_keeps_unread_reviews_and_rounds_means(tmp_path: Path) -> None:
    assert llava_w.parse("8, 9\nx") == [-1, -1]  # the comma becomes a second blank
    assert llava_w.parse("8,9") == llava_w.parse("8 9\nwords") == [8, 9]
    rows = [
        {"question_id": n, "category": "llava_bench_conv", "tuple": marks}
        for n, marks in enumerate([[8, 4], [7, 7], [-1, -1]])
    ]
    path = lines(tmp_path / "r.jsonl", rows)
    assert llava_w.score(path)["all"] == [round(3.333 / 4.667 * 100, 1), 46.7, 33.3, 3]
    assert llava_w.score(path)["unparsed"] == 1
    lines(tmp_path / "r.jsonl", [row | {"judge": "a"} for row in rows])
    lines(tmp_path / "s.jsonl", [row | {"judge": "b"} for row in rows])
    with pytest.raises(LabError, match="share a column"):
        llava_w.score(tmp_path)


# --- CHAIR -------------------------------------------------------------------------------------

WORDS = "person, man, child\nbear\ntrain\ntie\nwine glass\ntoilet, potty\nchair, seat\ndog, puppy\n"


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("Two men and puppies.", ["person", "dog"]),
        ("a baby bear. a bear", ["bear", "bear"]),
        ("A passenger train", ["train"]),
        ("a bow tie, two bow ties", ["tie"]),  # pattern's singular of "ties" is "ty"
        ("some wine glasses", ["wine glass"]),
        ("a toilet seat and a seat", ["toilet"]),
        ("a chair and a seat", ["chair", "chair"]),
    ],
)
def test_chair_words(tmp_path: Path, caption: str, said: list[str]) -> None:
    (tmp_path / "synonyms.txt").write_text(WORDS)
    assert chair.objects(caption, chair.synonyms(tmp_path / "synonyms.txt")) == said


def test_chair_of_coco_files(tmp_path: Path) -> None:
    (tmp_path / "synonyms.txt").write_text(WORDS)
    boxes = {
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 3, "category_id": 1}],
    }
    human = {
        "annotations": [{"image_id": 3, "caption": "A man."}, {"image_id": 4, "caption": "Sky"}]
    }
    (tmp_path / "instances_val2014.json").write_text(json.dumps(boxes))
    (tmp_path / "captions_val2014.json").write_text(json.dumps(human))
    rows = [
        {"image_id": 3, "caption": "Puppies, puppies and a bear"},
        {"image": "COCO_val2014_000000000004.jpg", "text": "sky"},
    ]
    for row in rows:
        row.setdefault("image_id", 4)
    printed = chair.score(lines(tmp_path / "c.jsonl", rows), tmp_path)
    assert printed["CHAIRi"] == pytest.approx(1 / 3) and printed["CHAIRs"] == 0.5
    assert printed["Recall"] == 0.5 and printed["words_per_caption"] == 3
    with pytest.raises(LabError, match="no such list of object words"):
        chair.score(tmp_path / "c.jsonl", tmp_path, tmp_path / "none.txt")


def test_table_for_people_and_one_line_errors(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from sgv_lab.cli import main

    rows = [{"question_id": "7", "prediction": "A", "gt_answer": "B"}]
    path = lines(tmp_path / "p.jsonl", rows)
    run = CliRunner().invoke(main, ["score", "SEED", "--predictions", str(path), "--table"])
    assert re.search(r"^image_accuracy +0\.0000$", run.stdout, re.MULTILINE), run.stdout
    run = CliRunner().invoke(main, ["score", "seed", "--predictions", str(tmp_path / "none")])
    assert run.exit_code == 1 and run.output.count("\n") == 1 and "no such file" in run.output
    run = CliRunner().invoke(
        main, ["score", "seed", "--predictions", str(path), "--variant", "first"]
    )
    assert run.exit_code == 1 and "known: official, first_character, macro" in run.output.lower()
