"""Predictions as people have them: repeated rows, several lines, cells that look like formulas."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from written import lines, tsv

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


def seed_case(folder: Path, said: list[str]) -> dict[str, Any]:
    questions = [{"question_id": str(n), "answer": "A", "question_type_id": 1} for n in range(4)]
    truth = folder / "SEED-Bench.json"
    truth.write_text(json.dumps({"questions": questions, "question_type": {"Scene": 1}}))
    rows = [{"question_id": n % 4, "text": text} for n, text in enumerate(said)]
    return seed_bench.score(lines(folder / "a.jsonl", rows), truth)


def scienceqa_case(folder: Path, said: list[str]) -> dict[str, Any]:
    problem = {
        **{"answer": 0, "choices": ["x", "y"], "subject": "natural science", "grade": "grade3"},
        **{"hint": "", "image": "image.png"},
    }
    (folder / "problems.json").write_text(json.dumps({str(n): problem for n in range(4)}))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list("0123")}))
    rows = [{"question_id": str(n % 4), "text": text} for n, text in enumerate(said)]
    return scienceqa.score(lines(folder / "a.jsonl", rows), folder / "problems.json")


def vqa_case(folder: Path, said: list[str]) -> dict[str, Any]:
    truth = [{"question_id": n, "image_id": n, "answers": [{"answer": "a"}] * 10} for n in range(4)]
    (folder / "t.json").write_text(json.dumps({"annotations": truth}))
    rows = [{"question_id": n % 4, "answer": text} for n, text in enumerate(said)]
    (folder / "a.json").write_text(json.dumps(rows))
    return vqa.score(folder / "a.json", folder / "t.json")


def vizwiz_case(folder: Path, said: list[str]) -> dict[str, Any]:
    truth = [{"image": f"{n}.jpg", "answers": [{"answer": "a"}] * 10} for n in range(4)]
    (folder / "t.json").write_text(json.dumps(truth))
    rows = [{"image": f"{n % 4}.jpg", "answer": text} for n, text in enumerate(said)]
    (folder / "a.json").write_text(json.dumps(rows))
    return vqa.score(folder / "a.json", folder / "t.json")


def qbench_case(folder: Path, said: list[str]) -> dict[str, Any]:
    rows = [
        {
            **{"type": 0, "concern": 0, "question": "Q", "img_path": f"{n % 4}.jpg"},
            **{"candidates": ["x", "y"], "correct_ans": "x", "response": text},
        }
        for n, text in enumerate(said)
    ]
    return qbench.score(lines(folder / "a.jsonl", rows))


def mmbench_truth(path: Path) -> Path:
    row = {"question": "Q", "A": "x", "B": "y", "answer": "A"}
    return tsv(path, [{"index": n} | row for n in range(4)])


def mmbench_case(folder: Path, said: list[str]) -> dict[str, Any]:
    rows = [{"question_id": n % 4, "text": text} for n, text in enumerate(said)]
    return mmbench.score(lines(folder / "a.jsonl", rows), mmbench_truth(folder / "q.tsv"))


LAST = {
    "seed": (seed_case, lambda s: s["image_correct"]),
    "scienceqa": (scienceqa_case, lambda s: s["IMG"]["correct"]),
    "mmbench": (mmbench_case, lambda s: s["correct"]),
}
VQA = {
    "vqav2": (vqa_case, lambda s: s["overall"] / 25),
    "vizwiz": (vizwiz_case, lambda s: s["overall"] / 25),
}


@pytest.mark.parametrize("name", [*LAST, *VQA])
def test_of_repeated_rows_the_last_counts_and_it_is_said(tmp_path: Path, name: str) -> None:
    case, right = (LAST | VQA)[name]
    good, bad = ("a", "b") if name in VQA else ("A", "B")
    plain = case(tmp_path, [good, good, bad, bad])
    assert right(plain) == 2 and "warnings" not in plain
    same = case(tmp_path, [good, good, bad, bad, good])
    assert right(same) == 2
    assert "1 ids stand more than once (0 with answers that differ" in same["warnings"][0]
    other = case(tmp_path, [good, good, bad, bad, bad, bad, good])
    assert right(other) == 1 and other["missing"] == 0
    (said,) = other["warnings"]
    assert "3 ids" in said and "3 with answers that differ" in said and "the last one" in said


@pytest.mark.parametrize("name", LAST | VQA | {"qbench": None})
def test_answers_of_several_lines_count_as_the_official_tool_counts_them(
    tmp_path: Path, name: str
) -> None:
    cases = LAST | VQA | {"qbench": (qbench_case, lambda s: s["correct"])}
    case, right = cases[name]
    said = ["a", "a\nBecause it is.", "a", "b"] if name in VQA else ["A", "A\nSo.", "A", "B"]
    printed = case(tmp_path, said)
    # read to the end by SEED, ScienceQA and VQA; by Q-Bench and MMBench's rule for prose not
    assert right(printed) == (3 if name in ("qbench", "mmbench") else 2)
    assert f"1 answers have several lines (first: {tmp_path}" in printed["warnings"][0]
    assert " 2)" in printed["warnings"][0]


def test_the_questions_own_repeated_id_is_no_warning(tmp_path: Path) -> None:
    question = {"question_id": "49914", "answer": "B", "question_type_id": 1}
    truth = tmp_path / "SEED-Bench.json"
    truth.write_text(json.dumps({"questions": [question] * 2, "question_type": {"Scene": 1}}))
    rows = [{"question_id": 49914, "text": "B"}]
    one = seed_bench.score(lines(tmp_path / "a.jsonl", rows), truth)
    assert one == seed_bench.score(lines(tmp_path / "a.jsonl", rows * 2), truth)
    assert (one["image_correct"], one["missing"], one.get("warnings")) == (2, 0, None)
    differ = [{"question_id": 49914, "text": "A"}, *rows]
    printed = seed_bench.score(lines(tmp_path / "a.jsonl", differ), truth)
    assert printed["image_correct"] == 2 and len(printed["warnings"]) == 1


def test_of_a_leaderboards_own_rows_each_counts(tmp_path: Path) -> None:
    rows = [{"question_id": n, "prediction": "A", "gt_answer": "A"} for n in range(3)]
    printed = seed_bench.score(lines(tmp_path / "a.jsonl", [*rows, rows[0] | {"prediction": "B"}]))
    assert (printed["image_correct"], printed["image_rows"]) == (3, 4)
    assert "1 with answers that differ" in printed["warnings"][0]
    assert "each counts" in printed["warnings"][0]


def test_of_repeated_reviews_entries_and_captions_each_counts(tmp_path: Path) -> None:
    printed = qbench_case(tmp_path, ["A", "A", "B", "B", "A"])
    assert (printed["correct"], printed["n"]) == (3, 5) and "each counts" in printed["warnings"][0]
    rows = [
        {"question_id": n % 2, "category": "c", "tuple": marks}
        for n, marks in enumerate([[8, 4], [8, 8], [8, 8]])
    ]
    printed = llava_w.score(lines(tmp_path / "r.jsonl", rows))
    assert printed["all"] == [round(100 * 6.667 / 8, 1), 80, 66.7, 3]
    assert "1 ids" in printed["warnings"][0]
    (tmp_path / "synonyms.txt").write_text("dog\ncat\n")
    (tmp_path / "truth.json").write_text(json.dumps({"1": ["dog"], "2": ["dog"]}))
    captions = [{"image_id": n, "caption": c} for n, c in ((1, "a dog"), (2, "a dog"), (1, "cat"))]
    printed = chair.score(lines(tmp_path / "c.jsonl", captions), tmp_path / "truth.json")
    assert printed["captions"] == 3 and printed["CHAIRs"] == pytest.approx(1 / 3)
    assert printed["clusters"]["n"] == 2 and "1 ids" in printed["warnings"][0]


def test_a_repeated_row_of_a_submission_must_be_right_too(tmp_path: Path) -> None:
    row = {"question": "Q", "A": "x", "B": "y", "answer": "A", "prediction": "A"}
    rows = [{"index": n} | row for n in range(4)]
    path = tsv(tmp_path / "p.tsv", [*rows, rows[0] | {"prediction": "B"}])
    printed = mmbench.score(path, mmbench_truth(tmp_path / "q.tsv"))
    assert (printed["correct"], printed["n"]) == (3, 5)  # question 0 is asked twice, and wrong
    assert printed["vanilla_first_pass"] == 80 and "1 ids" in printed["warnings"][0]


def test_a_key_that_stands_twice_has_its_last_value(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"v1_0": ["rec"], "v1_1": ["rec"]}))
    grade = '{"model": ["j"], "content": ["x"], "score": [%s]}'
    text = f'"v1_0": {grade % 0.0}, "v1_1": {grade % 1.0}, "v1_0": {grade % 1.0}'
    (tmp_path / "g.json").write_text("{" + text + "}")
    printed = mmvet.score(tmp_path / "g.json", tmp_path / "d.json")
    assert printed["total"] == 100 and "'v1_0' stands more than once" in printed["warnings"][0]
    (tmp_path / "d.json").write_text('{"v1_0": ["rec"], "v1_0": ["ocr"]}')
    with pytest.raises(LabError, match="stands twice"):
        mmvet.score(tmp_path / "g.json", tmp_path / "d.json")


def pope_case(folder: Path, numbers: list[int], said: dict[int, str]) -> dict[str, Any]:
    texts = ("Is there a dog in the image?", "Is there a cat in the image?")
    labels = [
        {"image": f"{n}.jpg", "text": texts[n % 2], "label": ("yes", "no")[n % 2]} for n in range(4)
    ]
    asked = [
        {"question_id": n, "category": "random", "image": q["image"], "text": q["text"]}
        for n, q in enumerate(labels)
    ]
    rows = [
        {"question_id": n, "text": said.get(place, ("Yes", "No")[n % 2])}
        for place, n in enumerate(numbers)
    ]
    return pope.score(
        lines(folder / "a.jsonl", rows),
        lines(folder / "coco_pope_random.json", labels),
        lines(folder / "q.jsonl", asked),
    )


def test_pope_reads_as_far_as_the_labels_go(tmp_path: Path) -> None:
    printed = pope_case(tmp_path, [0, 1, 2, 3], {1: "No\nBecause there is none"})
    # the official words are split at blanks, so "No\nBecause" is no "No"
    assert printed["random"]["FP"] == 1 and "several lines" in printed["warnings"][0]
    printed = pope_case(tmp_path, [0, 1, 2, 3, 0, 2], {4: "No"})
    assert (printed["random"]["TP"], printed["random"]["n"]) == (2, 4)
    assert "2 ids" in printed["warnings"][0] and "the first one" in printed["warnings"][0]
    with pytest.raises(LabError, match="line 3: question 1 stands twice, before other answers"):
        pope_case(tmp_path, [0, 1, 1, 2, 3], {})


def test_mme_counts_each_pair_and_refuses_what_lines_cannot_hold(tmp_path: Path) -> None:
    inner = tmp_path / "data" / "color" / "questions_answers_YN"
    inner.mkdir(parents=True)
    for n in range(2):
        text = "".join(f"Q{i}? {mme.ASK}\t{('Yes', 'No')[i]}\n" for i in range(2))
        (inner / f"{n}.txt").write_text(text)
    rows = [
        {"question_id": f"color/{n}.png", "prompt": f"Q{i}?{mme.SUFFIX}", "text": ("Yes", "No")[i]}
        for n in range(2)
        for i in range(2)
    ]
    again = [rows[0] | {"text": "No"}, rows[1]]
    printed = mme.score(lines(tmp_path / "a.jsonl", [*rows, *again]), tmp_path / "data")
    assert printed["color"] == pytest.approx(100 * 5 / 6 + 100 * 2 / 3)
    assert printed["missing"] == 0 and printed["questions"] == {"color": 6}
    assert "2 ids stand more than once (1 with" in printed["warnings"][0]
    lost = mme.score(lines(tmp_path / "a.jsonl", [*rows[:2], *rows[:2]]), tmp_path / "data")
    assert lost["missing"] == 2
    bad = [rows[0] | {"text": "Yes\nIt is"}, *rows[1:]]
    with pytest.raises(LabError, match="a tab or a newline"):
        mme.score(lines(tmp_path / "a.jsonl", bad), tmp_path / "data")


TYPED = [
    *("=x+1", "=SUM(A1:A2)", "+1", "-", "@", "001", "1e5", "TRUE", "N/A", "NA", "nan", "", "None"),
    *("#N/A", "#DIV/0!", "#NAME?", "1.0", "'=1", " A ", "2024-01-01", "a\tb\nc", "100%", "=", "é"),
]


def test_cells_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    rows = [
        {"index": n, "question": text or "Q", "hint": "", "A": "=a", "B": text, "C": "", "D": ""}
        | {"answer": "A"}
        for n, text in enumerate(TYPED)
    ]
    path = tmp_path / "sub.xlsx"
    mmbench.submission(rows, {str(n): text for n, text in enumerate(TYPED)}, path)
    read = core.table(path)
    assert [row["prediction"] for row in read] == TYPED
    assert [row["B"] for row in read] == TYPED and {row["A"] for row in read} == {"=a"}
    assert [row["question"] for row in read] == [text or "Q" for text in TYPED]
    # a spreadsheet program sees text, too
    for row in openpyxl.load_workbook(path).active.iter_rows(min_row=2, min_col=2):
        assert {cell.data_type for cell in row if cell.value is not None} == {"s"}


def test_a_formula_is_scored_as_the_text_that_was_typed(tmp_path: Path) -> None:
    """What pandas, and with it LLaVA's script, writes for an answer that begins with "="."""
    header = ["index", "question", "A", "B", "answer", "prediction"]
    truth = tsv(
        tmp_path / "q.tsv", [dict(zip(header, (0, "Q", "=x+1", "#N/A", "A"), strict=False))]
    )
    for said, accuracy in (("=x+1", 100.0), ("#N/A", 0.0), ("=x", 0.0)):
        book = openpyxl.Workbook()
        book.active.append(header)
        book.active.append([0, "Q", "=x+1", "#N/A", "A", said])
        book.save(tmp_path / "p.xlsx")
        printed = mmbench.score(tmp_path / "p.xlsx", truth)
        assert printed["accuracy"] == accuracy and printed["unparsed"] == (said == "=x")
        assert printed["accuracy"] == mmbench.score(tmp_path / "p.xlsx")["accuracy"]


