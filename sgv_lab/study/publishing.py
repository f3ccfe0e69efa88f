"""Committed plans, what a study says in words, and its records and figures where readers look."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sgv_lab import notebook
from sgv_lab.files import atomic
from sgv_lab.study import ablations, effects, own, plans, runner
from sgv_lab.study.arms import SURFACE, arm
from sgv_lab.study.caption_content import content
from sgv_lab.study.plans import PILOT, Plan
from sgv_lab.study.runner import RECORDS, UNTUNED, Record
from sgv_lab.study.scores import SEEN
from sgv_lab.study.tuning import POINTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def folder() -> Path:
    """Where plans and recorded studies lie: ``figures/data`` beside the notebooks."""
    return notebook.folder().parent / "figures" / "data"


def recorded(name: str) -> tuple[Plan, list[Record], pd.DataFrame | None]:
    """A committed plan, the records of its whole seeds (none: not run), and their points."""
    plan, out = plans.load(folder() / "plans" / f"{name}.yaml"), folder() / "studies" / name
    found = [r for r in runner.read(out) if r.digest == plan.digest]
    arms = Counter(record.seed for record in found)
    records = [r for r in found if arms[r.seed] == len(plan.arms)]
    return plan, records, _points(out) if records else None


def outdated(plan: Plan, records: Sequence[Record]) -> list[str]:
    """The fields in which recorded runs are not what the same arms would be today, none if none.

    They are compared by design and recipe; `runner.run`, which alone adds runs to a study, compares
    base, questions and code, too.
    """
    now = json.loads(json.dumps({name: one.values() for name, one in plan.designs().items()}))
    found = {
        field
        for record in records
        for field in runner.differences(
            {name: record.config[name] for name in now[record.arm] if name in record.config},
            now[record.arm],
        )
    }
    return sorted(found)


def status() -> pd.DataFrame:
    """Every committed plan: what it is, its runs planned and done, and its budget in hours.

    ``state``: also whether its records are of an earlier design of the same arms.
    """
    rows = {}
    for path in sorted((folder() / "plans").glob("*.yaml")):
        plan, records, _ = recorded(path.stem)
        runs = len(plan.runs())
        state = "not run" if not records else "complete" if len(records) >= runs else "part"
        if outdated(plan, records):
            state += ", by an earlier design"
        rows[plan.name] = (plan.title, len(plan.arms), len(plan.seeds), runs, _hours(plan),
                           len(records), state)  # fmt: skip
    columns = ["about", "arms", "seeds", "runs", "hours on one core or GPU", "done", "state"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("plan")


def _hours(plan: Plan) -> float | None:
    return round(len(plan.runs()) * plan.minutes / 60, 1) if plan.minutes else None


def outline(plan: Plan) -> str:
    """A plan in lines: primary endpoint, arms, seeds, questions, budget."""
    hours = f", {_hours(plan)} hours on one core or GPU, as planned" if plan.minutes else ""
    asked = f"set {plan.questions}: {', '.join(plan.benchmarks)}, {plan.pictures} pictures"
    if plan.profile == "paper":
        asked = f"the official files of {', '.join(plan.benchmarks)}"
    lines = [
        f"{plan.name}: {plan.title}",
        f"family     {plan.family}",
        f"primary    {' on '.join(plan.primary)}, against {arm(plan.primary[0]).against[0]}",
        f"seeds      {', '.join(map(str, plan.seeds))} (from {plan.digest[:12]})",
        f"questions  {asked}",
        f"budget     {len(plan.runs())} runs{hours}",
        *(
            [f"captions   {own.told(plan.baseline.captions.file)}"]
            if plan.baseline.captions.file
            else []
        ),
        *(f"  {name:<14} {arm(name).label}" for name in plan.arms),
    ]
    return "\n".join(lines)


def conclusions() -> pd.DataFrame:
    """Every committed plan and what follows from it in one sentence; "not run" where it was not."""
    rows = {}
    for name in status().index:
        path = folder() / "studies" / name / RECORDS
        written = path.stat().st_mtime_ns if path.is_file() else 0
        rows[name] = _concluded(name, path, written)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["what follows, in miniature"])


@cache  # seconds a study, and every look at the ledger asks for all of them
def _concluded(name: str, path: Path, written: int) -> str:
    """What follows from a committed plan whose records at ``path`` were ``written`` then."""
    plan, records, points = recorded(name)
    if not records:
        return "not run"
    if points is not None:  # a sentence needs the primary endpoint's other pictures alone
        points = points[points["score"] == plan.primary[1]]
    said = _simply(plan, records)
    return said or _follows(plan, records, effects.effects(plan, records, points), path.parent)


def _follows(plan: Plan, records: Sequence[Record], found: pd.DataFrame, out: Path) -> str:
    """What follows from the primary endpoint; from the surface also what each fault costs, from
    Figure 6 what captions are worth among themselves; and whether all of it is a smaller loss."""
    said, score = effects.conclude(plan, found), plan.primary[1]
    groups = {arm(name).group for name in plan.arms}
    if SURFACE in groups:
        held = content(plan)
        scores = [name for name in (score, SEEN) if name in set(found["score"])]
        said += "".join(f". {ablations.faults(held, records, name)}" for name in scores)
    if groups == {"Figure 6"}:
        said += f", but they differ in what is trained, too; {ablations.growth(records, score)}"
    runs, base = effects.by_seed(records, score).stack(), runner.untuned(out).get(score)
    if base is not None and (lost := (runs < base).sum()) > len(runs) / 2:
        said += f". {lost} of {len(runs)} runs lie below the untuned base ({base:,.1f}): what is "
        said += "gained is a smaller loss"
    return said


def _simply(plan: Plan, records: Sequence[Record]) -> str:
    """What follows from a pilot, or from draws of one annotator alone; "" for other plans."""
    if set(plan.arms) <= set(PILOT):
        (_, size), *_ = effects.sizing(records).iterrows()
        return (
            f"ten seeds can detect {size['detectable']:.1f} {plan.primary[1]} (at worst "
            f"{size['at worst']:.1f}); oracle − before is {size['oracle − before']:+.1f}"
        )
    if all(name == "before" or name.startswith("aa") for name in plan.arms):
        rate, pairs = effects.false_alarms(records, plan.primary[1])
        return f"A/A: {rate:.1%} of {pairs} pairs of draws are called different at 5 %"
    return ""


def _points(out: Path) -> pd.DataFrame | None:
    path = out / POINTS
    return pd.read_parquet(path) if path.is_file() else None


def report(plan: Plan, records: Sequence[Record], out: Path) -> str:
    """What follows from a study; from a pilot, what a study of ten seeds could detect."""
    if set(plan.arms) <= set(PILOT):
        return effects.sizing(records).round(2).to_string()
    found = effects.effects(plan, records, _points(out))
    follows = _simply(plan, records) or _follows(plan, records, found, out)
    lines = [found.round(3).to_string(index=False), "", follows]
    if any(arm(name).group == "Figure 6" for name in plan.arms):
        score = plan.primary[1]
        lines.append(f"{score}: {ablations.saturation(ablations.numbers(records, score))}")
    if said := [r.replaced["count"] for r in records if r.arm == own.ARM]:
        lines.append(f"{own.ARM}: {min(said)} of a mix's detailed captions replaced by the file's")
    return "\n".join(lines)


def figure(
    plan: Plan, records: Sequence[Record], found: pd.DataFrame, data: Path | None = None
) -> "Figure":
    """The figure that suits a plan: the surface, the shares replaced, or runs paired by seed.

    ``data``: the folder that holds its study, and with it the base's scores (None: `folder`).
    """
    from sgv_lab.study import figures

    groups = {arm(name).group for name in plan.arms}
    if SURFACE in groups:
        return figures.surface(plan, records, found)
    if groups == {"Figure 6"}:
        return figures.numbers(plan, records)
    if "share replaced" in groups:
        return figures.shares(plan, found)
    base = runner.untuned((data or folder()) / "studies" / plan.name)
    return figures.pairs(plan, records, found, untuned=base)


def publish(plan: Plan, records: Sequence[Record], out: Path, root: Path) -> list[Path]:
    """Copy the records below ``root/data/studies``, draw the figure, write the table behind it."""
    target = root / "data" / "studies" / plan.name
    for name in (RECORDS, POINTS, UNTUNED):
        if (out / name).is_file():
            with atomic(target / name) as temporary:
                shutil.copyfile(out / name, temporary)
    _draw(plan, records, _points(out), root)
    return [target / RECORDS, root / f"{plan.name}.png", root / "data" / f"{plan.name}.csv"]


def redraw(root: Path) -> None:
    """Draw the committed studies' figures into ``root`` anew, from the records that lie there."""
    for name in status().query("done > 0").index:
        _draw(*recorded(name), root)


def _draw(plan: Plan, records: Sequence[Record], points: pd.DataFrame | None, root: Path) -> None:
    """Write a study's figure into ``root``, and the table behind it."""
    from sgv_lab import plotting

    found = effects.effects(plan, records, points)
    plotting.style()
    plotting.save(figure(plan, records, found, root / "data"), root / plan.name, found.round(5))
