"""The world's benchmarks through the same readers, submissions and scorers as the official ones."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from written import lines

from sgv_lab import benchmarks
from sgv_lab.benchmarks.judge import graded
from sgv_lab.benchmarks.tasks import TASKS, Question
from sgv_lab.files import sha256
from sgv_lab.world import benchmarks as world
from sgv_lab.world.annotators import ANNOTATORS, caption
from sgv_lab.world.scene import FULL, MINIATURE, Difficulty, scene

PICTURES = 12
EASY = Difficulty(max_objects=3, facets=())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.write(folder, images=PICTURES)
    return folder


def truth(name: str, question: Question, data: Path) -> str:
    """What somebody who knows the official files would answer."""
    row = question.row
    if name == "mme":
        return row["truth"]
    if name in ("mmbench", "mmbench-cn", "seed"):
        return row["answer"]
    if name == "qbench":
        return row["correct_ans"]
    if name == "exam":
        if row["form"] == "caption":
            return caption(scene(row["scene"], "eval", row["source"]), ANNOTATORS["oracle"], 1)
        return row["answer"]
    if name == "scienceqa":
        return row["conversations"][1]["value"]
    if name == "pope":
        return row["label"]
    if name == "vizwiz":
        humans = [a["answer"] for a in row["answers"]]
        return max(humans, key=humans.count)
    if name == "vqav2":
        known = json.loads((data / "v2_mscoco_val2014_annotations.json").read_text())
        found = {str(a["question_id"]): a for a in known["annotations"]}
        return found[question.id]["multiple_choice_answer"]
    captions = json.loads((data / "captions_val2014.json").read_text())["annotations"]
    return next(c["caption"] for c in captions if c["image_id"] == row["id"])


MAIN = {
    "mme": "perception",
    "mmbench": "accuracy",
    "mmbench-cn": "accuracy",
    "seed": "image_accuracy",
    "qbench": "accuracy",
    "vqav2": "overall",
    "vizwiz": "overall",
    "pope": "mean_f1",
}


@pytest.mark.parametrize("name", [n for n in TASKS if n not in ("mmvet", "llava-w")])
def test_who_knows_the_truth_scores_full_marks(name: str, data: Path, tmp_path: Path) -> None:
    folder = data / name
    questions = list(TASKS[name].questions(folder))
    assert len({q.id for q in questions}) == len(questions) >= PICTURES
    assert all(isinstance(q.image(folder), Image.Image) for q in questions if name != "scienceqa")
    answers = {q.id: truth(name, q, folder) for q in questions}
    asked = {q.id: q.prompt for q in questions}
    rows = [{"question_id": k, "prompt": asked[k], "text": said} for k, said in answers.items()]
    lines(tmp_path / "answers.jsonl", rows)
    arguments: Any = TASKS[name].write(questions, answers, folder, tmp_path)
    scores = benchmarks.module(name).score(**arguments)
    assert scores["missing"] == 0
    if name == "mme":
        assert scores["perception"] == 200 * 9 and scores["cognition"] == 200 * 2
        answers = {q.id: "Yes" for q in questions}
        TASKS[name].write(questions, answers, folder, tmp_path)
        assert benchmarks.module(name).score(**arguments)["perception"] == 50 * 9
    elif name == "scienceqa":
        assert scores["AVG"]["accuracy"] == scores["IMG"]["accuracy"] == 100
        assert scores["TXT"]["n"] == PICTURES // 3 and scores["IMG_prompted"] == scores["IMG"]
    elif name == "exam":
        shares = [scores[form] for form in ("yesno", "pairs", "open", "choice")]
        assert shares == [100] * 4 and scores["precision"] > 99 and "ranking" not in scores
    elif name == "chair":
        assert scores["CHAIRi"] == 0 and scores["captions"] == PICTURES
    elif name == "captions":
        assert scores["Bleu_1"] == pytest.approx(1) and scores["images"] == PICTURES
    elif name in ("vqav2", "vizwiz"):
        assert scores["overall"] > 90
    else:
        assert scores[MAIN[name]] == {"pope": 1, "qbench": 1}.get(name, 100)


def test_judged_benchmarks_hold_what_a_judge_needs(data: Path, tmp_path: Path) -> None:
    for name, perfect in (("mmvet", "total"), ("llava-w", "all")):
        questions = list(TASKS[name].questions(data / name))
        rows = [{"question_id": q.id, "text": "an answer"} for q in questions]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        reply = {"mmvet": "1.0", "llava-w": "9 9"}[name]
        files = graded(name, path, data / name, "j", ask=lambda *a, reply=reply: ("j", reply))
        scores = benchmarks.module(name).score(*files)
        assert scores[perfect] == {"total": 100.0, "all": [100.0, 90.0, 90.0, PICTURES]}[perfect]


def test_scenes_are_disjoint_and_unseen_in_training(data: Path) -> None:
    """An image's hash stands for its scene."""
    seen: dict[str, str] = {}
    for name in world.WRITERS:
        images = [p for p in (data / name).rglob("*") if p.suffix in (".png", ".jpg")]
        mine = {sha256(p): name for p in images}
        assert len(mine) == len(images) and not mine.keys() & seen.keys(), name
        seen |= mine
    assert scene(10**8 + 1, "eval") != scene(10**8 + 1, "train")


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for again in ("a", "b"):
        world.write(tmp_path / again, ["seed", "pope", "mmbench"], images=6)
    world.write(tmp_path / "c", ["seed", "pope"], images=6, seed=1)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) > 15
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )
    pope = "pope/coco_pope_random.json"
    assert (tmp_path / "a" / pope).read_text() != (tmp_path / "c" / pope).read_text()
    with pytest.raises(ValueError, match="unknown benchmark 'gqa'"):
        world.write(tmp_path, ["gqa"])


