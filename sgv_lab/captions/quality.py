"""How good captions are where the truth is known: in the drawn world.

A caption is read back into facts and compared with its scene. *Precision* is the share of its
facts that hold, *recall* the share of the scene's facts it tells, and *invented* the share of its
facts about something that is not in the image at all; the rest of what is wrong is *mistaken*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sgv_lab.world.export import difficulty_of
from sgv_lab.world.facts import FACETS, Fact, facts, holds
from sgv_lab.world.reader import read
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import FULL, Difficulty, Scene

if TYPE_CHECKING:
    from sgv_lab.captions.convert import Captions

FACET_NAMES = tuple(dict.fromkeys(FACETS.values()))


@dataclass(frozen=True)
class JudgedCaption:
    """A caption's facts: those that hold, those mistaken, those invented, and those it leaves out.

    ``unparsed``: its sentences that state no known fact.
    """

    true: frozenset[Fact]
    mistaken: frozenset[Fact]
    invented: frozenset[Fact]
    omitted: frozenset[Fact]
    unparsed: tuple[str, ...]


def judge_caption(caption: str, scene: Scene) -> JudgedCaption:
    """``caption`` against ``scene``."""
    reading, truth = read(caption), facts(scene)
    true = frozenset(fact for fact in reading.facts if holds(fact, scene))
    wrong = reading.facts - true
    # what there is: things, and for facts about the whole image their kinds
    there = {fact.subject or fact.kind for fact in truth}
    invented = frozenset(fact for fact in wrong if (fact.subject or fact.kind) not in there)
    return JudgedCaption(true, wrong - invented, invented, truth - reading.facts, reading.unparsed)


def judgeable(captions: Mapping[str, "Captions | None"], root: str | Path) -> dict[str, "Captions"]:
    """Those whose every image is of the drawn world at ``root``; none for photos."""
    if difficulty_of(root) is None:
        return {}
    found = {}
    for name, one in captions.items():
        images = one.rows().select("image").unique().collect()["image"] if one else [None]
        if all(image and (Path(root) / image).is_file() for image in images):
            found[name] = one
    return found


def quality(
    captions: "Captions", facets: bool = False, difficulty: Difficulty = FULL
) -> pd.DataFrame:
    """Facts a caption, precision, recall and invented share, with 95 % intervals over captions.

    One row ("all"), or one a facet. Columns: facet, captions, facts, then for precision, recall
    and invented the share, ``..._low`` and ``..._high``. The captions are a sample of what the
    annotator would write, so the population counts as endless. Raises LabError if an image is
    not one of the drawn world.
    """
    table = captions.rows().select("image", "caption").collect()
    judged = (judge_caption(text, scene_of(image, difficulty)) for image, text in table.iter_rows())
    return quality_of(list(judged), facets)


def quality_of(found: Sequence[JudgedCaption], facets: bool = False) -> pd.DataFrame:
    """The table of `quality`, of captions that were judged."""
    from sgv_lab.captions.statistics import ratio

    rows = []
    for facet in FACET_NAMES if facets else ("all",):
        true, mistaken, invented, omitted = (
            np.array([_count(getattr(one, kind), facet) for one in found])
            for kind in ("true", "mistaken", "invented", "omitted")
        )
        said = true + mistaken + invented
        row: dict[str, object] = {"facet": facet, "captions": len(found), "facts": said.mean()}
        for name, parts, wholes in (
            ("precision", true, said),
            ("recall", true, true + omitted),
            ("invented", invented, said),
        ):
            share = np.clip(ratio(parts, wholes), 0, 1).tolist()
            row[name], row[f"{name}_low"], row[f"{name}_high"] = share
        rows.append(row)
    return pd.DataFrame(rows)


def _count(found: frozenset[Fact], facet: str) -> int:
    return sum(facet in ("all", FACETS[fact.kind]) for fact in found)
