"""Which words captions are made of: parts of speech, and which nouns do what.

Tags are those of TextBlob's PatternTagger, whose lexicon is in the package. The paper's second
version compares such shares of GPT4-Vision and Share-Captioner.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from textblob.en import tag
from textblob.en.inflect import singularize

from sgv_lab.captions.statistics import ratio

PARTS = {  # part of speech -> beginnings of its Penn Treebank tags
    "n.": ("NN",),
    "adj.": ("JJ",),
    "adv.": ("RB", "WRB"),
    "v.": ("VB", "MD"),
    "num.": ("CD",),
    "prep.": ("IN", "TO"),
}
_AUXILIARIES = re.compile(
    r"am|is|are|was|were|be|been|being|has|have|had|do|does|did|can|could|may|might|will|would|"
    r"shall|should|must|'s|'re|'ve|'d|'ll"
)


@dataclass(frozen=True)
class Lexical:
    """Tags of N captions: words of each part (N, len(PARTS)), all words (N,), pairs."""

    parts: np.ndarray
    words: np.ndarray
    pairs: Counter[tuple[str, str]]


def analyse(texts: Sequence[str]) -> Lexical:
    """Tag every caption: about 1 ms for a long one."""
    rows, words, pairs = [], [], Counter()
    for text in texts:
        tagged = [(word.lower(), label) for word, label in tag(text)]
        spoken = [label for word, label in tagged if word[0].isalnum() or word[0] == "'"]
        rows.append([sum(t.startswith(part) for t in spoken) for part in PARTS.values()])
        words.append(len(spoken))
        pairs.update(_pairs(tagged))
    return Lexical(np.array(rows).reshape(-1, len(PARTS)), np.array(words), pairs)


def _pairs(tagged: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each verb that is no auxiliary with the nearest noun before it in its sentence.

    Nouns are singular; verbs stand as written (no lexicon of verb forms is in the package).
    """
    found, noun = [], None
    for word, label in tagged:
        if label == ".":
            noun = None
        elif label.startswith("NN"):
            noun = singularize(word) if label.endswith("S") else word
        elif label.startswith("VB") and noun and not _AUXILIARIES.fullmatch(word):
            found.append((noun, word))
    return found


def composition(lexical: Lexical, population: float = np.inf) -> pd.DataFrame:
    """Share of each part of speech in all words, with its 95 % interval: part, share, low, high.

    The interval is clustered by caption; see ``statistics.ratio``.
    """
    rows = [
        (part, *np.clip(ratio(lexical.parts[:, i], lexical.words, population), 0, 1).tolist())
        for i, part in enumerate(PARTS)
    ]
    return pd.DataFrame(rows, columns=["part", "share", "low", "high"])


def noun_verbs(lexical: Lexical, top: int = 10) -> pd.DataFrame:
    """The most frequent pairs of noun and verb: noun, verb, count; ties in alphabetical order."""
    ranked = sorted(lexical.pairs.items(), key=lambda item: (-item[1], item[0]))[:top]
    return pd.DataFrame([(*pair, n) for pair, n in ranked], columns=["noun", "verb", "count"])
