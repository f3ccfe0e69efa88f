"""Q-Bench A1 (LLVisionQA dev): accuracy of a choice given as a letter or as its text.

Rules: qbench_eval.py of ShareGPT4V's playground.zip (text read in heliossun/SQ-LLaVA@700e1e0);
prompt: model_vqa_qbench.py. A text that starts with A–D is first read as a letter.
"""

from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import EACH, by_id
from sgv_lab.benchmarks.core import Entry, Given

VARIANTS = ("letter_anywhere",)  # InternLM-XComposer2's notebook: the first of A–D in the answer
TYPES = {0: "yes_no", 1: "what", 2: "how"}
CONCERNS = {0: "distortion", 1: "other", 2: "in_context_distortion", 3: "in_context_other"}


def prompt(question: dict[str, Any]) -> str:
    """The question and its candidates, each on a line of its own; no letter instruction."""
    lines = [question["question"], "Choose between one of the options as follows:"]
    lines += [f"{k}. {v}" for k, v in zip("ABCD", question["candidates"], strict=False)]
    return "\n".join(lines) + "\n"


def right(response: str, candidates: list[str], truth: str, variant: str = OFFICIAL) -> bool:
    """Whether the first character's option, the first word or the whole response is the truth."""
    letters = [c for c in response if c in "ABCD"] if variant == "letter_anywhere" else response
    if letters:
        choice = ord(letters[0]) - ord("A")
        if 0 <= choice < len(candidates) and candidates[choice] == truth:
            return True
    return response.split(" ")[0] == truth or response == truth


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score the runner's output (question entries with ``response``, concatenated or as lines).

    With ``annotations`` (llvisionqa_dev.json) every entry must be one of its questions and those
    without an answer count as wrong; without it each entry holds its own ``correct_ans``.
    """
    given, warnings = by_id(_keyed(core.entries(predictions)), "key", rule=EACH)
    first = {key: group[0] for key, group in given.items()}
    source = annotations or questions
    asked = core.index(_keyed(core.entries(source)), "key") if source else first
    missing = core.known(first, asked, source or predictions)
    outcome: list[tuple[Entry, bool]] = []
    unparsed = 0
    for key, question in asked.items():
        candidates = question["candidates"]
        said = [answer.text("response", "text") for answer in given.get(key, ())]
        unparsed += sum(not _readable(response, candidates) for response in said)
        for response in said or [""]:
            outcome.append(
                (question, right(response, candidates, question["correct_ans"], variant))
            )
    rights = [r for _, r in outcome]
    scores: dict[str, Any] = {
        "correct": sum(rights),
        "n": len(rights),
        "accuracy": sum(rights) / len(rights),
    }
    for column, names in (("type", TYPES), ("concern", CONCERNS)):
        for number, name in names.items():
            part = [r for question, r in outcome if question[column] == number]
            if part:
                scores.setdefault(column, {})[name] = sum(part) / len(part)
    images = [question["img_path"] for question, _ in outcome]
    return core.result(
        scores,
        unparsed=unparsed,
        missing=missing,
        intervals={"accuracy": jackknife.mean_interval(rights, images, 1.0)},
        clustered_by="image",
        clusters=len(set(images)),
        warnings=warnings,
    )


def _keyed(found: list[Entry]) -> list[Entry]:
    """Entries with ``key`` = picture and question: the release has no question ids."""
    return [Entry(e.where, e.row | {"key": f"{e['img_path']} {e['question']}"}) for e in found]


def _readable(response: str, candidates: list[str]) -> bool:
    return bool(response) and (
        response[0] in "ABCD"[: len(candidates)]
        or response in candidates
        or response.split(" ")[0] in candidates
    )
