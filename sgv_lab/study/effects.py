"""From records to effects, and from effects to what may be concluded, "nothing" included."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
from scipy import stats

from sgv_lab.errors import LabError
from sgv_lab.study import statistics
from sgv_lab.study.arms import arm, cell_of
from sgv_lab.study.caption_content import content
from sgv_lab.study.plans import BENCHMARKS, Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import BIAS, SEEN, SUBTASKS
from sgv_lab.world.annotators import ANNOTATORS

TESTED = tuple(chain.from_iterable(BENCHMARKS.values()))
SHOWN = (*TESTED, SEEN, BIAS)
RESOLVES = 6  # seeds below which no sign-flip p can reach 0.05
FILLER = 5.0  # percentage points of it from which two arms' captions are not alike in filler


def tidy(records: Sequence[Record]) -> pd.DataFrame:
    """One row a score of a run: family, arm, seed, score, value, and the paper's place, row, arm.

    Raises LabError for runs of several devices: they are not comparable.
    """
    devices = {record.provenance["device"] for record in records}
    if len(devices) > 1:
        fix = "run all arms of a comparison on one kind of device"
        raise LabError(f"runs of several devices: {', '.join(sorted(devices))}", fix=fix)
    rows = []
    for r in records:
        cell = cell_of(r.arm, r.family)
        found = r.metrics if r.profile == "paper" else with_seen(r.metrics)
        rows += [(r.family, r.arm, r.seed, s, v, *cell) for s, v in found.items()]
    names = ["family", "arm", "seed", "score", "value", "place", "row", "cell"]
    return pd.DataFrame(rows, columns=names)


def with_seen(metrics: Mapping[str, float]) -> dict[str, float]:
    """A miniature's metrics, and SEEN, where MME was asked."""
    parts = [metrics.get(f"MME {name}") for name in SUBTASKS]
    return {**metrics, **({} if None in parts else {SEEN: sum(parts)})}


def by_seed(records: Sequence[Record], score: str) -> pd.DataFrame:
    """Seeds by arms: one score of every run."""
    table = tidy(records)
    return table[table["score"] == score].pivot(index="seed", columns="arm", values="value")


