"""A plan: which arms, how many seeds, what is measured, fixed in a file before anything runs.

Seeds and question sets derive from the hash of the plan's text: nobody chooses them after a look.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sgv_lab.benchmarks import HEADLINES
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import sha256
from sgv_lab.models import families
from sgv_lab.study import user_captions
from sgv_lab.study.arms import END_TO_END, LONGER, PROJECTOR, TWICE, arm
from sgv_lab.study.arms import baseline as baseline_of
from sgv_lab.training.config import RunConfig

BENCHMARKS = {  # benchmark -> what it adds to a record: Figure 2's that need no judge, and the exam
    name: tuple(score for _, score, _ in rows) for name, rows in HEADLINES.items()
}
# Without LLaVA-W and MM-Vet: a GPT-4 judge may like GPT-4's own style.
FIGURE_2 = tuple(name for name in BENCHMARKS if name != "exam")
PILOT = ("before", "oracle")  # a pilot sizes the study and must not see what the study asks
FIRST_BASES = 3  # as many as there were when the plans that name no number were recorded
_QUESTION_SETS = range(1, 90)  # set 0 is the one that other notebooks show
_EARLIER = {"pictures": "images", "updates": "steps",
            "connector_learning_rate": "projector_learning_rate"}  # fmt: skip
# A plan's words for what `RunConfig` has.
_WORDS = {"steps": "max_steps"}
_PRETRAIN = {**_WORDS, "by": "annotator", "captions": "samples", "source": "collection",
             "tower": "vision_share"}  # fmt: skip
_TUNES = {"projector": PROJECTOR, "all": END_TO_END}


@dataclass(frozen=True)
class Plan:
    """A study of one family. ``primary``: the one (arm, score) that is tested as it stands."""

    name: str
    digest: str  # of the plan's text
    title: str
    family: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    primary: tuple[str, str]
    benchmarks: tuple[str, ...]
    images: int  # of a benchmark; MME: of a subtask
    baseline: RunConfig
    profile: str
    minutes: float | None  # planned, a run
    bases: int | None = None  # over how many the seeds are spread; None: FIRST_BASES at most
    models: str = ""  # folder below the models' root that holds its bases; "": the root

    @property
    def questions(self) -> int:
        """Which set of questions is asked: derived from the digest."""
        return _QUESTION_SETS[_number(self.digest, "questions") % len(_QUESTION_SETS)]

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed), seed by seed, so that what is done is paired at any moment."""
        return [(name, seed) for seed in self.seeds for name in self.arms]

    @cached_property
    def blocks(self) -> int:
        """Of the vision tower."""
        size = "paper" if self.profile == "paper" else "mini"
        vision = families.config(self.family, size).vision_config
        return getattr(vision, "num_hidden_layers", None) or vision.depth

    def configs(self) -> dict[str, RunConfig]:
        """Arm -> the baseline with its change."""
        return {name: arm(name).config(self.baseline, self.blocks) for name in self.arms}

    def resolved(self) -> pd.DataFrame:
        """Every value of every arm with its origin; arm "all" where all have it from one place."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for name, design in self.configs().items():
            for setting, value, origin in design.rows():
                found.setdefault((setting, str(value), origin), []).append(name)
        rows = [
            ("all" if arms == list(self.arms) else ", ".join(arms), *row)
            for row, arms in found.items()
        ]
        return pd.DataFrame(rows, columns=["arm", "setting", "value", "from"])


def load(path: str | Path) -> Plan:
    """The plan of a YAML file. Raises LabError naming what is missing, misspelt or impossible."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        fix = "the study's own lie under figures/data/plans"
        raise LabError(f"cannot read the plan ({error.strerror})", where=path, fix=fix) from error
    return parse(text, path.stem, path.parent)


def make(name: str, **keys: Any) -> Plan:
    """A plan from Python, as if its keys stood in a file: those of a notebook's profile."""
    text = yaml.safe_dump(keys, sort_keys=True)
    return parse(text, name, origin=f"profile {keys.get('profile', 'mini')}")


