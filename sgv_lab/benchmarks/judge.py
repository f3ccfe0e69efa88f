"""A judge grades MM-Vet and LLaVA-W answers: any OpenAI-compatible endpoint, grades kept by name.

The judge's instructions are data of the release: rule.json (LLaVA-W), and the few-shot table of
mm-vet_evaluator.py saved as prompt.txt beside mm-vet.json.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sgv_lab.benchmarks import core, llava_w, mmvet
from sgv_lab.benchmarks.served import Chat
from sgv_lab.captioning.client import NoAnswer, RequestRefused, about_content
from sgv_lab.captioning.collect import STOP_AFTER
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, write_json, write_jsonl

Messages = list[dict[str, str]]
Ask = Callable[[Messages, float, int], tuple[str, str]]
Row = dict[str, Any]
PROMPT = (
    "save there, as prompt.txt, the few-shot text in mm-vet_evaluator.py of "
    "github.com/yuweihao/MM-Vet: what its variable `prompt` holds"
)
RULE = "save there llava/eval/table/rule.json of github.com/haotian-liu/LLaVA"
log = logging.getLogger(__name__)


def endpoint(model: str, url: str | None) -> Ask:
    """``ask(messages, temperature, max_tokens) -> (name the endpoint gives itself, text)``.

    ``ask`` raises as `Chat.usable` does.
    """
    chat = Chat(url, model)

    def ask(messages: Messages, temperature: float, max_tokens: int) -> tuple[str, str]:
        found = chat.usable(messages, max_tokens, temperature=temperature)
        return str(found.served or model), found.text

    return ask


def graded(
    benchmark: str,
    predictions: Path,
    data: Path,
    model: str,
    url: str | None = None,
    runs: int = 1,
    ask: Ask | None = None,
) -> tuple[Path, Path]:
    """Grade answers; (grades in the official format, the file to score them with).

    Grades are appended one by one to ``<predictions>.<judge>.log.jsonl``, each by its question,
    the judge and all it was told: a broken run goes on where it stopped, and another answer is
    graded anew. A question without a usable answer counts as the official rule counts one that
    cannot be read; that is told, and it is asked again next time. ``ask`` takes the endpoint's
    place. Raises LabError for a benchmark without judge, and for a judge that fails.
    """
    jobs = {"mmvet": _mmvet, "llava-w": _llava_w}
    if benchmark not in jobs:
        raise LabError(f"{benchmark} has no judge", fix=f"use one of {', '.join(jobs)}")
    name = re.sub(r"[^\w.-]", "-", model)
    stem = predictions.with_name(f"{predictions.stem}.{name}")
    grades = _Grades(stem, model, ask or endpoint(model, url), runs)
    return jobs[benchmark](predictions, data, stem, grades)


class _Grades:
    """The journal of a judge's grades, and the way to complete it."""

    def __init__(self, stem: Path, model: str, ask: Ask, runs: int) -> None:
        self.journal = Journal(f"{stem}.log.jsonl")
        self.model, self.ask, self.runs = model, ask, runs

    def of(
        self, chats: dict[str, Messages], grade: Callable[[str, Ask], Row], name: str
    ) -> list[list[Row]]:
        """For each run the rows of the questions, whose chats begin with ``chats``.

        ``grade(question, ask)`` makes a row; ``name``: its field that names the judge.
        """
        told = {one: f"{one}#{self._digest(messages)}" for one, messages in chats.items()}
        wanted = {f"{told[one]}#{run}": one for run in range(self.runs) for one in chats}
        rows = self._kept(set(told.values()))
        unusable: dict[str, Row] = {}  # rows of answers that are asked for again next time
        failed, in_a_row, why = False, 0, "no question"
        for key in tqdm([key for key in wanted if key not in rows], unit="grade"):
            try:
                rows[key], in_a_row = grade(wanted[key], self.ask), 0
                self.journal.append([{"key": key, **rows[key]}])
                continue
            except NoAnswer as error:
                failed, why = True, str(error)
            except RequestRefused as error:
                why = str(error)
                unusable[key] = grade(wanted[key], lambda *_: ("", "")) | {"reason": why}
            in_a_row += not about_content(why)
            if in_a_row == STOP_AFTER:
                failed = True
                break
        graded = [rows[key] for key in wanted if key in rows]
        if failed or not graded:
            what = f"the judge {self.model} failed: {why}"
            raise LabError(what, fix="repair it and run again: what was graded is kept")
        if unusable:
            reasons = Counter(row["reason"] for row in unusable.values()).most_common(3)
            shown = "; ".join(f"{number} × {reason}" for reason, number in reasons)
            log.warning("%d grades without a usable answer, unparsed (%s)", len(unusable), shown)
        rows |= {key: row | {name: graded[0][name]} for key, row in unusable.items()}
        return [[rows[f"{told[one]}#{run}"] for one in chats] for run in range(self.runs)]

    def _digest(self, messages: Messages) -> str:
        return hashlib.sha256(json.dumps([self.model, messages]).encode()).hexdigest()[:16]

    def _kept(self, told: set[str]) -> dict[str, Row]:
        """The journal's rows of these questions, by key; how many others there are is told."""
        rows = {row.pop("key"): row for row in self.journal.read()}
        kept = {key: row for key, row in rows.items() if key.rpartition("#")[0] in told}
        if others := len(rows) - len(kept):
            what = "%s: %d grades of other answers, questions or prompts are not used"
            log.warning(what, self.journal.path.name, others)
        return kept


