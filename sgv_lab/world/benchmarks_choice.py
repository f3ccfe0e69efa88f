"""Miniature MME, MMBench, SEED-Bench, Q-Bench and ScienceQA: yes/no pairs and choices."""

import random

from sgv_lab.files import write_json
from sgv_lab.world import phrases
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.benchmark_files import BenchmarkFolder
from sgv_lab.world.phrasing import NUMBERS, plural
from sgv_lab.world.questions import LETTERS
from sgv_lab.world.scene import Scene
from sgv_lab.world.vocabulary import SOURCES

MME_SUBTASKS = {  # subtask -> abilities asked about in turn, image source (None: as they need)
    "existence": (("existence",), "coco"),
    "count": (("count",), "coco"),
    "position": (("position", "relation"), "coco"),
    "color": (("color",), "coco"),
    "scene": (("scene",), "coco"),
    "celebrity": (("character",), None),
    "landmark": (("landmark",), None),
    "artwork": (("style",), None),
    "OCR": (("text",), None),
    "commonsense_reasoning": (("knowledge",), None),  # places, roles, stories, artists
}
SEED_TYPES = {  # dimension -> abilities whose choices can have four options
    "Scene Understanding": ("scene",),
    "Instance Identity": ("existence",),
    "Instance Attributes": ("color", "pattern"),
    "Instance Location": ("position",),
    "Visual Reasoning": ("knowledge",),
    "Text Understanding": ("text",),
}
_FINE = "finegrained_perception"
MMBENCH_GROUPS = {  # ability -> l2-category of the official file
    **dict.fromkeys(("scene", "light", "style"), "coarse_perception"),
    **dict.fromkeys(
        ("existence", "color", "size", "pattern", "count", "text"), f"{_FINE} (instance-level)"
    ),
    **dict.fromkeys(("position", "relation"), f"{_FINE} (cross-instance)"),
    **dict.fromkeys(("landmark", "character", "knowledge"), "attribute_reasoning"),
}
SUBJECTS = {"text": "language science", "knowledge": "social science"}


def mme(files: BenchmarkFolder, n: int) -> None:
    """``n`` images a subtask, two questions each; numerical_calculation asks for sums."""
    for subtask, (abilities, source) in MME_SUBTASKS.items():
        for drawn, pair in files.in_turn(n, abilities, "yesno", source=source):
            _mme_pair(files, drawn, subtask, [(q.text, q.answer) for q in pair])
    # what two kinds of a scene can be together
    totals = range(2, min(files.difficulty.max_objects, SOURCES["coco"].objects[1]) + 1)
    for number in range(n if len(totals) > 1 else 0):
        drawn, pair = _sum(files, totals, number)
        _mme_pair(files, drawn, "numerical_calculation", pair)


def _mme_pair(
    files: BenchmarkFolder, drawn: Scene, subtask: str, pair: list[tuple[str, str]]
) -> None:
    files.save(drawn, f"{subtask}/{drawn.seed:012d}.png")
    lines = "".join(f"{text} Please answer yes or no.\t{said}\n" for text, said in pair)
    files.text(f"{subtask}/{drawn.seed:012d}.txt", lines)


def _sum(files: BenchmarkFolder, totals: range, number: int) -> tuple[Scene, list[tuple[str, str]]]:
    """A scene with two kinds, and the pair of questions about how many they are together.

    ``totals`` are the true one in turn, by the pair's ``number``, and the wrong one is any other:
    each is as often true as false, so that the words alone tell nothing.
    """
    total = totals[number % len(totals)]
    for drawn in files.scenes("coco"):
        first, *others = dict.fromkeys(t.kind for t in drawn.things)
        if others and drawn.count(first) + drawn.count(others[0]) == total:
            break
    rng = random.Random(f"sum/{drawn.seed}")
    pair = [(total, "Yes"), (rng.choice([k for k in totals if k != total]), "No")]
    text = f"Is the number of {plural(first)} and {plural(others[0])} together {{}}?"
    return drawn, [(text.format(NUMBERS[k]), said) for k, said in rng.sample(pair, 2)]


