"""What `measure` found, as notebook 05 shows it."""

from pathlib import Path

from sgv_lab.figures import style
from sgv_lab.figures.speeds import speed_bars, speed_table
from sgv_lab.study import measure


def test_without_the_file_every_row_is_there_and_not_measured(tmp_path: Path) -> None:
    table = speed_table(tmp_path / "throughput.csv")
    kinds = ["sft", "pretrain", "caption", "sft-lora", "evaluate"]
    assert list(table["recipe"].unique()) == kinds
    assert (table["speed"] == "not measured").all() and table["memory, GB"].isna().all()
    style.use()
    figure = speed_bars(tmp_path / "throughput.csv")
    told = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert told == [" not measured"] * len(table)
    assert [axis.get_xlabel() for axis in figure.axes] == ["tokens/s", "captions/s", "answers/s"]


def test_what_was_measured_stands_in_its_row(tmp_path: Path) -> None:
    """A rehearsal's rows and those that failed do not."""
    row = {"size": "paper", "recipe": "sft", "model": measure.L7, "device": "H200", "status": "ok"}
    shared = row | {"row": "official", "useful_tflops": 200.0, "tokens_per_second": 5000.0}
    rows = [
        row | {"recipe": "check", "model": "", "row": "matrix products", "useful_tflops": 800.0},
        shared,
        shared | {"row": "ours", "useful_tflops": 400.0, "tokens_per_second": 10_000.0},
        shared | {"row": "official + packing", "size": "mini"},
        shared | {"row": "+ 24-bit AdamW", "status": "out of memory"},
        row | {"recipe": "evaluate", "row": "questions an image: 1", "answers_per_second": 20.0},
    ]
    keys = ("size", "recipe", "model", "row")
    found = measure.table({tuple(one[key] for key in keys): one for one in rows})
    found.assign(peak_bytes=[None, 130e9, 83e9, 1.0, 1.0, None]).to_csv(tmp_path / "t.csv")
    table = speed_table(tmp_path / "t.csv").set_index(["recipe", "model", "row"])
    ours = table.loc["sft", measure.L7, "ours"]
    assert (ours["speed"], ours["in"], ours["times the official way"]) == (10_000, "tokens/s", 2)
    assert ours["share of the measured peak"] == 0.5 and ours["memory, GB"] == 83
    assert table.loc[("evaluate", measure.L7, "questions an image: 1"), "speed"] == 20
    assert (table["speed"] != "not measured").sum() == 3
    figure = speed_bars(tmp_path / "t.csv")
    told = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert told[:2] == [" 5,000, 25% of the peak", " 10,000, 50% of the peak"]
    assert " 20.0" in told and told.count(" not measured") == len(table) - 3
    lengths = [bar.get_width() for bar in figure.axes[0].patches]
    assert lengths[:2] == [5000, 10_000] and set(lengths[2:]) == {0}
