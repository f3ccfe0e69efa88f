"""The files of one benchmark in miniature: fresh scenes for it, and the folder they go to."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgv_lab.world.export import write_images
from sgv_lab.world.questions import Question, questions
from sgv_lab.world.render import render
from sgv_lab.world.scene import Difficulty, Scene, allowed_sources, scene

_SOURCE = {  # ability -> the image sources whose scenes can answer such questions
    "text": ("textcaps",),
    "landmark": ("landmark",),
    "character": ("celebrity",),
    "style": ("wikiart",),
    "knowledge": ("landmark", "celebrity", "wikiart"),
}
_PATIENCE = 10_000


@dataclass
class BenchmarkFolder:
    """Fresh scenes of one benchmark, drawn one after the other, and the folder of its files."""

    folder: Path
    next_seed: int
    difficulty: Difficulty
    size: int
    split: str

    def scenes(self, source: str | None = None) -> Iterator[Scene]:
        """Endless scenes, of ``source`` if given."""
        while True:
            self.next_seed += 1
            yield scene(self.next_seed, self.split, source, self.difficulty)

    def able(self, abilities: Sequence[str]) -> list[str]:
        """Those of ``abilities`` that scenes of this difficulty can be asked about."""
        allowed = allowed_sources(self.difficulty)
        able = [a for a in abilities if set(_SOURCE.get(a, ())) <= set(allowed)]
        return able if "light" in self.difficulty.facets else [a for a in able if a != "light"]

    def ask(
        self, ability: str, form: str, source: str | None = None, options: int = 0
    ) -> tuple[Scene, list[Question]]:
        """The next scene with a question (or a yes/no pair) about ``ability``.

        ``source``: by default one that fits the ability; ``options``: how many a choice must have,
        0 for any number. Raises ValueError if the world has no such question.
        """
        fitting = (source,) if source else _SOURCE.get(ability, (None,))
        for _ in range(_PATIENCE):
            drawn = next(self.scenes(fitting[self.next_seed % len(fitting)]))
            found = questions(drawn, abilities=[ability], forms=[form])
            if found and (not options or len(found[0].options) == options):
                return drawn, found
        raise ValueError(f"{_PATIENCE} scenes without a {form} question about {ability}")

    def in_turn(
        self, n: int, abilities: Sequence[str], form: str, **more: Any
    ) -> Iterator[tuple[Scene, list[Question]]]:
        """`ask` ``n`` times, about each of the `able` abilities in turn; nothing without any."""
        able = self.able(abilities)
        for number in range(n if able else 0):
            yield self.ask(able[number % len(able)], form, **more)

    def save(self, drawn: Scene, name: str) -> None:
        """Write the scene's image as ``folder / name`` (the suffix says PNG or JPEG)."""
        write_images(self.folder, {name: drawn}, self.size)

    def base64(self, drawn: Scene) -> str:
        """The scene's image as base64 of a PNG."""
        file = io.BytesIO()
        render(drawn, self.size).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    def text(self, name: str, text: str) -> None:
        """Write ``folder / name``."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")
