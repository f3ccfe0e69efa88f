"""Ask a model a benchmark's questions: batched, longest first, greedy, resumable."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from sgv_lab import benchmarks
from sgv_lab.benchmarks import core
from sgv_lab.benchmarks.core import Answers, Entry
from sgv_lab.benchmarks.tasks import TASKS, Question, Task
from sgv_lab.captioning import bulk
from sgv_lab.closure import digest
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, in_threads, sha256, write_json
from sgv_lab.images import image_problem, images_kinds
from sgv_lab.models import checkpoints
from sgv_lab.models.architectures import template
from sgv_lab.training.collate import collator, prompts
from sgv_lab.training.conversation import IMAGE_ID, encode, prompt_ids
from sgv_lab.training.preprocessing import prepare

Asked = tuple[Question, list[int]]  # with the ids of its prompt
Shown = Mapping[str, torch.Tensor] | Sequence[Image.Image | None]  # prepared, or for a processor


def evaluate(
    model: Any,
    benchmark: str,
    data: str | Path,
    out: str | Path,
    *,
    batch_size: int = 16,
    loaded: tuple[PreTrainedModel, ProcessorMixin] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Any] | None:
    """Answer ``benchmark`` from ``data`` into ``out``; the score, or None where truth is hidden.

    ``out`` gets answers.jsonl (appended batch by batch: a killed run goes on where it stopped), the
    official submission and score.json. ``model``: a checkpoint's folder, or a `served.Served`;
    ``loaded`` saves reading the checkpoint again. ``shard``: (i, n), this process asks about every
    n-th image from the i-th. All shards share ``out``, and the one that ends last scores; the
    others return how many questions are answered. Raises LabError if ``out`` holds answers of
    another model, precision, benchmark, question or image, or of code that answers otherwise.
    """
    name, data, out = benchmarks.canonical(benchmark), Path(data), Path(out)
    task = TASKS[name]
    questions = list(task.questions(data))
    out.mkdir(parents=True, exist_ok=True)
    served = not isinstance(model, str | Path)
    if served:
        known = model.known()
    else:
        code, dtype = digest(answer, checkpoints.load), loaded[0].dtype if loaded else torch.float32
        known = {"model": checkpoints.fingerprint(model), "code": code, "dtype": str(dtype)}
    settings = {"benchmark": name, "images": _images_hash(questions, data), **known}
    run = out / "run.json"
    if run.is_file() and (before := core.read_json(run)) != settings:
        what = f"holds answers of {before}, not of {settings}"
        raise LabError(what, where=out, fix="choose another --out")
    write_json(run, settings)
    journal = Journal(out / "answers.jsonl")
    done = _done(journal, questions)
    if left := [question for question in part_of(questions, shard) if question.id not in done]:
        if served:
            batches = model.answer(left, task, data)
        else:
            batches = answer(*(loaded or checkpoints.load(model)), left, task, data, batch_size)
        for batch in batches:
            journal.append({"question_id": q.id, "prompt": q.prompt, **said} for q, said in batch)
        done = _done(journal, questions)  # by other shards, too
    if len(done) < len(questions):
        return {"answered": len(done), "questions": len(questions)}
    arguments = task.write(questions, done, data, out)
    if arguments is None:
        return None
    scores = benchmarks.module(name).score(**arguments)
    write_json(out / "score.json", {"benchmark": benchmarks.MODULES[name][1], **scores})
    return scores


def check_images(questions: Iterable[Question], data: Path) -> None:
    """Nothing; raises LabError naming the images that cannot be read; each is decoded."""
    paths = dict.fromkeys(question.path for question in questions if question.path)
    looked = zip(paths, map(image_problem, images_kinds(data, paths)), strict=True)
    bad = [f"{path} ({wrong})" for path, wrong in looked if wrong]
    if bad:
        more = f" and {len(bad) - 1} more" if bad[1:] else ""
        what = f"lacks the image {bad[0]}{more}"
        raise LabError(what, where=data, fix="unpack the official release there")


def _images_hash(questions: Sequence[Question], data: Path) -> str:
    """A hash of the bytes of all images that are asked about."""
    paths, found = list(dict.fromkeys(q.path for q in questions if q.path)), hashlib.sha256()
    for path, one in zip(paths, in_threads(lambda path: sha256(data / path), paths), strict=True):
        found.update(f"{path} {one}\n".encode())
    for question in questions:
        found.update((question.encoded or "").encode())
    return found.hexdigest()[:20]


def part_of(questions: Sequence[Question], shard: tuple[int, int]) -> list[Question]:
    """The questions of a shard; those about one image stay together."""
    part, parts = shard
    if not 0 <= part < parts:
        raise LabError(f"no shard {part}/{parts}", fix="count from 0: 0/2 and 1/2")
    images = [q.path or q.encoded or q.id for q in questions]
    number = {image: n for n, image in enumerate(dict.fromkeys(images))}
    return [q for q, i in zip(questions, images, strict=True) if number[i] % parts == part]


def _done(journal: Journal, questions: Sequence[Question]) -> dict[str, str]:
    """Answers already given, by question."""
    asked = {q.id: Entry(q.id, {"prompt": q.prompt}) for q in questions}
    rows = [Entry(f"{journal.path}, line {n}", row) for n, row in enumerate(journal.read(), 1)]
    answers = Answers(rows, "question_id", rule=core.FIRST)
    answers.against(asked, "the benchmark", said="prompt", asked="prompt")
    return {key: entry.text("text") for key, entry in answers.items()}


def answer(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: Sequence[Question],
    task: Task,
    data: Path,
    batch_size: int,
    progress: bool = True,
) -> Iterator[list[tuple[Question, dict[str, Any]]]]:
    """Yield batches of (question, its "text", and its "margin" where the task wants one).

    ``batch_size`` images are taken at once, those with the longest prompts first (memory fails at
    once), and the questions about them asked batch by batch. The next images are read and prepared
    meanwhile: padded or cropped as the official scripts for LLaVA do. Other families take them as
    they take all images.
    """
    feed, words = collator(model.config), _first_tokens(model, processor, task.margin)
    aspect = task.aspect if template(model.config) == "v1" else "square"
    wide = [feed.image_token_id] * (feed.image_tokens or 1)
    images: dict[Hashable, list[Asked]] = {}
    for q in questions:
        limit = q.max_new_tokens or task.max_new_tokens
        ids = _ids(q, model, processor, task.system)
        ids = [token for i in ids for token in (wide if i == IMAGE_ID else (i,))]
        images.setdefault((limit, q.has_image, q.path, q.encoded), []).append((q, ids))
    longest = {key: max(len(ids) for _, ids in asked) for key, asked in images.items()}
    order = sorted(images, key=lambda key: (*key[:2], longest[key]), reverse=True)
    parts = [
        (limit, some)
        for (limit, _), keys in groupby(order, key=lambda key: key[:2])
        for some in _parts([images[key] for key in keys], batch_size)
    ]

    def read(part: tuple[int, Sequence[Sequence[Asked]]]) -> Shown:
        images = [group[0][0].image(data) for group in part[1]]
        if template(model.config) == "chat":
            return images
        shown = [prepare(i, processor.image_processor, aspect) for i in images if i is not None]
        return feed.pixels(shown) if shown else {}

    ready = in_threads(read, parts, bulk.LOADERS)
    with tqdm(total=len(questions), unit="question", disable=not progress) as bar:
        for (limit, some), shown in zip(parts, ready, strict=True):
            decoding = bulk.Decoding(max_new_tokens=limit)
            for asked, given in _batches(model, processor, some, shown, batch_size):
                said = bulk.decode(model, processor, given, decoding, words=words)
                yield [(q, _kept(one)) for q, one in zip(asked, said, strict=True)]
                bar.update(len(asked))


def _parts(given: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (given[start : start + size] for start in range(0, len(given), size))


def _kept(said: dict[str, Any]) -> dict[str, Any]:
    margin = {"margin": round(said["margin"], 4)} if "margin" in said else {}
    return {"text": said["caption"], **margin}


def _turns(question: Question) -> list[dict[str, str]]:
    tag = "<image>\n" if question.has_image else ""
    return [{"from": "human", "value": tag + question.prompt}]


def _ids(
    question: Question, model: PreTrainedModel, processor: ProcessorMixin, system: str
) -> list[int]:
    """Prompt ids in the model's own template; an image is one token, -200."""
    taught = template(model.config)
    return prompt_ids(_turns(question), processor, taught, question.has_image, system=system)


