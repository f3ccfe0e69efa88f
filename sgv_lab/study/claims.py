"""The ledger of ten claims: what would decide each, fixed here beforehand, and what is known.

A claim about training is a contrast, a weighted sum of arms of one of the paper's tables. Only
paired full-size runs decide it: the paper has one run an arm, and the miniature decides nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from math import sqrt

import numpy as np
import pandas as pd
from scipy import stats

from sgv_lab import intervals, paper

REPRODUCED, UNRESOLVED, CONTRADICTED = "reproduced", "not resolved", "contradicted"
SEEDS = 3  # paired full-size seeds below which nothing is decided
MARGIN = 5.0  # percentage points of votes within which two captioners are "about as good" (C8)
EXACT = 0.5  # characters by which a rounded mean may differ (C9)
WRONG = 0.01  # share by which a file's mean must differ to contradict the printed one (C9)
LEADS = 9  # of the eleven benchmarks (C10)


@dataclass(frozen=True)
class Contrast:
    """What a claim says in numbers: the weighted sum of arms, on the benchmarks that decide it."""

    what: str
    place: str  # a key of paper.TITLES
    weights: Mapping[tuple[str, str], int]  # (row, arm) there -> weight
    columns: tuple[str, ...]


def _contrasts() -> dict[str, tuple[Contrast, ...]]:
    """Claim -> its contrasts, added up from `paper.comparisons`."""
    sides = {f"{f.row} {f.arm}".strip(): (f.row, f.arm) for f in paper.facts().itertuples()}
    contrasts: dict[str, tuple[Contrast, ...]] = {}
    rows = paper.comparisons().query("contrast != ''")
    for (claim, what), part in rows.groupby(["claim", "contrast"], sort=False):
        sums = Counter()
        for row in part.itertuples():
            sums.update({sides[row.after]: int(row.sign), sides[row.before]: -int(row.sign)})
        weights = {side: weight for side, weight in sums.items() if weight}
        contrast = Contrast(what, row.place, weights, tuple(row.columns.split()))
        contrasts[claim] = (*contrasts.get(claim, ()), contrast)
    return contrasts


CONTRASTS = _contrasts()


def standard_error(column: str, score: float) -> float | None:
    """The standard error of one run's ``score``, in points; None where nothing is known.

    MME-P: ±20 points between identical runs, taken as one standard deviation. Others: what the
    number of questions leaves open, s (100 − s) / n, at most that where answers are graded.
    """
    known = paper.facts("noise").set_index("column")["value"]
    if column not in known:
        return None
    return known[column] if column == "MME-P" else sqrt(score * (100 - score) / known[column])


def level(claim: str) -> float:
    """The level of one of a claim's intervals at which all hold together at 95 % (Bonferroni)."""
    return intervals.level_of_each(sum(len(one.columns) for one in CONTRASTS[claim]))


@cache
def effects() -> pd.DataFrame:
    """Each deciding number as the paper reports it, beside what is known to move it.

    Columns: claim, contrast, column, effect, error: its `standard_error` (of independent runs; the
    same questions asked of both arms make it smaller, other seeds larger), and pairs: the paired
    runs that would show the effect over MME's noise with 80 % power at `level`.
    """
    rows = []
    for claim, contrast, column in _numbers():
        table = paper.facts(contrast.place).query("column == @column")
        scores = table.set_index(["row", "arm"])["value"]
        effect = sum(weight * scores[side] for side, weight in contrast.weights.items())
        errors = [standard_error(column, scores[side]) for side in contrast.weights]
        error, at, pairs = sqrt(sum(one**2 for one in errors)), level(claim), None
        if column == "MME-P":
            pairs = next(n for n in count(2) if intervals.power(effect, error, n, at) >= 0.8)
        rows.append((claim, contrast.what, column, round(effect, 2), error, pairs))
    names = ["claim", "contrast", "column", "effect", "error", "pairs"]
    return pd.DataFrame(rows, columns=names).astype({"pairs": "Int64"})


def _numbers() -> list[tuple[str, Contrast, str]]:
    """Every number that decides a claim about training: claim, contrast, column."""
    pairs = [(claim, one) for claim, many in CONTRASTS.items() for one in many]
    return [(claim, one, column) for claim, one in pairs for column in one.columns]


def number_verdict(low: float, high: float, effect: float) -> str:
    """The verdict on one positive ``effect`` from a re-run's interval ``low`` to ``high``.

    "Contradicted": no gain is seen, and one of the claimed size is excluded; not a smaller one.
    """
    if low > 0:
        return REPRODUCED
    return CONTRADICTED if high < effect else UNRESOLVED


def full_size_effects(records: pd.DataFrame) -> pd.DataFrame:
    """Full-size records held against the claims, a row each deciding number that they cover.

    ``records``: of `ledger.records`. Columns: claim, contrast, column, effect (the paper's), seeds,
    found, low, high, verdict, dropped (the largest share of records left out). Intervals are paired
    Student t over seeds, at `level`; fewer than SEEDS seeds decide nothing.
    """
    rows = []
    reported = effects().set_index(["contrast", "column"])["effect"]
    for claim, contrast, column in _numbers():
        own = records[(records["place"] == contrast.place) & (records["column"] == column)]
        runs = own.pivot(index="seed", columns=["row", "arm"], values="value")
        if not set(contrast.weights) <= set(runs.columns):
            continue
        gains = sum(runs[side] * weight for side, weight in contrast.weights.items()).dropna()
        if len(gains):
            effect, seeds = reported[contrast.what, column], len(gains)
            mean, low, high = intervals.paired(gains, level(claim))
            verdict = number_verdict(low, high, effect) if seeds >= SEEDS else UNRESOLVED
            found = (effect, seeds, mean, low, high, verdict, own["dropped"].max())
            rows.append((claim, contrast.what, column, *found))
    names = ["claim", "contrast", "column", "effect", "seeds", "found", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "verdict", "dropped"])


