"""What is wrong with a caption dataset, counted, each kind with examples and a remedy.

The kinds are those seen in the published files: search citations of the tool behind the 100K
[InternLM-XComposer#119], the collection prompt repeated by Share-Captioner [ShareGPT4V#12],
images that are not where the file says [ShareGPT4V#10].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import polars as pl
from tqdm import tqdm

from sgv_lab.captions import answers
from sgv_lab.captions.convert import Captions
from sgv_lab.errors import LabError
from sgv_lab.images import RATIO, SMALLEST, images_kinds

OVER_LONG = 8_000  # characters; a model's 2,048 tokens hold about as many
_BYTES = 100_000  # a caption beyond this is counted and not searched
_TEXT = pl.col("caption").str.slice(0, _BYTES)
_SENTENCES = _TEXT.str.to_lowercase().str.extract_all(r"\p{L}[^.!?]{19,}[.!?]")
_PUNCTUATED = r"[.!?…。！？｡][\"'”’)\]*」』）]*\s*$"
_GOES_ON = r"[.!?][\"')\]]?\s+\S|[。！？｡][」』）]?\s*[\p{L}\p{N}]"  # after its first sentence
_LEAKED = (
    "you are a powerful image captioner",
    "imaginary content",
    "contents by itemizing",
    "minimize aesthetic descriptions",
    "one can determine confidently",
    "create detailed captions describing",
    "doublechecking relative positions",
)


@dataclass(frozen=True)
class Kind:
    """A kind of defect: what it is, what to do, and which rows have it (None: seen elsewhere)."""

    what: str
    fix: str
    rows: pl.Expr | None = None


KINDS = {
    "empty": Kind("no text", "leave the record out", pl.col("caption").str.strip_chars() == ""),
    "over_long": Kind(f"over {OVER_LONG:,} characters", "check that it is one caption",
                      pl.col("characters") > OVER_LONG),
    "list_form": Kind("items in list form, which the prompt forbids", "rewrite as prose",
                      _TEXT.str.count_matches(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+\S") >= 2),
    "citation": Kind("residue of a search tool, [^1^]", "cut the citation and its sentence",
                     _TEXT.str.contains(r"\[\^\d+\^\]")),
    "prompt_leakage": Kind("words of the collection prompt", "cut the sentence",
                           _TEXT.str.to_lowercase().str.contains_any(list(_LEAKED))),
    "refusal": Kind("declines instead of describing", "caption the image again",
                    answers.refuses(_TEXT)),
    "reasoning": Kind("a reasoning block, or a part of one", "cut it, or caption the image again",
                      answers.has_reasoning(_TEXT)),
    "truncated": Kind("several sentences, the last unfinished", "caption the image again",
                      _TEXT.str.contains(_GOES_ON)
                      & ~_TEXT.str.contains(_PUNCTUATED) & (pl.col("characters") <= _BYTES)),
    "unpunctuated": Kind("one sentence without its full stop: style in short captions, a cut in "
                         "long ones", "none needed for short captions",
                         ~_TEXT.str.contains(_GOES_ON)
                         & ~_TEXT.str.contains(_PUNCTUATED)
                         & (pl.col("caption").str.strip_chars() != "")),
    "repeated_sentence": Kind("says the same sentence twice", "caption the image again",
                              _SENTENCES.list.len() > _SENTENCES.list.n_unique()),
    "repeated_caption": Kind("the same text as an earlier record", "keep one of them",
                             ~pl.col("caption").hash().is_first_distinct()),
    "duplicate_id": Kind("the id of an earlier record", "give each record its own id",
                         pl.col("id").is_not_null() & ~pl.col("id").is_first_distinct()),
    "unsafe_image": Kind("the image's path leaves its root, or it is a decompression bomb",
                         "do not open it; leave the record out"),
    "missing_image": Kind("the image is not there", "get the image or leave the record out"),
    "empty_image": Kind("the image's file holds nothing", "get the image again"),
    "corrupt_image": Kind("no image, or one that cannot be decoded", "get the image again"),
    "size_image": Kind(f"a side below {SMALLEST} pixels, over {RATIO} times the other, or a file "
                       "above 100 MB", "leave the record out"),
    "deep_image": Kind("over 8 bits a channel, read as white above 255", "save it with 8 bits"),
    "animated_image": Kind("several frames or pages, the first is read", "check that it is meant"),
    "cmyk_image": Kind("the colours of print, read without a profile", "save it as RGB"),
    "transparent_image": Kind("an alpha channel, read without it", "check how it looks"),
    "turned_image": Kind("EXIF says to turn it, read as it lies", "save it turned"),
}  # fmt: skip
"""Kind of defect -> what it means. A record may have several."""


@dataclass
class Defect:
    """How many records have a defect, and the first few: record, id, what to see."""

    count: int
    examples: list[dict[str, object]] = field(default_factory=list)


def defects(
    captions: Captions, images: str | Path | None = None, show: int = 3
) -> dict[str, Defect]:
    """Every kind of KINDS that can be looked for, counted over all captions.

    ``images``: the data root, to decode every image too; LabError if it is no folder.
    """
    columns = ["record", "id", pl.col("caption").str.slice(0, 160).alias("snippet")]
    found = {}
    for name, kind in KINDS.items():
        if kind.rows is not None:
            hits = captions.rows().filter(kind.rows)
            count = hits.select(pl.len()).collect(engine="streaming").item()
            shown = hits.select(columns).head(show).collect().to_dicts() if count else []
            found[name] = Defect(count, shown)
    if images is None:
        return found
    if not Path(images).is_dir():
        fix = "give the folder the image paths start from"
        raise LabError("is no folder", where=images, fix=fix)
    found |= {name: Defect(0) for name, kind in KINDS.items() if kind.rows is None}
    wanted = captions.rows().filter(pl.col("image").is_not_null()).group_by("image")
    query = wanted.agg(pl.len(), pl.col("record", "id").first()).sort("record")
    table = query.collect(engine="streaming")
    rows = zip(table.rows(), images_kinds(Path(images), table["image"]), strict=True)
    for (image, count, record, name), kinds in tqdm(rows, "images", len(table), disable=None):
        for kind, words in kinds.items():
            defect = found[f"{kind}_image"]
            defect.count += count
            if len(defect.examples) < show:
                seen = f"{image}: {words}"
                defect.examples.append({"record": record, "id": name, "snippet": seen})
    return found


def table(found: Mapping[str, dict[str, Defect]]) -> pd.DataFrame:
    """Defects of several sources side by side: a row a kind, a column a source, what it means."""
    frame = pd.DataFrame(found).map(lambda one: one.count, na_action="ignore")
    meaning = [KINDS[kind].what for kind in frame.index]
    return frame.rename_axis("defect").assign(meaning=meaning)


def examples(found: Mapping[str, dict[str, Defect]]) -> pd.DataFrame:
    """One example of each kind of defect and source: what is seen in the record that has it."""
    rows = [
        (kind, name, one.examples[0]["record"], str(one.examples[0]["snippet"])[:90])
        for name, kinds in found.items()
        for kind, one in kinds.items()
        if one.examples
    ]
    return pd.DataFrame(rows, columns=["defect", "source", "record", "what is there"])
