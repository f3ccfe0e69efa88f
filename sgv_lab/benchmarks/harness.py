"""Samples that lmms-eval logs (``--log_samples``), as rows of answers.

What VLMEvalKit writes, MODEL_DATASET.xlsx (or .tsv, .json), needs no change: the question's columns
index, question, answer, category, …, without the image, and "prediction" [vlmeval/inference.py].
"""

from typing import Any

_ABOUT = ("question_id", "index", "category", "question", "image")


def as_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A logged sample as its question's own fields with ``text``, the answer; all else as it is.

    Each line holds the question under ``doc`` [lmms_eval/evaluator.py]. Later releases leave it
    out: then its metrics name it, ``input`` is the prompt and ``target`` the truth
    [lmms_eval/loggers/evaluation_tracker.py]. An answer is a text or, before 0.7, a list of one.
    """
    if "filtered_resps" not in row:
        return row
    said = row["filtered_resps"][0]
    text = said[0] if isinstance(said, list) else said
    if "doc" in row:
        about = row["doc"]
    else:
        metrics = [value for value in row.values() if isinstance(value, dict)]
        about = {key: one[key] for one in metrics for key in _ABOUT if key in one}
        about |= {"prompt": row["input"], "answer": row["target"]}
    if str(about.get("question_id")).startswith("VizWiz_"):  # its image [vizwiz_vqa/utils.py]
        about = {**about, "image": f"{about['question_id']}.jpg"}
    return {**about, "text": text}
