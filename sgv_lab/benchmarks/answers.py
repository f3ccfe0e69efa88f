"""Answers by id, and what has to be said beside a score: repeated ids, several lines.

Official tools take both, each benchmark's by a rule of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sgv_lab.benchmarks.core import Entry

LAST, EACH, FIRST = "the last one counts", "each counts", "the first one counts"
_ANSWERS = ("prediction", "text", "response", "caption", "tuple", "score", "answer")


def by_id(
    found: Sequence[Entry], *keys: str, rule: str, often: Mapping[str, int] = MappingProxyType({})
) -> tuple[dict[str, list[Entry]], list[str]]:
    """Records by the first of ``keys`` (as string), and warnings to print beside the score.

    Official tools take files in which an id stands more than once, each by its own ``rule``
    (``LAST``, ``EACH`` or ``FIRST``), and answers of several lines. ``often``: ids that the
    questions themselves repeat.
    """
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in found:
        groups[str(entry.first(*keys))].append(entry)
    warnings = several_lines(found)
    twice = {key: group for key, group in groups.items() if len(group) > 1}
    differ = [g for g in twice.values() if any(_said(entry) != _said(g[0]) for entry in g)]
    repeated = [g for key, g in twice.items() if len(g) > often.get(key, 1)] or differ
    if repeated:
        warnings.append(
            f"{len(repeated)} ids stand more than once ({len(differ)} with answers that differ; "
            f"first: {repeated[0][1].where}): {rule}, as in the official tool"
        )
    return dict(groups), warnings


def several_lines(found: Iterable[Entry]) -> list[str]:
    """A warning if answers have line ends in them, which JSON and worksheets can hold."""
    several = [e for e in found if isinstance(t := _said(e), str) and ("\n" in t or "\r" in t)]
    if not several:
        return []
    where = several[0].where
    return [
        f"{len(several)} answers have several lines (first: {where}): they "
        "count as they stand, as in the official tool"
    ]


def _said(entry: Entry) -> Any:
    for key in _ANSWERS:
        if key in entry.row:
            return entry.row[key]
    return None
