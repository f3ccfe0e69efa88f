"""What a model is asked: each benchmark's questions, prompts, images and official submission.

Protocol: share4v/eval and scripts/sharegpt4v/eval of ShareGPT4Omni/ShareGPT4V@b6f70e9. Data folders
are the official releases, unpacked; the miniature world writes the same layouts.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sgv_lab.benchmarks import core, exam, mmbench, mme, pope, qbench, scienceqa, seed_bench, vqa
from sgv_lab.benchmarks.captions import FILES as CAPTION_FILES
from sgv_lab.errors import LabError
from sgv_lab.files import files_below, write_json, write_jsonl
from sgv_lab.images import decode_image
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.preprocessing import open_image

Answers = Mapping[str, str]


@dataclass(frozen=True)
class Question:
    """One prompt. Its image is a ``path`` below ``root``, base64 (``encoded``), or absent.

    ``max_new_tokens``: of its answer; 0: the task's.
    """

    id: str
    prompt: str
    path: str | None = None
    encoded: str | None = None
    row: dict[str, Any] = field(default_factory=dict, repr=False)
    max_new_tokens: int = 0

    @property
    def has_image(self) -> bool:
        """Whether it is about an image."""
        return self.path is not None or self.encoded is not None

    def file(self, root: Path) -> bytes:
        """The bytes of its image's file."""
        if self.encoded is not None:
            return base64.b64decode(self.encoded)
        return (root / str(self.path)).read_bytes()

    def image(self, root: Path) -> Image.Image | None:
        """The RGB image, or None for a question about text alone."""
        if self.encoded is None:
            return None if self.path is None else open_image(root, self.path, self.id)
        try:
            return decode_image(self.file(root))
        except ValueError as error:
            raise LabError(f"its image: {error}", where=f"question {self.id!r}") from error


Files = dict[str, Path] | None  # arguments of the scorer, or None without truth
Writer = Callable[[list[Question], Answers, Path, Path], Files]  # questions, answers, data, out


@dataclass(frozen=True)
class Task:
    """How one benchmark is run: its questions, image preparation, length, official files.

    ``margin``: two words; kept is by how much the first one's logit is above the other's.
    """

    questions: Callable[[Path], Iterator[Question]]
    aspect: str  # "pad" or "square" (centre crop), as the official script
    max_new_tokens: int
    write: Writer
    system: str = SYSTEM
    margin: tuple[str, ...] = ()


def _one(data: Path, *patterns: str) -> Path:
    return core.find_files(data, *patterns)[0]


