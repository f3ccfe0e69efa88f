"""What GPT4-Vision was asked for the 100K, and what a captioner is asked.

The frame is verbatim from the paper's Figure 3. Of the parts for each source two are known word by
word, through third-party code that reuses them; of the others only the content is known, and the
words here are ours.
"""

from dataclasses import dataclass

import pandas as pd

from sgv_lab.world.vocabulary import SOURCES

BEGIN = "You are a powerful image captioner."
END = (
    "Instead of describing the imaginary content, only describing the content one can determine "
    "confidently from the image. Do not describe the contents by itemizing them in list form. "
    "Minimize aesthetic descriptions as much as possible."
)
CAPTIONER = "Analyze the image in a comprehensive and detailed manner."
"""What Share-Captioner is asked [tools/share-cap_batch_infer.py]."""

_DETAILED = "Create detailed captions describing the contents of the given image."
_FIGURE, _REUSED, _OURS = "Figure 3", "reused verbatim by third parties", "content only, our words"


@dataclass(frozen=True)
class Part:
    """The part of the prompt that depends on the source, and how its words are known."""

    text: str
    known: str


_BASE = Part(
    f"{_DETAILED} Include the object types and colors, counting the objects, object actions, "
    "precise object locations, texts, doublechecking relative positions between objects, etc.",
    _REUSED,
)
PARTS = {
    "coco": _BASE,
    "lcs": _BASE,
    "sam": _BASE,
    "textcaps": Part(
        f"{_DETAILED} Pay more attention to the text contents and the information they convey.",
        _REUSED,
    ),
    "wikiart": Part(
        f"{_DETAILED} Tell the artwork, its style and its genre, as far as you know them.", _OURS
    ),
    "landmark": Part(
        f"{_DETAILED} Tell the landmark's name, its geographical location and related knowledge.",
        _OURS,
    ),
    "celebrity": Part(
        f"{_DETAILED} Tell who the person or the character is, the actions and the expressions.",
        _OURS,
    ),
}
"""Image source -> its part. An aesthetic prompt for some of the images is not known at all."""


def source_of(image: str) -> str:
    """The source of a picture, from its path in the official layout; "coco" for any other path."""
    return next((name for name, s in SOURCES.items() if image.startswith(f"{s.prefix}/")), "coco")


def prompt(image: str) -> str:
    """What is asked about a picture: Figure 3's frame around its source's part."""
    return f"{BEGIN} {PARTS[source_of(image)].text} {END}"


def table() -> pd.DataFrame:
    """The prompts' parts, which sources they are for, and how their words are known."""
    rows = [("all, first", BEGIN, f"{_FIGURE}, verbatim")]
    for part in dict.fromkeys(PARTS.values()):
        sources = ", ".join(name for name, one in PARTS.items() if one is part)
        rows.append((sources, part.text, part.known))
    rows.append(("all, last", END, f"{_FIGURE}, verbatim"))
    return pd.DataFrame(rows, columns=["for", "text", "known from"])
