"""Samples that lmms-eval logs (``--log_samples``), as answers."""

from typing import Any


def as_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A logged sample as its question's own fields with ``text``, the answer; all else as it is.

    Each line of TASK.jsonl holds the question under ``doc`` and what was said, filtered, in
    ``filtered_resps`` (lmms_eval/evaluator.py of EvolvingLMMs-Lab/lmms-eval).
    """
    if not {"doc", "filtered_resps"} <= row.keys():
        return row
    return {**row["doc"], "text": row["filtered_resps"][0]}
