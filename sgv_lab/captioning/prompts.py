"""What GPT4-Vision was asked for the 100K, and what a captioner is asked.

The frame is verbatim from the paper's Figure 3. Of the parts for each source two are known word by
word, through third-party code that reuses them; of the others only the content is known, and the
words here are ours.
"""

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
_BASE = (
    f"{_DETAILED} Include the object types and colors, counting the objects, object actions, "
    "precise object locations, texts, doublechecking relative positions between objects, etc."
)
_KNOWLEDGE = {
    "wikiart": "Tell the artwork, its style and its genre, as far as you know them.",
    "landmark": "Tell the landmark's name, its geographical location and related knowledge.",
    "celebrity": "Tell who the person or the character is, the actions and the expressions.",
}
PARTS = {
    **dict.fromkeys(("coco", "lcs", "sam"), (_BASE, _REUSED)),
    "textcaps": (
        f"{_DETAILED} Pay more attention to the text contents and the information they convey.",
        _REUSED,
    ),
    **{source: (f"{_DETAILED} {text}", _OURS) for source, text in _KNOWLEDGE.items()},
}
"""Image source -> its part, and how its words are known. An aesthetic prompt for some of the images
is not known at all."""


def source_of(image: str) -> str:
    """The source of an image, from its path in the official layout; "coco" for any other path."""
    return next((name for name, s in SOURCES.items() if image.startswith(f"{s.prefix}/")), "coco")


def prompt(image: str) -> str:
    """What is asked about an image: Figure 3's frame around its source's part."""
    return f"{BEGIN} {PARTS[source_of(image)][0]} {END}"


def table() -> pd.DataFrame:
    """The prompts' parts, which sources they are for, and how their words are known."""
    rows = [("all, first", BEGIN, f"{_FIGURE}, verbatim")]
    for part, known in dict.fromkeys(PARTS.values()):
        sources = ", ".join(name for name, (text, _) in PARTS.items() if text == part)
        rows.append((sources, part, known))
    rows.append(("all, last", END, f"{_FIGURE}, verbatim"))
    return pd.DataFrame(rows, columns=["for", "text", "known from"])
