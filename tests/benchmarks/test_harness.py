"""What another harness logged scores as the same answers in the official files do."""

from pathlib import Path

from test_edges import mme_data, seed_truth
from written import lines

from sgv_lab.benchmarks import mme, seed_bench


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
