"""MME: 14 subtasks of yes/no questions, two an image; score = 100·acc + 100·acc+ each.

Rules: BradyFU Awesome-MLLM, tools/eval_tool.zip@1c1d69e, calculation.py; join of a LLaVA answers
file to the ground truth: convert_answer_to_mme.py of the same tool as LLaVA changed it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import EACH, Answers, Entry, File
from sgv_lab.errors import LabError
from sgv_lab.files import files_below
from sgv_lab.intervals import by_cluster_and_group, clustered

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
SUFFIX = core.SHORT_ANSWER
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
    head = answer[:4]
    return "yes" if "yes" in head else "no" if "no" in head else "other"


def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score a folder of ``<subtask>.txt`` (image, question, truth, answer) or LLaVA's answers file.

    ``annotations`` is the MME data folder: needed for an answers file, and where not all official
    subtasks are asked. Another harness's rows hold their truth, and pairs in any order.
    """
    if Path(predictions).is_dir():
        paths = core.find_files(predictions, "*.txt")
        given = [entry for path in paths for entry in _submitted(path)]
    else:
        given = [_as_submitted(entry) for entry in core.rows(predictions)]
        if all("truth" in entry.row for entry in given):
            given.sort(key=lambda entry: entry["image"])
        else:
            core.require(annotations, "the MME data folder")
    counts = OFFICIAL_QUESTIONS
    if annotations is not None:
        asked = truth(Path(annotations))
        counts = {subtask: len(rows) for subtask, rows in asked.items()}
        given = list(_with_truth(given, asked))
    lines = core.grouped((entry["subtask"], entry) for entry in given)
    pairs = {name: list(_pairs(entries)) for name, entries in lines.items()}
    if absent := counts.keys() - pairs.keys():
        what = f"has no {', '.join(sorted(absent))}"
        fix = "complete it, or name with --annotations the data folder that asks for less"
        raise LabError(what, where=predictions, fix=fix)
    if more := pairs.keys() - counts.keys():
        raise LabError(f"{more.pop()} is no subtask that is asked", where=predictions)
    return _result({name: pairs[name] for name in counts}, counts, variant)


def _submitted(path: Path) -> Iterator[Entry]:
    """The lines of ``<subtask>.txt``, each an Entry of subtask, image, question, truth, text."""
    for number, line in enumerate(core.read_text(path).removesuffix("\n").split("\n"), 1):
        fields, where = line.split("\t"), f"{path}, line {number}"
        if len(fields) != 4:
            what = f"has {len(fields)} tab-separated fields, not 4 (image, question, truth, answer)"
            raise LabError(what, where=where, fix="answers must hold no tab and no newline")
        row = dict(zip(("image", "question", "truth", "text"), fields, strict=True))
        yield Entry(where, row | {"subtask": path.stem})


def _as_submitted(entry: Entry) -> Entry:
    """The same of a row of LLaVA's file (question_id "subtask/image.png", …), without truth.

    A row of another harness has it, as "answer"; VLMEvalKit's names the image by its path alone.
    """
    if "question_id" in entry.row:
        subtask, _, image = str(entry["question_id"]).partition("/")
    else:
        subtask, image = entry["category"], Path(entry["image_path"]).name
    asked = entry.text("prompt", "question").removesuffix(SUFFIX).removesuffix(ASK)
    question = f"{asked.rstrip()} {ASK}"
    if any(c in (text := entry.text("text", "prediction")) for c in "\t\n\r"):
        what = f"the answer {text!r} holds a tab or a newline"
        raise entry.error(what, fix="write each answer as one line without tabs")
    row = {"subtask": subtask, "image": image, "question": question, "text": text}
    return Entry(entry.where, row | ({"truth": entry["answer"]} if "answer" in entry.row else {}))


def _with_truth(given: list[Entry], asked: dict[str, list[Entry]]) -> Iterator[Entry]:
    """``given`` with the truth of the data folder, which asked each of these questions."""
    known = {_place(entry.row): entry["truth"] for rows in asked.values() for entry in rows}
    for entry in given:
        row, true = entry.row, known.get(_place(entry.row))
        if true is None or row.get("truth", true) != true:
            what = f"{row['question']!r} is no question on {row['subtask']}/{row['image']}"
            raise entry.error(what, fix="give the data folder that was asked")
        yield Entry(entry.where, row | {"truth": true})


