"""Ask a model a benchmark's questions: batched, longest first, greedy, resumable."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from sgv_lab import benchmarks
from sgv_lab.benchmarks import core
from sgv_lab.benchmarks.core import Entry
from sgv_lab.benchmarks.tasks import TASKS, Question, Task
from sgv_lab.captioning import bulk
from sgv_lab.closure import digest
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, write_json
from sgv_lab.images import image_problem
from sgv_lab.models import checkpoints
from sgv_lab.models.kinds import kind
from sgv_lab.training.collate import collator
from sgv_lab.training.conversation import IMAGE_ID, prompt_ids
from sgv_lab.training.images import prepare


def evaluate(
    model_folder: str | Path,
    benchmark: str,
    data: str | Path,
    out: str | Path,
    *,
    batch_size: int = 16,
    loaded: tuple[PreTrainedModel, ProcessorMixin] | None = None,
) -> dict[str, Any] | None:
    """Answer ``benchmark`` from ``data`` into ``out``; the score, or None where truth is hidden.

    ``out`` gets answers.jsonl (appended batch by batch: a killed run goes on where it stopped), the
    official submission and score.json. ``loaded`` saves reading the checkpoint again. Raises
    LabError if ``out`` holds answers of another model, benchmark or question, or of code that
    answers otherwise.
    """
    name, data, out = benchmarks.canonical(benchmark), Path(data), Path(out)
    task = TASKS[name]
    questions = list(task.questions(data))
    out.mkdir(parents=True, exist_ok=True)
    known = {"benchmark": name, "model": checkpoints.fingerprint(model_folder)}
    _same_run(out, known | {"code": digest(answer, checkpoints.load)})
    journal = Journal(out / "answers.jsonl")
    done = _done(journal, questions)
    if left := [question for question in questions if question.id not in done]:
        model, processor = loaded or checkpoints.load(model_folder)
        for asked, texts in answer(model, processor, left, task, data, batch_size):
            pairs = list(zip(asked, texts, strict=True))
            done |= {q.id: text for q, text in pairs}
            journal.append(
                {"question_id": q.id, "prompt": q.prompt, "text": text} for q, text in pairs
            )
    arguments = task.write(questions, done, data, out)
    if arguments is None:
        return None
    scores = benchmarks.module(name).score(**arguments)
    write_json(out / "score.json", {"benchmark": benchmarks.MODULES[name][1], **scores})
    return scores


def check_images(questions: Iterable[Question], data: Path) -> None:
    """Nothing; raises LabError naming the images that cannot be read, by their files' headers."""
    paths = dict.fromkeys(question.picture for question in questions if question.picture)
    bad = [f"{path} ({wrong})" for path in paths if (wrong := image_problem(data, path))]
    if bad:
        more = f" and {len(bad) - 1} more" if bad[1:] else ""
        what = f"lacks the picture {bad[0]}{more}"
        raise LabError(what, where=data, fix="unpack the official release there")


def _same_run(out: Path, settings: dict[str, str]) -> None:
    path = out / "run.json"
    if path.is_file() and (before := core.read_json(path)) != settings:
        raise LabError(
            f"holds answers of {before}, not of {settings}", where=out, fix="choose another --out"
        )
    write_json(path, settings)


def _done(journal: Journal, questions: Sequence[Question]) -> dict[str, str]:
    """Answers already given, by question."""
    prompts = {question.id: question.prompt for question in questions}
    rows = enumerate(journal.read(), 1)
    answers = core.index(
        (Entry(f"{journal.path}, line {n}", row) for n, row in rows), "question_id"
    )
    core.check_ids(answers, prompts, "the benchmark")
    for key, entry in answers.items():
        core.check_same_question(entry, entry["prompt"], prompts[key])
    return {key: entry.text("text") for key, entry in answers.items()}


def answer(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: Sequence[Question],
    task: Task,
    data: Path,
    batch_size: int,
) -> Iterable[tuple[list[Question], list[str]]]:
    """Yield (questions, answers) batch by batch, longest prompts first (memory fails at once)."""
    encoded = [(q, _ids(q, model, processor, task.system)) for q in questions]
    encoded.sort(key=lambda pair: -len(pair[1]))
    with tqdm(total=len(encoded), unit="question") as bar:
        for start in range(0, len(encoded), batch_size):
            batch = encoded[start : start + batch_size]
            texts = _generate(model, processor, batch, task, data)
            yield [question for question, _ in batch], texts
            bar.update(len(batch))


def _ids(
    question: Question, model: PreTrainedModel, processor: ProcessorMixin, system: str
) -> list[int]:
    """Prompt ids in the model's own template, the image's place as wide as the image will be.

    Where that depends on the image's shape (Qwen3-VL), the place stays one -200 for now.
    """
    has_image = question.picture is not None or question.encoded is not None
    text = ("<image>\n" if has_image else "") + question.prompt
    turns = [{"from": "human", "value": text}]
    template = kind(model.config.model_type).template
    ids = prompt_ids(turns, processor.tokenizer, template, has_image, system=system)
    feed = collator(model.config)
    if feed.image_tokens is None:
        return ids
    return feed.widened(ids, [feed.blank()] * ids.count(IMAGE_ID))[0].tolist()


def _generate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch: Sequence[tuple[Question, list[int]]],
    task: Task,
    data: Path,
) -> list[str]:
    """Greedy answers to (B) prompts: padded on the left, positions counted from the first token.

    Pictures are padded or cropped as the official scripts for LLaVA do; other families take them
    as they take all images.
    """
    feed = collator(model.config)
    aspect = task.aspect if kind(model.config.model_type).template == "v1" else "square"
    rows, images = [], []
    for question, ids in batch:
        image = question.image(data)
        own = [] if image is None else [prepare(image, processor.image_processor, aspect)]
        rows.append(feed.widened(ids, own)[0])
        images += own
    given = bulk.batched(model.config, processor, rows, images)
    decoding = bulk.Decoding(max_new_tokens=task.max_new_tokens)
    said = bulk.decode(model, processor, given, decoding)
    return [one["caption"] for one in said]
