"""The exam of the drawn world: every scene asked about every ability in every form."""

from sgv_lab.files import write_jsonl
from sgv_lab.world.benchmark_files import BenchmarkFolder
from sgv_lab.world.facts import FACETS, facts
from sgv_lab.world.questions import questions
from sgv_lab.world.records import DESCRIBE, LETTER, SHORT
from sgv_lab.world.scene import Scene, allowed_sources

SUFFIX = {"open": SHORT, "yesno": SHORT, "choice": LETTER}
TOLD = frozenset(FACETS) - {"relation"}  # relations follow from positions; nobody tells them all
_RARE = ("textcaps", "landmark", "celebrity", "wikiart")  # sources of signs, landmarks, people, art


def exam(files: BenchmarkFolder, n: int) -> None:
    """``n`` scenes with all questions they allow: open, a yes/no pair and a choice an ability.

    Captions, which take as long as dozens of answers, are asked for of every fourth scene. Every
    eighth is of a source too rare to be met by chance: those of signs, landmarks, people and art
    in turn.
    """
    rare = [source for source in _RARE if source in allowed_sources(files.difficulty)]
    rows = []
    for number in range(n):
        turn, last = divmod(number, 8)
        source = rare[turn % len(rare)] if rare and last == 7 else None
        drawn = next(files.scenes(source))
        image = f"images/{drawn.seed:012d}.png"
        files.save(drawn, image)
        asked = [*_asked(drawn), *([_described(drawn)] if number % 4 == 0 else [])]
        about = {"image": image, "scene": drawn.seed, "source": drawn.source}
        rows += [{"id": f"{number}/{i}", **about, **row} for i, row in enumerate(asked)]
    write_jsonl(files.folder / "questions.jsonl", rows)


def _asked(drawn: Scene) -> list[dict[str, object]]:
    return [
        {"ability": q.ability, "form": q.form, "prompt": q.prompt + SUFFIX[q.form]}
        | {"answer": q.answer, "options": list(q.options)}
        for q in questions(drawn)
    ]


def _described(drawn: Scene) -> dict[str, object]:
    """The request for a caption; the answer is what there is to tell."""
    truth = sorted(str(fact) for fact in facts(drawn) if fact.kind in TOLD)
    return {
        **{"ability": "caption", "form": "caption", "prompt": DESCRIBE[0]},
        **{"answer": truth, "options": []},
    }
