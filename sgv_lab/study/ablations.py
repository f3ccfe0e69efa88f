"""What tables and grids need beyond pairs: slopes, a saturating curve, memory, a plan's part."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import stats
from transformers import AutoModelForImageTextToText

from sgv_lab import paper
from sgv_lab.errors import LabError
from sgv_lab.models import families
from sgv_lab.study import effects, statistics, tuning
from sgv_lab.study.arms import ARMS, RATES, SURFACE, arm
from sgv_lab.study.mix import caption_of
from sgv_lab.study.plans import Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.tuning import Job
from sgv_lab.training import estimates, trainable
from sgv_lab.training.config import base

ROWS, POSITIONS = 16, 800  # of a batch on one GPU: a picture's 576 and a dense caption
_POINTS = 100  # of the curve as drawn
_GRID = 800  # values of half that are tried


@dataclass(frozen=True)
class Curve:
    """score(n) = start + gain · n / (n + half), fitted over seeds; or why there is none.

    ``table``: n, score, low, high, the band's ends; empty where ``why`` says what is wrong.
    ``start``, ``gain`` and ``half`` (captions at which half of the gain is there) are
    (estimate, low, high).
    """

    table: pd.DataFrame
    start: tuple[float, float, float] | None = None
    gain: tuple[float, float, float] | None = None
    half: tuple[float, float, float] | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"no saturating curve: {self.why}"
        (gain, *g), (half, *h) = self.gain, self.half
        return (
            f"a gain of {gain:.1f} [{g[0]:.1f}, {g[1]:.1f}], half of it by {half:,.0f} "
            f"[{h[0]:,.0f}, {h[1]:,.0f}] captions"
        )


def saturating(captions: np.ndarray, start: float, gain: float, half: float) -> np.ndarray:
    """The curve's score at numbers of ``captions``."""
    return start + gain * captions / (captions + half)


def saturation(scores: pd.DataFrame) -> Curve:
    """Fit the curve to ``scores``, seeds by numbers of captions (0 is left out).

    Least squares: for a given half the rest is linear, so half is searched for on a fine grid.
    Whole seeds are left out in turn, since a seed moves all its points; this jackknife's error (of
    half, of its logarithm) is taken with Student's t of as many seeds, less one. No curve is given
    where none is identified: with fewer than four numbers or three seeds, where a fit ends at a
    bound (half the gain lies outside the numbers tried), or where the gain's interval holds 0.
    """
    scores = scores[sorted(n for n in scores if n > 0)]
    n, y = scores.columns.to_numpy(float), scores.to_numpy(float)
    if y.shape[1] < 4 or len(y) < 3:
        return _none(f"{y.shape[1]} numbers of captions and {len(y)} seeds; it takes 4 and 3")
    left_out = (y.sum(0) - y) / (len(y) - 1)
    fits, inside = _fits(n, np.vstack([y.mean(0), left_out]))
    if not inside.all():
        return _none("with all seeds or without one, the fit ends at the edge of the numbers tried")
    known = np.column_stack([fits[:, :2], np.log(fits[:, 2])])
    low, high = _ends(known)
    if low[1] <= 0 <= high[1]:
        return _none(f"no gain is seen: {fits[0, 1]:+.1f} [{low[1]:.1f}, {high[1]:.1f}]")
    low[2], high[2] = np.exp([low[2], high[2]])
    at = np.geomspace(n[0], n[-1], _POINTS)
    lines = np.array([saturating(at, *fit) for fit in fits])
    ends = _ends(lines)
    table = pd.DataFrame({"captions": at, "score": lines[0], "low": ends[0], "high": ends[1]})
    return Curve(table, *(tuple(map(float, row)) for row in zip(fits[0], low, high, strict=True)))


