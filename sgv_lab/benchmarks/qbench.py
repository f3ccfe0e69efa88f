"""Q-Bench A1 (LLVisionQA dev): accuracy of a choice given as a letter or as its text.

Rules: qbench_eval.py of ShareGPT4V's playground.zip (text read in heliossun/SQ-LLaVA@700e1e0);
prompt: model_vqa_qbench.py, which alone loads the model in 8 bits (load_8bit); here it is asked in
the precision of every other benchmark. A text that starts with A–D is first read as a letter.
"""

from typing import Any

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import EACH, Answers, Entry, File
from sgv_lab.intervals import clustered_mean

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
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score the runner's output (question entries with ``response``, concatenated or as lines).

    With ``annotations`` (llvisionqa_dev.json) every entry must be one of its questions and those
    without an answer count as wrong; without it each entry holds its own ``correct_ans``.
    """
    answers = Answers(_keyed(core.entries(predictions)), "key", rule=EACH)
    source = annotations or questions
    asked = core.index(_keyed(core.entries(source)), "key") if source else answers
    answers.against(asked, source or predictions)
    outcome: list[tuple[Entry, bool]] = []
    unparsed = 0
    for key, question in asked.items():
        candidates, truth = question["candidates"], question["correct_ans"]
        said = [answer.text("response", "text") for answer in answers.groups.get(key, [])]
        unparsed += sum(not _readable(response, candidates) for response in said)
        outcome += [(question, right(text, candidates, truth, variant)) for text in said or [""]]
    rights = [one for _, one in outcome]
    images = [question["img_path"] for question, _ in outcome]
    shares = {
        column: core.means(((names[q[column]], one) for q, one in outcome), scale=1)
        for column, names in (("type", TYPES), ("concern", CONCERNS))
    }
    correct, n = sum(rights), len(rights)
    scores = {"correct": correct, "n": n, "accuracy": correct / n, **shares}
    intervals = {"accuracy": clustered_mean(rights, images, 1.0)}
    return core.result(scores, answers, unparsed, intervals, "image", images)


def _keyed(found: list[Entry]) -> list[Entry]:
    """Entries with ``key`` = image and question: the release has no question ids."""
    return [Entry(e.where, e.row | {"key": f"{e['img_path']} {e['question']}"}) for e in found]


def _readable(response: str, candidates: list[str]) -> bool:
    return bool(response) and (
        response[0] in "ABCD"[: len(candidates)]
        or response in candidates
        or response.split(" ")[0] in candidates
    )