def _place(row: dict[str, str]) -> tuple[str, str, str]:
    """What names a question. Blanks do not matter: seven official ones have two before ASK."""
    return row["subtask"], Path(row["image"]).stem, " ".join(row["question"].split())


def _pairs(entries: list[Entry]) -> Iterator[list[Entry]]:
    """The two questions of each image; LabError where they are not on consecutive lines."""
    for pair in (entries[i : i + 2] for i in range(0, len(entries), 2)):
        one, two = pair[0], pair[-1]
        for entry in pair:
            if entry["truth"].lower() not in ("yes", "no"):
                raise entry.error(f"the truth is {entry['truth']!r}, not Yes or No")
        if one is two or one["image"] != two["image"]:
            what = f"{one['image']} has no second question beside it"
            fix = "keep both questions of an image on consecutive lines, or drop both"
            raise one.error(what, fix=fix)
        if one["question"] == two["question"]:
            raise two.error("stands twice, and the other question is missing")
        yield pair


def release(folder: Path) -> Path:
    """Where the subtasks' folders lie: the release unpacks to one of its own."""
    return next(iter(folder.glob("MME_Benchmark_release*/")), folder)


def truth(folder: Path) -> dict[str, list[Entry]]:
    """The questions of an MME data folder by subtask: Entries of subtask, image, question, truth.

    ``<subtask>/[questions_answers_YN/]<image>.txt`` holds lines "question, tab, Yes or No".
    """
    folder, found = release(folder), []
    for subtask in OFFICIAL_QUESTIONS:
        for path in sorted(p for p in files_below(folder / subtask) if p.suffix == ".txt"):
            for number, line in enumerate(core.read_text(path).strip().split("\n"), 1):
                where = f"{path}, line {number}"
                question, tab, answer = line.rstrip().partition("\t")
                if not tab:
                    raise LabError("is not 'question, tab, answer'", where=where)
                row = {"subtask": subtask, "image": path.stem, "question": question}
                found.append((subtask, Entry(where, row | {"truth": answer})))
    if not found:
        raise LabError("holds no MME subtask folder", where=folder)
    return core.grouped(found)


def _result(
    pairs: dict[str, list[list[Entry]]], asked: dict[str, int], variant: str
) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    reads = Counter[str]()
    for part, subtasks in PARTS.items():
        counted: list[Any] = []  # cluster, subtask, counts of each pair
        for name, pair in ((one, pair) for one in subtasks for pair in pairs.get(one, ())):
            said = [parse(entry["text"], variant) for entry in pair]
            right = [s == e["truth"].lower() for s, e in zip(said, pair, strict=True)]
            reads.update(said)
            # perception shares photos; "0001.png" is another image in each of cognition
            image = pair[0]["image"]
            cluster = image if part == "perception" else (name, image)
            counted.append((cluster, name, (sum(right), 2, all(right), 1)))
        if counted:
            sums = by_cluster_and_group(*zip(*counted, strict=True))
            names = dict.fromkeys(name for _, name, _ in counted)
            each, most = _subtask_scores(sums.sum(0)).tolist(), 200.0 * len(names)
            scores |= {part: float(sum(each)), **dict(zip(names, each, strict=True))}
            intervals[part] = clustered(lambda s: _subtask_scores(s).sum(-1), sums, most)
    every = [entry for part in pairs.values() for pair in part for entry in pair]
    by_place = [Entry(e.where, {"id": _place(e.row), "text": e["text"].strip()}) for e in every]
    answers = Answers(by_place, "id", rule=EACH)
    answered = Counter(entry["id"][0] for entry in answers.values())
    answers.missing = sum(max(0, count - answered[name]) for name, count in asked.items())
    scores["questions"] = {name: 2 * len(part) for name, part in pairs.items()}
    images = [entry["image"] for entry in every]
    return core.result(scores, answers, reads["other"], intervals, "image", images)


def _subtask_scores(sums: np.ndarray) -> np.ndarray:
    """Sums (..., 4) of right answers, questions, right pairs, pairs -> (...) 100·acc + 100·acc+."""
    return sums[..., 0] / sums[..., 1] * 100 + sums[..., 2] / sums[..., 3] * 100
