"""CHAIR: objects a caption names that are not in the image; recall and length beside it.

Rules: LisaAnne/Hallucination utils/chair.py (words, CHAIRi, CHAIRs) and Maxlinn/CHAIR-metric-
standalone (recall). The list of object words is data: ``synonyms.txt`` of the same repository.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nltk.tokenize import MWETokenizer, NLTKWordTokenizer
from textblob.en.inflect import singularize

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import EACH, Answers, Entry, File
from sgv_lab.errors import LabError
from sgv_lab.intervals import by_cluster, clustered, ratio

VARIANTS = ()
# Two words that are one, and what they are called: chair.py's list. The singular of "wine glass" is
# "wine glas" there.
DOUBLE: dict[str, str] = core.read_json(Path(__file__).with_name("double_words.json"))
MERGE = MWETokenizer([pair.split() for pair in DOUBLE], separator=" ")
_singular = lru_cache(1 << 18)(singularize)
COUNTS = ("captions", "mentions", "hallucinated", "hallucinating", "recalled", "objects", "words")
SHARES = {  # a score -> the two of a caption's counts that it is the quotient of
    "CHAIRs": ("hallucinating", "captions"),
    "CHAIRi": ("hallucinated", "mentions"),
    "Recall": ("recalled", "objects"),
    "words_per_caption": ("words", "captions"),
}


def tokens(caption: str) -> list[str]:
    """The caption's words: lower case, Treebank rules, each in the singular of pattern.en.

    nltk.word_tokenize cuts sentences with a model it downloads; here a sentence ends at . ! or ?
    before a blank.
    """
    tokeniser = NLTKWordTokenizer()
    sentences = re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"')])\s+", caption.lower())
    words = [word for sentence in sentences for word in tokeniser.tokenize(sentence)]
    return [_singular(word) for word in words]


def objects(caption: str, synonyms: dict[str, str]) -> list[str]:
    """Every mention of an object in ``caption``, by its class name, in order."""
    joined = [DOUBLE.get(word, word) for word in MERGE.tokenize(tokens(caption))]
    if "toilet" in joined:  # a seat in its company is a part of it
        joined = [word for word in joined if word != "seat"]
    return [synonyms[word] for word in joined if word in synonyms]


def synonyms(path: str | Path) -> dict[str, str]:
    """Word -> class: one class a line of ``path``, its name first, separated by ", "."""
    if not Path(path).is_file():
        fix = "save there data/synonyms.txt of github.com/LisaAnne/Hallucination"
        raise LabError("no such list of object words", where=path, fix=fix)
    lines = [line.strip().split(", ") for line in core.read_text(path).splitlines() if line.strip()]
    return {word: names[0] for names in lines for word in names}


def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """CHAIRs, CHAIRi and Recall (shares) of captions ({image_id, caption or text}).

    ``annotations`` is a folder of COCO files (instances_*.json, captions_*.json), one of them, a
    CHAIR output file, or {image_id: objects}; ``questions`` is synonyms.txt (else beside them).
    """
    source = core.require(annotations, "the objects of the images")
    folder = source if source.is_dir() else source.parent
    names = synonyms(questions or folder / "synonyms.txt")
    given = Answers(core.rows(predictions), "image_id", "image", rule=EACH)
    answers = [(_image(key), entry) for key, group in given.groups.items() for entry in group]
    truth = _truth(source, names, {key for key, _ in answers})
    given.missing = core.check_ids(dict(answers), truth, source)
    counts = []
    for key, entry in answers:
        caption = entry.text("caption", "text")
        said = objects(caption, names)
        wrong, recalled = sum(word not in truth[key] for word in said), len(truth[key] & set(said))
        row = (1, len(said), wrong, wrong > 0, recalled, len(truth[key]), len(caption.split()))
        counts.append(row)
    images = [key for key, _ in answers]
    sums = by_cluster(images, np.array(counts, float))
    totals = dict(zip(COUNTS, sums.sum(0).tolist(), strict=True))
    scores: dict[str, Any] = {name: int(totals[name]) for name in COUNTS[:3]}
    intervals = {}
    for name, (over, under) in SHARES.items():
        scores[name] = totals[over] / totals[under] if totals[under] else 0.0
        columns = sums[:, [COUNTS.index(over), COUNTS.index(under)]]
        most = np.inf if name == "words_per_caption" else 1.0
        intervals[name] = clustered(ratio(1.0), columns, most)
    unparsed = sum(not mentions for _, mentions, *_ in counts)
    return core.result(scores, given, unparsed, intervals, "image", images)


def _image(name: Any) -> str:
    """A COCO image id: the number, or the one that ends a file name."""
    number = re.search(r"(\d+)(?:\.\w+)?$", str(name))
    return str(int(number[1])) if number else str(name)


def _truth(source: Path, names: dict[str, str], wanted: Set[str]) -> dict[str, set[str]]:
    """Image -> classes of its objects; of COCO's files only for the ``wanted`` images."""
    truth: dict[str, set[str]] = defaultdict(set)
    coco = sorted([*source.glob("instances_*.json"), *source.glob("captions_*.json")])
    for path in coco or core.find_files(source, "*.json"):
        file = core.entries(path)[0]
        if "annotations" in file.row:
            pairs = list(_coco(file, names, wanted))
        elif "sentences" in file.row:  # the output of the official tool
            pairs = [(row["image_id"], row["mscoco_gt_words"]) for row in file["sentences"]]
        else:
            pairs = file.row.items()
        for image, said in pairs:
            if not isinstance(said, list):
                raise LabError(f"the objects of {image} are no list", where=path)
            truth[_image(image)] |= {names.get(word, word) for word in said}
    return dict(truth)


def _coco(file: Entry, names: dict[str, str], wanted: Set[str]) -> Iterator[tuple[Any, list[str]]]:
    """(image, classes) of each annotation of a COCO instance file, or of human captions."""
    classes = {row["id"]: row["name"] for row in file.row.get("categories", [])}
    for entry in file.records("annotations"):
        if _image(image := entry["image_id"]) in wanted:
            if "caption" in entry.row:
                yield image, objects(entry["caption"], names)
            else:  # a class without a word still makes its image known
                name = classes.get(entry["category_id"])
                yield image, [name] if name in names else []
