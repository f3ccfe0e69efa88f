"""From records to effects: every arm minus the arms it is compared with, paired by seed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations

import numpy as np
import pandas as pd
from scipy import stats

from sgv_lab import intervals
from sgv_lab.benchmarks import exam
from sgv_lab.errors import LabError
from sgv_lab.models import shipped
from sgv_lab.models.weights import read_json
from sgv_lab.study.arms import TELLING, arm, cell_of
from sgv_lab.study.plans import BENCHMARKS, Plan
from sgv_lab.study.runner import Record, questions
from sgv_lab.study.scores import BIAS, EXAM_BIAS, SEEN, SUBTASKS

TESTED = tuple(chain.from_iterable(BENCHMARKS.values()))
SHOWN = (*TESTED, SEEN, BIAS, EXAM_BIAS)
COLUMNS = [
    *("arm", "against", "score", "primary", "seeds", "effect", "low", "high", "p", "flip"),
    *("share", "share_low", "share_high", "crossed_low", "crossed_high", "holm"),
]
RESOLVES = 6  # seeds below which no sign-flip p can reach 0.05
Records = Sequence[Record]
Untuned = Mapping[str, Mapping[str, float]]  # base -> its scores: see `runner.untuned`


def tidy(records: Records) -> pd.DataFrame:
    """A row a score of a run: family, arm, seed, score, value; the paper's place, row, cell."""
    devices = {record.provenance["device"] for record in records}
    if len(devices) > 1:
        fix = "run all arms of a comparison on one kind of device"
        raise LabError(f"runs of several devices: {', '.join(sorted(devices))}", fix=fix)
    rows = []
    for one in records:
        scores = one.metrics if one.profile == "paper" else with_seen(one.metrics)
        cell = cell_of(one.arm, one.family)
        rows += [(one.family, one.arm, one.seed, *score, *cell) for score in scores.items()]
    names = ["family", "arm", "seed", "score", "value", "place", "row", "cell"]
    return pd.DataFrame(rows, columns=names)


def with_seen(metrics: Mapping[str, float]) -> dict[str, float]:
    """A miniature's metrics, and SEEN, where MME was asked."""
    parts = [metrics.get(f"MME {name}") for name in SUBTASKS]
    return {**metrics, **({} if None in parts else {SEEN: sum(parts)})}


def by_seed(records: Records, score: str) -> pd.DataFrame:
    """Seeds by arms: one score of every run."""
    table = tidy(records)
    return table[table["score"] == score].pivot(index="seed", columns="arm", values="value")


def means(plan: Plan, records: Records, untuned: Untuned | None = None) -> pd.DataFrame:
    """Arms by scores in miniature: means over seeds; ``untuned``: the bases', for a first row."""
    wide = tidy(records).pivot_table(index="arm", columns="score", values="value")
    wide = wide.reindex(list(plan.arms))[[name for name in SHOWN if name in wide]]
    if untuned:
        first = pd.DataFrame(map(with_seen, untuned.values())).mean()
        wide = pd.concat([first.reindex(wide.columns).to_frame("(untuned)").T, wide])
    return wide.rename_axis(index="arm", columns=None)


def untuned_by_seed(records: Records, untuned: Untuned, score: str) -> pd.Series:
    """Seed -> the score of the base that its runs start from, missing where it is not there."""
    known = {name: with_seen(scores).get(score) for name, scores in untuned.items()}
    return pd.Series({one.seed: known.get(one.base) for one in records}, dtype=float)


def gains(plan: Plan, records: Records, untuned: Untuned) -> pd.DataFrame:
    """What training does in every arm: its runs minus the base that each starts from.

    Columns: arm, score, effect, low, high (paired t over seeds). Without scores that a base lacks.
    """
    rows, scores = [], set(tidy(records)["score"])
    for score in (name for name in TESTED if name in scores):
        start = untuned_by_seed(records, untuned, score)
        gained = by_seed(records, score).sub(start, axis=0)
        known = [] if start.isna().any() else plan.arms
        rows += [(name, score, *intervals.paired(gained[name])) for name in known]
    return pd.DataFrame(rows, columns=["arm", "score", "effect", "low", "high"])