def claim_verdict(verdicts: Sequence[str], needed: int) -> str:
    """A claim's verdict from its cells': one contradicts it, all ``needed`` reproduce it."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    reproduced = list(verdicts).count(REPRODUCED)
    return REPRODUCED if needed and reproduced == needed else UNRESOLVED


def votes() -> pd.DataFrame:
    """Table 2 tested: GPT4-Vision's lead over Share-Captioner in percentage points of all votes.

    The truth lies between the rows. Columns: votes, lead, low, high, z and p (of a sign test).
    """
    asked = paper.facts("design").set_index(["row", "column"])["value"]["human evaluation"]
    share = paper.facts("table2").set_index("row")["value"] / 100
    decided = share["GPT4-Vision"] + share["Share-Captioner"]
    lead = share["GPT4-Vision"] - share["Share-Captioner"]
    table = pd.DataFrame(index=["votes independent", "votes on an image alike"])
    table["votes"] = [asked["images"] * asked["volunteers"], asked["images"]]
    half = stats.norm.ppf(0.975) * np.sqrt((decided - lead**2) / table["votes"])
    z = lead * np.sqrt(table["votes"]) / sqrt(decided)
    ends = {"low": 100 * (lead - half), "high": 100 * (lead + half)}
    return table.assign(lead=100 * lead, **ends, z=z, p=2 * stats.norm.sf(z))


def verdict_c8(table: pd.DataFrame) -> str:
    """The verdict on C8 from ``votes()``: each reading's interval within ±MARGIN, or none near."""
    if table[["low", "high"]].abs().to_numpy().max() <= MARGIN:
        return REPRODUCED
    apart = (table["low"] > MARGIN) | (table["high"] < -MARGIN)
    return CONTRADICTED if apart.all() else UNRESOLVED


def lengths(files: pd.DataFrame) -> pd.DataFrame:
    """Table 1's mean characters beside those of ``files`` at hand, with a verdict on each row.

    Only a file that is ``whole``, the very one that the paper describes, decides.
    """
    printed = paper.facts("table1").query("column == 'mean characters'").set_index("row")["value"]
    table = printed.rename("reported").to_frame().join(files.set_index("dataset"))
    off = (table["characters"] - table["reported"]).abs()
    table["verdict"] = UNRESOLVED
    whole = table["whole"].fillna(False).astype(bool)
    table.loc[whole & (off <= EXACT), "verdict"] = REPRODUCED
    table.loc[whole & (off > WRONG * table["reported"]), "verdict"] = CONTRADICTED
    return table.rename_axis(index=None)


def leads() -> pd.DataFrame:
    """Table 3: ShareGPT4V-7B against the best other model, and what others found of its score.

    Columns: score, rival, rival's score, lead, then of each re-evaluation that score and its lead
    over the same printed rival: two harnesses in one subtraction, which is the problem.
    """
    table = paper.facts("table3").pivot(index="column", columns="row", values="value")
    table = table.loc[list(paper.BENCHMARKS[: len(table)])]
    own = table.pop("ShareGPT4V-7B (Vicuna-7B)")
    rows = pd.DataFrame({"score": own, "rival": table.idxmax(axis=1), "best": table.max(axis=1)})
    rows["lead"] = (rows["score"] - rows["best"]).round(2)
    for arm in ("repository", "VLMEvalKit"):
        rows[arm] = paper.reevaluations()[arm]
        rows[f"{arm}, lead"] = (rows[arm] - rows["best"]).round(2)
    return rows.rename_axis(index=None)


def same_harness() -> pd.DataFrame:
    """ShareGPT4V-7B − LLaVA-1.5-7B: as Table 3 prints it, and by VLMEvalKit for both models.

    Columns: Table 3, found, low, high; the ends are missing, since nobody published intervals.
    """
    facts = paper.facts("re-evaluation").query("arm == 'VLMEvalKit'")
    found = facts.pivot(index="column", columns="row", values="value")
    printed = paper.facts("table3").pivot(index="column", columns="row", values="value")
    sides = {
        "Table 3": printed["ShareGPT4V-7B (Vicuna-7B)"] - printed["LLaVA-1.5 (Vicuna-7B)"],
        "found": found["ShareGPT4V-7B"] - found["LLaVA-1.5-7B"],
    }
    table = pd.DataFrame(sides).dropna().round(2)
    return table.assign(low=float("nan"), high=float("nan")).rename_axis(index=None)


def verdict_c10(table: pd.DataFrame) -> str:
    """The verdict on C10 from leads over the best rival in one harness, columns low and high.

    Reproduced by LEADS leads above zero, contradicted by too many below it to reach LEADS.
    """
    if (table["low"] > 0).sum() >= LEADS:
        return REPRODUCED
    return CONTRADICTED if (table["high"] < 0).sum() > 11 - LEADS else UNRESOLVED
