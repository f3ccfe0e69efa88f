"""The paper's numbers: complete, and consistent where the paper is."""

import math
import re
from pathlib import Path

import pytest

from sgv_lab import paper


def value(place: str, row: str, column: str, arm: str = "") -> float:
    table = paper.facts(place)
    found = table[(table["row"] == row) & (table["arm"] == arm) & (table["column"] == column)]
    (number,) = found["value"]
    return number


def gain(claim: str, column: str, after: str | None = None) -> float:
    table = paper.effects()
    table = table[(table["claim"] == claim) & (table["column"] == column)]
    if after:
        table = table[table["after"] == after]
    (number,) = table["gain"]
    return number


def test_every_fact_is_one_and_says_where_from() -> None:
    table = paper.facts()
    assert not table.duplicated(["place", "row", "arm", "column"]).any()
    for column in ("place", "row", "column", "printed", "unit", "version", "source", "sure"):
        assert (table[column] != "").all(), column
    words = table["value"].isna()
    assert (table.loc[words, "unit"] == "text").all() and (
        table.loc[~words, "unit"] != "text"
    ).all()
    assert set(table["place"]) == set(paper.TITLES)


@pytest.mark.parametrize("place", paper.TITLES)
def test_every_place_prints_as_a_table_that_holds_all_its_numbers(place: str) -> None:
    shape = paper.wide(paper.facts(place))
    assert (shape != "–").to_numpy().sum() == len(paper.facts(place))


def test_the_abstracts_gains_are_figure_2s_differences() -> None:
    abstract = paper.facts("abstract")
    assert len(abstract) == 6
    for fact in abstract.itertuples():
        before = value("figure2", fact.row, fact.column, "before")
        after = value("figure2", fact.row, fact.column, "after")
        assert math.isclose(after - before, fact.value, abs_tol=1e-6)
    # the one model that the abstract leaves out is the one whose MME hardly moves
    assert gain("C1", "MME-P") == 6.2


def test_two_cells_of_figure_2_decline() -> None:
    effects = paper.effects()
    swaps = effects[effects["claim"].isin(["C1", "C2", "C3"])]
    worse = swaps[swaps["gain"] < 0]
    assert set(zip(worse["after"], worse["column"], worse["gain"], strict=True)) == {
        ("LLaVA-1.5-13B after", "QBench", -1.0),
        ("Qwen-VL-Chat-7B after", "MM-Vet", -2.8),
    }


def test_the_texts_sums_and_leads_follow_from_table_3() -> None:
    ours, qwen = "ShareGPT4V-7B (Vicuna-7B)", "Qwen-VL-Chat (Qwen-7B)"
    big = "LLaVA-1.5 (Vicuna-13B)"
    total = value("table3", ours, "MME-P") + value("table3", ours, "MME-C")
    theirs = value("table3", qwen, "MME-P") + value("table3", qwen, "MME-C")
    assert math.isclose(total, 1943.8, abs_tol=0.06)
    assert math.isclose(total, value("text", "ShareGPT4V-7B", "MME"), abs_tol=0.06)
    said = value("text", "over Qwen-VL-Chat", "MME", "gain")
    assert math.isclose(total - theirs, said, abs_tol=0.06)
    for column in ("LLaVA-W", "MME-P", "SEED-I"):
        lead = value("table3", ours, column) - value("table3", big, column)
        said = value("text", "over LLaVA-1.5-13B", column, "gain")
        assert math.isclose(lead, said, abs_tol=1e-6)


def test_best_on_nine_of_eleven() -> None:
    table = paper.facts("table3").set_index(["column", "row"])["value"].unstack()
    assert len(table) == 11
    best = table.idxmax(axis=1)
    assert (best == "ShareGPT4V-7B (Vicuna-7B)").sum() == 9
    assert set(best[best != "ShareGPT4V-7B (Vicuna-7B)"].index) == {"MMB-CN", "SQA-I"}