def gate_after(plan: Plan, records: Records, untuned: Untuned) -> pd.DataFrame:
    """What the gate asks of runs (`base.abilities` has the rest), an arm each, every seed alone.

    Captions alone: other images' captions lower "Yes/no" below the untuned base, true ones raise it
    above. After a fine-tuning: "Choice" lies above chance, as it may in the untuned base before.
    Columns: arm, score, bound, bound_low, bound_high, low, high (of the seeds' runs), holds (in how
    many seeds), seeds.
    """
    alone = plan.baseline.captions.share == 1
    score = "Yes/no" if alone else "Choice"
    start = untuned_by_seed(records, untuned, score)
    runs = by_seed(records, score)[list(plan.arms)].assign(untuned=start)
    limit = start
    if not alone:  # percent of the choices that a guesser gets right, the mean over abilities
        choices = pd.read_json(questions(plan) / "exam" / "questions.jsonl", lines=True)
        choices = choices[(choices["form"] == "choice") & choices["ability"].isin(exam.PRIMARY)]
        guessed = 1 / choices["options"].str.len()
        limit = pd.Series(100 * guessed.groupby(choices["ability"]).mean().mean(), runs.index)
    asked = {"shuffled": -1, "oracle": 1} if alone else dict.fromkeys(runs, 1)
    rows = []
    for name, sign in asked.items():
        bound = f"{'above' if sign > 0 else 'below'} {'the untuned base' if alone else 'chance'}"
        ends = (limit.min(), limit.max(), runs[name].min(), runs[name].max())
        holds = int((sign * (runs[name] - limit) > 0).sum())
        rows.append((name, score, bound, *ends, holds, len(runs)))
    ends = ["bound_low", "bound_high", "low", "high"]
    return pd.DataFrame(rows, columns=["arm", "score", "bound", *ends, "holds", "seeds"])


