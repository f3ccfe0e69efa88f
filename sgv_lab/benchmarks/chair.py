"""CHAIR: objects a caption names that are not in the picture; recall and length beside it.

Rules: LisaAnne/Hallucination utils/chair.py (words, CHAIRi, CHAIRs) and Maxlinn/CHAIR-metric-
standalone (recall). The list of object words is data: ``synonyms.txt`` of the same repository.
"""

import re
from collections import defaultdict
from collections.abc import Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nltk.tokenize import MWETokenizer, NLTKWordTokenizer
from textblob.en.inflect import singularize

from sgv_lab.benchmarks import OFFICIAL, core, jackknife
from sgv_lab.benchmarks.answers import EACH, by_id
from sgv_lab.benchmarks.core import Entry, Given
from sgv_lab.errors import LabError

VARIANTS = ("no_singular",)  # plural words stay unread
PAIRS = """motor bike,motor cycle,air plane,traffic light,street light,traffic signal,stop light,
fire hydrant,stop sign,parking meter,suit case,sports ball,baseball bat,baseball glove,
tennis racket,wine glass,hot dog,cell phone,mobile phone,teddy bear,hair drier,potted plant,bow tie,
laptop computer,stove top oven,home plate,train track""".replace("\n", "").split(",")
ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split()  # noqa: SIM905
DOUBLE = {
    **{pair: pair for pair in PAIRS},
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",  # what the singular of "glass" leaves
}
MERGE = MWETokenizer([pair.split() for pair in DOUBLE], separator=" ")


_singular = lru_cache(1 << 18)(singularize)


def tokens(caption: str, singular: bool = True) -> list[str]:
    """The caption's words: lower case, Treebank rules, each in the singular of pattern.en.

    nltk.word_tokenize cuts sentences with a model it downloads; here a sentence ends at . ! or ?
    before a blank.
    """
    tokeniser = NLTKWordTokenizer()
    sentences = re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"')])\s+", caption.lower())
    words = [word for sentence in sentences for word in tokeniser.tokenize(sentence)]
    return [_singular(word) for word in words] if singular else words


def objects(caption: str, synonyms: dict[str, str], singular: bool = True) -> list[str]:
    """Every mention of an object in ``caption``, by its class name, in order."""
    joined = [DOUBLE.get(word, word) for word in MERGE.tokenize(tokens(caption, singular))]
    if "toilet" in joined:  # a seat in its company is a part of it
        joined = [word for word in joined if word != "seat"]
    return [synonyms[word] for word in joined if word in synonyms]


def synonyms(path: str | Path) -> dict[str, str]:
    """Word -> class: one class a line of ``path``, its name first, separated by ", "."""
    lines = [line.strip().split(", ") for line in core.read_text(path).splitlines() if line.strip()]
    return {word: names[0] for names in lines for word in names}


def score(
    predictions: Given, annotations: Given = None, questions: Given = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """CHAIRs, CHAIRi and Recall (shares) of captions ({image_id, caption or text}).

    ``annotations`` is a folder of COCO files (instances_*.json, captions_*.json), one of them, a
    CHAIR output file, or {image_id: objects}; ``questions`` is synonyms.txt (else beside them).
    """
    source = core.need(annotations, "--annotations", "the objects of the pictures")
    folder = source if source.is_dir() else source.parent
    words = Path(questions or folder / "synonyms.txt")
    if not words.is_file():
        raise LabError(
            "no such list of object words",
            where=words,
            fix="fetch data/synonyms.txt of LisaAnne/Hallucination, name it --questions",
        )
    singular = variant == OFFICIAL
    names = synonyms(words)
    found, warnings = by_id(core.rows(predictions), "image_id", "image", rule=EACH)
    answers = [(_image(key), entry) for key, group in found.items() for entry in group]
    truth = _truth(source, names, dict(answers).keys())
    missing = len(truth.keys() - dict(answers).keys())
    core.known(dict(answers), truth, source)
    table = []  # mentions, hallucinated, captions, with one, objects recalled, objects, words
    for key, entry in answers:
        caption = entry.text("caption", "text")
        said = objects(caption, names, singular)
        wrong = [word for word in said if word not in truth[key]]
        recalled = len(truth[key] & set(said))
        row = (len(said), len(wrong), 1, bool(wrong), recalled, len(truth[key]))
        table.append((*row, len(caption.split())))
    sums = jackknife.by_cluster([key for key, _ in answers], np.array(table, float))
    return _result(sums, missing, unparsed=sum(not row[0] for row in table), warnings=warnings)


def _result(table: np.ndarray, missing: int, **said: Any) -> dict[str, Any]:
    shares = {"CHAIRs": (3, 2), "CHAIRi": (1, 0), "Recall": (4, 5), "words_per_caption": (6, 2)}
    sums, scores, intervals = table.sum(0), {}, {}
    for name, (over, under) in shares.items():
        scores[name] = float(sums[over] / sums[under]) if sums[under] else 0.0
        most = np.inf if name == "words_per_caption" else 1.0
        intervals[name] = jackknife.interval(jackknife.ratio(1.0), table[:, [over, under]], most)
    return core.result(
        scores | {"captions": int(sums[2]), "mentions": int(sums[0]), "hallucinated": int(sums[1])},
        missing=missing,
        intervals=intervals,
        clustered_by="image",
        clusters=len(table),
        **said,
    )


def _image(name: Any) -> str:
    """A COCO image id: the number, or the one that ends a file name."""
    number = re.search(r"(\d+)(?:\.\w+)?$", str(name))
    return str(int(number[1])) if number else str(name)


def _truth(source: Path, names: dict[str, str], wanted: Set[str]) -> dict[str, set[str]]:
    truth: dict[str, set[str]] = defaultdict(set)
    coco = sorted([*source.glob("instances_*.json"), *source.glob("captions_*.json")])
    for path in coco or core.within(source, "*.json"):
        found = core.entries(path)
        value = found[0].row
        if len(found) == 1 and "annotations" in value:
            _coco(found[0], names, wanted, truth)
        elif len(found) == 1 and "sentences" in value:  # the output of the official tool
            for row in value["sentences"]:
                truth[_image(row["image_id"])] |= set(row["mscoco_gt_words"])
        elif "image_id" in value or "image" in value:
            for entry in found:
                said = next((v for v in entry.row.values() if isinstance(v, list)), None)
                if said is None:
                    raise LabError("holds no list of objects", where=entry.where)
                truth[_image(entry.first("image_id", "image"))] |= {names.get(w, w) for w in said}
        else:
            for key, said in value.items():
                if not isinstance(said, list):
                    raise LabError(f"the objects of {key} are no list", where=path)
                truth[_image(key)] |= {names.get(word, word) for word in said}
    return dict(truth)


def _coco(file: Entry, names: dict[str, str], wanted: Set[str], truth: dict[str, set[str]]) -> None:
    """Add the classes of a COCO instance file, or of its human captions, for ``wanted`` images."""
    classes = {row["id"]: row["name"] for row in file.row.get("categories", [])}
    for entry in file.records("annotations"):
        image = _image(entry["image_id"])
        if image not in wanted:
            continue
        truth[image]  # a picture without any object is known, too
        if "caption" in entry.row:
            truth[image] |= set(objects(entry["caption"], names))
        elif (name := classes.get(entry["category_id"])) in names:
            truth[image].add(names[name])
