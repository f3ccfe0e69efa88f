"""The ledger: criteria that can go either way, and numbers that follow from the record."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click import Context
from click.testing import CliRunner
from scipy import stats

from sgv_lab import paper
from sgv_lab.captions import convert, statistics
from sgv_lab.cli import main
from sgv_lab.files import sha256
from sgv_lab.models import families
from sgv_lab.study import claims, ledger, publishing


def measured(claim: str, scale: float, noise: float = 0.1, seeds: int = 5) -> pd.DataFrame:
    """Records of every arm of a claim: its printed score times ``scale``, and noise."""
    rng = np.random.default_rng(0)
    rows = {}
    for contrast in claims.CONTRASTS[claim]:
        printed = paper.facts(contrast.place).set_index(["row", "arm", "column"])["value"]
        for column in contrast.columns:
            for row, arm in contrast.weights:
                for seed in range(seeds):
                    value = scale * printed[row, arm, column] + noise * rng.normal()
                    rows[contrast.place, row, arm, column, seed] = value
    names = ["place", "row", "arm", "column", "seed"]
    return pd.Series(rows, name="value").rename_axis(names).reset_index()


def verdict(claim: str, records: pd.DataFrame, tmp_path: Path) -> str:
    records.to_csv(tmp_path / ledger.FULL_SIZE, index=False)
    ledger.files().to_csv(tmp_path / ledger.FILES, index=False)
    return ledger.ledger(tmp_path).loc[claim, "verdict"]


@pytest.mark.parametrize("claim", claims.CONTRASTS)
@pytest.mark.parametrize(
    "scale, noise, said",
    [
        (1.0, 0.01, claims.REPRODUCED),
        (0.0, 0.01, claims.CONTRADICTED),
        (-1.0, 0.01, claims.CONTRADICTED),
        (1.0, 1e4, claims.UNRESOLVED),
    ],
)
def test_records_can_reproduce_contradict_or_leave_open(
    claim: str, scale: float, noise: float, said: str, tmp_path: Path
) -> None:
    assert verdict(claim, measured(claim, scale, noise), tmp_path) == said
    others = ledger.ledger(tmp_path)["verdict"].drop(claim)
    assert set(others) == {claims.UNRESOLVED}


def test_one_number_that_fails_is_enough_and_all_are_needed(tmp_path: Path) -> None:
    records = measured("C5", 1.0, 0.01)
    assert verdict("C5", records[records["column"] != "MMB"], tmp_path) == claims.UNRESOLVED
    blip = (records["row"] == "+BLIP-558K") & (records["column"] == "MMB")
    worse = records.assign(value=records["value"] + 4.0 * blip)
    assert verdict("C5", worse, tmp_path) == claims.CONTRADICTED


def test_two_seeds_decide_nothing(tmp_path: Path) -> None:
    assert verdict("C1", measured("C1", 1.0, 1e-6, seeds=2), tmp_path) == claims.UNRESOLVED
    assert "2 seeds" in ledger.ledger(tmp_path).loc["C1", "full size"]


def test_a_contradiction_needs_an_interval_that_excludes_the_claimed_effect() -> None:
    assert claims.number_verdict(-1.0, 5.0, effect=6.0) == claims.CONTRADICTED
    assert claims.number_verdict(-1.0, 6.5, effect=6.0) == claims.UNRESOLVED
    assert (
        claims.number_verdict(0.5, 5.0, effect=6.0) == claims.REPRODUCED
    )  # smaller, in the direction


def test_intervals_of_a_claim_hold_together() -> None:
    """Three numbers decide C5, so each interval covers 1 − 0.05 / 3 for all to cover 0.95."""
    records = measured("C5", 1.0, noise=2.0, seeds=6).assign(dropped=0.0)
    cell = claims.full_size_effects(records).set_index("column").loc["MMB"]
    arms = records[records["column"] == "MMB"].pivot(index="seed", columns="row", values="value")
    gain = arms["+ShareGPT4V-PT-558K"] - arms["+BLIP-558K"]
    expected = stats.ttest_1samp(gain, 0).confidence_interval(1 - 0.05 / 3)
    assert cell["found"] == pytest.approx(gain.mean())
    assert (cell["low"], cell["high"]) == pytest.approx(tuple(expected))


def test_the_effects_are_the_papers() -> None:
    table = claims.effects().set_index(["claim", "contrast", "column"])["effect"]
    gains = paper.effects().set_index(["claim", "after", "column"])["gain"]
    for claim in ("C1", "C3", "C5", "C6"):
        for (_, column), effect in table[claim].items():
            assert effect == gains[claim].droplevel(0)[column]
    assert list(table["C4"]) == [15.1, 0.6, 1.8]  # 46.5 - 31.4 and so on
    assert (table > 0).all()  # number_verdict() is for positive effects


def test_no_training_claim_is_resolved_by_one_run_an_arm() -> None:
    """Within 1.96 standard errors of two runs lies each MME gain but LLaVA-7B's."""
    table = claims.effects().query("column == 'MME-P'")
    assert math.isclose(table["error"].iloc[0], 20 * math.sqrt(2))
    within = table[table["effect"] < 1.96 * table["error"]]
    assert set(table["claim"]) - set(within["claim"]) == {"C3"}


