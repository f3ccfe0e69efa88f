"""Committed plans and their recorded studies: what there is, and what follows."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from sgv_lab import notebook
from sgv_lab.errors import LabError
from sgv_lab.files import atomic
from sgv_lab.models import checkpoints
from sgv_lab.provenance import git
from sgv_lab.study import (
    ablations,
    criteria,
    effects,
    explore,
    plans,
    run_arm,
    runner,
    user_captions,
)
from sgv_lab.study.arms import arm
from sgv_lab.study.conclusions import conclusion
from sgv_lab.study.plans import PILOT, Plan
from sgv_lab.study.run_arm import POINTS
from sgv_lab.study.runner import RECORDS, Record


def folder() -> Path:
    """Where plans and recorded studies lie: ``figures/data`` beside the notebooks."""
    return notebook.folder().parent / "figures" / "data"


def load_study(name: str) -> tuple[Plan, list[Record], pd.DataFrame | None]:
    """A committed plan, the records of its whole seeds (none: not run), and their points."""
    plan, out = plans.load(folder() / "plans" / f"{name}.yaml"), folder() / "studies" / name
    records = [one for one in runner.read(out) if one.digest == plan.digest]
    arms = Counter(record.seed for record in records)
    records = [one for one in records if arms[one.seed] == len(plan.arms)]
    return plan, records, points_of(out) if records else None


def points_of(out: Path) -> pd.DataFrame | None:
    """Points by image of the runs in a study's folder, where they were gathered."""
    path = out / POINTS
    if not path.is_file():
        return None
    return pd.read_parquet(path).rename(columns={"picture": "image"})  # its earlier name


def outdated(plan: Plan, records: Sequence[Record]) -> list[str]:
    """The fields of their configs in which recorded runs are not what the arms would be today."""
    now = json.loads(json.dumps({name: one.values() for name, one in plan.configs().items()}))
    fields = set()
    for record in records:
        before = {key: record.config[key] for key in now[record.arm] if key in record.config}
        fields.update(runner.differences(before, now[record.arm]))
    return sorted(fields)