def parse(text: str, name: str, folder: str | Path = "", origin: str = "plan") -> Plan:
    """The plan that ``text`` writes down: see the files under figures/data/plans.

    ``captions`` names a file from ``folder`` on, which counts as text: others make another plan.
    """
    try:
        given = _renamed(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise LabError(f"is no YAML ({error})".replace("\n", " "), where=name) from error
    if not isinstance(given, dict):
        raise LabError("is no mapping of keys", where=name, fix="write `key: value` lines")
    known = ("title", "family", "arms", "seeds", "primary", "benchmarks", "images", "baseline",
             "profile", "pilot", "minutes_a_run", "captions", "bases", "models")  # fmt: skip
    if strange := [key for key in given if key not in known]:
        raise unknown("key", str(strange[0]), known, where=name)
    if missing := [key for key in known[:5] if key not in given]:
        raise LabError(f"has no {', '.join(missing)}", where=name, fix="add them")
    family, paper = families.family(given["family"]).key, given.get("profile") == "paper"
    try:
        baseline = _baseline(family, paper, given.get("baseline") or {}, origin)
    except LabError as error:
        raise LabError(f"in its baseline: {error}", where=name) from error
    if given.get("captions"):
        file = Path(folder, given["captions"]).absolute()
        refuse = user_captions.read if paper else user_captions.validate_for_world
        refuse(file)  # before anything runs
        text, baseline = text + sha256(file), baseline.changed({"file": str(file)}, origin)
    digest = hashlib.sha256(text.encode()).hexdigest()
    plan = Plan(
        name=name,
        digest=digest,
        title=str(given["title"]),
        family=family,
        arms=tuple(given["arms"]),
        seeds=tuple(_number(digest, f"seed {i}") % 10**6 for i in range(int(given["seeds"]))),
        primary=tuple(given["primary"]),
        benchmarks=tuple(given.get("benchmarks", FIGURE_2)),
        images=int(given.get("images", 60)),
        baseline=baseline,
        profile=given.get("profile", "mini"),
        minutes=given.get("minutes_a_run"),
        bases=given.get("bases"),
        models=given.get("models", ""),
    )
    _check(plan, bool(given.get("pilot")))
    return plan


def _renamed(given: Any) -> Any:
    """A plan's keys by their names of today: the text of one that was recorded stays as it is."""
    if not isinstance(given, dict):
        return given
    return {_EARLIER.get(key, key): _renamed(value) for key, value in given.items()}


def _number(digest: str, of: str) -> int:
    return int(hashlib.sha256(f"{digest} {of}".encode()).hexdigest()[:12], 16)


def _baseline(family: str, paper: bool, given: Mapping[str, Any], origin: str) -> RunConfig:
    """The study's baseline with what a plan's ``baseline`` gives on top, in a plan's words.

    ``recipe`` holds names of `RunConfig`, beside it stand those of the captions, and so in
    ``pretrain``. ``tuning`` and ``pretrain.tunes`` choose the base.
    """
    own, first = dict(given), dict(given.get("pretrain") or {})
    own.pop("pretrain", None)
    base = baseline_of(family, str(own.pop("tuning", "")), paper, origin)
    tunes = first.pop("tunes", "all")
    if tunes not in _TUNES:
        raise unknown("choice of what pre-training tunes", str(tunes), _TUNES)
    if "file" in own:  # the plan's own ``captions``
        raise unknown("setting", "file", ("share",))
    own |= own.pop("recipe", {})
    first |= first.pop("recipe", {})
    changes = {_WORDS.get(key, key): value for key, value in own.items()} | _TUNES[tunes]
    changes |= {f"pretrain.{_PRETRAIN.get(key, key)}": value for key, value in first.items()}
    return base.changed(changes, origin)


def _check(plan: Plan, pilot: bool) -> None:
    """Refuse what could not be evaluated afterwards."""
    needs = {name: (*arm(name, plan.name).compared_with, *plan.primary[:1]) for name in plan.arms}
    for name, others in needs.items():
        for needed in others:
            if needed not in plan.arms:
                fix = f"add {needed!r} to the arms"
                raise LabError(f"{name!r} needs the arm {needed!r}", where=plan.name, fix=fix)
    if len(set(plan.arms)) < len(plan.arms) or not plan.seeds:
        raise LabError("an arm stands twice, or there is no seed", where=plan.name)
    given = {"samples": plan.baseline.captions.samples, "max_steps": plan.baseline.max_steps}
    longer = [name for name in LONGER if name in plan.arms]
    if longer and any(TWICE[name] != 2 * (given[name] or 0) for name in TWICE):
        fix = f"give the baseline half of {TWICE}"
        fault = f"{longer[0]} would not train twice as long as {given}"
        raise LabError(fault, where=plan.name, fix=fix)
    if (user_captions.ARM in plan.arms) != bool(plan.baseline.captions.file):
        fix = f"write `captions: FILE` and {user_captions.ARM!r} among the arms, or neither"
        raise LabError("captions and their arm go together", where=plan.name, fix=fix)
    scores = []
    for name in plan.benchmarks:
        if name not in BENCHMARKS:
            raise unknown("benchmark", name, BENCHMARKS, where=plan.name)
        scores += BENCHMARKS[name]
    if len(plan.primary) != 2 or plan.primary[1] not in scores:
        fix = f"write primary: [arm, score], the score one of {', '.join(scores)}"
        raise LabError(f"the primary endpoint is {plan.primary}", where=plan.name, fix=fix)
    if pilot and set(plan.arms) - set(PILOT):
        fix = f"a pilot has only {' and '.join(PILOT)}"
        raise LabError("this pilot would look at what the study asks", where=plan.name, fix=fix)
