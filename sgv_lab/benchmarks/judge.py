"""A judge grades MM-Vet and LLaVA-W answers: any OpenAI-compatible endpoint, grades kept by name.

The judge's instructions are data of the release: rule.json (LLaVA-W), and the few-shot table of
mm-vet_evaluator.py saved as prompt.txt beside mm-vet.json. Whether that is the official text is
recorded with the grades.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sgv_lab.benchmarks import core, llava_w, mmvet
from sgv_lab.errors import LabError
from sgv_lab.files import write_json, write_jsonl

Ask = Callable[[list[dict[str, str]], float, int], tuple[str, str]]
# of the text between the triple quotes in mm-vet_evaluator.py, blanks at both ends apart
MMVET_PROMPT = "f23108ec5f7a92d29c2e270842bb9cc7423b0504eeafd433894744f88a3fa872"


def endpoint(model: str, url: str | None) -> Ask:
    """``ask(messages, temperature, max_tokens) -> (name the endpoint gives itself, text)``.

    The key comes from OPENAI_API_KEY alone. Raises LabError if the endpoint fails after the
    client's own retries; what was graded before is kept.
    """
    import openai

    if "OPENAI_API_KEY" not in os.environ:
        raise LabError("OPENAI_API_KEY is not set", fix="export the endpoint's key")
    client = openai.OpenAI(base_url=url, max_retries=5)

    def ask(messages: list[dict[str, str]], temperature: float, max_tokens: int) -> tuple[str, str]:
        try:
            reply = client.chat.completions.create(
                model=model, messages=messages, temperature=temperature, max_tokens=max_tokens
            )
        except openai.OpenAIError as error:
            raise LabError(
                f"the judge {model} failed: {error}", fix="run again to go on"
            ) from error
        return reply.model, reply.choices[0].message.content or ""

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

    Grades are appended one by one to ``<predictions>.<judge>.jsonl``: a broken run goes on where it
    stopped. ``ask`` takes the endpoint's place. Raises LabError for a benchmark without judge.
    """
    jobs = {"mmvet": _mmvet, "llava-w": _llava_w}
    if benchmark not in jobs:
        raise LabError(f"{benchmark} has no judge", fix=f"use one of {', '.join(jobs)}")
    ask = ask or endpoint(model, url)
    name = re.sub(r"[^\w.-]", "-", model)
    stem = predictions.with_name(f"{predictions.stem}.{name}")
    return jobs[benchmark](predictions, data, stem, ask, model, runs)


def _kept(
    log: Path, keys: list[str], work: Callable[[str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of ``log`` for ``keys``, made by ``work`` and appended where they are missing."""
    log.touch()
    text = log.read_text()
    log.write_text(text[: text.rfind("\n") + 1])  # a line cut by a kill
    rows = {row["key"]: row for row in map(json.loads, log.read_text().splitlines())}
    with log.open("a") as file:
        for key in tqdm([key for key in keys if key not in rows], unit="grade"):
            rows[key] = {"key": key, **work(key)}
            file.write(json.dumps(rows[key], ensure_ascii=False) + "\n")
            file.flush()
    return [rows[key] for key in keys]


def _texts(predictions: Path, asked: list[str]) -> dict[str, str]:
    """Answers by id, from {id: text} or LLaVA's answers file; all of ``asked``, nothing else."""
    found = core.entries(predictions)
    if len(found) == 1 and "text" not in found[0].row:
        rows = [
            core.Entry(f"{predictions}, {k}", {"question_id": k, "text": v})
            for k, v in found[0].row.items()
        ]
        found = rows
    answers = core.index(found, "question_id")
    if core.known(answers, asked, "the benchmark"):
        absent = next(key for key in asked if key not in answers)
        raise LabError(f"has no answer to {absent}", where=predictions, fix="complete it first")
    return {key: entry.text("text") for key, entry in answers.items()}


def _mmvet(
    predictions: Path, data: Path, stem: Path, ask: Ask, model: str, runs: int
) -> tuple[Path, Path]:
    questions = core.read_json(data / "mm-vet.json")
    few_shot = core.read_text(data / "prompt.txt").strip() + "\n"
    digest = hashlib.sha256(few_shot.strip().encode()).hexdigest()
    texts = _texts(predictions, list(questions))

    def work(key: str) -> dict[str, Any]:
        row = questions[key.split("#")[0]]
        said = texts[key.split("#")[0]]
        messages = mmvet.judge_messages(row["question"], row["answer"], said, few_shot)
        name, content, grade = mmvet.grade(ask, messages)
        return {
            "model": name,
            "content": content,
            "score": grade,
            "official_prompt": digest == MMVET_PROMPT,
        }

    keys = [f"{key}#{run}" for run in range(runs) for key in questions]
    rows = _kept(Path(f"{stem}.log.jsonl"), keys, work)
    grades: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        kept = grades.setdefault(
            row["key"].split("#")[0], {"model": [], "content": [], "score": []}
        )
        for field, values in kept.items():
            values.append(row[field])
    path = Path(f"{stem}-grade-{runs}runs.json")
    write_json(path, grades)
    return path, data / "mm-vet.json"


def _llava_w(
    predictions: Path, data: Path, stem: Path, ask: Ask, model: str, runs: int
) -> tuple[Path, Path]:
    questions = core.index(core.entries(data / "questions.jsonl"), "question_id")
    captions = {e["image"]: e["caption"] for e in core.entries(data / "context.jsonl")}
    reference = core.index(core.entries(data / "answers_gpt4.jsonl"), "question_id")
    rules, texts = core.read_json(data / "rule.json"), _texts(predictions, list(questions))

    def work(key: str) -> dict[str, Any]:
        question_id = key.split("#")[0]
        question = questions[question_id]
        category = f"llava_bench_{question['category']}"
        caption = captions[question["image"]]
        name, review = ask(
            llava_w.judge_messages(
                caption if isinstance(caption, str) else "\n".join(caption),
                question["text"],
                reference[question_id]["text"],
                texts[question_id],
                rules[category],
            ),
            0.2,
            1024,
        )
        return {
            "question_id": question["question_id"],
            "category": category,
            "content": review,
            "tuple": llava_w.parse(review),
            "judge": name,
        }

    folder = Path(f"{stem}-reviews")
    folder.mkdir(exist_ok=True)
    keys = [f"{key}#{run}" for run in range(runs) for key in questions]
    rows = _kept(Path(f"{stem}.log.jsonl"), keys, work)
    for run in range(runs):
        mine = [r for r in rows if r["key"].endswith(f"#{run}")]
        write_jsonl(
            folder / f"run{run + 1}.jsonl",
            ({k: v for k, v in r.items() if k != "key"} for r in mine),
        )
    return folder, data / "questions.jsonl"