def mmbench(
    files: BenchmarkFolder, n: int, name: str = "mmbench_dev_20230712.tsv", chinese: bool = False
) -> None:
    """MMBench's legacy TSV: every rotation of the options is a row of its own."""
    rows = []
    abilities = list(phrases.CHINESE_OPEN if chinese else MMBENCH_GROUPS)
    for number, (drawn, (question,)) in enumerate(files.in_turn(n, abilities, "choice")):
        text, options = question.text, list(question.options)
        if chinese:
            kind = "".join(phrases.CHINESE[kind] for kind in question.subjects)
            text = phrases.CHINESE_OPEN[question.fact].format(k=kind)
            options = [phrases.CHINESE[option] for option in options]
        truth, group = options[LETTERS.index(question.answer)], MMBENCH_GROUPS[question.ability]
        image = files.base64(drawn)
        for k in range(len(options)):
            shifted = options[k:] + options[:k]
            row = {"index": number + k * 10**6, "question": text, "hint": ""}
            row |= dict(zip(LETTERS, [*shifted, "", ""], strict=False))
            row |= {"answer": LETTERS[shifted.index(truth)], "category": question.ability}
            row |= {"l2-category": group, "source": drawn.source}
            rows.append(row | {"image": image, "comment": "", "split": "dev"})
    rows.sort(key=lambda row: row["index"])
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    files.text(name, "\n".join(lines) + "\n")


def seed(files: BenchmarkFolder, n: int) -> None:
    """About ``n`` questions over the dimensions the world can be asked about."""
    rows, types = [], {}
    for number, (name, abilities) in enumerate(SEED_TYPES.items(), 1):
        if files.able(abilities):
            types[name] = number
        each = -(-n // len(SEED_TYPES))
        for drawn, (question,) in files.in_turn(each, abilities, "choice", options=4):
            key, image = str(len(rows)), f"{len(rows):06d}.png"
            options = {f"choice_{k}": o for k, o in zip("abcd", question.options, strict=True)}
            rows.append(
                {"question_id": key, "question": question.text, **options}
                | {"answer": question.answer, "question_type_id": number}
                | {"data_type": "image", "data_id": image}
            )
            files.save(drawn, f"SEED-Bench-image/{image}")
    write_json(files.folder / "SEED-Bench.json", {"questions": rows, "question_type": types})


def qbench(files: BenchmarkFolder, n: int) -> None:
    """What an image looks like rather than what is in it: light, sizes, patterns, colours."""
    rows, able = [], files.able(("size", "pattern", "light", "color"))
    for number in range(n):
        ability, form = able[number // 2 % len(able)], ("choice", "yesno")[number % 2]
        drawn, (question, *_) = files.ask(ability, form)
        options, truth, image = list(question.options), question.answer, f"{number:05d}.png"
        if form == "choice":
            truth = options[LETTERS.index(truth)]
        kind = 0 if form == "yesno" else 2 if question.text.startswith("How") else 1
        rows.append(
            {"type": kind, "concern": 1 if ability == "light" else 3, "question": question.text}
            | {"img_path": image, "candidates": options or ["Yes", "No"], "correct_ans": truth}
        )
        files.save(drawn, f"images_llvisionqa/{image}")
    write_json(files.folder / "llvisionqa_dev.json", rows)


def scienceqa(files: BenchmarkFolder, n: int) -> None:
    """Every third question shows a description instead of the image."""
    problems, converted = {}, []
    abilities = ("count", "scene", "position", "knowledge", "color", "text")
    for number, (drawn, (question,)) in enumerate(files.in_turn(n, abilities, "choice")):
        key, seen = str(number), number % 3 < 2
        hint = "" if seen else caption(drawn, ANNOTATORS["oracle"], drawn.seed)
        problems[key] = {
            **{"question": question.text, "choices": list(question.options), "hint": hint},
            **{"answer": LETTERS.index(question.answer), "image": "image.png" if seen else None},
            **{"grade": f"grade{1 + number % 12}", "topic": question.ability, "split": "test"},
            "subject": SUBJECTS.get(question.ability, "natural science"),
        }
        lines = ["<image>"] * seen + [f"Context: {hint}"] * bool(hint) + [question.prompt]
        turns = (("human", "\n".join(lines)), ("gpt", question.answer))
        converted.append(
            {"id": key}
            | ({"image": f"{key}/image.png"} if seen else {})
            | {"conversations": [{"from": who, "value": text} for who, text in turns]}
        )
        if seen:
            files.save(drawn, f"images/test/{key}/image.png")
    write_json(files.folder / "problems.json", problems)
    write_json(files.folder / "pid_splits.json", {"test": list(problems)})
    write_json(files.folder / "llava_test_CQM-A.json", converted)
