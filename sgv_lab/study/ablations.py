"""What Tables 4 to 6 and Figure 6 need beyond pairs: the curve, memory, a plan's part."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import optimize

from sgv_lab import intervals, paper
from sgv_lab.errors import LabError
from sgv_lab.intervals import Interval, jackknife_variance, student_t
from sgv_lab.models import families
from sgv_lab.study import effects, run_arm
from sgv_lab.study.arms import ARMS, arm
from sgv_lab.study.mix import caption_of
from sgv_lab.study.plans import Plan
from sgv_lab.study.run_arm import Job
from sgv_lab.study.runner import Record
from sgv_lab.training import estimates, trainable
from sgv_lab.training.config import base

ROWS, POSITIONS = 16, 800  # of a batch on one GPU: an image's 576 and a dense caption
UNTOLD = "cannot be told"
_EDGE = 1e-2  # of the logarithm of half: nearer to a bound, the fit ends there


@dataclass(frozen=True)
class Curve:
    """score(n) = start + gain · n / (n + half), fitted over seeds; or ``why`` there is none.

    ``gain`` and ``half``: with intervals; ``table``: captions, score, and its band, low and high.
    """

    why: str = ""
    gain: Interval | None = None
    half: Interval | None = None
    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __str__(self) -> str:
        if self.why:
            return f"Saturation could not be estimated: {self.why}"
        (gain, *g), (half, *h) = self.gain, self.half
        return (
            f"a gain of {gain:.1f} ({g[0]:.1f} to {g[1]:.1f}), half of it by {half:,.0f} "
            f"captions ({h[0]:,.0f} to {h[1]:,.0f})"
        )


def saturating(captions: np.ndarray, start: float, gain: float, log_half: float) -> np.ndarray:
    """The curve's score at numbers of ``captions``; half enters by its logarithm."""
    return start + gain * captions / (captions + np.exp(log_half))


def saturation(scores: pd.DataFrame) -> Curve:
    """The curve fitted to ``scores``, seeds by numbers of captions (0 is left out).

    Intervals are those of the jackknife over seeds, since a seed moves all its points. No curve is
    given where none is identified: with fewer than four numbers or three seeds, where a fit ends at
    a bound (half the gain lies outside the numbers tried), or where the gain's interval holds 0.
    """
    scores = scores[sorted(n for n in scores if n > 0)]
    n, y = scores.columns.to_numpy(float), scores.to_numpy(float)
    if y.shape[1] < 4 or len(y) < 3:
        here = f"numbers of captions here: {y.shape[1]}, seeds: {len(y)}"
        return Curve(f"it needs four numbers of captions and three seeds; {here}")
    low, high = np.log(n[[0, -1]])
    bounds = ([-np.inf, -np.inf, low], [np.inf, np.inf, high])
    at, rows = np.geomspace(n[0], n[-1], 100), []
    for line in (y.mean(0), *(np.delete(y, seed, 0).mean(0) for seed in range(len(y)))):
        first = (line[0], line[-1] - line[0], (low + high) / 2)
        fit, _ = optimize.curve_fit(saturating, n, line, first, bounds=bounds, x_scale="jac")
        if min(fit[2] - low, high - fit[2]) < _EDGE:
            return Curve("the fit runs to the edge of the tested range")
        rows.append([*fit[1:], *saturating(at, *fit)])
    variances = jackknife_variance(np.array(rows[1:]))
    gain, half, *band = (
        student_t(estimate, variance, len(y))
        for estimate, variance in zip(rows[0], variances, strict=True)
    )
    if gain[1] <= 0 <= gain[2]:
        return Curve(f"no gain is seen, {gain[0]:+.1f} ({gain[1]:.1f} to {gain[2]:.1f})")
    table = pd.DataFrame(band, columns=["score", "low", "high"])
    table.insert(0, "captions", at)
    return Curve("", gain, tuple(float(np.exp(x)) for x in half), table)


