"""What an arm's detailed captions hold (facts, mistakes, filler, which is sentences without a fact,
and stock phrases, which are words without one inside of others), and how far scores follow it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd

from sgv_lab import intervals, notebook
from sgv_lab.captions.quality import judge_caption
from sgv_lab.models import checkpoints
from sgv_lab.models.shipped import shipped
from sgv_lab.study import effects, mix
from sgv_lab.study.arms import RATES, SURFACE, UNTOLD, arm
from sgv_lab.study.plans import Plan
from sgv_lab.study.runner import Record
from sgv_lab.study.scores import POINTS
from sgv_lab.training.config import Mix
from sgv_lab.world.phrases import NOISE, POSES
from sgv_lab.world.scene import MINIATURE, scene

_SHOWN = 200  # images, which nobody trains on
COLUMNS = ["detail", "accuracy", "filler"]
_STOCK = re.compile("|".join(map(re.escape, (*POSES, *NOISE))))


def by_arm(plan: Plan, arms: Sequence[str] = ()) -> pd.DataFrame:
    """What the captions of ``arms`` (none named: all) hold, in percent.

    Detail: of the true facts, those stated (recall); accuracy: of the stated ones, those true
    (precision); filler: of the tokens, those in sentences without a fact; stock: those of stock
    phrases, such as "in full view", which only BLIP's and people's short captions have. Of a study
    recorded in the drawn world's first edition it is what they held then, without stock.
    """
    earlier = first_edition().query("digest == @plan.digest").set_index("arm")
    if len(earlier):
        return earlier.loc[list(arms or plan.arms), COLUMNS]
    designs, alike = plan.configs(), {"images": "same", "share": 1.0, "samples": 0}
    written = {name: replace(designs[name].captions, **alike) for name in arms or plan.arms}
    rows = {name: _content(plan.family, one) for name, one in written.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*COLUMNS, "stock"])


def on_surface(plan: Plan) -> list[str]:
    """Arms that are dots on the surface: those whose rates are set, and the caption sources."""
    groups = (SURFACE, "sources", "Figure 2")
    return [name for name in plan.arms if arm(name).group in groups or name == "oracle"]


@cache
def first_edition() -> pd.DataFrame:
    """plan, digest, arm, `by_arm`'s columns, tokens of as many captions: of the first studies."""
    data = notebook.folder().parent / "figures" / "data"
    return pd.read_csv(data / "captions_first_edition.csv")


@cache  # a sentence, a figure and a table of one study ask for the same
def _content(family: str, shown: Mix) -> tuple[float, ...]:
    tokenizer = checkpoints.load_processor(shipped(family)).tokenizer
    length = lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)  # noqa: E731
    scenes = [scene(i, "eval", "coco", MINIATURE) for i in range(_SHOWN)]
    records = [mix.captioned(one, shown) for one in scenes]
    texts = mix.edited(shown, 0, records)
    judged = [judge_caption(text, one) for text, one in zip(texts, scenes, strict=True) if text]
    true = sum(len(one.true) for one in judged)
    wrong = sum(len(one.mistaken | one.invented) for one in judged)
    omitted = sum(len(one.omitted) for one in judged)
    filler = sum(length(sentence) for one in judged for sentence in one.unparsed)
    tokens = sum(map(length, filter(None, texts)))
    stock = tokens - sum(length(_STOCK.sub("", text)) for text in filter(None, texts))
    shares = (true, true + omitted), (true, true + wrong), (filler, tokens), (stock, tokens)
    return tuple(100 * part / whole if whole else np.nan for part, whole in shares)


def slopes(records: Sequence[Record], score: str) -> pd.DataFrame:
    """What ten points more, in percent, of facts left out, wrong or made up are worth.

    Least squares, a seed at a time, of its arms' scores on the rates that were set; effect, low,
    high: paired t over seeds. Index: RATES; where arms cross each with each, also "omission ×
    error" and so on, what ten points of both are worth beyond that, and all intervals hold together
    (Bonferroni). Empty where the arms do not tell the rates apart.
    """
    runs = effects.by_seed(records, score)
    runs = runs[[name for name in runs if arm(name).group == SURFACE]]
    rates = pd.DataFrame([arm(name).changes for name in runs]).reindex(columns=list(RATES)) * 10
    pairs = list(combinations(RATES, 2))
    if crossed := all((rates[a] * rates[b]).any() for a, b in pairs):
        off = rates - rates.mean()
        rates = rates.assign(**{f"{a} × {b}": off[a] * off[b] for a, b in pairs})
    level = intervals.level_of_each(rates.shape[1]) if crossed else intervals.LEVEL
    return _least_squares(rates, runs, level)


def worth_of_facts(quality: pd.DataFrame, records: Sequence[Record], score: str) -> pd.DataFrame:
    """What ten more true facts told, and ten more wrong ones, are worth, of a hundred in the image.

    A rate of errors takes true facts away and puts wrong ones in their place, so what rates cost
    (`slopes`) says nothing of the two. Here scores of the arms whose rates are set are fitted, a
    seed at a time, to what their captions hold: ``quality``, of `by_arm`. Index "true", "wrong";
    columns effect, low, high (both intervals hold together).
    """
    held = quality[[arm(name).group == SURFACE for name in quality.index]]
    wrong = held["detail"] * (100 / held["accuracy"] - 1)
    told = pd.DataFrame({"true": held["detail"] / 10, "wrong": wrong / 10})
    runs = effects.by_seed(records, score)[list(held.index)]
    return _least_squares(told, runs, intervals.level_of_each(2))


def worth_of_telling(records: Sequence[Record]) -> pd.DataFrame:
    """What telling one kind of fact is worth, in points of each ability's right yes/no answers.

    True and whole captions minus those without it, paired by seed. Rows (told, ability); columns
    effect, low, high, own (whether it is of the ability that is told). The intervals of own
    abilities hold together (Bonferroni), and so do those of all others.
    """
    rows, abilities = {}, ("existence", *UNTOLD)
    others = len(UNTOLD) * (len(abilities) - 1)
    for ability in abilities:
        runs = effects.by_seed(records, f"{POINTS['yesno']} {ability}")
        for kind in UNTOLD:
            own = kind == ability
            level = intervals.level_of_each(len(UNTOLD) if own else others)
            lost = intervals.paired(runs["oracle"] - runs[f"no-{kind}"], level)
            rows[kind, ability] = (*lost, own)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "low", "high", "own"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["told", "ability"])
    return table


def _least_squares(told: pd.DataFrame, runs: pd.DataFrame, level: float) -> pd.DataFrame:
    """What one more of each column of ``told`` is worth: effect, low, high by paired t over seeds.

    ``told``: a row an arm, in the order of the columns of ``runs``, which are scores, a row a seed.
    Empty where the arms do not tell the columns apart.
    """
    design = np.column_stack([np.ones(len(told)), told.astype(float)])
    (_, *found), _, rank, _ = np.linalg.lstsq(design, runs.to_numpy().T)
    rows = {name: intervals.paired(one, level) for name, one in zip(told, found, strict=True)}
    rows = rows if rank == design.shape[1] else {}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "low", "high"])


def follows_filler(quality: pd.DataFrame, records: Sequence[Record], score: str) -> float:
    """Pearson's r of the arms' means and their captions' filler (``quality``: of `by_arm`)."""
    return float(effects.by_seed(records, score).mean().corr(quality["filler"]))
