"""The ledger as people read it: claim, criteria, evidence, verdict, and what nobody has run."""

import logging
from functools import cache
from pathlib import Path

import pandas as pd

from sgv_lab import intervals, paper
from sgv_lab.models import families
from sgv_lab.study import ablations, claims, criteria, plans, publishing
from sgv_lab.study.arms import PAPER_ROWS
from sgv_lab.study.criteria import quoted, with_interval
from sgv_lab.study.effects import by_seed, tidy
from sgv_lab.study.runner import Record, read
from sgv_lab.training.survey import MAX_DROPPED

log = logging.getLogger(__name__)
SIZE = 0.95  # of the family's parameters: tables of embeddings differ by some rows
USUAL_SHARE = 0.145  # of detailed captions in most studies' mix: the paper's for LLaVA-7B
FULL_SIZE = "full_size.csv"  # what was measured at full size by other means: see `records`
FILES = "caption_files.csv"  # mean characters of caption files: see claims.lengths
COMMAND = (  # of a full-size plan; MODELS and data are yours
    "sgv-lab study figures/data/plans/{}.yaml --models-root MODELS --data-root data "
    "--publish figures"
)
_RECORD = ["place", "row", "arm", "column", "seed", "value"]


def records(data: str | Path = "") -> pd.DataFrame:
    """All full-size measurements below ``data`` ("": `publishing.folder`), a row a number.

    They come from records of profile ``paper`` in an arm that stands for a cell of the paper, and
    from FULL_SIZE: place, row, arm, column as in paper.facts, seed, value. ``dropped``: the share
    of its records that a run left out, where known. Others are logged: see `not_full_size`.
    """
    data, tables = Path(data or publishing.folder()), []
    for path in sorted(data.glob("studies/*")):
        found = [one for one in read(path) if one.profile == "paper"]
        why = {(one.arm, one.seed): not_full_size(one, data) for one in found}
        for (arm, seed), wrong in why.items():
            if wrong:
                log.warning("%s, %s, seed %s is not full size: %s", path.name, arm, seed, wrong)
        taken = [one for one in found if not why[one.arm, one.seed]]
        dropped = {(one.arm, one.seed): _dropped(one) for one in taken}
        table = tidy(taken)
        places = zip(table["arm"], table["seed"], strict=True)
        tables.append(table.assign(dropped=[dropped[place] for place in places]))
    full = pd.concat([tidy([]), *tables], ignore_index=True).query("place != ''")
    full = full.drop(columns="arm").rename(columns={"cell": "arm", "score": "column"})
    if (data / FULL_SIZE).is_file():
        text = {"dtype": {"row": str, "arm": str}, "keep_default_na": False}
        full = pd.concat([full, pd.read_csv(data / FULL_SIZE, **text)], ignore_index=True)
    full = full.reindex(columns=[*_RECORD, "dropped"])
    return full.drop_duplicates(_RECORD[:-1])  # two arms of a plan may stand for one cell


def not_full_size(record: Record, data: Path) -> str:
    """Why a record of profile ``paper`` decides nothing, in words; "" if it may.

    Its plan must be a committed one below ``data``, its model as large as the family's, and few
    of its records left out.
    """
    plan = data / "plans" / f"{record.plan}.yaml"
    if not plan.is_file() or plans.load(plan).digest != record.digest:
        return "its plan is not committed"
    needed = _parameters(record.family)
    if record.parameters < SIZE * needed:
        return f"{record.parameters:,} parameters, {record.family} has {needed:,}"
    if (share := _dropped(record)) > MAX_DROPPED:
        return f"{share:.1%} of its records were left out"
    return ""


def _dropped(record: Record) -> float:
    """The largest share of a stage's records that a run left out; 1 where nothing is known."""
    shares = [dropped / whole for dropped, whole in record.left_out().values()]
    return max(shares, default=0.0) if record.records else 1.0


@cache
def _parameters(family: str) -> int:
    """How many the family's model has at full size."""
    return sum(families.counts(families.build(family, "paper", 0, device="meta")).values())


def files(data: str | Path = "") -> pd.DataFrame:
    """Mean characters of the caption files at hand, as `sgv-lab stats --json` counted them."""
    return pd.read_csv(Path(data or publishing.folder()) / FILES)