def scores_by_number(records: Sequence[Record], score: str) -> pd.DataFrame:
    """Seeds by numbers of captions, from records of Figure 6's arms: what `saturation` takes."""
    runs = effects.by_seed(records, score)
    runs = runs[[name for name in runs if arm(name).group == "Figure 6"]]
    counts = [int(name.partition("@")[2]) for name in runs]
    return runs.set_axis(counts, axis=1).sort_index(axis=1)


def most_against_fewer(scores: pd.DataFrame, level: float = intervals.LEVEL) -> pd.DataFrame:
    """The most captions against each smaller number but none, paired: effect, low, high."""
    *fewer, most = sorted(n for n in scores if n > 0)
    rows = {n: intervals.paired(scores[most] - scores[n], level) for n in fewer}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "low", "high"])


def growth(scores: pd.DataFrame) -> str:
    """How ``scores``, as `saturation` takes them, go on: "grows", "saturates", or neither is known.

    "grows": the last number does better than the one before it; "saturates": it is not seen to, and
    half of the gain lies within the numbers tried.
    """
    if len(scores) < effects.RESOLVES or len([n for n in scores if n > 0]) < 4:
        return UNTOLD
    if most_against_fewer(scores)["low"].iloc[-1] > 0:
        return "grows"
    curve = saturation(scores)
    return UNTOLD if curve.why or curve.gain[0] < 0 else "saturates"


def part(plan: Plan, group: str) -> Plan:
    """``plan`` with one table's arms alone; primary: the last that is compared with another."""
    also = {"before"} if group == "Table 4" else set()
    arms = tuple(name for name in plan.arms if arm(name).group == group or name in also)
    compared = [name for name in arms if arm(name).compared_with]
    if not compared:
        raise LabError(f"has no arms of {group}", where=plan.name, fix="add them to its arms")
    return replace(plan, arms=arms, primary=(compared[-1], plan.primary[1]))


def first_captions(jobs: Iterable[Job]) -> pd.DataFrame:
    """What each arm's pre-training says of its first image, first seed: image, caption, by arm."""
    rows: dict[str, tuple[str, str]] = {}
    for job in jobs:
        if job.config.pretrain and job.arm not in rows:
            first, *_ = json.loads(run_arm.stages(job)[0].records.read_bytes())
            rows[job.arm] = (first["image"], caption_of(first))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["image", "caption"])


def memory() -> pd.DataFrame:
    """What Table 6's arms take in pre-training, by formulas (`training.estimates`); index: the arm.

    For the whole of LLaVA-1.5-7B on one device, float32 weights under bfloat16 autocast, in batches
    of ROWS × POSITIONS; beside it the paper's, whose 16 GPUs shared weights and moments.
    """
    config, rows = families.config("llava-1.5-7b", "paper"), {}
    batch = estimates.LargestBatch(ROWS * POSITIONS, ROWS * (POSITIONS - 576), ROWS)
    table6 = paper.facts("table6").query("column == 'memory'").set_index("row")["value"]
    for one in (one for one in ARMS.values() if one.group == "Table 6"):
        chosen = base("pretrain", {"vision_share": one.changes["pretrain.vision_share"]})
        chosen = chosen.for_tower(config.vision_config.num_hidden_layers)
        learning = trainable.count_trainable(config, chosen)
        parts = estimates.step_memory(config, learning, chosen, batch)
        first = chosen.vision_from
        rows[one.name] = {
            "from block": {None: "none", -1: "all and embeddings"}.get(first, str(first)),
            "learning, million": learning.total("effective") / 1e6,
            "estimated, GB": sum(parts.values()) / 1e9,
            "reported, GB": table6.get(one.row),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def measured(records: Sequence[Record]) -> pd.DataFrame:
    """Arm of Table 6 -> "measured, GB", its highest peak in pre-training on a GPU; else missing."""
    shown = [one for one in records if arm(one.arm).group == "Table 6"]
    on_gpu = [one.pretrain.get("device", "cpu") != "cpu" for one in shown]
    peaks = pd.Series([one.pretrain["peak_bytes"] / 1e9 for one in shown], dtype=float)
    table = peaks.where(on_gpu).groupby([one.arm for one in shown], sort=False).max()
    return table.rename_axis("arm").to_frame("measured, GB")
