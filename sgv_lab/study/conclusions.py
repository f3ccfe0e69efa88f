"""From effects to what may be concluded, "nothing" included, in sentences."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sgv_lab import intervals
from sgv_lab.study import ablations, caption_content, criteria, effects, runner
from sgv_lab.study.arms import SURFACE, arm
from sgv_lab.study.plans import PILOT, Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import SEEN
from sgv_lab.world.annotators import ANNOTATORS

_TRAINED = {"lora": "adapters", "full": "all weights", "frozen": "the projector"}
FILLER = 5.0  # percentage points of it from which two arms' captions are not alike in filler


def conclusion(plan: Plan, records: Sequence[Record], table: pd.DataFrame, out: Path) -> str:
    """What follows from a study, ``table`` being its `effects.effects` and ``out`` its folder.

    For a pilot, what ten seeds could detect; for draws of one annotator alone, the false-alarm
    rate; else `primary_conclusion`, and whether all of it is a smaller loss.
    """
    score = plan.primary[1]
    groups = {arm(name).group for name in plan.arms}
    if set(plan.arms) <= set(PILOT):
        (_, size), *_ = effects.power_analysis(records).iterrows()
        return (
            f"ten seeds can detect {size['detectable']:.1f} {score} (at worst "
            f"{size['at worst']:.1f}); oracle − before is {size['oracle − before']:+.1f}"
        )
    if all(name == "before" or name.startswith("aa") for name in plan.arms):
        rate, pairs = effects.false_alarm_rate(records, score)
        return f"A/A: {rate:.1%} of {pairs} pairs of draws are called different at 5 %"
    runs = effects.by_seed(records, score)
    base = effects.untuned_by_seed(records, runner.untuned(out), score)
    asked = runs.assign(untuned=base).dropna(axis=1) if criteria.planned(plan) else runs
    sentence = primary_conclusion(plan, table, asked)
    if SURFACE in groups:
        quality = caption_content.by_arm(plan, caption_content.on_surface(plan))
        scores = [name for name in (score, SEEN) if name in set(table["score"])]
        sentence += "".join(f". {costs_of_faults(quality, records, name)}" for name in scores)
    if groups == {"Figure 6"}:
        sentence += worth_of_captions(records, score)
    if (lost := runs.lt(base, axis=0).to_numpy().sum()) > runs.size / 2:
        sentence += f". {lost} of {runs.size} runs lie below the untuned base ({base.mean():,.1f})"
        sentence += ": what is gained is a smaller loss"
    if (bases := len({one.base for one in records})) > 1:
        sentence += f". The seeds are spread over {bases} bases"
    return sentence


def primary_conclusion(plan: Plan, table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """One sentence: what follows for this family from the primary endpoint.

    ``runs``: its score, seeds by arms, as `criteria.comparisons` takes it. Where the oracle cannot
    be told from before, nothing follows; where the captions compared differ in filler, what better
    ones do is not known.
    """
    name, score = plan.primary
    rows = table[table["score"] == score].set_index(["arm", "against"])
    top, base = arm(name).upper_bound, arm(name).compared_with[0]
    main = rows.loc[name, base]
    effect = f"{score} {_with_interval(main)}"
    how = _TRAINED[plan.baseline.language_model]
    how += f" trained, {plan.baseline.captions.share:.1%} of the mix detailed captions"
    head = f"{plan.family}, {how}, {int(main['seeds'])} paired seeds: "
    if main["seeds"] < effects.RESOLVES:
        return f"{head}{effect}; so few seeds resolve nothing, this shows how it works"
    verb = "helps" if main["effect"] > 0 else "hurts"
    verb = verb if _excludes_zero(main) else "changes nothing that can be seen"
    if not top:  # of how many blocks are trained there is no best that is known
        return f"{head}{arm(name).label!r}, against {arm(base).label!r}, {verb}: {effect}"
    if (top, base) not in rows.index:
        what = "without an oracle nobody knows whether the instrument sees anything"
        return f"{head}{effect}; {what}"
    if (ceiling := rows.loc[top, base])["low"] <= 0:
        worst = "blind ones" if base.partition("@")[0] == "before" else repr(arm(base).label)
        what = "insensitive: even true captions are not told from"
        if ceiling["high"] < 0:
            what = "no yardstick: even true captions do worse than"
        return f"{head}{what} {worst} ({_with_interval(ceiling)}), so nothing is concluded"
    found = criteria.comparisons(plan, runs)
    unmet = criteria.not_met(found)
    caveats = _caveats(rows, name, base) + f"; but {unmet}" * bool(unmet)
    if unlike := _filler(plan, name, base, top):
        return f"{head}{unlike}: {effect}{caveats}"
    part = f"{main['share']:.0%} [{main['share_low']:.0%}, {main['share_high']:.0%}] of the oracle"
    said = f"{head}{arm(name).label!r} {verb}: {effect}, {part}"
    if criteria.planned(plan):
        return f"{said}{caveats}; by the criteria fixed beforehand: {criteria.verdict(found)}"
    return said + caveats * bool(_excludes_zero(main))


def _filler(plan: Plan, name: str, base: str, top: str) -> str:
    """That an arm's captions and its base's differ in filler, in words; "" where they do not."""
    arms = [name, base, top]
    drawn = all(plan.configs()[one].captions.annotator in ANNOTATORS for one in arms)
    if plan.profile == "paper" or plan.baseline.captions.file or not drawn:
        return ""  # what others wrote: nobody knows which of it is filler
    mine, its, true = caption_content.by_arm(plan, arms)["filler"].reindex(arms)
    if not abs(mine - its) >= FILLER:
        return ""
    return (
        f"better captions are not told from {'less' if mine < its else 'more'} filler, which is "
        f"{mine:.0f} % of the tokens of {arm(name).label!r}, {its:.0f} % of "
        f"{arm(base).label!r} and {true:.0f} % of {arm(top).label!r}"
    )


def _caveats(rows: pd.DataFrame, name: str, base: str) -> str:
    """What weakens an effect besides `criteria`: few images; no gain over another arm.

    ``rows``: by (arm, against).
    """
    main, caveats = rows.loc[name, base], ""
    low, high = main["crossed_low"], main["crossed_high"]
    if low <= 0 <= high:
        caveats += f"; but over other pictures, too, it may be nothing [{low:.1f}, {high:.1f}]"
    for other, row in rows.loc[name].drop(index=base).iterrows():
        if row["low"] <= 0 and not other.startswith("none@"):  # these are criteria
            caveats += f"; but against {arm(other).label!r} no gain is seen, {_with_interval(row)}"
    return caveats


def _with_interval(row: pd.Series) -> str:
    return f"{row['effect']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def _excludes_zero(row: pd.Series) -> bool:
    return row["low"] > 0 or row["high"] < 0


def costs_of_faults(quality: pd.DataFrame, records: Sequence[Record], score: str) -> str:
    """`caption_content.slopes` in words; where filler differs, how far the score only follows it.

    ``quality``: of `caption_content.by_arm`.
    """
    words = {"omission": "left out", "error": "wrong", "invention": "made up"}
    costs = ", ".join(
        f"{' and '.join(words[one] for one in rates.split(' × '))} {_with_interval(row)}"
        + " beyond each" * (" × " in rates)
        for rates, row in caption_content.slopes(records, score).iterrows()
    )
    costs = f"for every 10 % of facts {costs or 'cannot be told apart by so few arms'}"
    if not quality["filler"].max() - quality["filler"].min() >= FILLER:
        return f"{score}: {costs}"
    r = caption_content.follows_filler(quality, records, score)
    return (
        f"{score} follows the share of filler in captions (r = {r:.2f} over {len(quality)} arms), "
        f"from which these are not told: {costs}"
    )


def worth_of_captions(records: Sequence[Record], score: str) -> str:
    """`ablations.most_against_fewer` in words, and how numbers of captions trained alike grow."""
    scores = ablations.scores_by_number(records, score)
    alike = all(one.arm.startswith("alone@") for one in records)
    fewer = max(1, len(scores.columns) - 1)
    level = 1 - 0.05 / fewer if alike else intervals.LEVEL
    rows = ablations.most_against_fewer(scores, level).iterrows()
    gains = ", ".join(f"{_with_interval(row)} against {n:,}" for n, row in rows)
    gains = gains or "nothing that could be told: it is one number"
    gains = f"{max(scores):,} captions are worth {score} {gains}"
    if alike:
        return f"; {gains}; with their number the score {ablations.growth(scores)}"
    return (
        ", but they differ in what is trained, too; within the curve (looked at afterwards) "
        f"{gains}"
    )
