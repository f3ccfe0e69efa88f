"""What the recorded studies could have told: where nothing differs, and how small an effect."""

import numpy as np
import pandas as pd
from scipy import stats

from sgv_lab import intervals
from sgv_lab.study import criteria, effects, publishing

HEADLINES = "headlines.csv"  # the studies that are shown, each with its group and label
ENDS = ("effect", "low", "high", "smallest")


def studies() -> pd.DataFrame:
    """A row a study of HEADLINES: what it found, and the least that it would have found.

    Columns: group, plan, label (HEADLINES'); seeds; verdict; effect, low, high and smallest of the
    primary endpoint, and with "none_" before them of `criteria.least_over_none`, both as in
    `criteria.comparisons`. Where a plan draws the captions of the arm compared with a second time
    (A/A): again, again_low, again_high, again_p (a difference where nothing differs); false_alarms
    and found: how often this pair's noise shows no effect, and one of the size that it should show,
    as one (`intervals.planted`).
    """
    rows = []
    for row in pd.read_csv(publishing.folder() / HEADLINES).to_dict("records"):
        plan, records, _ = publishing.load_study(row["plan"])
        asked = publishing.comparisons(plan, records)
        (primary,) = asked[asked["kind"] == "primary"].to_dict("records")
        none = criteria.least_over_none(asked).to_dict("records")
        runs = effects.by_seed(records, plan.primary[1])
        row |= {"seeds": len(runs), "verdict": criteria.verdict(asked)}
        row |= {name: primary[name] for name in ENDS}
        row |= {f"none_{name}": none[0][name] for name in ENDS if none}
        again = [one for one in runs if one.partition("@")[0] == "aa"]
        rows.append(row | (_again(runs[again[0]] - runs[primary["against"]]) if again else {}))
    return pd.DataFrame(rows)


def _again(apart: pd.Series) -> dict[str, float]:
    """The columns of `studies` that an A/A pair gives, from its difference in every seed."""
    found, low, high = intervals.paired(apart)
    shown = intervals.detectable(len(apart)) * np.sqrt((apart**2).mean())  # as around no effect
    return {
        "again": found,
        "again_low": low,
        "again_high": high,
        "again_p": stats.ttest_1samp(apart, 0).pvalue,
        "false_alarms": intervals.planted(apart, 0),
        "found": intervals.planted(apart, shown),
    }
