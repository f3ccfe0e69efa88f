"""What the recorded studies could have told: where nothing differs, and how small an effect."""

from pathlib import Path

import pandas as pd
from scipy import stats

from sgv_lab import intervals
from sgv_lab.study import criteria, effects, publishing
from sgv_lab.study.arms import arm

HEADLINES = "headlines.csv"  # the studies that are shown, each with its group and label


def studies(data: Path) -> pd.DataFrame:
    """A row a study of HEADLINES in ``data``: what it found, and what it could have found.

    Columns: group, plan, label (HEADLINES'); effect, low, high (the primary endpoint's), verdict;
    smallest (the effect that 80 % of such studies show). Where the plan draws the worst captions
    twice (A/A): again, again_low, again_high, again_p (a difference where nothing differs), and
    false_alarms and found: how often this pair's noise shows no effect, and one of the size that
    it is said to show, as one (`intervals.planted`).
    """
    rows = []
    for row in pd.read_csv(data / HEADLINES).to_dict("records"):
        plan, records, _ = publishing.load_study(row["plan"])
        asked = publishing.comparisons(plan, records)
        (primary,) = asked[asked["kind"] == "primary"].to_dict("records")
        row |= {name: primary[name] for name in ("effect", "low", "high")}
        row |= {"verdict": criteria.verdict(asked), "seeds": len(plan.seeds)}
        row["smallest"] = intervals.smallest_shown(row["low"], row["high"], row["seeds"])
        runs = effects.by_seed(records, plan.primary[1])
        for name in (one for one in runs if one.partition("@")[0] == "aa"):
            apart = runs[name] - runs[arm(name).compared_with[0]]
            ends = ("again", "again_low", "again_high")
            row |= dict(zip(ends, intervals.paired(apart), strict=True))
            row["again_p"] = stats.ttest_1samp(apart, 0).pvalue
            shown = intervals.detectable(len(apart)) * apart.std()
            row |= {"false_alarms": intervals.planted(apart, 0)}
            row |= {"found": intervals.planted(apart, shown)}
        rows.append(row)
    return pd.DataFrame(rows)