def tasks() -> pd.DataFrame:
    """What asks each claim: the plans in miniature, the plans and commands at full size.

    Columns: miniature, contrast (the two arms that say it there; empty: the plan's primary ones),
    full size (in the order of the claim's contrasts), not run (what it would take without a plan),
    command (MODEL, DATA and so on are yours).
    """
    text = {"index_col": "claim", "keep_default_na": False}
    table = pd.read_csv(Path(__file__).with_suffix(".csv"), **text)
    for column in ("miniature", "full size"):
        table[column] = table[column].str.split()
    planned = table["full size"].map(lambda names: "\n".join(map(COMMAND.format, names)))
    table["command"] = planned.where(planned != "", table["command"])
    return table


def ledger(data: str | Path = "") -> pd.DataFrame:
    """The ten claims, a row each.

    Columns: statement, reported, full size (what was re-run, or what it would take), verdict,
    miniature (what the committed studies saw, which decides nothing).
    """
    measured, planned = claims.full_size_effects(records(data)), _planned()
    table = paper.claims().set_index("claim")[["statement", "reported"]]
    table["full size"] = [_full_size(claim, measured, planned[claim]) for claim in table.index]
    verdicts = {}
    for claim, contrasts in claims.CONTRASTS.items():
        needed = sum(len(contrast.columns) for contrast in contrasts)
        found = measured.loc[measured["claim"] == claim, "verdict"]
        verdicts[claim] = claims.claim_verdict(list(found), needed)
    lengths = claims.lengths(files(data))
    verdicts["C8"] = claims.verdict_c8(claims.votes())
    verdicts["C9"] = claims.claim_verdict(list(lengths["verdict"]), len(lengths))
    verdicts["C10"] = claims.verdict_c10(claims.same_harness())
    table["verdict"] = pd.Series(verdicts)
    asked, seen = tasks()[["miniature", "contrast"]], publishing.conclusions().iloc[:, 0]
    table["miniature"] = [
        _of_each({one: _of_two_arms(one, arms) if arms else seen[one] for one in named})
        or "no study planned"
        for named, arms in asked.itertuples(index=False)
    ]
    return table


def _of_each(told: dict[str, str]) -> str:
    """What is ``told`` of each of a claim's plans, of several with `label_of`."""
    if len(set(told.values())) < 2:
        return next(iter(told.values()), "")
    return "; ".join(f"{label_of(plan)}: {text}" for plan, text in told.items())


def _of_two_arms(plan: str, arms: str) -> str:
    """What a study shows of two of its arms beside the ones that it was planned for, in words."""
    better, worse = map(quoted, arms.split())
    told = f"{better} against {worse}: {_effect(publishing.folder(), plan, arms)}."
    return f"{told} No criterion was fixed for this."


def verdicts(data: str | Path = "") -> pd.DataFrame:
    """The ledger in one look: each claim, what was printed, how strong that is, verdict, price.

    "beyond chance": how many of a claim's numbers lie more than 1.96 standard errors from 0. "in
    miniature": what each of the claim's recorded studies found, as `_effect` tells it.
    """
    data = Path(data or publishing.folder())
    table, effects = ledger(data), claims.effects()
    beyond = (effects["effect"] > 1.96 * effects["error"]).groupby(effects["claim"])
    counted = beyond.sum().astype(str) + " of " + beyond.size().astype(str)
    table["beyond chance"] = counted.reindex(table.index).fillna("")
    asked = tasks()[["miniature", "contrast"]].itertuples(index=False)
    table["in miniature"] = [
        _of_each({one: _effect(data, one, arms) for one in named}) or "no study"
        for named, arms in asked
    ]
    names = {"statement": "claim", "reported": "the paper printed", "full size": "at full size"}
    columns = ["claim", "the paper printed", "beyond chance", "in miniature", "at full size"]
    return table.rename(columns=names)[[*columns, "verdict"]]


def _effect(data: Path, plan: str, arms: str) -> str:
    """What a study found, such as "Yes/no +1.4 (0.8 to 1.9), shows 0.8: for the paper".

    It shows an effect that 80 % of such studies would. Beside the main comparison stands the one
    with no captions, corrected as in `criteria.comparisons`. ``arms``: the two that are compared,
    of which the plan says nothing; "": the primary ones.
    """
    path = data / f"{plan}.csv"
    if not path.is_file():
        return "not run"
    table = pd.read_csv(path)
    one = table.query("primary").iloc[0]
    if arms:
        of_score = table[table["score"] == one["score"]]
        one = of_score.set_index(["arm", "against"], drop=False).loc[tuple(arms.split())]
    told = f"{one['score']} {with_interval(one)}"
    planned, records, _ = publishing.load_study(plan)
    if one["arm"].startswith("alone@"):  # of a curve its shape says more than its ends
        growth = ablations.growth(ablations.scores_by_number(records, one["score"]))
        return f"{quoted(one['arm'])} over {quoted(one['against'])}: {told}, {growth}"
    runs = by_seed(records, one["score"])
    smallest, _ = intervals.minimum_detectable(runs[one["arm"]] - runs[one["against"]], len(runs))
    told += f", shows {smallest:.1f}"
    if arms or not criteria.planned(planned):
        return told
    found = publishing.comparisons(planned, records)
    for _, least in criteria.least_over_none(found).iterrows():
        told += f"; over {quoted(least['against'])} {with_interval(least)}"
        told += f", shows {least['smallest']:.1f}"
    return f"{told}: {criteria.verdict(found)}"


