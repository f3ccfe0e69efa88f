"""The same answers under different scoring rules, and the same knowledge in different words.

Tools that score the "same" benchmark read answers differently. A scripted answerer, which knows a
given share of the truth and speaks in one of several manners, shows how much of a score is reading.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from sgv_lab import benchmarks, store
from sgv_lab.benchmarks import core, mmbench, mme, seed_bench
from sgv_lab.benchmarks.tasks import TASKS, Question
from sgv_lab.files import write_jsonl
from sgv_lab.world import benchmarks as world

Arguments = Mapping[str, Path | None]  # of a scorer
STYLES: dict[str, Callable[[str, str], str]] = {  # (answer, text of the option) -> what is said
    "bare": lambda said, text: said,
    "period": lambda said, text: f"{said}.",
    "sentence": lambda said, text: f"The answer is {said}.",
    "explained": lambda said, text: f"{said}. {text}" if text else f"{said}, as far as I can see.",
}
COMPARED = ("mme", "mmbench", "seed", "pope", "scienceqa", "qbench", "vqav2")


def full_marks(name: str, scores: Mapping[str, Any]) -> float:
    """The benchmark's main number as a percentage of full marks."""
    if name == "mme":
        return scores["perception"] / (2 * sum(part in scores for part in mme.PERCEPTION))
    if name == "scienceqa":
        return scores["IMG"]["accuracy"]
    key = {"seed": "image_accuracy", "pope": "mean_f1"}.get(name, "accuracy")
    return scores[key] * (100 if name in ("pope", "qbench") else 1)


def drawn_benchmarks(images: int, seed: int = 0) -> Path:
    """The store's folder of all benchmarks of the drawn world (made if it is not there)."""
    settings = {"images": images, "seed": seed}
    return store.artifact(
        "benchmarks", settings, [], lambda folder: world.write(folder, **settings)
    )


def protocol(data: Path) -> pd.DataFrame:
    """How each benchmark is asked: image preparation, length, first prompt of ``data``."""
    rows = {}
    for name, task in TASKS.items():
        first = next(task.questions(data / name))
        shape = {"pad": "padded to a square", "square": "centre crop"}[task.aspect]
        rows[benchmarks.MODULES[name][1]] = (shape, task.max_new_tokens, repr(first.prompt)[1:-1])
    columns = ["image", "new tokens at most", "first prompt"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def own_file(
    benchmark: str, predictions: str, annotations: str, questions: str
) -> dict[tuple[str, str], Arguments]:
    """A file of the reader's own for `compare`; empty without ``predictions``."""
    if not predictions:
        return {}
    paths = {"predictions": predictions, "annotations": annotations, "questions": questions}
    arguments = {key: Path(path) if path else None for key, path in paths.items()}
    return {(benchmarks.canonical(benchmark), "your file"): arguments}


def compare(files: Mapping[tuple[str, str], Arguments]) -> pd.DataFrame:
    """The score of each (benchmark, label) -> scorer's arguments under every rule.

    Columns: benchmark, label, rule ("official" first), value (% of full marks), unparsed.
    """
    rows = []
    for (name, label), arguments in files.items():
        scorer = benchmarks.module(name)
        for rule in (benchmarks.OFFICIAL, *scorer.VARIANTS):
            scores = scorer.score(**arguments, variant=rule)
            rows.append((name, label, rule, full_marks(name, scores), scores["unparsed"]))
    return pd.DataFrame(rows, columns=["benchmark", "label", "rule", "value", "unparsed"])


def scripted_submissions(
    names: Iterable[str], data: Path, out: Path, knows: float, seed: int = 0
) -> dict[tuple[str, str], Arguments]:
    """(benchmark, style) -> arguments of the scorer, of an answerer that knows a share ``knows``.

    Of the others of ``data/<benchmark>`` it gives a wrong answer. What it knows does not depend on
    its style. Writes official submissions below ``out``.
    """
    files = {}
    for name in names:
        task, folder = TASKS[name], data / name
        questions = list(task.questions(folder))
        meant = {}
        for question in questions:
            rng = random.Random(f"{seed}/{name}/{question.id}")
            truth, texts = _options(name, question, folder)
            others = [option for option in texts if option != truth]
            answer = truth if rng.random() < knows else rng.choice(others)
            meant[question.id] = answer, texts[answer]
        for style, say in STYLES.items():
            place = out / name / style
            place.mkdir(parents=True)
            answers = {key: say(*said) for key, said in meant.items()}
            arguments = task.write(questions, answers, folder, place)
            if name == "vqav2":  # the raw answers, so that rules can differ in their processing
                rows = [{"question_id": key, "text": text} for key, text in answers.items()]
                write_jsonl(place / "answers.jsonl", rows)
                arguments |= {"predictions": place / "answers.jsonl"}
            files[name, style] = arguments
    return files


def _options(name: str, question: Question, data: Path) -> tuple[str, Mapping[str, str]]:
    """(the right answer, the text, if it has one, of each possible answer)."""
    row = question.row
    if name in ("mme", "pope"):
        return row["truth" if name == "mme" else "label"].capitalize(), {"Yes": "", "No": ""}
    if name == "vqav2":
        truth = _human_answers(data)[question.id]
        return truth, {truth: "", "nothing": ""}
    if name == "mmbench":
        return row["answer"], mmbench.options(row)
    if name == "seed":
        return row["answer"], {letter: row[field] for letter, field in seed_bench.CHOICES.items()}
    if name == "qbench":
        texts = dict(zip("ABCD", row["candidates"], strict=False))
        return next(k for k, text in texts.items() if text == row["correct_ans"]), texts
    human, truth = (turn["value"] for turn in row["conversations"])
    return truth, dict(re.findall(r"^([A-E])\. (.*)$", human, re.MULTILINE))


@cache
def _human_answers(data: Path) -> dict[str, str]:
    (file,) = core.entries(next(data.glob("*annotations.json")))
    return {str(a["question_id"]): a["multiple_choice_answer"] for a in file["annotations"]}
