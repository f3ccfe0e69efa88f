"""Miniature VQAv2, VizWiz, MM-Vet, LLaVA-W, POPE and COCO captions: free answers."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sgv_lab.files import write_json, write_jsonl
from sgv_lab.world import phrases
from sgv_lab.world import vocabulary as v
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.benchmark_files import BenchmarkFolder
from sgv_lab.world.export import human_captions
from sgv_lab.world.facts import VALUES
from sgv_lab.world.phrasing import NUMBERS, article
from sgv_lab.world.questions import Question
from sgv_lab.world.scene import Scene

CAPABILITIES = {  # ability -> what it takes, in MM-Vet's terms
    "existence": ("rec",),
    "color": ("rec",),
    "pattern": ("rec",),
    "scene": ("rec",),
    "position": ("rec", "spat"),
    "relation": ("rec", "spat"),
    "count": ("rec", "math"),
    "text": ("ocr",),
    "knowledge": ("rec", "know"),
}
HUMAN_ERROR = 0.1  # share of the ten human answers that are mistaken (assumed)
DESCRIBE = "Describe this image in detail."
# The judges' instructions; the official texts come with the official data.
FEW_SHOT = """Grade each prediction against the ground truth with a number from 0.0 to 1.0.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
What color is the kite? | red | blue | 0.0
What color is the kite? | red | Red. | 1.0
"""
RULE = "Mark both answers from 1 to 10, the two numbers alone on the first line."


def _oracle(drawn: Scene) -> str:
    return caption(drawn, ANNOTATORS["oracle"], drawn.seed)


def _answered(files: BenchmarkFolder, n: int) -> Iterator[tuple[Scene, Question, str, list[str]]]:
    """(scene, question, answer type, ten human answers) of open and yes/no questions."""
    for number in range(n):
        ability = ("color", "count", "scene", "existence", "position")[number % 5]
        form = "yesno" if number % 3 == 2 else "open"
        drawn, (question, *_) = files.ask(ability, form)
        rng, truth = random.Random(f"humans/{drawn.seed}"), question.answer.lower()
        values, kind = VALUES[question.fact], "other"
        if ability == "count" and form == "open":  # the official answers are digits already
            values, kind, truth = tuple("123456789"), "number", str(NUMBERS.index(truth))
        if form == "yesno":
            values, kind = ("yes", "no"), "yes/no"
        humans = [rng.choice(values) if rng.random() < HUMAN_ERROR else truth for _ in range(10)]
        yield drawn, question, kind, humans


def _people(humans: list[str]) -> list[dict[str, Any]]:
    people = enumerate(humans, 1)
    return [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in people]


def vqav2(files: BenchmarkFolder, n: int) -> None:
    """One question an image, with ten human answers."""
    asked, known = [], []
    for number, (drawn, question, kind, humans) in enumerate(_answered(files, n)):
        ids = {"image_id": drawn.seed, "question_id": drawn.seed * 1000 + number}
        asked.append({**ids, "question": question.text})
        words = " ".join(question.text.lower().split()[:2])
        known.append(
            {**ids, "question_type": words, "answer_type": kind, "answers": _people(humans)}
            | {"multiple_choice_answer": question.answer.lower()}
        )
        files.save(drawn, f"val2014/COCO_val2014_{drawn.seed:012d}.jpg")
    head = {"data_type": "mscoco", "data_subtype": "val2014"}
    write_json(
        files.folder / "v2_OpenEnded_mscoco_val2014_questions.json", {**head, "questions": asked}
    )
    write_json(files.folder / "v2_mscoco_val2014_annotations.json", {**head, "annotations": known})


def vizwiz(files: BenchmarkFolder, n: int) -> None:
    """One question in five is about something that is not in the image: unanswerable."""
    rows = []
    for number, (drawn, question, kind, humans) in enumerate(_answered(files, n)):
        text, image = question.text, f"VizWiz_val_{number:08d}.jpg"
        absent = [k for k in v.KINDS if not drawn.count(k)]
        if number % 5 == 4 and absent:
            rng = random.Random(f"absent/{drawn.seed}")
            text = rng.choice(phrases.OPEN["color"]).format(k=rng.choice(absent))
            humans, kind = ["unanswerable"] * 10, "unanswerable"
        rows.append(
            {"image": image, "question": text, "answer_type": kind}
            | {"answerable": int(kind != "unanswerable"), "answers": _people(humans)}
        )
        files.save(drawn, f"images/{image}")
    write_json(files.folder / "val.json", rows)


def mmvet(files: BenchmarkFolder, n: int) -> None:
    """Open questions in turn; every fourth asks for a description."""
    rows = {}
    for number, (drawn, (question,)) in enumerate(files.in_turn(n, (*CAPABILITIES,), "open")):
        text, answer, image = question.text, question.answer, f"v1_{number}.png"
        takes = CAPABILITIES[question.ability]
        if number % 4 == 3:
            text, answer, takes = DESCRIBE, _oracle(drawn), ("rec", "gen")
        rows[f"v1_{number}"] = {
            **{"imagename": image, "question": text, "answer": answer},
            **{"imagesource": drawn.source, "capability": list(takes)},
        }
        files.save(drawn, f"images/{image}")
    write_json(files.folder / "mm-vet.json", rows)
    files.text("prompt.txt", FEW_SHOT)


def llava_w(files: BenchmarkFolder, n: int) -> None:
    """Short questions, descriptions and knowledge in turn, with the oracle's text as context."""
    tables: dict[str, list[Any]] = {"questions": [], "context": [], "answers_gpt4": []}
    categories = ("conv", "detail", "complex")
    hard = files.able(("knowledge", "relation"))[0]
    for number in range(n):
        category, image = categories[number % 3], f"{number:03d}.png"
        drawn, (question,) = files.ask(hard if category == "complex" else "color", "open")
        text, answer = question.text, question.answer
        if category == "detail":
            text, answer = DESCRIBE, _oracle(drawn)
        ids = {"question_id": number}
        tables["questions"].append({**ids, "image": image, "text": text, "category": category})
        tables["context"].append({"id": image, "image": image, "caption": _oracle(drawn)})
        tables["answers_gpt4"].append({**ids, "text": answer, "answer_id": f"reference{number}"})
        files.save(drawn, f"images/{image}")
    for name, rows in tables.items():
        write_jsonl(files.folder / f"{name}.jsonl", rows)
    rule = {"role": "Assistant", "prompt": RULE}
    write_json(
        files.folder / "rule.json", {f"llava_bench_{category}": rule for category in categories}
    )


