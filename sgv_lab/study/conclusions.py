"""From effects to what may be concluded, "nothing" included, in sentences."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sgv_lab import intervals
from sgv_lab.study import ablations, caption_content, criteria, effects, runner
from sgv_lab.study.arms import SURFACE, arm
from sgv_lab.study.criteria import quoted, signed, with_interval
from sgv_lab.study.plans import PILOT, Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import PLAIN, SEEN
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
            f"Ten seeds can detect a difference of {size['detectable']:.1f} {score} (at worst "
            f"{size['at worst']:.1f}). Here oracle − before is {size['oracle − before']:+.1f}."
        )
    if list(plan.arms) == effects.draws(plan.arms):
        found = effects.false_alarms(records, score)
        return (
            f"In {len(found)} comparisons of an annotator with itself (A/A), the test at 5 % finds "
            f"a difference in {100 * (found < 0.05).mean():.1f} %."
        )
    runs = effects.by_seed(records, score)
    base = effects.untuned_by_seed(records, runner.untuned(out), score)
    asked = runs.assign(untuned=base).dropna(axis=1) if criteria.planned(plan) else runs
    sentences = [primary_conclusion(plan, table, asked)]
    if SURFACE in groups:
        quality = caption_content.by_arm(plan, caption_content.on_surface(plan))
        scores = [name for name in (score, SEEN) if name in set(table["score"])]
        sentences += [costs_of_faults(quality, records, name) for name in scores]
    if groups == {"Figure 6"}:
        sentences.append(worth_of_captions(records, score))
    if (lost := runs.lt(base, axis=0).to_numpy().sum()) > runs.size / 2:
        below = f"{lost} of {runs.size} runs lie below the untuned base ({base.mean():,.1f})"
        sentences.append(f"{below}, so a gain here is a smaller loss.")
    if (bases := len({one.base for one in records})) > 1:
        sentences.append(f"The seeds are spread over {bases} bases.")
    return " ".join(sentences)


def primary_conclusion(plan: Plan, table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What follows for this family from the primary endpoint, in a few sentences.

    ``runs``: as `criteria.comparisons` takes them. Nothing follows where the oracle shows no gain;
    what better captions do is not known where those compared differ in filler.
    """
    name, score = plan.primary
    rows = table[table["score"] == score].set_index(["arm", "against"])
    top, base = arm(name).upper_bound, arm(name).compared_with[0]
    main = rows.loc[name, base]
    effect = f"{score} {with_interval(main)}"
    share = plan.baseline.captions.share
    mix = f"{100 * share:.1f} % of the mix detailed captions" if share < 1 else "captions alone"
    head = f"{plan.family}, {_TRAINED[plan.baseline.language_model]} trained, {mix}, "
    head += f"{int(main['seeds'])} paired seeds. "
    if main["seeds"] < effects.RESOLVES:
        return f"{head}{effect}. So few seeds resolve nothing; they show how it works."
    differs = bool(main["low"] > 0 or main["high"] < 0)
    verb = "helps" if main["effect"] > 0 else "hurts"
    verb = verb if differs else "has no measurable effect"
    found = f"{head}{quoted(name)} against {quoted(base)} {verb}: {effect}."
    if not top:  # of how many blocks are trained there is no best that is known
        return found
    if (top, base) not in rows.index:
        what = "Without an oracle nobody knows whether the instrument sees anything."
        return f"{head}{effect}. {what}"
    if (ceiling := rows.loc[top, base])["low"] <= 0:
        what = "do worse than" if ceiling["high"] < 0 else "show no clear gain over"
        what = f"Even true captions {what} {quoted(base)}: {with_interval(ceiling)}."
        return f"{head}This study cannot tell. {what}"
    tests = criteria.comparisons(plan, runs)
    caveats = "".join(f" {one}" for one in (*_caveats(rows, name, base), *criteria.not_met(tests)))
    if unlike := _filler(plan, name, base, top):
        return f"{head}{unlike} The difference: {effect}.{caveats}"
    of_oracle = (f"{100 * main[one]:.0f}" for one in ("share", "share_low", "share_high"))
    part = "That is {} % of what the oracle gains ({} to {} %).".format(*of_oracle)
    if criteria.planned(plan):
        follows = f"By the plan's criteria, corrected together: {criteria.verdict(tests)}."
        return f"{found} {part}{caveats} {follows}"
    return f"{found} {part}" + caveats * differs


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
        f"Better captions and {'less' if mine < its else 'more'} filler cannot be told apart. "
        f"Filler is {mine:.0f} % of the tokens of {quoted(name)}, {its:.0f} % of "
        f"{quoted(base)} and {true:.0f} % of {quoted(top)}."
    )


def _caveats(rows: pd.DataFrame, name: str, base: str) -> list[str]:
    """What weakens an effect besides `criteria`; ``rows``: by (arm, against)."""
    main, caveats = rows.loc[name, base], []
    low, high = main["crossed_low"], main["crossed_high"]
    if low <= 0 <= high:
        reach = signed(f"{low:.1f} to {high:.1f}")
        caveats.append(f"Allowing also for other images ({reach}), it may be nothing.")
    for other, row in rows.loc[name].drop(index=base).iterrows():
        if row["low"] <= 0 and not other.startswith("none@"):  # these are criteria
            caveats.append(f"Against {quoted(other)} no gain is seen: {with_interval(row)}.")
    return caveats


def costs_of_faults(quality: pd.DataFrame, records: Sequence[Record], score: str) -> str:
    """`caption_content.slopes` in words; where filler differs, how far the score only follows it.

    ``quality``: of `caption_content.by_arm`.
    """
    words = {"omission": "left out", "error": "wrong", "invention": "made up"}
    slopes, said = caption_content.slopes(records, score), PLAIN.get(score, score)
    if slopes.empty:
        return f"{said}: so few arms cannot tell what faults cost."
    costs = ", ".join(
        f"{' and '.join(words[one] for one in rates.split(' × '))} {with_interval(row)}"
        + " beyond each" * (" × " in rates)
        for rates, row in slopes.iterrows()
    )
    costs = f"{said} per 10 points of a fault's rate: {costs}."
    if not quality["filler"].max() - quality["filler"].min() >= FILLER:
        return costs
    r = caption_content.follows_filler(quality, records, score)
    follows = f"follows the share of filler in captions (r = {r:.2f} over {len(quality)} arms)"
    return f"{said} {signed(follows)}. Filler may explain all of this: {costs}"


def worth_of_captions(records: Sequence[Record], score: str) -> str:
    """`ablations.most_against_fewer` in words, and how numbers of captions trained alike grow."""
    scores = ablations.scores_by_number(records, score)
    alike = all(one.arm.startswith("alone@") for one in records)
    fewer = max(1, len(scores.columns) - 1)
    level = intervals.level_of_each(fewer) if alike else intervals.LEVEL
    rows = ablations.most_against_fewer(scores, level).iterrows()
    gains = ", ".join(f"{with_interval(row)} against {n:,}" for n, row in rows)
    if not gains:
        return "What more captions are worth cannot be told from one number of them."
    worth = f"{max(scores):,} captions are worth {score} {gains}."
    if alike:
        growth = ablations.growth(scores)
        if growth == ablations.UNTOLD:
            return f"{worth} Whether the score grows with their number cannot be told."
        return f"{worth} With their number the score {growth}."
    return f"The two differ in what is trained, too. Looked at afterwards, {worth}"
