"""CIDEr-D, BLEU and ROUGE-L of captions, by pycocoevalcap behind the PTB tokeniser (Java).

METEOR and SPICE are left out (they need models). CLIPScore and CAPTURE need weights of the hub:
any function (image, caption) -> float is averaged over the same rows, outside this module.
"""

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from sgv_lab.benchmarks import OFFICIAL, core
from sgv_lab.benchmarks.core import File
from sgv_lab.errors import LabError
from sgv_lab.intervals import clustered_mean

FILES = ("captions_val*.json", "captions_*.json")
VARIANTS = ("whitespace", "lower", "lower_no_punctuation")  # no PTB tokeniser (VLMEvalKit: first)
PUNCTUATION = "'\"`().?!,:;-[]{}"


def score(
    predictions: File, annotations: File = None, questions: File = None, variant: str = OFFICIAL
) -> dict[str, Any]:
    """Score one caption an image ({image_id, caption}) against COCO captions of the same images.

    ``annotations`` is a COCO caption file or its folder, or {image_id: [captions] or {"captions":
    [...]}}. CIDEr depends on the set of images: they must be the same on both sides.
    """
    given = core.index(core.rows(predictions), "image_id")
    source = core.require(annotations, "the reference captions")
    references = _references(core.find_files(source, *FILES)[0])
    if missing := core.check_ids(given, references, source):
        what = f"{missing} images of {source} have no caption"
        fix = "CIDEr depends on the image set: caption all, or cut the references"
        raise LabError(what, where=predictions, fix=fix)
    candidates = {key: [entry.text("caption", "text")] for key, entry in given.items()}
    return metrics(candidates, {key: references[key] for key in candidates}, variant)


def _references(path: Path) -> dict[str, list[str]]:
    first = core.entries(path)[0]
    if "annotations" in first.row:
        told = first.records("annotations")
        return core.grouped((str(entry["image_id"]), entry["caption"]) for entry in told)
    given = core.keyed(path, "captions")
    for entry in given.values():
        if not isinstance(entry["captions"], list):
            raise entry.error("has no list of captions")
    return {key: entry["captions"] for key, entry in given.items()}


def tokenise(captions: dict[str, list[str]], variant: str = OFFICIAL) -> dict[str, list[str]]:
    """Image -> captions as blank-separated tokens; LabError without Java for the official rule."""
    if variant == OFFICIAL:
        if shutil.which("java") is None:
            what = "the PTB tokeniser needs Java, and there is none on the PATH"
            fix = "install a Java runtime, or use --variant lower_no_punctuation"
            raise LabError(what, fix=fix)
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        return PTBTokenizer().tokenize(
            {key: [{"caption": text} for text in texts] for key, texts in captions.items()}
        )
    gone = str.maketrans("", "", PUNCTUATION if variant == "lower_no_punctuation" else "")
    lower = str if variant == "whitespace" else str.lower
    return {key: [lower(text).translate(gone) for text in texts] for key, texts in captions.items()}


def metrics(
    candidates: dict[str, list[str]], references: dict[str, list[str]], variant: str = OFFICIAL
) -> dict[str, Any]:
    """Bleu_1 … Bleu_4 (corpus), ROUGE_L, CIDEr of one candidate an image; values around 1 = "100".

    Raises LabError for fewer than two images: CIDEr's document frequencies are then all log 1.
    """
    if len(candidates) < 2:
        raise LabError("one image alone has no CIDEr", fix="score at least two images")

    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = tokenise(candidates, variant), tokenise(references, variant)
    with contextlib.redirect_stdout(io.StringIO()):
        bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
        rouge, per_rouge = Rouge().compute_score(references, candidates)
        cider, per_cider = Cider().compute_score(references, candidates)
    images = list(candidates)
    words = [len(text.split()) for (text,) in candidates.values()]
    scores = {f"Bleu_{n}": float(value) for n, value in enumerate(bleu, 1)}
    scores |= {"ROUGE_L": float(rouge), "CIDEr": float(cider)}
    scores |= {"images": len(images), "words_per_caption": float(np.mean(words))}
    intervals = {  # with the document frequencies held fixed
        "CIDEr": clustered_mean(np.array(per_cider) / 10, images, 10.0),
        "ROUGE_L": clustered_mean(per_rouge, images, 1.0),
    }
    return core.result(scores, None, words.count(0), intervals, "image", images)