def label_of(plan: str) -> str:
    """The model of a committed plan, as the paper calls it; where other plans differ, also how."""
    planned = plans.load(publishing.folder() / "plans" / f"{plan}.yaml")
    label, share = PAPER_ROWS.get(planned.family, planned.family), planned.baseline.captions.share
    if planned.baseline.language_model == "full":
        label += ", all weights"
    if share < USUAL_SHARE:
        label += f", {100 * share:.1f} % of the mix"
    return label


def _full_size(claim: str, measured: pd.DataFrame, plans: pd.DataFrame) -> str:
    """What was re-run for a claim, or what it would take."""
    own = measured[measured["claim"] == claim]
    if len(own):
        return "; ".join(
            f"{row.contrast}, {row.column}: {row.found:+.1f} [{row.low:.1f}, {row.high:.1f}], "
            f"{row.seeds} seeds"
            + f", up to {row.dropped:.1%} of the records left out"
            * bool(row.dropped > 0)
            for row in own.itertuples()
        )
    if plans.empty:
        return tasks().loc[claim, "not run"]
    runs, hours = plans[["runs", "hours"]].sum()
    return f"not run; {runs:.0f} runs, about {hours:,.0f} A100-hours"


def _planned() -> dict[str, pd.DataFrame]:
    """Claim -> its full-size plans: runs, hours, and hours of a run."""
    status = publishing.status().rename(columns={"hours on one core or GPU": "hours"})
    status = status[["runs", "hours"]].assign(each=status["hours"] / status["runs"])
    return {claim: status.loc[names] for claim, names in tasks()["full size"].items()}


def what_to_run() -> pd.DataFrame:
    """Per claim: the commands of a full-size re-run, its runs, and its A100-hours.

    The last column is what it would take to show the reported effect on MME-P, by runs of the two
    arms compared alone, with 80 % power. Hours are the plans' own; none was measured.
    """
    effects, planned = claims.effects().dropna(subset="pairs"), _planned()
    rows = {}
    for claim, command in tasks()["command"].items():
        plans, pairs = planned[claim], effects.loc[effects["claim"] == claim, "pairs"].to_numpy()
        numbers = [*plans[["runs", "hours"]].sum(), 2 * (pairs * plans["each"][: len(pairs)]).sum()]
        rows[claim] = [command or "–", *(f"{number:,.0f}" if number else "–" for number in numbers)]
    names = ["commands", "runs", "A100-hours", "for 80 % power on MME-P"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def inconsistencies() -> pd.DataFrame:
    """Where the paper's own numbers contradict its text, or each other: columns where, what."""
    swaps = paper.effects().query("claim in ['C1', 'C2', 'C3'] and gain < 0")
    rows = []
    for row in swaps.itertuples():
        change = f"{row.column} of {row.before.split()[0]} goes from {row.to - row.gain:g}"
        what = f"{change} to {row.to:g}, while the text speaks of consistent gains"
        rows.append(("Figure 2", what))
    sizes = paper.facts("figure6").pivot(index="row", columns="column", values="value")
    sizes = sizes.loc[sorted(sizes.index, key=int)]
    for column, step in sizes.diff().round(2).items():
        for captions, change in step[step < 0].items():
            what = f"{column} falls by {-change:g} at {int(captions):,} captions"
            rows.append(("Figure 6", f"{what}, while its caption speaks of a consistent gain"))
    odd = paper.facts().query("contradicts != ''").drop_duplicates(["place", "row", "arm"])
    for fact in odd.itertuples():
        subject = f"{fact.row} {fact.arm}".strip()
        where = paper.TITLES[fact.place].split(",")[0]
        rows.append((where, f"{subject}, {fact.column} {fact.printed}: {fact.note}"))
    return pd.DataFrame(rows, columns=["where", "what"])
