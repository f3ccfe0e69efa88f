"""What the ShareGPT4V paper reports (arXiv 2311.12793), and what others published about it.

These are never our results. Benchmarks are named as in the paper's Table 3, MME's two parts MME-P
(perception) and MME-C (cognition).
"""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

TITLES = {  # place -> what it is: the paper's own, the authors', from "re-evaluation" on others'
    "table1": "Table 1, caption datasets",
    "figure2": "Figure 2, substitution in supervised fine-tuning",
    "table2": "Table 2, human evaluation",
    "table3": "Table 3, eleven benchmarks",
    "table4": "Table 4, where the captions are used",
    "table5": "Table 5, pre-training captions on the same images",
    "table6": "Table 6, learnable blocks of the vision encoder",
    "figure6": "Figure 6, number of pre-training captions",
    "design": "how the experiments were set up",
    "abstract": "the abstract",
    "text": "the running text",
    "repository": "the authors' repository",
    "model zoo": "the authors' model zoo",
    "cost": "what the authors' two training stages took",
    "noise": "how far runs differ, how many questions are asked",
    "re-evaluation": "the released checkpoints, evaluated by others",
    "pope": "POPE, evaluated by others",
    "lexical": "lexical composition, published by others",
    "zero-shot captions": "zero-shot captions, evaluated by others",
    "detailed captions": "DetailCaps-4870, evaluated by others",
    "densefusion": "DenseFusion-1M's comparison",
    "caprl": "CapRL's comparison",
}
BENCHMARKS = (  # in Table 3's order, then those reported elsewhere
    *("LLaVA-W", "MME-P", "MME-C", "MMB", "MMB-CN", "SEED-I", "MM-Vet", "QBench", "SQA-I"),
    *("VQAv2", "VizWiz", "GQA", "TextVQA", "POPE", "MME", "MMMU-val"),
)


def _csv(name: str, **how: Any) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"), keep_default_na=False, **how)


@cache
def _read() -> pd.DataFrame:
    table = _csv("numbers", dtype=str).rename(columns={"value": "printed"})
    table.insert(4, "value", pd.to_numeric(table["printed"], errors="coerce"))
    return table


def facts(place: str | None = None) -> pd.DataFrame:
    """Every published fact, tidy; with ``place`` (a key of TITLES) only that table's.

    Columns: place, row, arm, column, value (a number, missing where the fact is a word), printed
    (as it stands there), unit, version, source, note, sure, contradicts (a key of TITLES or "").
    """
    table = _read().copy()
    return table if place is None else table[table["place"] == place].reset_index(drop=True)


def claims() -> pd.DataFrame:
    """The ten claims: claim, statement, place, reported, noise."""
    return _csv("claims")


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A tidy table as it is printed: rows by columns, benchmarks in Table 3's order, "–": none."""
    keys = ["row", "arm"] if table["arm"].any() else ["row"]
    order = {name: i for i, name in enumerate(BENCHMARKS)}
    columns = sorted(table["column"].unique(), key=lambda column: order.get(column, -1))
    shape = table.pivot(index=keys, columns="column", values="printed")[columns]
    rows = pd.MultiIndex.from_frame(table[keys].drop_duplicates())
    shape = shape.reindex(rows if len(keys) > 1 else rows.get_level_values(0))
    return shape.fillna("–").rename_axis(columns=None)


def comparisons() -> pd.DataFrame:
    """What each claim compares: claim, contrast, sign, place, before, after, columns.

    Rows of one ``contrast``, signed and added up, are the number that decides a claim, in each of
    its ``columns``; without a contrast a row decides nothing. C9 compares nothing. Sides are named
    by their row and arm in `facts`.
    """
    return _csv("comparisons")


def effects() -> pd.DataFrame:
    """Each of `comparisons` in printed numbers: claim, before, after, column, from, to, gain."""
    table = facts()
    table["side"] = (table["row"] + " " + table["arm"]).str.strip()
    sides = dict(list(table.groupby(["place", "side"], sort=False)))
    rows = []
    for one in comparisons().itertuples():
        names = (one.before, one.after)
        old, new = (sides[one.place, x].set_index("column")["value"].dropna() for x in names)
        for column in old.index.intersection(new.index, sort=False):
            gain = round(new[column] - old[column], 2)
            rows.append((one.claim, *names, column, old[column], new[column], gain))
    return pd.DataFrame(rows, columns=["claim", "before", "after", "column", "from", "to", "gain"])


def reevaluations() -> pd.DataFrame:
    """The released ShareGPT4V-7B, benchmark by benchmark: as published and as others found it.

    Columns: published (Table 3 and the model zoo), repository (the authors' own evaluation code,
    run by a user), VLMEvalKit, and the two differences from the published number.
    """
    others = facts("re-evaluation").query("row == 'ShareGPT4V-7B'")
    theirs = others.pivot(index="column", columns="arm", values="value")
    own = facts()[lambda t: t["row"].isin(["ShareGPT4V-7B (Vicuna-7B)", "ShareGPT4V-7B"])]
    own = own[own["place"].isin(["table3", "model zoo", "text"])]
    table = theirs[["repository", "VLMEvalKit"]].copy()
    table.insert(0, "published", own.set_index("column")["value"])
    table = table.loc[sorted(table.index, key=BENCHMARKS.index)].dropna(subset="published")
    for arm in ("repository", "VLMEvalKit"):
        table[f"{arm} − published"] = (table[arm] - table["published"]).round(2)
    return table.rename_axis(index=None, columns=None)
