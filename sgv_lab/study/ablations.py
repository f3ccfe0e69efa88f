"""What Tables 4 to 6 and Figure 6 need beyond pairs: the curve, memory, a plan's part."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import optimize
from transformers import AutoModelForImageTextToText

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

ROWS, POSITIONS = 16, 800  # of a batch on one GPU: a picture's 576 and a dense caption
_POINTS = 100  # of the curve as drawn
_EDGE = 1e-2  # of the logarithm of half: nearer to a bound, the fit ends there


@dataclass(frozen=True)
class Curve:
    """score(n) = start + gain · n / (n + half), fitted over seeds; or why there is none.

    ``table``: captions, score, low, high, the band's ends; empty where ``why`` says what is wrong.
    ``start``, ``gain`` and ``half`` (captions at which half of the gain is there): with intervals.
    """

    table: pd.DataFrame
    start: Interval | None = None
    gain: Interval | None = None
    half: Interval | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"no saturating curve: {self.why}"
        (gain, *g), (half, *h) = self.gain, self.half
        return (
            f"a gain of {gain:.1f} [{g[0]:.1f}, {g[1]:.1f}], half of it by {half:,.0f} "
            f"[{h[0]:,.0f}, {h[1]:,.0f}] captions"
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
        return _none(f"{y.shape[1]} numbers of captions and {len(y)} seeds; it takes 4 and 3")
    left_out = [np.delete(y, seed, 0).mean(0) for seed in range(len(y))]
    fits = np.array([_fit(n, line) for line in (y.mean(0), *left_out)])
    if (np.abs(fits[:, 2:] - np.log(n[[0, -1]])) < _EDGE).any():
        return _none("with all seeds or without one, the fit ends at the edge of the numbers tried")
    start, gain, half = _with_ends(fits)
    if gain[1] <= 0 <= gain[2]:
        return _none(f"no gain is seen: {gain[0]:+.1f} [{gain[1]:.1f}, {gain[2]:.1f}]")
    at = np.geomspace(n[0], n[-1], _POINTS)
    lines = _with_ends(np.array([saturating(at, *fit) for fit in fits]))
    table = pd.DataFrame(lines, columns=["score", "low", "high"])
    table.insert(0, "captions", at)
    return Curve(table, start, gain, tuple(float(np.exp(x)) for x in half))


def _fit(n: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares (start, gain, log of half), half within the numbers tried, ``n``."""
    low, high = np.log(n[[0, -1]])
    first = (y[0], y[-1] - y[0], (low + high) / 2)
    bounds = ([-np.inf, -np.inf, low], [np.inf, np.inf, high])
    return optimize.curve_fit(saturating, n, y, first, bounds=bounds, x_scale="jac")[0]


def _with_ends(estimates: np.ndarray) -> list[Interval]:
    """(1 + S, K) estimates, from all seeds and without each of S: K intervals."""
    variances = jackknife_variance(estimates[1:])
    pairs = zip(estimates[0], variances, strict=True)
    return [student_t(estimate, variance, len(estimates) - 1) for estimate, variance in pairs]


def _none(why: str) -> Curve:
    return Curve(pd.DataFrame(columns=["captions", "score", "low", "high"]), why=why)


def scores_by_number(records: Sequence[Record], score: str) -> pd.DataFrame:
    """Seeds by numbers of captions, from records of Figure 6's arms: what `saturation` takes."""
    runs = effects.by_seed(records, score)
    runs = runs[[name for name in runs if arm(name).group == "Figure 6"]]
    counts = [int(name.partition("@")[2]) for name in runs]
    return runs.set_axis(counts, axis=1).sort_index(axis=1)


def most_against_fewer(scores: pd.DataFrame) -> pd.DataFrame:
    """The most captions against each smaller number but none, paired: effect, low, high.

    ``scores``: of `scores_by_number`. With none, something else is trained as well.
    """
    *fewer, most = sorted(n for n in scores if n > 0)
    rows = {n: intervals.paired(scores[most] - scores[n]) for n in fewer}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "low", "high"])


def part(plan: Plan, group: str) -> Plan:
    """``plan`` with its arms of one of the paper's tables alone, to show them.

    Its primary endpoint is the last arm that is compared with another. Raises LabError for a plan
    without such arms.
    """
    arms = tuple(name for name in plan.arms if _shown(name, group))
    compared = [name for name in arms if arm(name).compared_with]
    if not compared:
        raise LabError(f"has no arms of {group}", where=plan.name, fix="add them to its arms")
    return replace(plan, arms=arms, primary=(compared[-1], plan.primary[1]))


def _shown(name: str, group: str) -> bool:
    return arm(name).group == group or (name == "before" and group == "Table 4")


def first_captions(jobs: Iterable[Job]) -> pd.DataFrame:
    """What stage 1 of each arm's first seed says of its first picture: picture, caption, by arm.

    Arms of one seed and one source of pictures show the same, whoever captions.
    """
    rows: dict[str, tuple[str, str]] = {}
    for job in jobs:
        if job.config.pretrain and job.arm not in rows:
            first, *_ = json.loads(run_arm.stages(job)[0].records.read_text(encoding="utf-8"))
            rows[job.arm] = (first["image"], caption_of(first))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["picture", "caption"])


def memory() -> pd.DataFrame:
    """What Table 6's arms take in stage 1: an estimate by formulas (`training.estimates`).

    For the whole of LLaVA-1.5-7B on one device, float32 weights under bfloat16 autocast, in batches
    of ROWS samples of POSITIONS each. Index: the arm. Columns: from block, learning (million
    parameters), estimated, GB, and reported, GB: the paper's, whose 16 GPUs shared weights and
    moments.
    """
    config, rows = families.config("llava-1.5-7b", "paper"), {}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    batch = estimates.LargestBatch(ROWS * POSITIONS, ROWS * (POSITIONS - 576), ROWS)
    table6 = paper.table6().query("column == 'memory'").set_index("row")["value"]
    for one in (one for one in ARMS.values() if one.group == "Table 6"):
        chosen = base("pretrain", {"vision_share": one.changes["pretrain.vision_share"]})
        chosen = chosen.for_tower(config.vision_config.num_hidden_layers)
        first = chosen.vision_from
        learning = trainable.set_trainable(model, chosen)[1]
        parts = estimates.step_memory(config, learning, chosen, batch, 4, True)
        words = {None: "none", -1: "all and embeddings"}.get(first, str(first))
        reported = table6.get(one.cell[1]) if one.cell else None
        sizes = (learning.total("effective") / 1e6, sum(parts.values()) / 1e9)
        rows[one.name] = (words, *sizes, reported)
    columns = ["from block", "learning, million", "estimated, GB", "reported, GB"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def measured(records: Sequence[Record]) -> pd.DataFrame:
    """Each Table 6 arm's memory in stage 1 where it was measured: the highest peak on a GPU, in GB.

    Runs on a CPU are missing: a process's memory says nothing of this. Index: arm; column:
    measured, GB.
    """
    rows = [
        (one.arm, one.pretrain["peak_bytes"] / 1e9 if gpu else None)
        for one in records
        if arm(one.arm).group == "Table 6"
        for gpu in [one.pretrain.get("device", "cpu") != "cpu"]
    ]
    table = pd.DataFrame(rows, columns=["arm", "measured, GB"])
    return table.astype({"measured, GB": float}).groupby("arm", sort=False).max()
