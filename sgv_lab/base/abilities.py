"""What a miniature model can do, and the gate: the exam's answers against the world's truth.

Every number comes with a 95 % interval clustered by scene, because questions about one image
succeed and fail together. The gate's bounds were fixed before the base was taught: abilities that
the language model with its own eyes gets right in CEILING percent of yes/no questions are asked;
with another scene's image it gets less than BLIND percent of them right; from the base, behind a
new projector, UNTUNED percent of them and less than OPEN percent of open questions are right.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab import store
from sgv_lab.base.projector import Loaded, own_eyes, own_eyes_file
from sgv_lab.benchmarks import exam
from sgv_lab.benchmarks.evaluate import answer
from sgv_lab.benchmarks.tasks import TASKS
from sgv_lab.files import write_json
from sgv_lab.intervals import clustered_mean
from sgv_lab.models import checkpoints, shipped
from sgv_lab.models.weights import read_json
from sgv_lab.world import benchmarks as world
from sgv_lab.world.questions import FORMS
from sgv_lab.world.scene import MINIATURE

CEILING, BLIND, UNTUNED, OPEN = 85, 52, (50, 65), 45  # percent
MANIFEST = "manifest.json"  # of a base
_BATCH = 64


def held_out(scenes: int, side: int, split: str = "eval") -> Path:
    """The store's folder of an exam of that many scenes that no training and no study has."""
    known = {"images": scenes, "size": side, "split": split, "seed": 0}
    write = partial(world.write, benchmarks=["exam"], difficulty=MINIATURE, **known)
    return store.artifact("exam", known, [], write) / "exam"


def ask(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    data: Path,
    *,
    forms: Collection[str] = (*FORMS, "caption"),
    blind: bool = False,
) -> pd.DataFrame:
    """Greedy answers to the exam in ``data``, one row each, as `exam.marked` makes them.

    ``blind``: each image is the next scene's instead, to see whether the model looks.
    """
    asked = [q for q in TASKS["exam"].questions(data) if q.row["form"] in forms]
    if blind:
        shown = list(dict.fromkeys(q.path for q in asked))
        other = dict(zip(shown, [*shown[1:], shown[0]], strict=True))
        asked = [replace(q, path=other[q.path]) for q in asked]
    found = answer(model, processor, asked, TASKS["exam"], data, _BATCH, progress=False)
    said = {q.id: exam.marked(q.row, one) for batch in found for q, one in batch}
    return pd.DataFrame([said[q.id] for q in asked])


def ability_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent by ability and form, with its interval and the number of questions.

    Form "ranking": of yes/no pairs, where the model preferred the true member.
    """
    rows = answers[answers["form"] != "caption"]
    pairs = pd.DataFrame(exam.pairs(rows.to_dict("records")))
    rows = pd.concat([rows, pairs[pairs["form"] == "ranking"]] if len(pairs) else [rows])
    found = []
    for (ability, form), part in rows.groupby(["ability", "form"], sort=True):
        right = part["right"].astype(float)
        low, high = clustered_mean(right, part["image"]) or (None, None)
        found.append((ability, form, len(part), 100 * right.mean(), low, high))
    return pd.DataFrame(found, columns=["ability", "form", "questions", "accuracy", "low", "high"])


def caption_quality(answers: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of captions' facts in percent, with intervals over scenes."""
    found = exam.summary(answers[answers["form"] == "caption"].to_dict("records"))
    rows = [
        (name, found[name], *(found["interval"][name] or (None, None)))
        for name in ("precision", "recall")
    ]
    return pd.DataFrame(rows, columns=["measure", "percent", "low", "high"])