@pytest.mark.parametrize("claim, pairs", {"C1": 221, "C2": 22, "C4": 40, "C5": 29, "C6": 7}.items())
def test_pairs_show_the_effect_at_the_level_that_the_verdict_uses(claim: str, pairs: int) -> None:
    cell = claims.effects().query("claim == @claim and column == 'MME-P'").iloc[0]
    assert cell["pairs"] == pairs
    columns = sum(len(contrast.columns) for contrast in claims.CONTRASTS[claim])
    shown = {}
    for n in (pairs, pairs - 1):
        runs = np.random.default_rng(1).normal(cell["effect"], cell["error"], (20_000, n))
        low = stats.ttest_1samp(runs, 0, axis=1).confidence_interval(1 - 0.05 / columns).low
        shown[n] = (low > 0).mean()
    assert shown[pairs] > 0.79 and shown[pairs - 1] < 0.81


def test_the_questions_errors_are_binomial() -> None:
    row = claims.effects().query("claim == 'C5' and column == 'SEED-I'").iloc[0]
    shares = np.array([0.669, 0.689])
    assert math.isclose(row["error"], 100 * math.sqrt((shares * (1 - shares)).sum() / 14233))


def test_table_2_is_open_because_its_interval_is_wide() -> None:
    table = claims.votes()
    assert round(table.loc["votes independent", "z"], 2) == 1.07
    assert claims.verdict_c8(table) == claims.UNRESOLVED
    assert claims.verdict_c8(table.assign(low=-2.0, high=4.0)) == claims.REPRODUCED
    assert claims.verdict_c8(table.assign(low=6.0, high=9.0)) == claims.CONTRADICTED


def test_whole_files_decide_the_lengths() -> None:
    printed = paper.facts("table1").query("column == 'mean characters'")
    files = pd.DataFrame(
        {"dataset": printed["row"], "file": "f", "captions": 1, "characters": printed["value"]}
    )
    right = claims.lengths(files.assign(whole=True))["verdict"]
    assert claims.claim_verdict(list(right), 5) == claims.REPRODUCED
    longer = files.assign(whole=True, characters=1.02 * files["characters"])
    assert claims.claim_verdict(list(claims.lengths(longer)["verdict"]), 5) == claims.CONTRADICTED
    excerpt = claims.lengths(longer.assign(whole=False))["verdict"]
    assert claims.claim_verdict(list(excerpt), 5) == claims.UNRESOLVED


