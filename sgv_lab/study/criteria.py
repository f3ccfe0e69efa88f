"""What a study shows by criteria fixed before it ran: for the paper, against it, or neither.

Two steps stand as they are, at 5 % each, and the second counts only after the first: true captions
are better than the worst (else the instrument cannot tell), and then the primary endpoint. All else
that the verdict rests on is corrected together (Holm), so that no word of it is wrong by chance in
more than 5 % of the studies in which nothing differs.
"""

import pandas as pd
from scipy import stats

from sgv_lab import intervals
from sgv_lab.study.arms import arm
from sgv_lab.study.plans import Plan

FOR, AGAINST, UNRESOLVED = "for the paper", "against the paper", "not resolved"
CANNOT_TELL, UNSOUND = "the instrument cannot tell", "nothing, before a control is understood"
LEAST = 0.25  # of what true captions gain: a gain whose interval ends below it is none
COLUMNS = ["kind", "arm", "against", "effect", "low", "high", "smallest", "p", "met"]


def planned(plan: Plan) -> bool:
    """Whether a plan states these criteria, as those that ask the exam do."""
    return "exam" in plan.benchmarks and bool(arm(plan.primary[0]).upper_bound)


def comparisons(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """What the verdict rests on, a row each, in `COLUMNS`.

    ``runs``: seeds by arms, the primary score; "untuned" may be among them, the base's. Kinds:
    "ceiling" (true captions against the worst), "primary", "none" (the primary arm against no
    captions; against the base where no arm goes without), "shuffled" (other images' captions
    against none: they must do worse) and "control" (which must not differ). ``low`` and ``high``
    are of 95 %, from the third row on of all those rows together (Bonferroni). ``smallest``: the
    effect that 80 % of such studies would show at that level, by the noise of this comparison.
    """
    name, base = plan.primary[0], arm(plan.primary[0]).compared_with[0]
    stage = name.removeprefix(name.partition("@")[0])
    none = [one for one in runs if one.partition("@")[0] in ("dropped", "questions", "none")]
    none = none or [one for one in runs if one == "untuned"]
    asked = [("ceiling", arm(name).upper_bound, base), ("primary", name, base)]
    asked += [("none", name, one) for one in none]
    asked += [("shuffled", f"shuffled{stage}", one) for one in none[:1]]
    asked += [("control", f"{one}{stage}", base) for one in ("aa", "style")]
    asked = [row for row in asked if row[1] in runs]
    rest = max(1, len(asked) - 2)
    rows = []
    for number, (kind, better, worse) in enumerate(asked):
        gained = runs[better] - runs[worse]
        level = intervals.LEVEL if number < 2 else intervals.level_of_each(rest)
        p = stats.ttest_1samp(gained, 0).pvalue if gained.std() else 1.0
        smallest = intervals.detectable(len(gained), level) * gained.std()
        rows.append((kind, better, worse, *intervals.paired(gained, level), smallest, p))
    found = pd.DataFrame(rows, columns=COLUMNS[:-1])
    found.loc[2:, "p"] = intervals.holm(found.loc[2:, "p"])
    differs, rises = found["p"] < 1 - intervals.LEVEL, found["effect"] > 0
    wanted = {"shuffled": differs & ~rises, "control": ~differs}
    met = [wanted.get(kind, differs & rises)[row] for row, kind in found["kind"].items()]
    return found.assign(met=met)


def least_over_none(found: pd.DataFrame) -> pd.DataFrame:
    """Of `comparisons` the one with no captions whose gain is least; no row where there is none."""
    return found[found["kind"] == "none"].sort_values("effect")[:1]


def verdict(found: pd.DataFrame) -> str:
    """What follows from `comparisons`: one of the five words above."""
    ceiling, *_ = found["effect"]
    if not found["met"].iloc[0]:
        return CANNOT_TELL
    if not found.loc[found["kind"] == "control", "met"].all():
        return UNSOUND
    if found["met"].all():
        return FOR
    gains = found["kind"].isin(["primary", "none"])
    nothing = found.loc[gains, "high"] < LEAST * ceiling
    return AGAINST if nothing.any() else UNRESOLVED


def not_met(found: pd.DataFrame) -> list[str]:
    """Criteria beside the ceiling and the primary endpoint that are not met, a sentence each."""
    words = {"none": "shows no gain", "shuffled": "shows no loss", "control": "differs"}
    return [
        f"{quoted(row['arm'])} against {quoted(row['against'])} {words[row['kind']]}: "
        f"{with_interval(row)}."
        for _, row in found[found["kind"].isin(list(words)) & ~found["met"]].iterrows()
    ]


def quoted(name: str) -> str:
    """An arm's label in quotation marks; "untuned" is the base."""
    return "the untuned base" if name == "untuned" else f"“{arm(name).label}”"


def with_interval(row: pd.Series) -> str:
    """An effect with its interval: "+1.6 (0.5 to 2.6)"."""
    return signed(f"{row['effect']:+.1f} ({row['low']:.1f} to {row['high']:.1f})")


def signed(number: str) -> str:
    """A number's text with true minus signs."""
    return number.replace("-", "−")