def effects(plan: Plan, records: Records, points: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every arm against what it is compared with, score by score, paired by seed.

    Columns: arm, against, score, primary, seeds, effect, low, high (paired t); p (of that t);
    flip (exact sign-flip p); share, share_low, share_high of ceiling − before (missing where the
    instrument is insensitive); crossed_low, crossed_high (other seeds *and* images; from
    ``points``); holm (p of the secondary endpoints together; controls, which check the instrument,
    and what telling is worth have corrections of their own). Effects are in the miniature's own
    points.

    Seeds lie on several bases where a plan has them. Intervals are over seeds, so they hold for
    other projectors, too; two language models tell little of a third.
    """
    scores = set(tidy(records)["score"])
    rows = []
    for score in (name for name in SHOWN if name in scores):
        runs = by_seed(records, score)
        for name in plan.arms:
            for against in arm(name).compared_with:
                primary = (name, score, against) == (*plan.primary, arm(name).compared_with[0])
                row = {"arm": name, "against": against, "score": score, "primary": primary}
                row |= paired(runs, score, name, against, points)
                rows.append(row | _share(runs, score, name, against))
    if not rows:
        raise LabError("has no two arms to compare", where=plan.name)
    table = pd.DataFrame(rows, columns=COLUMNS)
    apart = table["arm"].map(lambda name: arm(name).group in ("controls", TELLING))
    tested = ~table["primary"] & ~apart & table["score"].isin(TESTED) & table["p"].notna()
    table.loc[tested, "holm"] = intervals.holm(table.loc[tested, "p"])
    return table


def paired(
    runs: pd.DataFrame, score: str, name: str, against: str, points: pd.DataFrame | None = None
) -> dict[str, float]:
    """A row of `effects` but its shares: ``name`` minus ``against`` in ``runs`` (seeds by arms)."""
    d = runs[name] - runs[against]
    effect, low, high = intervals.paired(d)
    found = {"seeds": len(d), "effect": effect, "low": low, "high": high, "p": np.nan}
    found |= {"flip": np.nan, "crossed_low": np.nan, "crossed_high": np.nan}
    if len(d) > 1 and d.std() > 0:
        found |= {"p": stats.ttest_1samp(d, 0).pvalue, "flip": intervals.sign_flip(d)}
    if points is not None:
        own = points["stratum"].isin(SUBTASKS) if score == SEEN else points["score"] == score
        points = points[own]
    if points is not None and len(points):
        mine, its = (_seeds_by_image(points, which) for which in (name, against))
        strata = [stratum for stratum, _ in mine.columns]
        _, low, high = intervals.crossed((mine - its[mine.columns]).to_numpy(), strata)
        found |= {"crossed_low": low, "crossed_high": high}
    return found


def _share(runs: pd.DataFrame, score: str, name: str, against: str) -> dict[str, float]:
    """share, share_low and share_high of `effects`."""
    ceiling, share = arm(name).upper_bound, None
    if ceiling in runs and score not in (BIAS, EXAM_BIAS) and len(runs) > 1:
        top = runs[ceiling] - runs[arm(ceiling).compared_with[0]]
        share = intervals.share_of(runs[name] - runs[against], top)
    return dict(zip(("share", "share_low", "share_high"), share or [np.nan] * 3, strict=True))


def _seeds_by_image(points: pd.DataFrame, name: str) -> pd.DataFrame:
    """Seeds by (stratum, image): one arm's points."""
    part = points[points["arm"] == name]
    words = part.astype({"stratum": str, "image": str})  # not categories, which pivot to all
    return words.pivot(index="seed", columns=["stratum", "image"], values="points")


def power_analysis(records: Records, name: str = "oracle", against: str = "before") -> pd.DataFrame:
    """What a study of ten seeds could see, from a pilot's arms, score by score.

    Columns: ``name`` − ``against`` and its interval, noise (standard deviation of the differences),
    detectable (with 80 % power), at worst (the same at the noise's 80 % upper limit).
    """
    rows = {}
    for score in (name for name in TESTED if name in records[0].metrics):
        runs = by_seed(records, score)
        d = runs[name] - runs[against]
        if d.std():
            rows[score] = *intervals.paired(d), d.std(), *intervals.minimum_detectable(d, 10)
    columns = [f"{name} − {against}", "low", "high", "noise", "detectable", "at worst"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def draws(names: Iterable[str]) -> list[str]:
    """Of arms' names those that are draws of blind GPT-4's captions."""
    return [name for name in names if name == "before" or name.startswith("aa")]


def false_alarms(records: Records, score: str) -> np.ndarray:
    """The paired-t p of every two draws of one annotator's captions (P,), each an A/A study.

    1 where no seed differs. The share below 0.05 is the instrument's own rate of false alarms.
    """
    runs = by_seed(records, score)
    differences = [runs[a] - runs[b] for a, b in combinations(draws(runs), 2)]
    return np.array([stats.ttest_1samp(d, 0).pvalue if d.std() else 1.0 for d in differences])


def language_models(records: Records) -> pd.Series:
    """Seed of a study -> the seed of the shipped language model that its runs start from."""
    bases = shipped.bases(records[0].family)
    made = {base.name: read_json(base / "manifest.json")["made_with"]["seed"] for base in bases}
    return pd.Series({one.seed: made[one.base] for one in records})


def by_language_model(records: Records, name: str, against: str, score: str) -> pd.DataFrame:
    """``name`` − ``against`` over the seeds of each shipped language model, then their difference.

    Columns: effect, low, high (of the difference by Welch's t), seeds. Language models: by seed.
    """
    runs = by_seed(records, score)
    parts = dict(list((runs[name] - runs[against]).groupby(language_models(records))))
    rows = {f"language model {n}": (*intervals.paired(d), len(d)) for n, d in parts.items()}
    if len(parts) == 2:
        first, second = parts.values()
        ends = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
        rows["difference"] = (second.mean() - first.mean(), *ends, len(runs))
    return pd.DataFrame.from_dict(rows, "index", columns=["effect", "low", "high", "seeds"])
