"""Records of the drawn world in LLaVA's format, standing for the paper's training data.

A record's id is ``<task>-<source>-<split>-<seed>``; from it, or from its image's name, its scene
can be drawn again. Everything is seeded, and each record only depends on its own seeds: mixes
that differ in the annotator of their detailed captions differ in those records alone.
"""

import random
import re
from collections.abc import Collection, Sequence
from itertools import cycle

from sgv_lab.errors import LabError
from sgv_lab.world import vocabulary as v
from sgv_lab.world.annotators import ANNOTATORS, Annotator, caption, claims
from sgv_lab.world.facts import Fact
from sgv_lab.world.phrases import OPEN
from sgv_lab.world.questions import ABILITIES, Question, questions
from sgv_lab.world.scene import FULL, Difficulty, Scene, allowed_sources
from sgv_lab.world.scene import scene as draw_scene

Record = dict[str, object]

DESCRIBE = (
    "Analyze the image in a comprehensive and detailed manner.",
    "Describe the following image.",
    "What do you see happening in this image?",
    "Can you describe the main features of this image for me?",
    "What are the key elements in this picture?",
    "Write a detailed description of the given image.",
    "Explain the visual content of the image in great detail.",
    "What do you think is going on in this snapshot?",
    "Can you elaborate on the elements of the picture provided?",
    "What is this photo about?",
)
"""The generic prompts that the released captions follow, as LLaVA's data has them."""
DESCRIBE_BRIEFLY = ("Provide a one-sentence caption for the provided image.",)
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."

MIX = {
    "conversation": 57_712 + 77_000,  # LLaVA-Instruct: conversation 58K and reasoning 77K
    "detail": 23_000,  # LLaVA-Instruct: detail 23K, the captions that the study replaces
    "text": 40_688,  # ShareGPT
    "vqa": 82_783 + 72_140,  # VQAv2, GQA
    "knowledge": 8_998,  # OKVQA
    "ocr": 80_000,  # OCRVQA
    "choice": 66_160,  # A-OKVQA
    "brief": 21_953,  # TextCaps
    "region": 48_447 + 86_417,  # RefCOCO, Visual Genome
}
"""Records of LLaVA-1.5's mix665k a task (LLaVA issue 702); the sum is 665,298."""
_SOURCES = {"detail": ("coco",), "ocr": ("textcaps",), "brief": ("textcaps",),
            "knowledge": ("landmark", "celebrity", "wikiart")}  # fmt: skip
_ABILITIES = {"ocr": ("text",), "knowledge": ("landmark", "character", "style", "knowledge"),
              "region": ("position", "relation", "existence", "color")}  # fmt: skip


def scene_of(name: str, difficulty: Difficulty = FULL) -> Scene:
    """The scene of a record's id or of an image's path, in the world it was drawn from.

    Raises LabError for a name that is not of this world.
    """
    found = re.search(r"(train|eval|novel)-(\d{9})(?:\.\w+)?$", name)
    by_prefix = {s.prefix: source for source, s in v.SOURCES.items()}
    source = by_prefix.get(name.rpartition("/")[0]) or next(
        (part for part in name.split("-") if part in v.SOURCES), None
    )
    if not found or source is None:
        what = "is neither a record's id nor an image of the drawn world"
        raise LabError(what, where=name, fix="only of that is known what is true")
    return draw_scene(int(found[2]), found[1], source, difficulty)


def task_of(record: Record) -> str:
    """What a record is for: a key of MIX, or "caption" for a plain one."""
    return str(record["id"]).split("-")[0]


def _record(
    scene: Scene, task: str, turns: Sequence[tuple[str, str]], rng: random.Random | None = None
) -> Record:
    """Turns of (question, answer) as a record; without ``rng`` it has no image."""
    record: Record = {"id": f"{task}-{scene.source}-{scene.split}-{scene.seed:09d}"}
    said = [text for turn in turns for text in turn]
    if rng:  # the image stands first or last in the first turn
        record["image"] = scene.image_name
        said[0] = rng.choice((f"<image>\n{said[0]}", f"{said[0]}\n<image>"))
    sides = zip(cycle(("human", "gpt")), said, strict=False)
    record["conversations"] = [{"from": who, "value": text} for who, text in sides]
    return record


def _rng(scene: Scene, task: str, seed: int) -> random.Random:
    return random.Random(f"record/{task}/{scene.split}/{scene.seed}/{scene.source}/{seed}")


