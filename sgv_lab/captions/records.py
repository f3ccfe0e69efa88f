"""Records ``{id, image, conversations}``: read from any file, and what keeps one from training.

`record_problem` and `file_problem` are the one check of a record's form and of its image's file:
`stats --images`, `inspect`, `plan`, `train` and `study` all ask them. What they say is "reason" or
"reason: what is special to this record", so that reasons can be counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sgv_lab.captions.scan import ENDS, HALF, HALF_PAIR, Broken, Found, layout, scan
from sgv_lab.errors import LabError
from sgv_lab.files import leaves_root

IMAGE = "<image>"
QUESTIONS, ANSWERS = ("human", "user"), ("gpt", "assistant")  # LLaVA's names, and Qwen's


def count_reasons(broken: Iterable[Broken]) -> str:
    """The reasons, each with how many there are, the most frequent first."""
    reasons = Counter(one.reason for one in broken).most_common()
    return ", ".join(f"{reason} ({count:,})" for reason, count in reasons)


def read_records(
    records: Sequence[Any] | str | Path,
) -> Iterator[tuple[Mapping[str, Any], int | None, Broken | None]]:
    """Each record in order with its id as text, its line where known, and what is wrong with it.

    ``records``: a list, or a file of a JSON array, JSON lines or Parquet, also gzipped, under any
    name. A record without an id takes its number; of a broken one only the id is given. Raises
    LabError for a file that cannot be read, is cut short, or holds no records of this kind.
    """
    if isinstance(records, str | Path):
        found = _read(Path(records))
    else:
        found = ((number, None, record) for number, record in enumerate(records))
    for number, line, record in found:
        broken = record if isinstance(record, Broken) else None
        given = record.get("id") if isinstance(record, Mapping) else broken and broken.id
        usable = isinstance(given, str | int | float) and not isinstance(given, bool)
        name = (id_text(given) if usable else "") or str(number)
        if wrong := broken.problem if broken else record_problem(record):
            yield {"id": name}, line, Broken(number, name, line, wrong)
        else:
            yield {**record, "id": name}, line, None


def _read(path: Path) -> Found:
    """What `scan` finds in a file of records that is whole."""
    if layout(path) == "coco":
        fix = "give records of conversations, as LLaVA's"
        raise LabError("holds COCO captions, which have no questions", where=path, fix=fix)
    for number, line, record in scan(path, dict):
        if isinstance(record, Broken) and record.problem.startswith(ENDS):
            raise LabError(f"is cut short: {record.problem}", where=path, fix=record.fix)
        yield number, line, record


def id_text(given: Any) -> str | None:
    """An id of any type as text that can be written anywhere; 1, 1.0 and "1" are one."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    return None if given is None else str(given).encode(errors="replace").decode()


def record_problem(record: Any) -> str:
    """What keeps a record from being trained on, whatever its image's file, or "".

    Its form (conversations of {from, value}, known roles that alternate, text that is Unicode),
    and its image (a path below the image folder, shown in exactly one question).
    """
    if not isinstance(record, Mapping):
        return "is not an object"
    turns = record.get("conversations")
    if not isinstance(turns, list | tuple) or not turns:
        for name, value in record.items():
            first = value[0] if isinstance(value, list) and value else None
            if isinstance(first, Mapping) and "conversations" in first:
                what = f"is an object with records under {name!r}"
                return f"{what}, where a list of records is wanted"
        return "has no conversations"
    for turn in turns:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            return "has a turn that is not {from, value} with text"
        if turn.get("from") not in (*QUESTIONS, *ANSWERS):
            return f"has the unknown role {turn.get('from')!r:.60}"
    if wrong := _order(turns) or _image(record.get("image"), turns):
        return wrong
    texts = (record.get("image") or "", *(turn["value"] for turn in turns))
    if any(not text.isascii() and HALF_PAIR.search(text) for text in texts):
        return f"has {HALF}"
    return ""


def file_problem(paths: Iterable[str], bad: Mapping[str, str | None]) -> str:
    """What is wrong with the first of some image files that cannot be used, or "".

    ``bad``: path -> "kind: words", as `images.image_problem` says.
    """
    for path in paths:
        if wrong := bad.get(path):
            kind, _, words = wrong.partition(": ")
            return f"image {kind}: {path} ({words or kind})"
    return ""


def _order(turns: Sequence[Mapping[str, str]]) -> str:
    """What is wrong with whose turn it is; an answer in front of all questions is passed over."""
    answers = [turn["from"] in ANSWERS for turn in turns]
    answers = answers[answers[0] :]
    if True not in answers:
        return "has no answer to a question"
    for number, answer in enumerate(answers):
        if answer != bool(number % 2):
            return f"has two turns in a row from one side: turn {number + 1}"
    return ""


def _image(image: Any, turns: Sequence[Mapping[str, str]]) -> str:
    tagged = [turn for turn in turns if IMAGE in turn["value"]]
    if image is None:
        for turn in tagged:
            text = turn["value"].strip()
            # anywhere but in front or as the last line the tag is the text's own (code, mark-up)
            placed = text.startswith(IMAGE) or text.rpartition("\n")[2].strip() == IMAGE
            if placed and turn["from"] in QUESTIONS:
                return "asks about <image> but has no image"
        return ""
    if not isinstance(image, str) or not image or "\0" in image:
        return f"has an image that is not a path: {image!r:.60}"
    if leaves_root(image):
        return f"has an image path that leaves the image folder: {image!r}"
    if len(tagged) != 1:
        return f"has an image and {len(tagged)} turns with <image> instead of one"
    return "has <image> in an answer" if tagged[0]["from"] in ANSWERS else ""
