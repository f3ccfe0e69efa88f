"""MME: 14 subtasks of yes/no questions, two an image; score = 100·acc + 100·acc+ each.

Rules: BradyFU Awesome-MLLM, tools/eval_tool.zip@1c1d69e, calculation.py; join of a LLaVA answers
file to the ground truth: convert_answer_to_mme.py of the same tool as LLaVA changed it.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import EACH, by_id
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError
from sgv_lab.files import files_below

PERCEPTION = {  # subtask -> questions in the official release
    "existence": 60,
    "count": 60,
    "position": 60,
    "color": 60,
    "posters": 294,
    "celebrity": 340,
    "scene": 400,
    "landmark": 400,
    "artwork": 400,
    "OCR": 40,
}
COGNITION = {
    "commonsense_reasoning": 140,
    "numerical_calculation": 40,
    "text_translation": 40,
    "code_reasoning": 40,
}
PARTS = {"perception": PERCEPTION, "cognition": COGNITION}
OFFICIAL_QUESTIONS = PERCEPTION | COGNITION
VARIANTS = ("any_word", "stripped")  # VLMEvalKit's and lmms-eval's reading of an answer
SUFFIX = "\nAnswer the question using a single word or phrase."
ASK = "Please answer yes or no."


def parse(answer: str, variant: str = OFFICIAL) -> str:
    """ "yes", "no" or "other", read as calculation.py does: the first four characters decide.

    ``any_word`` looks for either word anywhere (both: other; VLMEvalKit utils/yorn.py);
    ``stripped`` takes the whole answer without blanks and periods, "y" and "n" too (lmms-eval).
    """
    answer = answer.lower()
    if variant == "any_word":
        found = {"yes", "no"} & set(re.findall(r"[a-z']+", answer))
        return found.pop() if len(found) == 1 else "other"
    if variant == "stripped":
        answer = answer.strip().replace(".", "")
        answer = {"y": "yes", "n": "no"}.get(answer, answer)
    if answer in ("yes", "no"):
        return answer
    head = answer[:4]
    return "yes" if "yes" in head else "no" if "no" in head else "other"


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score a folder of ``<subtask>.txt`` (image, question, truth, answer) or LLaVA's answers file.

    ``annotations`` is the MME data folder: needed for an answers file, and where not all official
    subtasks are asked. Raises LabError for a line out of step.
    """
    asked = None if annotations is None else truth(Path(annotations))
    if Path(predictions).is_dir():
        lines = {path.stem: _lines(path) for path in core.within(predictions, "*.txt")}
    else:
        core.need(annotations, "--annotations", "the MME data folder")
        lines = _joined(Path(predictions), asked)
    counts = OFFICIAL_QUESTIONS if asked is None else {k: len(v) for k, v in asked.items()}
    if absent := counts.keys() - lines.keys():
        raise LabError(
            f"has no {', '.join(sorted(absent))}",
            where=predictions,
            fix="complete it, or name with --annotations the data folder that asks for less",
        )
    if more := lines.keys() - counts.keys():
        raise LabError(f"{more.pop()} is no subtask that is asked", where=predictions)
    if asked is not None:
        _check(lines, asked)
    return _result(lines, counts, variant)


def _lines(path: Path) -> list[Entry]:
    entries = []
    text = core.read_text(path)
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        fields = line.split("\t")
        if len(fields) != 4:
            raise LabError(
                f"has {len(fields)} tab-separated fields, not 4 (image, question, truth, answer)",
                where=f"{path}, line {number}",
                fix="answers must hold no tab and no newline",
            )
        row = dict(zip(("image", "question", "truth", "answer"), fields, strict=True))
        # the official tool reads the answer with its newline, so a bare "yes" takes the second rule
        row["answer"] += "\n"
        entries.append(Entry(f"{path}, line {number}", row))
    return _pairs(entries)


def _pairs(entries: list[Entry]) -> list[Entry]:
    """Refuse what is not two questions an image on consecutive lines."""
    for number, entry in enumerate(entries):
        if entry["truth"].lower() not in ("yes", "no"):
            raise LabError(f"the truth is {entry['truth']!r}, not Yes or No", where=entry.where)
        twin = entries[number ^ 1] if number ^ 1 < len(entries) else None
        if twin is None or twin["image"] != entry["image"]:
            raise LabError(
                f"{entry['image']} has no second question beside it",
                where=entry.where,
                fix="keep both questions of an image on consecutive lines, or drop both",
            )
        if twin["question"] == entry["question"]:
            raise LabError("stands twice, and the other question is missing", where=twin.where)
    return entries