def _fits(n: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares (start, gain, half) of each row of ``y`` (D, N): (D, 3), and whether half is
    within the numbers tried, not at a bound: (D,)."""
    half = np.geomspace(n[0], n[-1], _GRID)
    rises = np.stack(np.broadcast_arrays(1.0, n / (n + half[:, None])), -1)  # (grid, N, 2)
    lines = np.einsum("gkn,dn->dgk", np.linalg.pinv(rises), y)
    off = (np.einsum("gnk,dgk->dgn", rises, lines) - y[:, None]) ** 2
    best = off.sum(-1).argmin(1)
    fits = np.concatenate([lines[np.arange(len(y)), best], half[best, None]], 1)
    return fits, (best > 0) & (best < _GRID - 1)


def _ends(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of 95 % about the first row, of all seeds; the others are without one of them."""
    best, left_out = found[0], found[1:]
    seeds = len(left_out)
    width = stats.t.ppf((1 + statistics.LEVEL) / 2, seeds - 1)
    width = width * np.sqrt(seeds - 1) * left_out.std(0)
    return best - width, best + width


def _none(why: str) -> Curve:
    return Curve(pd.DataFrame(columns=["captions", "score", "low", "high"]), why=why)


def numbers(records: Sequence[Record], score: str) -> pd.DataFrame:
    """Seeds by numbers of captions, from records of Figure 6's arms: what `saturation` takes."""
    table = effects.by_seed(records, score)
    table = table[[name for name in table if arm(name).group == "Figure 6"]]
    counts = [int(name.partition("@")[2]) for name in table]
    return table.set_axis(counts, axis=1).sort_index(axis=1)


def slopes(records: Sequence[Record], score: str) -> pd.DataFrame:
    """What ten points more, in percent, of facts left out, wrong or made up are worth.

    Over all of detail × accuracy, a seed at a time: least squares of its arms' scores on the three
    rates that were set and a constant; effect, low, high: the seeds' mean and its paired-t
    interval, in points of ``score``. Index: RATES; empty where the arms do not tell them apart.
    """
    table = effects.by_seed(records, score)
    table = table[[name for name in table if arm(name).group == SURFACE]]
    rates = [[1.0, *(10 * arm(name).delta[rate] for rate in RATES)] for name in table]
    found, _, rank, _ = np.linalg.lstsq(np.array(rates), table.to_numpy().T)
    rows = {}
    if rank == 1 + len(RATES):
        rows = dict(zip(RATES, map(statistics.interval, found[1:]), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "low", "high"])


def follows_filler(held: pd.DataFrame, records: Sequence[Record], score: str) -> float:
    """How the arms' means go with the filler in their captions: Pearson's r.

    ``held``: of `caption_content.content`. Filler varies with the rates that `slopes` sets, as
    omission concentrates it and invention dilutes it, so that neither is told from it.
    """
    means = effects.by_seed(records, score).mean()
    return float(means.corr(held["filler"]))


def faults(held: pd.DataFrame, records: Sequence[Record], score: str) -> str:
    """`slopes` in words, and how far the score only follows the filler (`follows_filler`)."""
    words = {"omission": "left out", "error": "wrong", "invention": "made up"}
    said = [
        f"{words[rate]} {row['effect']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        for rate, row in slopes(records, score).iterrows()
    ]
    told = ", ".join(said) or "cannot be told apart by so few arms"
    r = follows_filler(held, records, score)
    return (
        f"{score} follows the share of filler in captions (r = {r:.2f} over {len(held)} arms), "
        f"from which these are not told: for every 10 % of facts {told}"
    )


def within(scores: pd.DataFrame) -> pd.DataFrame:
    """The most captions against each smaller number but none, paired: effect, low, high.

    ``scores``: of `numbers`. With none, something else is trained as well.
    """
    *fewer, most = sorted(n for n in scores if n > 0)
    rows = {n: statistics.interval(scores[most] - scores[n]) for n in fewer}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "low", "high"])


