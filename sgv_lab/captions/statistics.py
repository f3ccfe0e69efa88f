"""What a caption dataset looks like in numbers: Table 1, lengths, vocabulary, duplication.

Totals and lengths are of every caption, by queries on the Parquet files; what needs each word is
of a seeded random sample, with a 95 % interval over captions.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from sgv_lab import paper
from sgv_lab.captions.convert import Captions
from sgv_lab.captions.sources import SOURCES, source
from sgv_lab.errors import LabError

# the end of one, in Latin script or in Chinese and Japanese; an unpunctuated caption counts as one
SENTENCE = r"[.!?]+[\"')\]]*(?:\s|$)|[。！？｡]+"
_Z = 1.959964


def totals(captions: Captions) -> dict[str, Any]:
    """Samples, distinct images, and mean characters (and their median) and words a caption."""
    query = captions.rows().select(
        samples=pl.len(),
        images=pl.col("image").drop_nulls().n_unique(),
        mean_characters=pl.col("characters").mean(),
        median_characters=pl.col("characters").median(),
        mean_words=pl.col("words").mean(),
    )
    return query.collect(engine="streaming").row(0, named=True)


def mean_sentences(texts: list[str]) -> float:
    """Mean sentences a caption of a sample."""
    return pl.Series(texts, dtype=pl.String).str.count_matches(SENTENCE).clip(1).mean()


def printed(dataset: str, column: str) -> float:
    """A number of the paper's Table 1: ``column`` is "samples" or "mean characters"."""
    table = paper.facts("table1").set_index(["row", "column"])
    return float(table.loc[(dataset, column), "value"])


def table1(sources: Mapping[str, Captions | None]) -> pd.DataFrame:
    """Table 1 with our counts beside the paper's; a row a dataset, blank where it has no file.

    Below it, files of any other name: the paper's columns are blank there.
    COCO's samples are captions here (five an image), images in the paper.
    """
    rows = {}
    for name in dict.fromkeys((*SOURCES, *sources)):
        visible = {True: "yes", False: "no", None: ""}[source(name).visible]
        rows[name] = {"visible": visible, "captioned by": source(name).captioned_by}
        if name in SOURCES:
            rows[name]["samples, paper"] = int(printed(name, "samples"))
            rows[name]["characters, paper"] = int(printed(name, "mean characters"))
        captions = sources.get(name)
        if captions is not None:
            found = totals(captions)
            rows[name] |= {key: found[key] for key in ("samples", "images")}
            rows[name] |= {key: round(found[f"mean_{key}"], 2) for key in ("characters", "words")}
        rows[name]["note"] = "" if captions else "nothing behind it here"
    order = ["visible", "captioned by", "samples", "images", "characters", "words"]
    order += ["samples, paper", "characters, paper", "note"]
    counts = dict.fromkeys(("samples", "images", "samples, paper", "characters, paper"), "Int64")
    table = pd.DataFrame.from_dict(rows, "index", columns=order)
    return table.astype(counts).rename_axis("dataset")