def truth(folder: Path) -> dict[str, list[Entry]]:
    """The questions of an MME data folder by subtask, each an Entry of image, question, truth.

    ``<subtask>/[questions_answers_YN/]<image>.txt`` holds lines "question, tab, Yes or No".
    """
    found: dict[str, list[Entry]] = {}
    for subtask in OFFICIAL_QUESTIONS:
        for path in sorted(p for p in files_below(folder / subtask) if p.suffix == ".txt"):
            for number, line in enumerate(core.read_text(path).strip().split("\n"), 1):
                where = f"{path}, line {number}"
                question, tab, answer = line.rstrip().partition("\t")
                if not tab:
                    raise LabError("is not 'question, tab, answer'", where=where)
                row = {"image": path.stem, "question": question, "truth": answer}
                found.setdefault(subtask, []).append(Entry(where, row))
    if not found:
        raise LabError("holds no MME subtask folder", where=folder)
    return found


def _place(subtask: str, image: str, question: str) -> tuple[str, str, str]:
    """What names a question. Blanks do not matter: seven official ones have two before ASK."""
    return subtask, Path(image).stem, " ".join(question.split())


def _known(asked: dict[str, list[Entry]]) -> dict[tuple[str, str, str], Entry]:
    return {
        _place(name, q["image"], q["question"]): q for name, rows in asked.items() for q in rows
    }


def _check(lines: dict[str, list[Entry]], asked: dict[str, list[Entry]]) -> None:
    known = _known(asked)
    for subtask, entries in lines.items():
        for entry in entries:
            found = known.get(_place(subtask, entry["image"], entry["question"]))
            if found is None or found["truth"] != entry["truth"]:
                raise LabError(f"is no question of {subtask} in the data folder", where=entry.where)


def _joined(path: Path, asked: dict[str, list[Entry]]) -> dict[str, list[Entry]]:
    """An answers file (question_id "subtask/image.png", prompt, text) joined to the truth."""
    known, lines = _known(asked), defaultdict(list)
    for entry in core.rows(path):
        subtask, _, image = str(entry["question_id"]).partition("/")
        question = entry["prompt"].removesuffix(SUFFIX).removesuffix(ASK).rstrip() + " " + ASK
        found = known.get(_place(subtask, image, question))
        if found is None:
            raise LabError(f"{question!r} is no question on {subtask}/{image}", where=entry.where)
        row = found.row | {"image": image, "answer": entry.text("text", one_line=True) + "\n"}
        lines[subtask].append(Entry(entry.where, row))
    return {subtask: _pairs(lines[subtask]) for subtask in asked if subtask in lines}


def _result(lines: dict[str, list[Entry]], asked: dict[str, int], variant: str) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    unparsed = Counter()
    for part, names in PARTS.items():
        names = [name for name in names if name in lines]
        sums, clusters = [], []
        for column, name in enumerate(names):
            reads = [parse(e["answer"], variant) for e in lines[name]]
            right = [r == e["truth"].lower() for r, e in zip(reads, lines[name], strict=True)]
            unparsed[name] = reads.count("other")
            for i in range(0, len(right), 2):
                row = np.zeros((len(names), 4))  # right, questions, both right, images
                row[column] = right[i] + right[i + 1], 2, right[i] and right[i + 1], 1
                sums.append(row.ravel())
                # perception shares photos; "0001.png" is another picture in each of cognition
                image = lines[name][i]["image"]
                clusters.append(image if part == "perception" else (name, image))
        if not names:
            continue
        table = jackknife.by_cluster(clusters, np.array(sums))
        each = _subtask_scores(table.sum(0))
        scores |= {part: float(sum(each.tolist())), **dict(zip(names, each.tolist(), strict=True))}
        intervals[part] = jackknife.interval(
            lambda s: _subtask_scores(s).sum(-1), table, 200.0 * len(names)
        )
    counts = {name: len(entries) for name, entries in lines.items()}
    placed, warnings = _questions(lines)
    return core.result(
        scores,
        unparsed=sum(unparsed.values()),
        missing=sum(max(0, n - placed[name]) for name, n in asked.items()),
        intervals=intervals,
        clustered_by="image",
        clusters=len({e["image"] for rows in lines.values() for e in rows}),
        warnings=warnings,
        questions=counts,
    )


def _questions(lines: dict[str, list[Entry]]) -> tuple[Counter[str], list[str]]:
    """How many questions of each subtask have an answer, and a warning of repeated ones."""
    rows = [
        Entry(e.where, {"id": _place(name, e["image"], e["question"]), "text": e["answer"].strip()})
        for name, entries in lines.items()
        for e in entries
    ]
    groups, warnings = by_id(rows, "id", rule=EACH)
    return Counter(group[0]["id"][0] for group in groups.values()), warnings


def _subtask_scores(sums: np.ndarray) -> np.ndarray:
    """(..., 4·K) sums -> (..., K) scores 100·acc + 100·acc+."""
    sums = sums.reshape(*sums.shape[:-1], -1, 4)
    return sums[..., 0] / sums[..., 1] * 100 + sums[..., 2] / sums[..., 3] * 100