def caption_record(
    scene: Scene,
    annotator: Annotator | str,
    seed: int = 0,
    task: str = "caption",
    filler: float = 0.0,
    wording: int = 0,
) -> Record:
    """A caption by ``annotator`` (or its name in ANNOTATORS) after a generic prompt.

    ``seed`` is the annotator's; the prompt and the image's place do not depend on it, so that
    records of several annotators differ in their captions only. ``filler``, ``wording``: as
    `caption` takes them.
    """
    rng = _rng(scene, task, 0)
    prompt = rng.choice(DESCRIBE_BRIEFLY if task == "brief" else DESCRIBE)
    writer = ANNOTATORS[annotator] if isinstance(annotator, str) else annotator
    text = caption(scene, writer, seed, filler, wording)
    return _record(scene, task, [(prompt, text)], rng)


def _one_of_pairs(asked: Sequence[Question], rng: random.Random) -> list[Question]:
    """``asked`` in random order, one of an ability and subject: another would give it away."""
    shuffled = rng.sample(asked, len(asked))
    kept: dict[tuple[str, ...], Question] = {}
    for question in shuffled:
        about = question.asked if question.ability == "existence" else "".join(question.subjects)
        kept.setdefault((question.ability, about), question)
    return list(kept.values())


def conversation_record(scene: Scene, seed: int = 0) -> Record:
    """Two to four open questions, answered in sentences."""
    rng = _rng(scene, "conversation", seed)
    asked = _one_of_pairs(questions(scene, seed, forms=("open",)), rng)[: rng.randint(2, 4)]
    return _record(scene, "conversation", [(q.text, q.said) for q in asked], rng)


def vqa_record(
    scene: Scene, seed: int = 0, most: int = 4, abilities: Collection[str] = ABILITIES,
    task: str = "vqa",
) -> Record:  # fmt: skip
    """Two to ``most`` open and yes/no questions answered in a word, as far as there are any.

    As in LLaVA's mix, the request for a short answer follows the first question only.
    """
    rng = _rng(scene, task, seed)
    asked = questions(scene, seed, abilities, forms=("open", "yesno"))
    return _short(scene, task, _one_of_pairs(asked, rng)[: rng.randint(2, most)], rng)


def _short(scene: Scene, task: str, asked: Sequence[Question], rng: random.Random) -> Record:
    (first, answer), *rest = [(q.text, q.answer) for q in asked]
    return _record(scene, task, [(first + SHORT, answer), *rest], rng)


def drill_record(scene: Scene, seed: int, abilities: Collection[str]) -> Record:
    """As ``vqa_record``, with up to eight questions that may share an ability: a lesson."""
    rng = _rng(scene, "drill", seed)
    asked = [q for i in range(3) for q in questions(scene, seed + i, abilities, ("open", "yesno"))]
    return _short(scene, "vqa", _one_of_pairs(asked, rng)[:8], rng)


def choice_record(scene: Scene, seed: int = 0, most: int = 1) -> Record:
    """Up to ``most`` multiple-choice questions, answered by the letter of an option."""
    rng = _rng(scene, "choice", seed)
    asked = questions(scene, seed, forms=("choice",))
    turns = [(q.prompt + LETTER, q.answer) for q in rng.sample(asked, min(most, len(asked)))]
    return _record(scene, "choice", turns, rng)


def unanswerable_record(scene: Scene, seed: int = 0) -> Record:
    """A question in VizWiz's words about what the image shows, or about what it does not show."""
    rng = _rng(scene, "unanswerable", seed)
    ability = rng.choice(("color", "size", "pattern"))
    asked = questions(scene, seed, (ability,), ("open",))
    absent = [kind for kind in v.KINDS if not scene.count(kind)]
    if asked and rng.random() < 0.5:
        text, answer = asked[0].text, asked[0].answer
    else:
        text, answer = rng.choice(OPEN[ability]).format(k=rng.choice(absent)), "Unanswerable"
    return _record(scene, "vqa", [(text + UNANSWERABLE + SHORT, answer)], rng)