def _first_tokens(
    model: PreTrainedModel, processor: ProcessorMixin, words: Sequence[str]
) -> list[int]:
    """The tokens that answers of these words begin with."""
    taught, asked = template(model.config), [{"from": "human", "value": "What?"}]
    start, first = len(prompt_ids(asked, processor, taught, has_image=False)), []
    for word in words:
        record = {"id": word, "conversations": [*asked, {"from": "gpt", "value": word}]}
        first.append(encode(record, processor, taught).input_ids[start])
    return first


def _batches(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    groups: Sequence[Sequence[Asked]],
    shown: Shown,
    batch_size: int,
) -> Iterator[tuple[list[Question], BatchFeature]]:
    """Batches of the questions about some images, by length, with what ``generate`` takes.

    What an image's prompts share is computed once, except for models fed by their own processor,
    which get each prompt whole.
    """
    whole = template(model.config) == "chat"
    if not whole:
        known = bulk.prefill(model, [[ids for _, ids in group] for group in groups], shown)
    asked = [(number, *one) for number, group in enumerate(groups) for one in group]
    for batch in _parts(sorted(asked, key=lambda one: -len(one[2])), batch_size):
        numbers, some, rows = (list(column) for column in zip(*batch, strict=True))
        if whole:
            turns, images = [_turns(q) for q in some], [shown[number] for number in numbers]
            yield some, prompts(model.config, processor, turns, images, "square")
        else:
            yield some, bulk.continued(known, numbers, rows, processor.tokenizer.pad_token_id)