def test_typed_numbers_and_empty_rows_of_a_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["index", "prediction", None], [1.0, True], [], [2, 0.5], [3, None]):
        book.active.append(row)
    book.save(tmp_path / "p.xlsx")
    found = [entry.row for entry in core.table(tmp_path / "p.xlsx")]
    assert found == [
        {"index": "1", "prediction": "TRUE"},
        {"index": "2", "prediction": "0.5"},
        {"index": "3", "prediction": ""},
    ]
    (tmp_path / "p.xlsx").write_bytes(b"no zip")
    with pytest.raises(LabError, match="is not a table"):
        core.table(tmp_path / "p.xlsx")
    openpyxl.Workbook().save(tmp_path / "p.xlsx")
    with pytest.raises(LabError, match=r"p\.xlsx"):
        core.table(tmp_path / "p.xlsx")


def test_intervals_stay_within_their_scale(tmp_path: Path) -> None:
    nearly = np.array([True] * 39 + [False])
    low, high = clustered_mean(nearly, range(40))
    assert high == 100 and 0 < low < 97.5
    low, high = clustered_mean(~nearly, range(40), 1.0)
    assert low == 0 and high > 0.025
    assert clustered_mean(nearly[-9:], range(9)) is None
    assert clustered_mean(np.repeat(nearly[-9:], 5), np.repeat(range(9), 5)) is None
    answers = {name: ["Yes", "No"] * 12 for name in mme.OFFICIAL_QUESTIONS}
    answers["color"][0] = "No"
    (tmp_path / "r").mkdir()
    for name, said in answers.items():
        truth = [f"{i // 2}.png\tQ{i % 2}\t{('Yes', 'No')[i % 2]}\t{t}" for i, t in enumerate(said)]
        (tmp_path / "r" / f"{name}.txt").write_text("\n".join(truth) + "\n")
    printed = mme.score(tmp_path / "r")
    low, high = printed["interval"]["perception"]
    assert high == 2000 and low < printed["perception"] < 2000
    assert printed["interval"]["cognition"][1] == 800