def growth(records: Sequence[Record], score: str) -> str:
    """`within` in words."""
    scores = numbers(records, score)
    told = [
        f"{row['effect']:+.1f} [{row['low']:.1f}, {row['high']:.1f}] against {n:,}"
        for n, row in within(scores).iterrows()
    ]
    return (
        f"within the curve (looked at afterwards) {max(scores):,} captions are worth {score} "
        + (", ".join(told) or "nothing that could be told: it is one number")
    )


def part(plan: Plan, group: str) -> Plan:
    """``plan`` with its arms of one of the paper's tables alone, to show them.

    Its primary endpoint is the last arm that is compared with another. Raises LabError for a plan
    without such arms.
    """
    arms = tuple(name for name in plan.arms if _shown(name, group))
    compared = [name for name in arms if arm(name).against]
    if not compared:
        raise LabError(f"has no arms of {group}", where=plan.name, fix="add them to its arms")
    return replace(plan, arms=arms, primary=(compared[-1], plan.primary[1]))


def _shown(name: str, group: str) -> bool:
    return arm(name).group == group or (name == "before" and group == "Table 4")


def said(jobs: Iterable[Job]) -> pd.DataFrame:
    """What stage 1 of each arm's first seed says of its first picture.

    Index: arm; columns: picture, caption. Arms of one seed and one source of pictures show the
    same, whoever captions.
    """
    rows: dict[str, tuple[str, str]] = {}
    for job in jobs:
        if job.design.pretrain and job.arm not in rows:
            first, *_ = json.loads(tuning.stages(job)[0].records.read_text(encoding="utf-8"))
            rows[job.arm] = (first["image"], caption_of(first))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["picture", "caption"])


def memory() -> pd.DataFrame:
    """What Table 6's arms take in stage 1: an estimate by formulas (`training.estimates`).

    For the whole of LLaVA-1.5-7B on one device, float32 weights under bfloat16 autocast, in batches
    of ROWS samples of POSITIONS each. Index: the arm. Columns: from block, learning (million
    parameters), estimated, GB, and reported, GB: the paper's, whose 16 GPUs shared weights and
    moments.
    """
    known, found = families.family("llava-1.5-7b"), {}
    config = known.make_config(known.paper)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    batch = estimates.Batch(ROWS * POSITIONS, ROWS * (POSITIONS - 576), ROWS)
    table6 = paper.table6().query("column == 'memory'").set_index("row")["value"]
    for one in (one for one in ARMS.values() if one.group == "Table 6"):
        chosen = base("pretrain", {"vision_share": one.delta["pretrain.vision_share"]})
        chosen = chosen.for_tower(config.vision_config.num_hidden_layers)
        first = chosen.vision_from
        learning = trainable.set_trainable(model, chosen)[1]
        parts = estimates.step_memory(config, learning, chosen, batch, 4, True)
        words = {None: "none", -1: "all and embeddings"}.get(first, str(first))
        reported = table6.get(one.cell[1]) if one.cell else None
        found[one.name] = (
            words, learning.total("effective") / 1e6, sum(parts.values()) / 1e9, reported
        )  # fmt: skip
    columns = ["from block", "learning, million", "estimated, GB", "reported, GB"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("arm")


def measured(records: Sequence[Record]) -> pd.DataFrame:
    """Each Table 6 arm's memory in stage 1 where it was measured: the highest peak on a GPU, in GB.

    Runs on a CPU are missing: a process's memory says nothing of this. Index: arm; column:
    measured, GB.
    """
    peaks: dict[str, float] = {}
    for record in records:
        if arm(record.arm).group == "Table 6":
            gpu = record.pretrain.get("device", "cpu") != "cpu"
            peak = record.pretrain["peak_bytes"] / 1e9 if gpu else np.nan
            peaks[record.arm] = np.fmax(peaks.get(record.arm, np.nan), peak)
    return pd.DataFrame({"measured, GB": pd.Series(peaks, dtype=float)}).rename_axis("arm")
