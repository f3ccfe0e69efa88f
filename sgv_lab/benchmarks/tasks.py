"""What a model is asked: each benchmark's questions, prompts, pictures and official submission.

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

from sgv_lab.benchmarks import core, mmbench, mme, pope, qbench, scienceqa, seed, vqa
from sgv_lab.errors import LabError
from sgv_lab.files import files_below, write_json, write_jsonl
from sgv_lab.images import decode_image
from sgv_lab.training.conversation import SYSTEM
from sgv_lab.training.preprocessing import open_image

Answers = Mapping[str, str]


@dataclass(frozen=True)
class Question:
    """One prompt. ``picture`` is a path below ``root``, base64 (in ``encoded``), or absent."""

    id: str
    prompt: str
    picture: str | None = None
    encoded: str | None = None
    row: dict[str, Any] = field(default_factory=dict, repr=False)

    def image(self, root: Path) -> Image.Image | None:
        """The RGB picture, or None for a question about text alone."""
        if self.encoded is None:
            return None if self.picture is None else open_image(root, self.picture, self.id)
        try:
            return decode_image(base64.b64decode(self.encoded))
        except ValueError as error:
            raise LabError(f"its image: {error}", where=f"question {self.id!r}") from error


# (questions, answers by id, data, out) -> arguments of the scorer, or None without truth
Writer = Callable[[list[Question], Answers, Path, Path], dict[str, Path] | None]


@dataclass(frozen=True)
class Task:
    """How one benchmark is run: its questions, picture preparation, length, official files."""

    questions: Callable[[Path], Iterator[Question]]
    aspect: str  # "pad" or "square" (centre crop), as the official script
    max_new_tokens: int
    write: Writer
    system: str = SYSTEM


def _one(data: Path, *patterns: str) -> Path:
    return core.within(data, *patterns)[0]


def _folder(data: Path, name: str) -> str:
    """Where pictures lie: in the folder that the release unpacks to, or in "images"."""
    return name if (data / name).is_dir() else "images"


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(name: str, row: Callable[[Question, str], dict[str, Any]], truth: str = "") -> Writer:
    """A writer of JSON lines, ``row`` of question and answer; ``truth``: its file below data."""

    def write(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict:
        write_jsonl(out / name, (row(q, answers[q.id]) for q in questions))
        return {"predictions": out / name, "annotations": _one(data, truth) if truth else data}

    return write


def _mme(data: Path) -> Iterator[Question]:
    for subtask, rows in mme.truth(data).items():
        files = sorted((p for p in files_below(data / subtask) if p.suffix != ".txt"), reverse=True)
        images = {path.stem: path for path in files}
        for number, row in enumerate(rows):
            if (found := images.get(row["image"])) is None:
                what, fix = f"lacks the picture {row['image']}", "unpack the official release anew"
                raise LabError(what, where=data / subtask, fix=fix)
            short = row["question"].removesuffix(mme.ASK).rstrip() + mme.SUFFIX
            picture = found.relative_to(data).as_posix()
            about = row.row | {"subtask": subtask, "name": found.name}
            yield Question(f"{subtask}/{number}", short, picture, row=about)


def _write_mme(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict:
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
        t for t in core.within(data, "*.tsv") if ("_cn" in t.stem.lower()) is (language == "cn")
    ]
    if len(tables) != 1:
        what = f"holds {len(tables)} tables of MMBench in {language!r}, not one"
        raise LabError(
            what, where=data, fix="keep one .tsv a language; Chinese: with _cn in its name"
        )
    rows = core.table(tables[0])
    pictures = {row["index"]: row["image"] for row in rows}
    for row in rows:  # later releases name another row's picture by its index
        encoded = pictures.get(row["image"], row["image"])
        yield Question(row["index"], mmbench.prompt(row.row, language), None, encoded, row.row)


def _write_mmbench(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict:
    mmbench.submission((q.row for q in questions), answers, out / "mmbench.xlsx")
    path, truth = out / "mmbench.jsonl", out / "questions.jsonl"  # scored without worksheets
    write_jsonl(path, ({"question_id": q.id, "text": answers[q.id]} for q in questions))
    write_jsonl(truth, ({k: v for k, v in q.row.items() if k != "image"} for q in questions))
    return {"predictions": path, "annotations": truth} if "answer" in questions[0].row else None


def _seed(data: Path) -> Iterator[Question]:
    (entry,) = core.entries(_one(data, "SEED-Bench.json"))
    for number, row in enumerate(entry["questions"]):
        if str(row["question_id"]).isdecimal():
            key, picture = f"{row['question_id']}#{number}", f"SEED-Bench-image/{row['data_id']}"
            yield Question(key, seed.prompt(row), picture, row=row)


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
        picture = f"images_llvisionqa/{row['img_path']}"
        yield Question(str(number), qbench.prompt(row.row), picture, row=row.row)


_write_qbench = _lines(
    "qbench.jsonl", lambda q, said: q.row | {"response": said}, "llvisionqa_dev.json"
)


def _scienceqa(data: Path) -> Iterator[Question]:
    for row in core.entries(_one(data, "llava_test_CQM-A.json")):
        text = row["conversations"][0]["value"].replace("<image>", "").strip()
        picture = f"images/test/{row['image']}" if "image" in row.row else None
        yield Question(str(row["id"]), text + scienceqa.SUFFIX, picture, row=row.row)


_write_scienceqa = _lines(
    "scienceqa.jsonl",
    lambda q, said: {
        "question_id": q.id,
        "prompt": ("<image>\n" if q.picture else "") + q.prompt,
        "text": said,
    },
)


def _vqav2(data: Path) -> Iterator[Question]:
    (entry,) = core.entries(_one(data, "*OpenEnded*questions.json"))
    folder = entry.row.get("data_subtype", "test2015").replace("test-dev", "test")
    for row in entry["questions"]:
        picture = f"{folder}/COCO_{folder}_{row['image_id']:012d}.jpg"
        yield Question(str(row["question_id"]), row["question"] + vqa.SUFFIX, picture, row=row)


def _upload(rows: list[dict], truth: Path | None, out: Path) -> dict | None:
    write_json(out / "upload.json", rows)
    return {"predictions": out / "upload.json", "annotations": truth} if truth else None


def _write_vqav2(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict | None:
    kind = _one(data, "*OpenEnded*questions.json").stem.split("_")[-2]  # v2_…_val2014_questions
    truth = next(iter(sorted(data.glob(f"*{kind}_annotations.json"))), None)
    return _upload(vqa.submission({q.id: answers[q.id] for q in questions}), truth, out)


def _vizwiz(data: Path) -> Iterator[Question]:
    path = _vizwiz_file(data)
    folder = _folder(data, path.stem)
    for number, row in enumerate(core.entries(path)):
        text = row["question"] + vqa.UNANSWERABLE + vqa.SUFFIX
        yield Question(str(number), text, f"{folder}/{row['image']}", row=row.row)


def _vizwiz_file(data: Path) -> Path:
    """The file whose answers are known, if any: the release has test's and val's side by side."""
    files = [path for path in (data / "test.json", data / "val.json") if path.is_file()]
    known = (path for path in files if "answers" in next(iter(core.entries(path))).row)
    return next(known, None) or _one(data, "test.json", "val.json", "*.json")


def _write_vizwiz(
    questions: list[Question], answers: Answers, data: Path, out: Path
) -> dict | None:
    known = "answers" in questions[0].row
    truth = _vizwiz_file(data) if known else None
    return _upload(vqa.submission(answers, {q.id: q.row["image"] for q in questions}), truth, out)


def _pope(data: Path) -> Iterator[Question]:
    number = 0
    for path in core.within(data, "coco_pope_*.json"):
        split = path.stem.removeprefix("coco_pope_")
        for row in core.entries(path):
            number += 1
            text, picture = row["text"] + pope.SUFFIX, f"val2014/{row['image']}"
            yield Question(str(number), text, picture, row=row.row | {"category": split})


def _write_pope(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict:
    rows = []
    for q in questions:
        about = {"image": q.row["image"], "text": q.prompt, "category": q.row["category"]}
        rows.append({"question_id": q.id} | about)
    write_jsonl(out / "questions.jsonl", rows)
    return _answer_pope(questions, answers, data, out) | {"questions": out / "questions.jsonl"}


_answer_pope = _lines(
    "pope.jsonl", lambda q, said: {"question_id": q.id, "prompt": q.prompt, "text": _line(said)}
)


_CAPTIONS = ("captions_val*.json", "captions_*.json")


def _coco(data: Path, prompt: str) -> Iterator[Question]:
    path = _one(data, *_CAPTIONS)
    folder = _folder(data, path.stem.removeprefix("captions_"))  # val2014
    (entry,) = core.entries(path)
    for row in entry["images"]:
        yield Question(str(row["id"]), prompt, f"{folder}/{row['file_name']}", row=row)


def _write_captions(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict:
    said, path = [(q.row["id"], answers[q.id]) for q in questions], out / "captions.json"
    write_json(path, [{"image_id": image, "caption": text} for image, text in said])
    return {"predictions": path, "annotations": _one(data, *_CAPTIONS)}


def _write_chair(questions: list[Question], answers: Answers, data: Path, out: Path) -> dict:
    return _write_captions(questions, answers, data, out) | {"annotations": data}


# COCO captions as LLaVA's short-caption instructions ask; CHAIR's prompt is POPE's second one.
_short = partial(_coco, prompt="Provide a one-sentence caption for the provided image.")
_brief = partial(_coco, prompt="Provide a brief description of the given image.")
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
    "captions": Task(_short, "pad", 128, _write_captions),
    "chair": Task(_brief, "pad", 512, _write_chair),
}