def status() -> pd.DataFrame:
    """Every committed plan: what it is, its runs planned and done, and its budget in hours."""
    rows = {}
    for path in sorted((folder() / "plans").glob("*.yaml")):
        plan, records, _ = load_study(path.stem)
        runs, done = len(plan.runs()), len(records)
        state = "not run" if not done else "complete" if done >= runs else "part"
        rows[plan.name] = {
            "about": plan.title,
            "arms": len(plan.arms),
            "seeds": len(plan.seeds),
            "runs": runs,
            "hours on one core or GPU": _hours(plan),
            "done": done,
            "state": state + ", by an earlier design" * bool(outdated(plan, records)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("plan")


def _hours(plan: Plan) -> float | None:
    return round(len(plan.runs()) * plan.minutes / 60, 1) if plan.minutes else None


def commits() -> pd.DataFrame:
    """Every recorded study: which commits first held its plan and its records, and what is wrong.

    Columns: plan, records (commits, with their times), runs, wrong: "" where this very text of the
    plan was committed before any record of it, and every run was made at a revision that held it.
    Raises LabError where git knows no history.
    """
    rows = {}
    for out in sorted(path.parent for path in (folder() / "studies").glob(f"*/{RECORDS}")):
        file, records = folder() / "plans" / f"{out.name}.yaml", runner.read(out)
        if not file.is_file():
            raise LabError("has records, and no plan", where=out)
        rows[out.name] = {**_order(file, out / RECORDS, records), "runs": len(records)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("study")


def _order(plan: Path, file: Path, records: Sequence[Record]) -> dict[str, str]:
    """Three columns of `commits`, of the ``records`` in ``file``."""
    text, digest = plan.read_text(encoding="utf-8").strip(), plans.load(plan).digest
    planned = _first_commit(plan, lambda held: held == text)
    recorded = _first_commit(file, lambda held: digest in held)
    wrong = []
    if not planned:
        wrong.append("this text of the plan is not committed")
    elif recorded and planned not in _git(plan, "rev-list", f"{recorded}^@"):
        wrong.append("the plan was not committed before the records")
    if others := sum(one.digest != digest for one in records):
        wrong.append(f"{others} records are of another text of the plan")
    for revision in sorted({str(one.provenance.get("revision")) for one in records}):
        if _git(plan, "show", f"{revision}:./{plan.name}") != text:
            wrong.append(f"runs were made at {revision[:9]}, which does not hold the plan")
    when = [_git(plan, "log", "-1", "--format=%h %ci", one) if one else "–"
            for one in (planned, recorded)]  # fmt: skip
    return {"plan": when[0], "records": when[1], "wrong": "; ".join(wrong)}


def _first_commit(path: Path, fits: Callable[[str], bool]) -> str:
    """The first commit that holds ``path`` with a text that ``fits``; "" if none does."""
    commits = _git(path, "log", "--reverse", "--format=%H", "--", path.name).split()
    held = (one for one in commits if fits(_git(path, "show", f"{one}:./{path.name}")))
    return next(held, "")


def _git(path: Path, *command: str) -> str:
    """What git says in the folder of ``path``; "" of a revision or a file that it does not know."""
    try:
        return git(path.parent, *command)
    except subprocess.CalledProcessError as error:
        if "not a git repository" in error.stderr:
            fix = "clone the repository, with its history"
            raise LabError("has no history", where=path.parent, fix=fix) from error
        return ""


def describe_plan(plan: Plan) -> str:
    """A plan in lines: primary endpoint, arms, seeds, questions, budget."""
    hours = f", {_hours(plan)} hours on one core or GPU, as planned" if plan.minutes else ""
    questions = f"set {plan.questions}: {', '.join(plan.benchmarks)}, {plan.images} images"
    if plan.profile == "paper":
        questions = f"the official files of {', '.join(plan.benchmarks)}"
    lines = [
        f"{plan.name}: {plan.title}",
        f"family     {plan.family}",
        f"primary    {' on '.join(plan.primary)}, against {arm(plan.primary[0]).compared_with[0]}",
        f"seeds      {', '.join(map(str, plan.seeds))} (from {plan.digest[:12]})",
        f"questions  {questions}",
        f"budget     {len(plan.runs())} runs{hours}",
    ]
    if file := plan.baseline.captions.file:
        lines.append(f"captions   {user_captions.summary(file)}")
    return "\n".join([*lines, *(f"  {name:<14} {arm(name).label}" for name in plan.arms)])


def conclusions(*names: str) -> pd.DataFrame:
    """Committed plans, all or ``names``, and what follows from each; "not run" where it was not."""
    rows = {}
    for name in names or status().index:
        path = folder() / "studies" / name / RECORDS
        rows[name] = _conclusion(name, path, path.stat().st_mtime_ns if path.is_file() else 0)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["what follows, in miniature"])


@cache  # seconds a study, and every look at the ledger asks for all of them
def _conclusion(name: str, path: Path, written: int) -> str:
    """What follows from a committed plan whose records at ``path`` were ``written`` then."""
    plan, records, points = load_study(name)
    if not records:
        return "not run"
    if points is not None:  # a sentence needs the primary endpoint's other images alone
        points = points[points["score"] == plan.primary[1]]
    table = effects.effects(plan, records, points)
    return conclusion(plan, records, table, path.parent)


def comparisons(plan: Plan, records: Sequence[Record]) -> pd.DataFrame:
    """What the verdict of a recorded study rests on, as `criteria.comparisons` finds it."""
    score, untuned = plan.primary[1], runner.untuned(folder() / "studies" / plan.name)
    base = effects.untuned_by_seed(records, untuned, score)
    runs = effects.by_seed(records, score).assign(untuned=base)
    return criteria.comparisons(plan, runs.dropna(axis=1))


def report(plan: Plan, records: Sequence[Record], out: Path) -> str:
    """A study's effects and what follows; of a pilot, what a study of ten seeds could detect."""
    if set(plan.arms) <= set(PILOT):
        return effects.power_analysis(records).round(2).to_string()
    table = effects.effects(plan, records, points_of(out))
    follows = conclusion(plan, records, table, out)
    gained = effects.gains(plan, records, runner.untuned(out))
    shown = [one.round(3).to_string(index=False) for one in (table, gained) if len(one)]
    lines = ["\n\nagainst the untuned base:\n".join(shown), "", follows]
    if len(plan.seeds) >= effects.RESOLVES:
        pair = plan.primary[0], arm(plan.primary[0]).compared_with[0]
        power = effects.power_analysis(records, *pair).round(2).to_string()
        lines += ["", "with ten seeds:", power]
    if any(arm(name).group == "Figure 6" for name in plan.arms):
        score = plan.primary[1]
        curve = ablations.saturation(ablations.scores_by_number(records, score))
        lines.append(f"{score}: {curve}")
    if replaced := [one.replaced["count"] for one in records if one.arm == user_captions.ARM]:
        which = f"{min(replaced)} of a mix's detailed captions replaced by the file's"
        lines.append(f"{user_captions.ARM}: {which}")
    left_out = {f"{one.arm}, {stage}": counts
                for one in sorted(records, key=lambda one: one.dropped)
                for stage, counts in one.left_out().items()}  # fmt: skip
    lines += [
        f"left out of {name}: {dropped:,} of {whole:,} records ({dropped / whole:.2%})"
        for name, (dropped, whole) in left_out.items()
    ]
    return "\n".join(lines)


def keep_models(plan: Plan, arms: Sequence[str]) -> Path:
    """`explore.RECORDED`, written anew: what each of ``arms`` learned with a plan's first seed.

    Each run is trained again from its plan; only the weights that differ from its base's are kept.
    """
    chosen = [job for job in runner.jobs(plan) if job.seed == plan.seeds[0] and job.arm in arms]
    start, kept = dict(checkpoints.load(chosen[0].base)[0].named_parameters()), {}
    for job in chosen:
        model, _ = checkpoints.load(run_arm.trained(job)[-1])
        kept |= {
            f"{job.arm}/{name}": weight.data
            for name, weight in model.named_parameters()
            if not torch.equal(weight, start[name])
        }
    about = {"plan": plan.name, "seed": str(plan.seeds[0]), "base": chosen[0].base.name}
    with atomic(explore.RECORDED) as path:
        save_file(kept, path, about | {"arms": " ".join(job.arm for job in chosen)})
    return explore.RECORDED