def pope(files: BenchmarkFolder, n: int) -> None:
    """Kinds that are there, and as many that are not: any, the most frequent, or fitting ones."""
    scenes = list(islice(files.scenes("coco"), n))
    seen = [list(dict.fromkeys(t.kind for t in s.things))[:3] for s in scenes]
    often = Counter(kind for kinds in seen for kind in kinds)
    together = Counter((a, b) for kinds in seen for a in kinds for b in kinds)
    rows: dict[str, list[dict[str, Any]]] = {"random": [], "popular": [], "adversarial": []}
    for drawn, kinds in zip(scenes, seen, strict=True):
        image = f"COCO_val2014_{drawn.seed:012d}.jpg"
        files.save(drawn, f"val2014/{image}")
        absent = [k for k in v.KINDS if not drawn.count(k)]
        order = {
            "random": random.Random(f"pope/{drawn.seed}").sample(absent, len(absent)),
            "popular": sorted(absent, key=lambda k: -often[k]),
            "adversarial": sorted(
                absent, key=lambda k, near=kinds: -sum(together[k, o] for o in near)
            ),
        }
        for split, names in order.items():
            for there, not_there in zip(kinds, names, strict=False):
                for kind, label in ((there, "yes"), (not_there, "no")):
                    text = f"Is there {article(kind)} in the image?"
                    row = {"image": image, "text": text, "label": label}
                    rows[split].append({"question_id": len(rows[split]) + 1, **row})
    for split, found in rows.items():
        write_jsonl(files.folder / f"coco_pope_{split}.json", found)


def captions(files: BenchmarkFolder, n: int) -> None:
    """Five human captions an image, its objects, and the list of object words for CHAIR."""
    scenes, images, boxes = list(islice(files.scenes("coco"), n)), [], []
    for drawn in scenes:
        image = f"COCO_val2014_{drawn.seed:012d}.jpg"
        images.append({"id": drawn.seed, "file_name": image})
        for thing in drawn.things:
            kind = v.KINDS.index(thing.kind) + 1
            boxes.append({"id": len(boxes), "image_id": drawn.seed, "category_id": kind})
        files.save(drawn, f"images/{image}")
    classes = [{"id": i, "name": kind} for i, kind in enumerate(v.KINDS, 1)]
    told = human_captions(scenes, files.size) | {"images": images}
    write_json(files.folder / "captions_val2014.json", told)
    write_json(
        files.folder / "instances_val2014.json",
        {"images": images, "annotations": boxes, "categories": classes},
    )
    files.text("synonyms.txt", "\n".join(v.KINDS) + "\n")