@pytest.mark.reference
def test_the_recorded_lengths_are_those_of_the_files(reference: Path) -> None:
    for row in ledger.files().itertuples():
        (path,) = reference.rglob(row.file)
        assert sha256(path) == row.sha256
        found = statistics.totals(convert.convert(path))
        assert (found["samples"], found["mean_characters"]) == (row.captions, row.characters)


def test_nine_leads_in_one_harness_decide_c10() -> None:
    assert (
        claims.verdict_c10(claims.same_harness()) == claims.UNRESOLVED
    )  # nobody published intervals
    table = pd.DataFrame({"low": [1.0] * 9 + [-5.0] * 2, "high": [3.0] * 9 + [-1.0] * 2})
    assert claims.verdict_c10(table) == claims.REPRODUCED
    table.loc[0] = (-5.0, -1.0)
    assert claims.verdict_c10(table) == claims.CONTRADICTED
    leads = claims.leads()
    assert (leads["lead"] > 0).sum() == 9
    assert claims.same_harness().loc["MME-P", "found"] == 1


def test_the_costs_follow_from_what_the_authors_report() -> None:
    took = paper.facts("cost").pivot(index="row", columns="column", values="value").prod(axis=1)
    tuning, before = 16 * 7 * 60, 16 * 12 * 60  # minutes of one A100
    assert list(60 * took.sort_values()) == [tuning, before]
    plans = [name for names in ledger.tasks()["full size"] for name in names]
    minutes = {p.removeprefix("full-"): publishing.load_study(p)[0].minutes for p in plans}
    assert minutes["llava-1.5-7b"] == tuning
    assert math.isclose(minutes["llava-7b"], tuning * 3 * 158 / 665, rel_tol=0.01)
    assert math.isclose(minutes["table4-llava-1.5-7b"], tuning + before / 2, rel_tol=0.01)
    assert math.isclose(minutes["table6-llava-1.5-7b"], tuning + before, rel_tol=0.01)
    sizes = {
        key: sum(families.counts(families.build(key, "paper", 0, device="meta")).values())
        for key in ("llava-1.5-7b", "llava-1.5-13b", "qwen-vl-chat")
    }
    for key, epochs in (("llava-1.5-13b", 1), ("qwen-vl-chat", 5)):
        assert math.isclose(
            minutes[key], epochs * tuning * sizes[key] / sizes["llava-1.5-7b"], rel_tol=0.01
        )
    table = ledger.what_to_run()
    assert table.loc["C1", "A100-hours"] == f"{6 * tuning / 60:,.0f}"
    assert table.loc["C3", "for 80 % power on MME-P"] == table.loc["C3", "A100-hours"]  # 3 pairs


def test_every_command_of_the_ledger_parses() -> None:
    lines = [line for text in ledger.tasks()["command"] for line in text.splitlines()]
    assert len(lines) >= 10
    for line in lines:
        assert_parses(line.replace("SEED", "0"))


def assert_parses(line: str) -> None:
    program, name, *arguments = line.split()
    assert program == "sgv-lab"
    command = main.get_command(Context(main), name)
    assert command is not None, line
    command.make_context(name, arguments)  # raises for an unknown or missing option
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_the_ledger_says_what_was_not_run() -> None:
    table = ledger.ledger()
    assert list(table.index) == [f"C{number}" for number in range(1, 11)]
    assert set(table["verdict"]) <= {claims.REPRODUCED, claims.UNRESOLVED, claims.CONTRADICTED}
    covered = set(claims.full_size_effects(ledger.records())["claim"])
    for claim, row in table.iterrows():
        assert ("not run" in row["full size"]) == (claim not in covered)
    assert not table.isna().any().any()


def test_inconsistencies_are_found_in_the_numbers() -> None:
    table = ledger.inconsistencies()
    assert list(table["where"]).count("Figure 2") == 3  # two declines, and 58.6 beside 58.7
    assert list(table["where"]).count("the running text") == 2
    assert list(table["where"]).count("Figure 6") == 3