def lengths(captions: Captions, column: str = "characters", bins: int = 60) -> pd.DataFrame:
    """How ``characters`` or ``words`` are distributed: start, end (exclusive), captions.

    Bins are of one whole width; the last ends beyond the longest caption.
    """
    rows = captions.rows()
    longest = rows.select(pl.col(column).max()).collect(engine="streaming").item()
    width = max(1, -(-(longest + 1) // bins))
    counted = rows.group_by((pl.col(column) // width).alias("bin")).len()
    counts = dict(counted.collect(engine="streaming").iter_rows())
    starts = width * np.arange(longest // width + 1)
    table = {"start": starts, "end": starts + width}
    return pd.DataFrame(table | {"captions": [counts.get(s // width, 0) for s in starts]})


def image_sources(captions: Captions) -> pd.DataFrame:
    """Captions by the folder of their image, the image source: folder, captions."""
    folder = pl.col("image").str.replace(r"/[^/]*$", "").fill_null("(no image)")
    folder = folder.str.replace(r"^(llava/llava_pretrain/images)/.*", "${1}")
    counted = captions.rows().group_by(folder=folder).agg(captions=pl.len())
    table = counted.collect(engine="streaming").sort("captions", "folder", descending=[True, False])
    return pd.DataFrame(table.to_dict(as_series=False))


def duplication(captions: Captions) -> dict[str, float]:
    """Share of captions that repeat an earlier one: exactly, and but for case and punctuation."""
    plain = pl.col("caption").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ")
    query = captions.rows().select(
        exact=1 - pl.col("caption").hash().n_unique() / pl.len(),
        normalised=1 - plain.str.strip_chars().hash().n_unique() / pl.len(),
    )
    return query.collect(engine="streaming").row(0, named=True)


def sample(captions: Captions, size: int | None, seed: int) -> list[str]:
    """``size`` captions drawn at random without replacement; all of them for None or if fewer."""
    rows = captions.rows()
    count = rows.select(pl.len()).collect().item()
    if size is None or size >= count:
        return rows.select("caption").collect()["caption"].to_list()
    chosen = pl.Series(sorted(random.Random(seed).sample(range(count), size)), dtype=pl.UInt32)
    picked = rows.select("caption").with_row_index("n").filter(pl.col("n").is_in(chosen.implode()))
    return picked.collect(engine="streaming")["caption"].to_list()


def ratio(
    parts: np.ndarray, wholes: np.ndarray, population: float = np.inf
) -> tuple[float, float, float]:
    """Σ parts / Σ wholes over sampled captions (N,), and its 95 % interval, clustered by caption.

    Linearised variance under random sampling of N out of ``population`` without replacement
    (Cochran, Sampling Techniques, 6.4): a census has no interval.
    """
    n, total = len(wholes), wholes.sum()
    share = float(parts.sum() / total) if total else float("nan")
    if n >= population:
        return share, share, share
    if n < 2 or not total:
        return share, float("nan"), float("nan")
    variance = (1 - n / population) * n / (n - 1) * ((parts - share * wholes) ** 2).sum()
    half = float(_Z * np.sqrt(variance) / total)
    return share, share - half, share + half


def tokens(texts: list[str], tokenizer: str | Path, population: int) -> dict[str, Any]:
    """Mean tokens a caption with its 95 % interval, without special tokens.

    ``tokenizer``: a sentencepiece ``.model`` file, or a folder that transformers can load.
    Raises LabError if it cannot be loaded.
    """
    path = Path(tokenizer)
    try:
        if path.suffix == ".model":
            import sentencepiece

            encoded = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode(texts)
        else:
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(path, local_files_only=True)
            encoded = loaded(texts, add_special_tokens=False)["input_ids"]
    except (OSError, ValueError, RuntimeError) as error:
        fix = "give a sentencepiece .model file or a folder with tokenizer.json"
        raise LabError("cannot be loaded as a tokenizer", where=path, fix=fix) from error
    counts = np.array([len(ids) for ids in encoded])
    mean, low, high = ratio(counts, np.ones(len(counts)), population)
    name = f"{path.parent.name}/{path.name}" if path.suffix else path.name
    return {"tokenizer": name, "mean_tokens": mean, "low": low, "high": high}


def vocabulary_growth(texts: list[str], points: int = 40) -> pd.DataFrame:
    """Distinct lower-case words among the first ``words`` words of ``texts``: words, types.

    At up to ``points`` numbers of words evenly spaced on a logarithmic scale (Heaps' curve).
    """
    words = pl.Series("word", texts, dtype=pl.String).str.to_lowercase()
    words = words.str.extract_all(r"\p{L}[\p{L}'’-]*").explode(empty_as_null=False)
    at = np.sort(words.to_frame().with_row_index("n").group_by("word").agg(pl.col("n").min())["n"])
    marks = np.unique(np.geomspace(1, max(1, len(words)), points).astype(int))
    return pd.DataFrame({"words": marks, "types": np.searchsorted(at, marks)})