def _texts(predictions: Path, asked: Iterable[str]) -> dict[str, str]:
    """Answers by id, from {id: text} or LLaVA's answers file; all of ``asked``, nothing else."""
    found = core.entries(predictions)
    by_id = len(found) == 1 and "text" not in found[0].row
    answers = core.keyed(predictions, "text") if by_id else core.index(found, "question_id")
    if core.check_ids(answers, asked, "the benchmark"):
        absent = next(key for key in asked if key not in answers)
        raise LabError(f"has no answer to {absent}", where=predictions, fix="complete it first")
    return {key: entry.text("text") for key, entry in answers.items()}


def _instructions(data: Path, name: str, source: str) -> Path:
    """A judge's instructions among a benchmark's files. Raises LabError with their ``source``."""
    if not (data / name).is_file():
        raise LabError(f"the judge's instructions, {name}, are not there", where=data, fix=source)
    return data / name


def _mmvet(predictions: Path, data: Path, stem: Path, grades: _Grades) -> tuple[Path, Path]:
    questions = core.read_json(data / "mm-vet.json")
    few_shot = core.read_text(_instructions(data, "prompt.txt", PROMPT)).strip() + "\n"
    texts = _texts(predictions, questions)
    chats = {
        key: mmvet.judge_messages(row["question"], row["answer"], texts[key], few_shot)
        for key, row in questions.items()
    }
    fields = ("model", "content", "score")

    def graded(key: str, ask: Ask) -> Row:
        return dict(zip(fields, mmvet.grade(ask, chats[key]), strict=True))

    found = {}
    for key, *rows in zip(questions, *grades.of(chats, graded, "model"), strict=True):
        found[key] = {name: [row[name] for row in rows] for name in fields}
    path = Path(f"{stem}-grade-{grades.runs}runs.json")
    write_json(path, found)
    return path, data / "mm-vet.json"


def _llava_w(predictions: Path, data: Path, stem: Path, grades: _Grades) -> tuple[Path, Path]:
    questions = core.index(core.entries(data / "questions.jsonl"), "question_id")
    captions = {e["image"]: e["caption"] for e in core.entries(data / "context.jsonl")}
    reference = core.index(core.entries(data / "answers_gpt4.jsonl"), "question_id")
    rules = core.read_json(_instructions(data, "rule.json", RULE))
    texts = _texts(predictions, questions)
    chats = {}
    for key, question in questions.items():
        caption = captions[question["image"]]
        chats[key] = llava_w.judge_messages(
            caption if isinstance(caption, str) else "\n".join(caption),
            question["text"],
            reference[key]["text"],
            texts[key],
            rules[f"llava_bench_{question['category']}"],
        )

    def graded(key: str, ask: Ask) -> Row:
        name, review = ask(chats[key], 0.2, 1024)
        return {
            "question_id": questions[key]["question_id"],
            "category": f"llava_bench_{questions[key]['category']}",
            "content": review,
            "tuple": llava_w.parse(review),
            "judge": name,
        }

    folder = Path(f"{stem}-reviews")
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(grades.of(chats, graded, "judge"), 1):
        write_jsonl(folder / f"run{number}.jsonl", rows)
    return folder, data / "questions.jsonl"