def test_the_tables_agree_with_each_other_where_they_should() -> None:
    for column in ("MME-P", "MMB", "SEED-I"):
        full = value("table3", "ShareGPT4V-7B (Vicuna-7B)", column)
        assert value("table4", "PT yes, SFT yes", column) == full
        assert value("table6", "12", column) == full
        coco = value("figure2", "LLaVA-1.5-7B", column, "after")
        assert value("table5", "Baseline", column) == coco
    for column in ("MMB", "SEED-I"):
        assert value("figure6", "0", column) == value("table4", "PT no, SFT yes", column)
        assert value("figure6", "1200000", column) == value("table4", "PT yes, SFT yes", column)


def test_the_contradictions_are_on_record() -> None:
    text = paper.facts("text")
    wrong = text[text["sure"].str.contains("contradicts")]
    assert list(zip(wrong["column"], wrong["value"], strict=True)) == [
        ("MME-P", 1549.8),
        ("MMB", 1.9),
    ]
    assert value("table5", "+ShareGPT4V-PT-558K", "MME-P") == 1539.8
    assert gain("C5", "MMB") == 2.1
    assert gain("C5", "MME-P") == 18.2
    assert value("figure2", "LLaVA-1.5-7B", "QBench", "before") == 58.6
    assert value("table3", "LLaVA-1.5 (Vicuna-7B)", "QBench") == 58.7


def test_the_preference_of_table_2_is_not_significant() -> None:
    votes = value("design", "human evaluation", "images", "Table 2")
    votes *= value("design", "human evaluation", "volunteers", "Table 2")
    ours = round(votes * value("table2", "Share-Captioner", "preferred") / 100)
    theirs = round(votes * value("table2", "GPT4-Vision", "preferred") / 100)
    z = (theirs - ours) / math.sqrt(theirs + ours)
    assert round(z, 2) == 1.07
    assert "z = 1.07" in paper.claims().set_index("claim").loc["C8", "noise"]


def test_under_one_harness_the_lead_over_llava_vanishes() -> None:
    ours = value("re-evaluation", "ShareGPT4V-7B", "MME-P", "VLMEvalKit")
    assert ours - value("re-evaluation", "LLaVA-1.5-7B", "MME-P", "VLMEvalKit") == 1
    assert gain("C10", "MME-P") == 56.7
    for row, arm in (("ShareGPT4V-7B", "VLMEvalKit"), ("LLaVA-1.5-7B", "VLMEvalKit")):
        parts = [value("re-evaluation", row, part, arm) for part in ("MME-P", "MME-C")]
        assert value("re-evaluation", row, "MME", arm) == sum(parts)


def test_ten_claims_whose_reported_gains_follow_from_the_numbers() -> None:
    claims = paper.claims().set_index("claim")
    assert list(claims.index) == [f"C{number}" for number in range(1, 11)]
    assert set(claims["place"]) <= set(paper.TITLES)
    names = {"MME": "MME-P", "SEED": "SEED-I", "MMB": "MMB"}
    checked = 0
    for claim, row in claims.iterrows():
        for name, numbers in re.findall(r"(MME|MMB|SEED) (\+[^,]*)", row["reported"]):
            effects = paper.effects()
            own = effects[(effects["claim"] == claim) & (effects["column"] == names[name])]
            said = [float(number) for number in re.findall(r"\d+\.\d+", numbers)]
            assert said == list(own["gain"]), (claim, name)
            checked += len(said)
    assert checked == 19  # the gains printed for C1 to C6


@pytest.mark.reference
def test_every_decimal_number_of_the_fact_sheets_tables_is_here(reference: Path) -> None:
    sheet = reference.parent / "paper" / "FACTS.md"
    if not sheet.is_file():
        pytest.skip("no fact sheet beside the reference folder")
    text = sheet.read_text()
    section = text[text.index("\n## 1.") : text.index("\n## 2.")]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    numbers = {number for line in rows for number in re.findall(r"\d+\.\d+", line)}
    known = set(paper.facts()["printed"])
    known |= set(re.findall(r"\d+\.\d+", " ".join(paper.facts()["note"])))
    assert len(numbers) > 100  # else the sheet was not read
    assert numbers - known == set()
