"""A plan: which arms, how many seeds, what is measured, fixed in a file before anything runs.

Seeds and question sets derive from the hash of the plan's text, so nobody chooses them after a
look, and a pilot (its own file) never shares them with the study it sizes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sgv_lab.errors import LabError, unknown
from sgv_lab.files import sha256
from sgv_lab.models import families
from sgv_lab.study import own
from sgv_lab.study.arms import Design, Stage1, arm
from sgv_lab.study.scores import HEADLINES
from sgv_lab.training.recipes import Recipe

BENCHMARKS = {  # benchmark -> what it adds to a record; Figure 2's that need no judge
    name: tuple(score for _, score, _ in rows) for name, rows in HEADLINES.items()
}
JUDGED = ("LLaVA-W", "MM-Vet")  # of Figure 2, not run: a GPT-4 judge may like GPT-4's own style
PILOT = ("before", "oracle")  # a pilot sizes the study and must not see what the study asks
_QUESTION_SETS = range(1, 90)  # set 0 is the one that other notebooks show


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
    pictures: int  # of a benchmark; MME: of a subtask
    baseline: Design
    profile: str
    minutes: float | None  # planned, a run

    @property
    def questions(self) -> int:
        """Which set of questions is asked: derived from the digest."""
        return _QUESTION_SETS[_number(self.digest, "questions") % len(_QUESTION_SETS)]

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed), seed by seed, so that what is done is paired at any moment."""
        return [(name, seed) for seed in self.seeds for name in self.arms]

    def designs(self) -> dict[str, Design]:
        """Arm -> the baseline with its change."""
        return {name: arm(name).design(self.baseline) for name in self.arms}


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
    """A plan from Python, as if its keys stood in a file."""
    return parse(yaml.safe_dump(keys, sort_keys=True), name)


def parse(text: str, name: str, folder: str | Path = "") -> Plan:
    """The plan that ``text`` writes down: see the files under figures/data/plans.

    ``captions`` names a file from ``folder`` on. It counts as text: with other captions it is
    another plan, with other seeds and questions, so that no captions are fitted to the test.
    """
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LabError(f"is no YAML ({error})".replace("\n", " "), where=name) from error
    if not isinstance(given, dict):
        raise LabError("is no mapping of keys", where=name, fix="write `key: value` lines")
    known = ("title", "family", "arms", "seeds", "primary", "benchmarks", "pictures", "baseline",
             "profile", "pilot", "minutes_a_run", "captions")  # fmt: skip
    for key in given:
        if key not in known:
            raise unknown("key", str(key), known, where=name)
    missing = [key for key in known[:5] if key not in given]
    if missing:
        raise LabError(f"has no {', '.join(missing)}", where=name, fix="add them")
    paper = given.get("profile") == "paper"
    baseline = _baseline(given.get("baseline") or {}, paper, name)
    if given.get("captions"):
        file = Path(folder, given["captions"]).absolute()
        (own.read if paper else own.drawn)(file)  # refuses it before anything runs
        text, baseline = text + sha256(file), replace(baseline, captions=str(file))
    digest = hashlib.sha256(text.encode()).hexdigest()
    plan = Plan(
        name=name,
        digest=digest,
        title=str(given["title"]),
        family=families.family(given["family"]).key,
        arms=tuple(given["arms"]),
        seeds=tuple(_number(digest, f"seed {i}") % 10**6 for i in range(int(given["seeds"]))),
        primary=tuple(given["primary"]),
        benchmarks=tuple(given.get("benchmarks", BENCHMARKS)),
        pictures=int(given.get("pictures", 60)),
        baseline=baseline,
        profile=given.get("profile", "mini"),
        minutes=given.get("minutes_a_run"),
    )
    _check(plan, bool(given.get("pilot")))
    return plan


def _number(digest: str, of: str) -> int:
    return int(hashlib.sha256(f"{digest} {of}".encode()).hexdigest()[:12], 16)


def _baseline(given: Mapping[str, Any], paper: bool, where: str) -> Design:
    """The baseline's design: the miniature's, or the family's own recipe, with ``given`` on top.

    At full size a token of any answer weighs the same, as the authors trained; in miniature an
    answer of any length does, so that longer captions are not louder ones, too.
    """
    whole = {"updates": None, "recipe": {}}
    stage = Stage1(captions=0, pool=0, **whole) if paper else Stage1()
    official = {"samples": 0, "tuning": "full", "loss": "token", **whole} if paper else {}
    design = Design(pretrain=stage, **official)
    names, settings = ([f.name for f in fields(kind)] for kind in (Design, Recipe))
    names.remove("captions")  # a key of the plan's own
    first = dict(given.get("pretrain") or {})
    for what, keys, known in (
        ("baseline setting", given, names),
        ("recipe setting", given.get("recipe", {}), settings),
        ("stage 1 setting", first, [f.name for f in fields(Stage1)]),
        ("recipe setting", first.get("recipe", {}), settings),
    ):
        for key in keys:
            if key not in known:
                raise unknown(what, key, known, where=where)
    if "recipe" in first:
        first["recipe"] = {**stage.recipe, **first["recipe"]}
    recipe = {**design.recipe, **given.get("recipe", {})}
    design = design.changed({**given, "recipe": recipe, "pretrain": first})
    try:
        return msgspec.convert(asdict(design), Design)
    except msgspec.ValidationError as error:
        raise LabError(f"in its baseline: {error}", where=where, fix="see study/arms.py") from error


def _check(plan: Plan, pilot: bool) -> None:
    """Refuse what could not be evaluated afterwards."""
    needs = {name: (*arm(name, plan.name).against, *plan.primary[:1]) for name in plan.arms}
    for name, others in needs.items():
        for needed in others:
            if needed not in plan.arms:
                fix = f"add {needed!r} to the arms"
                raise LabError(f"{name!r} needs the arm {needed!r}", where=plan.name, fix=fix)
    if len(set(plan.arms)) < len(plan.arms) or not plan.seeds:
        raise LabError("an arm stands twice, or there is no seed", where=plan.name)
    if (own.ARM in plan.arms) != bool(plan.baseline.captions):
        fix = f"write `captions: FILE` and {own.ARM!r} among the arms, or neither"
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
