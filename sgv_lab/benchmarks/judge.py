"""A judge grades MM-Vet and LLaVA-W answers: any OpenAI-compatible endpoint, grades kept by name.

The judge's instructions are data of the release: rule.json (LLaVA-W), and the few-shot table of
mm-vet_evaluator.py saved as prompt.txt beside mm-vet.json.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sgv_lab.benchmarks import core, llava_w, mmvet
from sgv_lab.captioning.keys import key
from sgv_lab.errors import LabError
from sgv_lab.files import whole_lines, write_json, write_jsonl

Ask = Callable[[list[dict[str, str]], float, int], tuple[str, str]]


def endpoint(model: str, url: str | None) -> Ask:
    """``ask(messages, temperature, max_tokens) -> (name the endpoint gives itself, text)``.

    Raises LabError if the endpoint fails after the client's own retries; what was graded before is
    kept.
    """
    import openai

    client = openai.OpenAI(base_url=url, api_key=key(url or ""), max_retries=5)

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
    return jobs[benchmark](predictions, data, stem, ask, runs)


def _kept(
    log: Path, ids: list[str], runs: int, work: Callable[[str], dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """For each run the rows of ``ids``; those that ``log`` lacks are made and appended to it."""
    rows = {row.pop("key"): row for row in whole_lines(log)}
    keys = [(f"{one}#{run}", one) for run in range(runs) for one in ids]
    with log.open("a", encoding="utf-8") as file:
        for key, one in tqdm([pair for pair in keys if pair[0] not in rows], unit="grade"):
            rows[key] = work(one)
            file.write(json.dumps({"key": key, **rows[key]}, ensure_ascii=False) + "\n")
            file.flush()
    return [[rows[f"{one}#{run}"] for one in ids] for run in range(runs)]


def _texts(predictions: Path, asked: list[str]) -> dict[str, str]:
    """Answers by id, from {id: text} or LLaVA's answers file; all of ``asked``, nothing else."""
    found = core.entries(predictions)
    if len(found) == 1 and "text" not in found[0].row:
        answers = core.keyed(predictions, "text")
    else:
        answers = core.index(found, "question_id")
    if core.known(answers, asked, "the benchmark"):
        absent = next(key for key in asked if key not in answers)
        raise LabError(f"has no answer to {absent}", where=predictions, fix="complete it first")
    return {key: entry.text("text") for key, entry in answers.items()}


def _mmvet(predictions: Path, data: Path, stem: Path, ask: Ask, runs: int) -> tuple[Path, Path]:
    questions = core.read_json(data / "mm-vet.json")
    few_shot = core.read_text(data / "prompt.txt").strip() + "\n"
    texts = _texts(predictions, list(questions))

    def work(key: str) -> dict[str, Any]:
        row = questions[key]
        messages = mmvet.judge_messages(row["question"], row["answer"], texts[key], few_shot)
        name, content, grade = mmvet.grade(ask, messages)
        return {"model": name, "content": content, "score": grade}

    found = _kept(Path(f"{stem}.log.jsonl"), list(questions), runs, work)
    path = Path(f"{stem}-grade-{runs}runs.json")
    fields = ("model", "content", "score")
    write_json(
        path,
        {
            key: {field: [row[field] for row in rows] for field in fields}
            for key, rows in zip(questions, zip(*found, strict=True), strict=True)
        },
    )
    return path, data / "mm-vet.json"


def _llava_w(predictions: Path, data: Path, stem: Path, ask: Ask, runs: int) -> tuple[Path, Path]:
    questions = core.index(core.entries(data / "questions.jsonl"), "question_id")
    captions = {e["image"]: e["caption"] for e in core.entries(data / "context.jsonl")}
    reference = core.index(core.entries(data / "answers_gpt4.jsonl"), "question_id")
    rules, texts = core.read_json(data / "rule.json"), _texts(predictions, list(questions))

    def work(key: str) -> dict[str, Any]:
        question, caption = questions[key], captions[questions[key]["image"]]
        category = f"llava_bench_{question['category']}"
        messages = llava_w.judge_messages(
            caption if isinstance(caption, str) else "\n".join(caption),
            question["text"],
            reference[key]["text"],
            texts[key],
            rules[category],
        )
        name, review = ask(messages, 0.2, 1024)
        return {
            "question_id": question["question_id"],
            "category": category,
            "content": review,
            "tuple": llava_w.parse(review),
            "judge": name,
        }

    folder = Path(f"{stem}-reviews")
    folder.mkdir(exist_ok=True)
    found = _kept(Path(f"{stem}.log.jsonl"), list(questions), runs, work)
    for number, rows in enumerate(found, 1):
        write_jsonl(folder / f"run{number}.jsonl", rows)
    return folder, data / "questions.jsonl"