def test_a_small_world_leaves_out_what_it_lacks(tmp_path: Path) -> None:
    world.write(tmp_path, images=6, difficulty=EASY)
    subtasks = {p.name for p in (tmp_path / "mme").iterdir()}
    assert subtasks == {"existence", "count", "position", "color", "scene", "numerical_calculation"}
    types = json.loads((tmp_path / "seed/SEED-Bench.json").read_text())["question_type"]
    assert "Text Understanding" not in types and len(types) == 4


@pytest.mark.parametrize("difficulty", [FULL, MINIATURE, Difficulty(max_objects=4, facets=())])
def test_sums_cannot_be_guessed_from_the_words(
    difficulty: Difficulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who has seen each word of other such questions, and its answer, but no image."""
    monkeypatch.setattr(world.BenchmarkFolder, "save", lambda *_: None)
    world.write(tmp_path, ["mme"], images=240, difficulty=difficulty)
    files = sorted((tmp_path / "mme/numerical_calculation").glob("*.txt"))
    rows = [line.split("\t") for path in files for line in path.read_text().splitlines()]
    asked = [(re.sub(" Please.*", "", text).split(), said) for text, said in rows]
    assert len(files) == 240 and Counter(said for _, said in asked) == {"Yes": 240, "No": 240}
    learned, answered = asked[::2] + asked[1::4], asked[3::4]
    for word in {words[-1] for words, _ in asked}:
        often = Counter(said for words, said in asked if words[-1] == word)
        assert abs(often["Yes"] - often["No"]) < 3.3 * sum(often.values()) ** 0.5, word
    often = Counter((word, said) for words, said in learned for word in set(words))
    guess = lambda words: sum(  # noqa: E731
        log((often[word, "Yes"] + 1) / (often[word, "No"] + 1)) for word in set(words)
    )
    right = sum((guess(words) > 0) == (said == "Yes") for words, said in answered)
    assert right < stats.binom.ppf(0.999, len(answered), 0.5)


def _words_alone(data: Path) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Subtask, question, its options in one order, and the right one, of MME and three others."""
    for path in sorted((data / "mme").rglob("*.txt")):
        for line in path.read_text().splitlines():
            yield f"mme {path.parent.name}", *line.split("\t")[:1], ("No", "Yes"), line[-3:].strip()
    table = pd.read_csv(data / "mmbench/mmbench_dev_20230712.tsv", sep="\t", dtype=str).fillna("")
    for row in table[table["index"].str.len() < 7].to_dict("records"):  # one rotation of each
        shown = sorted(filter(None, (row[letter] for letter in "ABCD")))
        yield f"mmbench {row['category']}", row["question"], tuple(shown), row[row["answer"]]
    for row in json.loads((data / "seed/SEED-Bench.json").read_text())["questions"]:
        options = {letter: row[f"choice_{letter.lower()}"] for letter in "ABCD"}
        subtask = f"seed {row['question_type_id']}"
        yield subtask, row["question"], tuple(sorted(options.values())), options[row["answer"]]
    for row in json.loads((data / "qbench/llvisionqa_dev.json").read_text()):
        subtask = f"qbench {len(row['candidates'])} {row['concern']}"
        yield subtask, row["question"], tuple(sorted(row["candidates"])), row["correct_ans"]


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", [FULL, MINIATURE])
def test_no_subtask_can_be_guessed_from_its_words(
    difficulty: Difficulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 2 points of chance, and chance's own spread, by how often an option is right at all,
    by what is right of a set of options, and by what is right of these to this very question."""
    monkeypatch.setattr(world.BenchmarkFolder, "save", lambda *_: None)
    monkeypatch.setattr(world.BenchmarkFolder, "base64", lambda *_: "")
    for name, images in {"mme": 2_000, "mmbench": 16_000, "seed": 10_000, "qbench": 12_000}.items():
        world.write(tmp_path, [name], images=images, difficulty=difficulty)
    found: dict[str, list[tuple[str, tuple[str, ...], str]]] = {}
    for subtask, *row in _words_alone(tmp_path):
        found.setdefault(subtask, []).append(tuple(row))
    astray = {}
    for subtask, rows in found.items():
        learned = [row for i, row in enumerate(rows) if i // 2 % 2]  # pairs stay together
        asked = [row for i, row in enumerate(rows) if not i // 2 % 2]
        chance = sum(1 / len(options) for _, options, _ in asked) / len(asked)
        for level in range(3):
            key = lambda text, options: ((), options, (text, options))[level]  # noqa: E731, B023
            shown: Counter[Any] = Counter()
            right: Counter[Any] = Counter()
            for text, options, said in learned:
                right[key(text, options), said] += 1
                shown.update((key(text, options), option) for option in options)
            guessed = 0
            for text, options, said in asked:
                rate = {o: right[key(text, options), o] / max(1, shown[key(text, options), o])
                        for o in options}  # fmt: skip
                guessed += max(options, key=rate.__getitem__) == said
            spread = (chance * (1 - chance) / len(asked)) ** 0.5
            if guessed / len(asked) - chance > 0.02 + 3 * spread:
                astray[subtask, level] = (guessed / len(asked), chance, len(asked))
    assert len(found) > 15 and not astray, astray


def test_adversarial_negatives_are_seen_together_more_often(tmp_path: Path) -> None:
    world.write(tmp_path, ["pope"], images=80)
    rows = {
        split: [json.loads(line) for line in (tmp_path / f"pope/coco_pope_{split}.json").open()]
        for split in ("random", "popular", "adversarial")
    }
    often = [r["text"] for r in rows["random"] if r["label"] == "yes"]
    mean = {
        split: sum(often.count(r["text"]) for r in found if r["label"] == "no")
        / sum(r["label"] == "no" for r in found)
        for split, found in rows.items()
    }
    assert mean["popular"] > mean["adversarial"] > mean["random"]
    for found in rows.values():
        assert sum(r["label"] == "yes" for r in found) * 2 == len(found)
