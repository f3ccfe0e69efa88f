import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from sgv_lab.cli import main
from sgv_lab.files import Journal
from sgv_lab.study import measure

FEW = ("matrix products", "official", "ours", "greedy, batch of 8")


def _run(out, *more):
    given = ["measure", "--size", "mini", "--out", str(out), *map(str, more)]
    return CliRunner().invoke(main, given)


def _few(monkeypatch, *more):
    """Keep fine-tuning's first rows and one of captions, and ``more``."""
    every = measure.rows
    monkeypatch.setattr(
        measure,
        "rows",
        lambda *given: [
            *(r for r in every(*given) if r.row in FEW and r.recipe in ("check", "sft", "caption")),
            *more,
        ],
    )


def test_rows_are_on_disk_one_by_one_and_not_measured_again(tmp_path, monkeypatch):
    def killed(_):
        seen.append(len(Journal(tmp_path / "rows.jsonl").read()))
        if len(seen) == 1:
            raise KeyboardInterrupt
        raise torch.OutOfMemoryError("too large")

    seen: list[int] = []
    _few(monkeypatch, measure.Row("last", "", "killed", 1, killed))
    assert _run(tmp_path).exit_code == 1
    before = Journal(tmp_path / "rows.jsonl").read()
    assert seen == [4] and {row["status"] for row in before} == {"ok"}
    done = _run(tmp_path)
    assert done.exit_code == 0, done.output
    after = Journal(tmp_path / "rows.jsonl").read()
    assert after[:4] == before and after[4]["status"] == "out of memory: too large"
    table = pd.read_csv(tmp_path / "throughput.csv").set_index("row")
    assert (table["mfu"].dropna() > 0).all() and table["mfu"].count() == 2
    assert table.loc["official", "ratio"] == 1 and table.loc["ours", "ratio"] > 0
    assert table.loc["greedy, batch of 8", "captions_per_second"] > 0
    assert table["device"].nunique() == 1 and table["revision"].notna().all()


def test_errors_are_rows_and_what_has_no_time_left_is_skipped(tmp_path, monkeypatch):
    def wrong(_):
        raise ValueError("no such kernel")

    _few(monkeypatch, measure.Row("last", "", "wrong", 0, wrong))
    done = _run(tmp_path, "--seconds", 0)
    assert done.exit_code == 0, done.output
    statuses = [row["status"] for row in Journal(tmp_path / "rows.jsonl").read()]
    assert statuses == ["skipped: 0 s left"] * 5
    assert "skipped: 0 s left" in done.output
    monkeypatch.setattr(measure, "FEW", (), raising=False)
    late = measure._measured(measure.Row("last", "", "wrong", 0, wrong), 1.0, "mini", 0.0)
    assert late["status"] == "ValueError: no such kernel"


def test_shares_are_of_both_ceilings_and_of_the_first_row():
    shared = {"size": "paper", "model": "m", "device": "NVIDIA H200", "status": "ok"}
    rows = [
        shared | {"recipe": "check", "row": "matrix products", "useful_tflops": 790.0},
        *(
            shared | {"recipe": "sft", "row": r, "useful_tflops": n, "tokens_per_second": n}
            for r, n in (("official", 197.5), ("ours", 395.0))
        ),
    ]
    table = measure.table({(row["row"],): row for row in rows}).set_index("row")
    assert table.loc["ours", "mfu"] == pytest.approx(0.5)
    assert table.loc["ours", "mfu_vendor"] == pytest.approx(395 / 989)
    assert table.loc["ours", "ratio"] == 2
    assert table.loc[["matrix products"], ["mfu", "ratio"]].isna().all(axis=None)


@pytest.mark.slow
def test_all_rows_are_rehearsed_in_miniature(tmp_path):
    done = _run(tmp_path, "--seconds", 10_000)
    assert done.exit_code == 0, done.output
    rows = Journal(tmp_path / "rows.jsonl").read()
    assert {row["row"]: row["status"] for row in rows if row["status"] != "ok"} == {}
    assert len(rows) == len(measure.rows("mini"))
