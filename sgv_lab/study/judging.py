"""Which of two captions of an image is better: asking it, keeping the votes, what they say."""

import hashlib
import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sgv_lab import intervals
from sgv_lab.captions.quality import JudgedCaption, judge_caption
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, write_jsonl
from sgv_lab.world.scene import Scene

CHOICES = ("left", "same", "right")
COMPARABLE = "Comparable"  # the paper's word for "same"
DECIDED = 0.735  # share of Table 2's votes that prefer one
NOTICES = 0.7  # share of a caption's facts that a scripted judge notices; assumed


@dataclass(frozen=True)
class Pair:
    """An image's path and two captions of it, by the name of who wrote them."""

    image: str
    captions: tuple[tuple[str, str], tuple[str, str]]  # (source, text) twice

    @property
    def key(self) -> str:
        """Names image and texts: a vote on other texts is a vote on another pair."""
        return hashlib.sha256(json.dumps([self.image, self.captions]).encode()).hexdigest()[:16]

    def shown(self, rater: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """The captions from left to right: at random, but always the same for one rater."""
        flip = random.Random(f"judging/{self.key}/{rater}").random() < 0.5
        return self.captions[::-1] if flip else self.captions


def preferred(pair: Pair, rater: str, choice: str) -> str:
    """The source that a vote prefers, or COMPARABLE."""
    return COMPARABLE if choice == "same" else pair.shown(rater)[choice == "right"][0]


def pairs(captions: Mapping[str, Mapping[str, str]], n: int, seed: int = 0) -> list[Pair]:
    """``n`` pairs (or all), drawn at random from the images that both sources caption.

    ``captions``: two sources' names -> image's path -> caption.
    """
    (a, first), (b, second) = captions.items()
    common = sorted(first.keys() & second.keys())
    if not common:
        called = f"one of {a}'s is called {min(first, default='')!r}, one of {b}'s "
        called += repr(min(second, default=""))
        fix = "caption the same images, and call each by the same path in both"
        raise LabError(f"{a} and {b} caption no image in common: {called}", fix=fix)
    chosen = random.Random(f"judging/{seed}").sample(common, min(n, len(common)))
    return [Pair(image, ((a, first[image]), (b, second[image]))) for image in chosen]


def objects_named(captions: Mapping[str, Mapping[str, str]], boxes: str | Path) -> pd.DataFrame:
    """CHAIR's shares by source, in percent, and the number of captions.

    ``captions`` as `pairs` takes them, of images that all sources caption; ``boxes``: a folder with
    the images' objects, as `chair.score` reads them. Raises LabError for an image not in there.
    """
    from sgv_lab.benchmarks import chair  # needs nltk and textblob, which training does not

    common, rows = sorted(set.intersection(*map(set, captions.values()))), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, said in captions.items():
            asked = [{"image_id": image, "caption": said[image]} for image in common]
            write_jsonl(Path(folder, "captions.jsonl"), asked)
            found = chair.score(Path(folder, "captions.jsonl"), boxes)
            shares = {key: 100 * found[key] for key in ("CHAIRi", "CHAIRs", "Recall")}
            rows[name] = {**shares, "captions": found["captions"]}
    return pd.DataFrame.from_dict(rows, orient="index")


class Votes:
    """A file of votes, JSON lines: pair, image, rater, left, right, choice. Only ever added to."""

    def __init__(self, path: str | Path) -> None:
        self.journal = Journal(path)
        self.path = self.journal.path

    def add(self, pair: Pair, rater: str, choice: str) -> None:
        """Append one vote; when this returns it is on the disk. ``choice``: one of CHOICES."""
        self.add_all([(pair, rater, choice)])

    def add_all(self, votes: Sequence[tuple[Pair, str, str]]) -> None:
        """Append votes, all or none. Several processes may write at once."""
        rows = []
        for pair, rater, choice in votes:
            if choice not in CHOICES:
                what, fix = f"no choice {choice!r}", f"one of {', '.join(CHOICES)}"
                raise LabError(what, where="vote", fix=fix)
            (left, _), (right, _) = pair.shown(rater)
            row = {"pair": pair.key, "image": pair.image, "rater": rater, "left": left}
            rows.append(row | {"right": right, "choice": choice})
        self.journal.append(rows)

    def table(self) -> pd.DataFrame:
        """A row a rater and pair, the last vote, with ``preferred``: a source or COMPARABLE."""
        rows = {}
        for number, vote in enumerate(self.journal.read(), 1):
            try:
                vote["preferred"] = {"same": COMPARABLE}.get(vote["choice"]) or vote[vote["choice"]]
                rows[vote["pair"], vote["rater"]] = vote
            except (KeyError, TypeError) as error:
                where = f"{self.path.name}, line {number}"
                raise LabError("is no vote", where=where, fix="take the line out") from error
        columns = ["pair", "image", "rater", "left", "right", "choice", "preferred"]
        return pd.DataFrame(rows.values(), columns=columns)

    def left(self, asked: Sequence[Pair], rater: str) -> list[Pair]:
        """The pairs ``rater`` has not voted on yet, in an order of the rater's own."""
        table = self.table()
        done = set(table.loc[table["rater"] == rater, "pair"])
        order = random.Random(f"judging/{rater}").sample(list(asked), len(asked))
        return [pair for pair in order if pair.key not in done]


def truthful(
    asked: Sequence[Pair], scenes: Sequence[Scene], raters: int
) -> list[tuple[Pair, str, str]]:
    """Votes of ``raters`` scripted judges who know the truth of each pair's scene: no people.

    Each notices a fact of a caption with probability NOTICES, which is assumed. A wrong one takes
    away as much as one true one gives, to the last rater three. At most one fact's lead is "same".
    """
    votes = []
    for pair, scene in zip(asked, scenes, strict=True):
        judged = {source: judge_caption(text, scene) for source, text in pair.captions}
        for number in range(raters):
            rater = f"knows the truth {number + 1}"
            severity = 1 + 2 * number / max(raters - 1, 1)
            shown = [judged[source] for source, _ in pair.shown(rater)]
            left, right = (_points(one, severity, f"{rater}/{pair.image}") for one in shown)
            lead = left - right
            votes.append((pair, rater, "same" if abs(lead) <= 1 else CHOICES[2 * (lead < 0)]))
    return votes


def _points(found: JudgedCaption, severity: float, who: str) -> float:
    true, wrong = (
        sum(random.Random(f"{who}/{fact}").random() < NOTICES for fact in facts)
        for facts in (found.true, found.mistaken | found.invented)
    )
    return true - severity * wrong


def shares(votes: pd.DataFrame) -> pd.DataFrame:
    """As Table 2: percent of votes by what was preferred, and the two sources' difference.

    Columns: preferred, votes, percent, low, high. The last row tells how often the left caption
    won among decided votes: 50 where nobody favours a side.
    """
    sources = sorted({*votes["left"], *votes["right"]})
    if len(sources) != 2:
        what = f"{len(sources)} sources among {len(votes)} votes"
        raise LabError(what, fix="keep the votes on each two sources in a file of its own")
    first, second = sources
    signs = votes["preferred"].map({first: 1, second: -1, COMPARABLE: 0})
    decided = votes["choice"] != "same"
    rows = {name: (votes["preferred"] == name, votes) for name in (first, second, COMPARABLE)}
    rows[f"{first} − {second}"] = signs, votes
    if decided.any():
        rows["left, of decided"] = (votes["choice"] == "left")[decided], votes[decided]
    table = []
    for name, (values, of) in rows.items():
        ends = intervals.two_way(100.0 * values, of["image"], of["rater"])
        least = -100 if values is signs else 0
        table.append((name, len(of), *np.clip(ends, least, 100).tolist()))
    return pd.DataFrame(table, columns=["preferred", "votes", "percent", "low", "high"])


def agreement(votes: pd.DataFrame) -> dict[str, float]:
    """How alike raters vote: how often two votes on a pair are the same; NaN where none has two."""
    counts = pd.crosstab(votes["pair"], votes["preferred"]).to_numpy()
    sizes = counts.sum(1)
    among = (sizes * (sizes - 1)).sum()
    return {"same vote": (counts * (counts - 1)).sum() / among if among else math.nan}


def resolution(
    images: int, raters: int, image_share: float, rater_share: float
) -> dict[str, float]:
    """What a study can see of the difference between two sources, in percentage points of votes.

    ``image_share`` and ``rater_share``: how much of a vote's variance all raters of an image, all
    votes of a rater have in common. ``detectable``: the difference that 80 % of such studies show,
    with Student's t as in `intervals.two_way`.
    """
    single = 1 - image_share - rater_share
    variance = image_share / images + rater_share / raters + single / (images * raters)
    fewest, variance = min(images, raters), 100**2 * DECIDED * variance
    return {"detectable": intervals.detectable(fewest) * math.sqrt(variance * fewest)}


def resolutions(images: int, raters: int) -> pd.DataFrame:
    """`resolution` of one panel for a range of shares: image, rater, detectable."""
    rows = [
        {"image": of_image, "rater": of_rater, **resolution(images, raters, of_image, of_rater)}
        for of_image in (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
        for of_rater in (0, 0.02, 0.05)
    ]
    return pd.DataFrame(rows)