def means(
    plan: Plan, records: Sequence[Record], untuned: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Arms by scores in miniature: means over seeds, to be read beside no number of the paper's.

    ``untuned``: what the base scores, for a first row.
    """
    table = tidy(records)
    columns = [name for name in SHOWN if name in set(table["score"])]
    table = table[table["score"].isin(columns)]
    wide = table.pivot_table(index="arm", columns="score", values="value")
    wide = wide.reindex(list(plan.arms))[columns].rename_axis(columns=None)
    if untuned:
        wide = pd.concat([pd.DataFrame({"(untuned)": with_seen(untuned)}).T[columns], wide])
    return wide.rename_axis("arm")


def effects(
    plan: Plan, records: Sequence[Record], points: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Every arm against what it is compared with, score by score, paired by seed.

    Columns: arm, against, score, primary, seeds, effect, low, high (paired t); p (of that t);
    holm (p of the secondary endpoints together, controls aside, which check the instrument);
    flip (exact sign-flip p); share, share_low, share_high of ceiling − before (missing where the
    instrument is insensitive); crossed_low, crossed_high (other seeds *and* pictures; from
    ``points``). Effects are in the miniature's own points.
    """
    rows = []
    known = set(tidy(records)["score"])
    for score in (name for name in SHOWN if name in known):
        table = by_seed(records, score)
        for name in plan.arms:
            for other in arm(name).against:
                rows.append(_row(plan, table, score, name, other, points))
    if not rows:
        raise LabError("has no two arms to compare", where=plan.name)
    found = pd.DataFrame(rows)
    controls = found["arm"].map(lambda name: arm(name).group == "controls")
    tested = ~found["primary"] & ~controls & found["score"].isin(TESTED) & found["p"].notna()
    found["holm"] = np.nan
    found.loc[tested, "holm"] = statistics.holm(found.loc[tested, "p"])
    return found


def _row(
    plan: Plan,
    table: pd.DataFrame,
    score: str,
    name: str,
    other: str,
    points: pd.DataFrame | None,
) -> dict[str, object]:
    ceiling, first = arm(name).ceiling, arm(name).against[0]
    primary = (name, score) == plan.primary and other == first
    row: dict[str, object] = {"arm": name, "against": other, "score": score, "primary": primary}
    found = paired(table, score, name, other, points)
    share = None
    if ceiling in table and score != BIAS and len(table) > 1:
        top = table[ceiling] - table[arm(ceiling).against[0]]
        share = statistics.share_of(table[name] - table[other], top)
    shares = dict(zip(("share", "share_low", "share_high"), share or [np.nan] * 3, strict=True))
    crossed = {key: found.pop(key) for key in ("crossed_low", "crossed_high")}
    return row | found | shares | crossed


def paired(
    table: pd.DataFrame, score: str, name: str, other: str, points: pd.DataFrame | None
) -> dict[str, float]:
    """Arm ``name`` minus ``other`` in ``table`` (seeds by arms): seeds, effect, low, high, p, flip,
    crossed_low and crossed_high, as `effects` tells them."""
    d = (table[name] - table[other]).to_numpy()
    effect, low, high = statistics.interval(d)
    noisy = len(d) > 1 and d.std() > 0
    crossed = np.nan, np.nan
    if points is not None and len(points := _of(points, score)):
        mine, its = (_units(points, which) for which in (name, other))
        _, *crossed = statistics.crossed_interval(
            (mine - its[mine.columns]).to_numpy(), [stratum for stratum, _ in mine.columns]
        )
    return {
        "seeds": len(d),
        "effect": effect,
        "low": low,
        "high": high,
        "p": stats.ttest_1samp(d, 0).pvalue if noisy else np.nan,
        "flip": statistics.sign_flip(d) if noisy else np.nan,
        "crossed_low": crossed[0],
        "crossed_high": crossed[1],
    }


def _of(points: pd.DataFrame, score: str) -> pd.DataFrame:
    """The points that make up a score."""
    if score == SEEN:
        return points[points["stratum"].isin(SUBTASKS)]
    return points[points["score"] == score]


def _units(points: pd.DataFrame, name: str) -> pd.DataFrame:
    """Seeds by (stratum, picture): one arm's points."""
    part = points[points["arm"] == name]
    words = part.astype({"stratum": str, "picture": str})  # not categories, which pivot to all
    return words.pivot(index="seed", columns=["stratum", "picture"], values="points")


def conclude(plan: Plan, found: pd.DataFrame) -> str:
    """One sentence: what follows for this family from the primary endpoint.

    ``found`` is the table of `effects`. Where the oracle cannot be told from before, nothing does;
    where the captions compared differ in filler, what better ones do is not known.
    """
    name, score = plan.primary
    of = found[found["score"] == score].set_index(["arm", "against"])
    top, base = arm(name).ceiling, arm(name).against[0]
    main = of.loc[name, base]
    said = f"{score} {_with_interval(main)}"
    how = "adapters" if plan.baseline.language_model == "lora" else "all weights"
    how += f" trained, {plan.baseline.captions.share:.1%} of the mix detailed captions"
    head = f"{plan.family}, {how}, {int(main['seeds'])} paired seeds: "
    if main["seeds"] < RESOLVES:
        return f"{head}{said}; so few seeds resolve nothing, this shows how it works"
    verb = "helps" if main["effect"] > 0 else "hurts"
    if not top:  # of how many blocks are trained there is no best that is known
        alone = f"{verb}: {said}" if _apart(main) else f"changes nothing that can be seen: {said}"
        return f"{head}{arm(name).label!r}, against {arm(base).label!r}, {alone}"
    if (top, base) not in of.index:
        return f"{head}{said}; without an oracle nobody knows whether the instrument sees anything"
    ceiling = of.loc[top, base]
    if ceiling["high"] < 0:
        return (
            f"{head}no yardstick: even true captions do worse than {_worst(base)} "
            f"({_with_interval(ceiling)}), so nothing is concluded"
        )
    if ceiling["low"] <= 0:
        return (
            f"{head}insensitive: even true captions are not told from {_worst(base)} "
            f"({_with_interval(ceiling)}), so nothing is concluded"
        )
    if unlike := _filler(plan, name, base, top):
        return f"{head}{unlike}: {said}{_caveats(of, name, base)}"
    part = f"{main['share']:.0%} [{main['share_low']:.0%}, {main['share_high']:.0%}] of the oracle"
    if _apart(main):
        return f"{head}{arm(name).label!r} {verb}: {said}, {part}{_caveats(of, name, base)}"
    return f"{head}{arm(name).label!r} changes nothing that can be seen: {said}, {part}"


def _filler(plan: Plan, name: str, base: str, top: str) -> str:
    """That an arm's captions and its base's differ in filler, in words; "" where they do not."""
    arms = [name, base, top]
    drawn = all(plan.designs()[one].captions.annotator in ANNOTATORS for one in arms)
    if plan.profile == "paper" or plan.baseline.captions.file or not drawn:
        return ""  # what others wrote: nobody knows which of it is filler
    mine, its, true = content(plan, arms)["filler"].reindex(arms)
    if not abs(mine - its) >= FILLER:
        return ""
    return (
        f"better captions are not told from {'less' if mine < its else 'more'} filler, which is "
        f"{mine:.0f} % of the tokens of {arm(name).label!r}, {its:.0f} % of "
        f"{arm(base).label!r} and {true:.0f} % of {arm(top).label!r}"
    )


def _caveats(of: pd.DataFrame, name: str, base: str) -> str:
    """What weakens an effect that is apart from 0: false alarm, few pictures, the captions' need.

    ``of``: rows by (arm, against). If dropping the detailed captions does as much, or the arm is
    no better than another that it is compared with, it is not what the better ones say that helps.
    """
    main, found = of.loc[name, base], ""
    if ("aa", "before") in of.index and _apart(of.loc["aa", "before"]):
        found += "; but A/A, the same annotator drawn again, differs too, so this may be noise"
    low, high = main["crossed_low"], main["crossed_high"]
    if low <= 0 <= high:
        found += f"; but over other pictures, too, it may be nothing [{low:.1f}, {high:.1f}]"
    if ("dropped", "before") in of.index:
        without = of.loc["dropped", "before"]
        if _apart(without) and abs(without["effect"]) >= abs(main["effect"]):
            found += f"; but leaving detailed captions out does more, {_with_interval(without)}"
    for other, row in of.loc[name].drop(index=base).iterrows():
        if row["low"] <= 0:
            found += f"; but against {arm(other).label!r} no gain is seen, {_with_interval(row)}"
    return found


def _with_interval(row: pd.Series) -> str:
    return f"{row['effect']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def _worst(base: str) -> str:
    """The captions that an arm's are compared with, in words."""
    return "blind ones" if base.partition("@")[0] == "before" else repr(arm(base).label)


def _apart(row: pd.Series) -> bool:
    return row["low"] > 0 or row["high"] < 0


def sizing(records: Sequence[Record]) -> pd.DataFrame:
    """What a study of ten seeds could see, from a pilot's *oracle − before*, score by score.

    Columns: oracle − before and its interval, noise (standard deviation of the differences),
    detectable (with 80 % power), at worst (the same at the noise's 80 % upper limit).
    """
    rows = {}
    for score in (name for name in TESTED if name in records[0].metrics):
        table = by_seed(records, score)
        d = (table["oracle"] - table["before"]).to_numpy()
        if d.std():
            least = statistics.minimum_detectable(d, 10)
            rows[score] = (*statistics.interval(d), d.std(ddof=1), *least)
    columns = ["oracle − before", "low", "high", "noise", "detectable", "at worst"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def false_alarms(records: Sequence[Record], score: str) -> tuple[float, int]:
    """The instrument's rejection rate where nothing differs, from all A/A draws; pairs of draws."""
    table = by_seed(records, score)
    draws = [name for name in table if name == "before" or name.startswith("aa")]
    return statistics.rejection_rate(table[draws].to_numpy().T)
