"""What a checkpoint scored, on its own model card: beside what the paper prints, never mixed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgv_lab.benchmarks import HEADLINES
from sgv_lab.benchmarks.core import read_json
from sgv_lab.files import Journal, atomic
from sgv_lab.paper import facts

PRINTED = {  # a model's parameters -> models of that size in the paper's Table 3
    7_063_099_392: ("LLaVA (Vicuna-7B)",),
    7_063_427_072: ("LLaVA-1.5 (Vicuna-7B)", "ShareGPT4V-7B (Vicuna-7B)"),
    13_351_494_656: ("LLaVA-1.5 (Vicuna-13B)",),
    9_656_935_168: ("Qwen-VL-Chat (Qwen-7B)",),
}
_SCORES = HEADLINES | {"mmbench-cn": (("accuracy", "MMB-CN", 1),)}
_HEADING = """
## Scores

*Here* is what this checkpoint scored, asked and scored by sgv-lab with the official prompts and
rules. Other columns are not measured: they are what the paper prints (arXiv 2311.12793, Table 3).

"""


def add_scores(
    model: Path, parameters: int, benchmark: str, scores: Mapping[str, Any], answers: Path
) -> None:
    """Write a benchmark's ``scores`` into the card of the checkpoint ``model``.

    What the card holds of other benchmarks stays. A folder that `sgv-lab train` has not made is
    left as it is. ``parameters``: the model's, by which the paper's models of its size are found;
    ``answers``: the folder that `evaluate` wrote.
    """
    card, manifest = model / "README.md", model / "manifest.json"
    if not (card.is_file() and manifest.is_file() and "recipe" in read_json(manifest)):
        return
    models = PRINTED.get(parameters, ())
    paper = facts("table3").set_index(["row", "column"])["printed"]
    about, _, table = card.read_text(encoding="utf-8").partition(_HEADING)
    count = len(Journal(answers / "answers.jsonl").read())
    titles = ["benchmark", "questions", "here", *(f"the paper's {name}" for name in models)]
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    for key, name, factor in _SCORES.get(benchmark, ()):
        if key in scores:
            printed = [paper.get((row, name), "–") for row in models]
            rows[name] = _row(name, f"{count:,}", f"{factor * scores[key]:.1f}", *printed)
    if rows:
        lines = [_row(*titles), "|---" * len(titles) + "|", *rows.values()]
        with atomic(card) as temporary:
            temporary.write_text(about + _HEADING + "\n".join(lines) + "\n", encoding="utf-8")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