def text_record(scene: Scene, seed: int = 0, most: int = 1) -> Record:
    """The oracle's description and up to ``most`` questions about it, without the image.

    Only relations that the description states are asked for: others cannot always be told.
    """
    rng, oracle = _rng(scene, "text", seed), ANNOTATORS["oracle"]
    stated = claims(scene, oracle, seed)
    asked = [q for q in questions(scene, seed) if _told(q, stated)]
    turns = [
        (q.prompt + (LETTER if q.form == "choice" else SHORT), q.answer)
        for q in _one_of_pairs(asked, rng)[:most]
    ]
    turns[0] = (f"{caption(scene, oracle, seed)}\n{turns[0][0]}", turns[0][1])
    return _record(scene, "text", turns)


def _told(question: Question, stated: Collection[Fact]) -> bool:
    """Whether a description that states these facts tells the relation asked for, if any is."""
    if question.fact != "relation":
        return True
    a, b = question.subjects
    axes = (("left of", "right of"), ("above", "below"))
    told = {axis for axis in axes for r in axis for x, y in ((a, b), (b, a))
            if Fact("relation", x, f"{r} {y}") in stated}  # fmt: skip
    return any(not question.asked or " ".join(axis).count(question.asked) for axis in told)


def instruct_mix(
    n: int,
    seed: int = 0,
    detail: Annotator | str = "gpt4_blind",
    detail_share: float = MIX["detail"] / sum(MIX.values()),
    difficulty: Difficulty = FULL,
    draw: int = 0,
    **writing: float,
) -> list[Record]:
    """LLaVA-1.5's instruction mix in miniature, in random order, of training scenes.

    ``detail``: who wrote the detailed captions, its ``draw``-th; ``detail_share``: their share of
    the mix; ``writing``: their filler and wording, as `caption` takes them. Records that need signs
    or knowledge which the difficulty leaves out are "vqa" and "conversation" instead, so that
    nothing is missing.

    Raises ValueError for a share outside 0 to 1.
    """
    shares = _shares(detail_share, difficulty)
    counts = {task: int(share * n) for task, share in shares.items()}
    left = n - sum(counts.values())
    for task in sorted(shares, key=lambda t: counts[t] - shares[t] * n)[:left]:
        counts[task] += 1  # largest remainders first
    tasks = [task for task, count in counts.items() for _ in range(count)]
    random.Random(f"records/order/train/{seed}").shuffle(tasks)
    records = []
    scene_seeds = random.Random(f"mix/train/{seed}").sample(range(10**9), n)
    for scene_seed, task in zip(scene_seeds, tasks, strict=True):
        rng = random.Random(f"records/source/{scene_seed}/{seed}")
        source = rng.choice(_SOURCES[task]) if task in _SOURCES else None
        scene = draw_scene(scene_seed, "train", source, difficulty)
        if task == "detail":
            records.append(caption_record(scene, detail, draw, task, **writing))
        else:
            records.append(_make(task, scene, seed))
    return records


def question_record(scene: Scene, seed: int = 0) -> Record:
    """Questions about ``scene`` that can stand for its caption: of the mix's tasks, as often."""
    asked = ("conversation", "vqa", "choice", "region")
    rng = _rng(scene, "instead", seed)
    return _make(rng.choices(asked, [MIX[task] for task in asked])[0], scene, seed)


def _make(task: str, scene: Scene, seed: int) -> Record:
    """The record of one task but "detail"."""
    if task == "brief":
        return caption_record(scene, "human", seed, task)
    if task in _ABILITIES:
        return vqa_record(scene, seed, abilities=_ABILITIES[task], task=task)
    makers = {"conversation": conversation_record, "choice": choice_record, "text": text_record}
    return makers.get(task, vqa_record)(scene, seed)


def _shares(detail_share: float, difficulty: Difficulty) -> dict[str, float]:
    """The share of each task, those of sources the difficulty leaves out given to others."""
    if not 0 <= detail_share <= 1:
        raise ValueError(f"detail_share is {detail_share}, not from 0 to 1")
    shares: dict[str, float] = dict(MIX)
    allowed = allowed_sources(difficulty)
    for task, other in (("ocr", "vqa"), ("knowledge", "vqa"), ("brief", "conversation")):
        if not set(_SOURCES[task]) <= set(allowed):
            shares[other] += shares.pop(task)
    total = sum(shares.values())
    shares = {task: count / total for task, count in shares.items()}
    others = 1 - shares.pop("detail")
    shares = {task: share / others * (1 - detail_share) for task, share in shares.items()}
    return {**shares, "detail": detail_share}