def _folder(data: Path, name: str) -> str:
    """Where images lie: in the folder that the release unpacks to, or in "images"."""
    return name if (data / name).is_dir() else "images"


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(name: str, row: Callable[[Question, str], dict[str, Any]], truth: str = "") -> Writer:
    """A writer of JSON lines, ``row`` of question and answer; ``truth``: its file below data."""

    def write(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
        write_jsonl(out / name, (row(q, answers[q.id]) for q in questions))
        return {"predictions": out / name, "annotations": _one(data, truth) if truth else data}

    return write


def _mme(data: Path) -> Iterator[Question]:
    root, data = data, mme.release(data)
    for subtask, rows in mme.truth(data).items():
        files = sorted((p for p in files_below(data / subtask) if p.suffix != ".txt"), reverse=True)
        images = {path.stem: path for path in files}
        for number, row in enumerate(rows):
            if (found := images.get(row["image"])) is None:
                what, fix = f"lacks the image {row['image']}", "unpack the official release anew"
                raise LabError(what, where=data / subtask, fix=fix)
            short = row["question"].removesuffix(mme.ASK).rstrip() + mme.SUFFIX
            image = found.relative_to(root).as_posix()
            about = row.row | {"name": found.name}
            yield Question(f"{subtask}/{number}", short, image, row=about)


def _write_mme(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    folder = out / "mme"
    folder.mkdir(exist_ok=True)
    lines: dict[str, list[str]] = {}
    for q in questions:
        # the eval tool's format: one line an answer, four fields
        fields = [q.row["name"], q.row["question"], q.row["truth"], _line(answers[q.id])]
        lines.setdefault(q.row["subtask"], []).append("\t".join(fields) + "\n")
    for subtask, rows in lines.items():
        (folder / f"{subtask}.txt").write_text("".join(rows), encoding="utf-8")
    return {"predictions": folder, "annotations": data}


def _mmbench(data: Path, language: str = "en") -> Iterator[Question]:
    tables = [
        t for t in core.find_files(data, "*.tsv") if ("_cn" in t.stem.lower()) is (language == "cn")
    ]
    if len(tables) != 1:
        what = f"holds {len(tables)} tables of MMBench in {language!r}, not one"
        fix = "keep one .tsv a language; Chinese: with _cn in its name"
        raise LabError(what, where=data, fix=fix)
    rows = core.table(tables[0])
    images = {row["index"]: row["image"] for row in rows}
    for row in rows:  # later releases name another row's image by its index
        encoded = images.get(row["image"], row["image"])
        yield Question(row["index"], mmbench.prompt(row.row, language), None, encoded, row.row)


def _write_mmbench(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    mmbench.submission((q.row for q in questions), answers, out / "mmbench.xlsx")
    path, truth = out / "mmbench.jsonl", out / "questions.jsonl"  # scored without worksheets
    write_jsonl(path, ({"question_id": q.id, "text": answers[q.id]} for q in questions))
    write_jsonl(truth, ({k: v for k, v in q.row.items() if k != "image"} for q in questions))
    return {"predictions": path, "annotations": truth} if "answer" in questions[0].row else None


def _seed(data: Path) -> Iterator[Question]:
    (entry,) = core.entries(_one(data, "SEED-Bench.json"))
    for number, row in enumerate(entry["questions"]):
        if str(row["question_id"]).isdecimal():
            key, image = f"{row['question_id']}#{number}", f"SEED-Bench-image/{row['data_id']}"
            yield Question(key, seed_bench.prompt(row), image, row=row)


_write_seed = _lines(
    "upload.jsonl",
    lambda q, said: {"question_id": q.row["question_id"], "prediction": _line(said)},
    "SEED-Bench.json",
)


def _mmvet(data: Path) -> Iterator[Question]:
    for key, row in core.read_json(_one(data, "mm-vet.json")).items():
        yield Question(key, row["question"], f"images/{row['imagename']}", row=row)


def _write_mmvet(questions: list[Question], answers: Answers, data: Path, out: Path) -> None:
    write_json(out / "results.json", dict(answers))


def _llava_w(data: Path) -> Iterator[Question]:
    for row in core.entries(_one(data, "questions.jsonl")):
        yield Question(str(row["question_id"]), row["text"], f"images/{row['image']}", row=row.row)


def write_nothing(questions: list[Question], answers: Answers, data: Path, out: Path) -> None:
    """The answers file is the official format already, and only a judge can score it."""


def _qbench(data: Path) -> Iterator[Question]:
    for number, row in enumerate(core.entries(_one(data, "llvisionqa_dev.json"))):
        image = f"images_llvisionqa/{row['img_path']}"
        yield Question(str(number), qbench.prompt(row.row), image, row=row.row)


_write_qbench = _lines(
    "qbench.jsonl", lambda q, said: q.row | {"response": said}, "llvisionqa_dev.json"
)


def _scienceqa(data: Path) -> Iterator[Question]:
    for row in core.entries(_one(data, "llava_test_CQM-A.json")):
        text = row["conversations"][0]["value"].replace("<image>", "").strip()
        image = f"images/test/{row['image']}" if "image" in row.row else None
        yield Question(str(row["id"]), text + scienceqa.SUFFIX, image, row=row.row)


_write_scienceqa = _lines(
    "scienceqa.jsonl",
    lambda q, said: {
        "question_id": q.id,
        "prompt": ("<image>\n" if q.path else "") + q.prompt,
        "text": said,
    },
)


def _vqav2_files(data: Path) -> tuple[Path, Path | None]:
    """The questions, and their answers if any: val's, where train's and val's lie side by side."""
    found = core.find_files(data, "*OpenEnded*questions.json")
    path = next((path for path in found if "_val2014_" in path.name), found[0])
    kind = path.stem.split("_")[-2]  # v2_…_val2014_questions
    return path, next(iter(sorted(data.glob(f"*{kind}_annotations.json"))), None)


def _vqav2(data: Path) -> Iterator[Question]:
    (entry,) = core.entries(_vqav2_files(data)[0])
    folder = entry.row.get("data_subtype", "test2015").replace("test-dev", "test")
    for row in entry["questions"]:
        image = f"{folder}/COCO_{folder}_{row['image_id']:012d}.jpg"
        yield Question(str(row["question_id"]), row["question"] + vqa.SUFFIX, image, row=row)


def _write_vqav2(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    rows = [{"question_id": int(q.id), "answer": vqa.process(answers[q.id])} for q in questions]
    return _upload(rows, _vqav2_files(data)[1], out)


def _upload(rows: list[dict[str, Any]], truth: Path | None, out: Path) -> Files:
    """Write what EvalAI takes."""
    write_json(out / "upload.json", rows)
    return {"predictions": out / "upload.json", "annotations": truth} if truth else None


def _vizwiz(data: Path) -> Iterator[Question]:
    path = _vizwiz_file(data)
    folder = _folder(data, path.stem)
    for number, row in enumerate(core.entries(path)):
        text = row["question"] + vqa.UNANSWERABLE + vqa.SUFFIX
        yield Question(str(number), text, f"{folder}/{row['image']}", row=row.row)


def _vizwiz_file(data: Path) -> Path:
    """The file whose answers are known, if any: the release has test's and val's side by side."""
    data = data / "Annotations" if (data / "Annotations").is_dir() else data  # as unpacked
    files = [path for path in (data / "test.json", data / "val.json") if path.is_file()]
    known = (path for path in files if "answers" in next(iter(core.entries(path))).row)
    return next(known, None) or _one(data, "test.json", "val.json", "*.json")


def _write_vizwiz(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    rows = [{"image": q.row["image"], "answer": vqa.process(answers[q.id])} for q in questions]
    return _upload(rows, _vizwiz_file(data) if "answers" in questions[0].row else None, out)


def _pope(data: Path) -> Iterator[Question]:
    number = 0
    for path in core.find_files(data, "coco_pope_*.json"):
        split = path.stem.removeprefix("coco_pope_")
        for row in core.entries(path):
            number += 1
            text, image = row["text"] + pope.SUFFIX, f"val2014/{row['image']}"
            yield Question(str(number), text, image, row=row.row | {"category": split})


def _write_pope(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    asked, said = [], []
    for q in questions:
        about = {"image": q.row["image"], "text": q.prompt, "category": q.row["category"]}
        asked.append({"question_id": q.id, **about})
        said.append({"question_id": q.id, "prompt": q.prompt, "text": _line(answers[q.id])})
    write_jsonl(out / "questions.jsonl", asked)
    write_jsonl(out / "pope.jsonl", said)
    files = {"predictions": out / "pope.jsonl", "questions": out / "questions.jsonl"}
    return files | {"annotations": data}


def _exam(data: Path) -> Iterator[Question]:
    for row in core.entries(_one(data, "questions.jsonl")):
        length = exam.CAPTION if row["form"] == "caption" else 0
        yield Question(row["id"], row["prompt"], row["image"], None, row.row, length)


def _write_exam(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    """The answers file itself is scored: margins stand in it."""
    write_jsonl(out / "questions.jsonl", (q.row for q in questions))
    return {"predictions": out / "answers.jsonl", "annotations": out / "questions.jsonl"}


def _coco(data: Path, prompt: str) -> Iterator[Question]:
    path = _one(data, *CAPTION_FILES)
    folder = _folder(data, path.stem.removeprefix("captions_"))  # val2014
    (entry,) = core.entries(path)
    for row in entry["images"]:
        yield Question(str(row["id"]), prompt, f"{folder}/{row['file_name']}", row=row)


def _write_coco(questions: list[Question], answers: Answers, data: Path, out: Path) -> Files:
    rows = [{"image_id": q.row["id"], "caption": answers[q.id]} for q in questions]
    write_json(out / "captions.json", rows)
    return {"predictions": out / "captions.json", "annotations": data}


# COCO captions as LLaVA's short-caption instructions ask; CHAIR's prompt is POPE's second one.
_short = partial(_coco, prompt="Provide a one-sentence caption for the provided image.")


def _brief(data: Path) -> Iterator[Question]:
    from sgv_lab.benchmarks import chair  # needs nltk, which a GPU's image may lack

    chair.synonyms(data / "synonyms.txt")  # without it nothing can be scored
    yield from _coco(data, "Provide a brief description of the given image.")


TASKS: dict[str, Task] = {
    "mme": Task(_mme, "pad", 128, _write_mme),
    "mmbench": Task(_mmbench, "pad", 1024, _write_mmbench),
    "mmbench-cn": Task(partial(_mmbench, language="cn"), "pad", 1024, _write_mmbench),
    "seed": Task(_seed, "pad", 128, _write_seed),
    "mmvet": Task(_mmvet, "square", 1024, _write_mmvet),
    "llava-w": Task(_llava_w, "square", 1024, write_nothing),
    "qbench": Task(_qbench, "square", 1024, _write_qbench, SYSTEM.replace("user", "human")),
    "scienceqa": Task(_scienceqa, "square", 1024, _write_scienceqa),
    "vqav2": Task(_vqav2, "pad", 128, _write_vqav2),
    "vizwiz": Task(_vizwiz, "pad", 128, _write_vizwiz),
    "pope": Task(_pope, "pad", 128, _write_pope),
    "captions": Task(_short, "pad", 128, _write_coco),
    "chair": Task(_brief, "pad", 512, _write_coco),
    "exam": Task(_exam, "pad", 12, _write_exam, margin=("Yes", "No")),
}