def gate_table(ceiling: pd.DataFrame, blind: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """One row an ability, in percent: yes/no questions right with the language model's own eyes
    (``ceiling``) and so with another scene's image (``blind``), yes/no and open ones of the base's
    ``answers`` (``untuned``, ``open``), with intervals; ``asked``: whether the ceiling is reached.
    """
    columns = {
        "ceiling": ("yesno", ceiling),
        "blind": ("yesno", blind),
        "untuned": ("yesno", answers),
        "open": ("open", answers),
    }
    found = []
    for name, (form, said) in columns.items():
        table = ability_table(said)
        table = table[table["form"] == form].set_index("ability")
        names = {"accuracy": name, "low": f"{name}_low", "high": f"{name}_high"}
        found.append(table[list(names)].rename(columns=names))
    table = pd.concat(found, axis=1)
    return table.assign(asked=table["ceiling"] >= CEILING).reset_index()


def gate_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """The bounds that were fixed before, a row each: bound, found (in a gate's table), holds.

    What only runs can show, `study.effects.gate_after` has.
    """
    asked, (low, high) = table[table["asked"]], UNTUNED
    blind, untuned, free = asked["blind"].max(), asked["untuned"].mean(), asked["open"].mean()
    rows = [
        (f"abilities with {CEILING} % of yes/no right, own eyes", len(asked), len(asked) > 0),
        (f"another scene's image, the best of these: below {BLIND}", blind, blind < BLIND),
        (f"new projector, yes/no, their mean: {low} to {high}", untuned, low <= untuned <= high),
        (f"new projector, open, their mean: below {OPEN}", free, free < OPEN),
    ]
    return pd.DataFrame(rows, columns=["bound", "found", "holds"])


def gate_passed(table: pd.DataFrame) -> bool:
    """Whether a gate's table holds all of `gate_bounds`."""
    return bool(gate_bounds(table)["holds"].all())


def bounds_by_base() -> pd.DataFrame:
    """What was found of each of `gate_bounds`, a row a base that ships; ``gate``: passed or not."""
    rows = {}
    for base in shipped.every():
        bounds = gate_bounds(pd.read_csv(base / "gate.csv")).set_index("bound")
        gate = "passed" if bounds["holds"].all() else "not passed"
        rows[base.name] = {**bounds["found"], "gate": gate}
    return pd.DataFrame.from_dict(rows, orient="index").convert_dtypes()


def ability_tables(
    eyes: Loaded, bases: Iterable[Loaded], scenes: int = 1_000
) -> Iterator[dict[str, pd.DataFrame]]:
    """Of each base table "gate", "abilities" (all forms) and "captions", of seen and new pairs.

    ``eyes``: the bases' language model with its own eyes. No training scene holds a new pair.
    """
    side = eyes[0].config.vision_config.image_size
    exams = {split: held_out(scenes, side, split) for split in ("eval", "novel")}
    own = [ask(*eyes, exams["eval"], forms=("yesno",), blind=blind) for blind in (False, True)]
    for base in bases:
        found = {split: ask(*base, data) for split, data in exams.items()}
        yield {
            "gate": gate_table(*own, found["eval"]),
            "abilities": pd.concat(ability_table(one).assign(split=s) for s, one in found.items()),
            "captions": pd.concat(caption_quality(one).assign(split=s) for s, one in found.items()),
        }


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame], known: dict[str, Any]) -> None:
    """Put a base's tables and its manifest, ``known`` and whether it passed, into ``folder``."""
    for name, table in tables.items():
        table.round(2).to_csv(folder / f"{name}.csv", index=False)
    write_json(folder / MANIFEST, {**known, "gate_passed": gate_passed(tables["gate"])})


def examine(family: str, root: str | Path = "", scenes: int = 1_000) -> pd.DataFrame:
    """`gates`, after all bases of a family were asked anew and their tables written.

    LabError for a base whose own eyes `keep_eyes` did not put beside it.
    """
    groups: dict[Path, list[Path]] = {}
    for base in shipped.bases(family, root):
        groups.setdefault(own_eyes_file(base), []).append(base)
    for same in groups.values():
        found = ability_tables(own_eyes(same[0]), map(checkpoints.load, same), scenes)
        for base, tables in zip(same, found, strict=True):
            known = read_json(base / MANIFEST)
            known["made_with"]["scenes"] = scenes
            write_tables(base, tables, known)
    return gates(family, root)


def gates(family: str, root: str | Path = "") -> pd.DataFrame:
    """The tables "gate" beside the bases of a family, shipped or below ``root``, as one.

    More columns: language model (its seed), projector (its number), ``passed``.
    """
    found = []
    for base in shipped.bases(family, root):
        made, table = read_json(base / MANIFEST)["made_with"], pd.read_csv(base / "gate.csv")
        table.insert(0, "language model", made["seed"])
        table.insert(1, "projector", made["projector"])
        found.append(table.assign(passed=gate_passed(table)))
    return pd.concat(found, ignore_index=True)
