"""``sgv-lab stats``: what caption files hold."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from sgv_lab.captions import lexical, statistics
from sgv_lab.captions.convert import Captions, convert
from sgv_lab.captions.defects import KINDS, defects
from sgv_lab.captions.records import Broken, file_problem, read_records
from sgv_lab.captions.scan import layout
from sgv_lab.captions.sources import SOURCES, recognise, resolve
from sgv_lab.images import image_problem, images_kinds
from sgv_lab.options import refuse_ignored


def stats(
    files: tuple[str, ...],
    *,
    json_: bool = False,  # One JSON array, an object a file.
    images: Path | None = None,  # Data root: look at every image.
    tokenizer: str | None = None,  # Count tokens: a sentencepiece .model file or a folder.
    sample: int = 2_000,  # Captions to tag and tokenize.
    all_: bool = False,  # Tag and tokenize every caption.
    seed: int = 0,  # Of the sample.
) -> str:
    """Describe caption FILES: LLaVA-format JSON, JSON lines or Parquet, or COCO captions_*.json.

    Gzipped ones, too. Of several, the paper's Table 1 stands beside what they hold. Words are runs
    without white space; words and parts of speech mean something in English, and in languages
    written alike. With --images each LLaVA-format record is also checked as `sgv-lab train` does
    before it starts, but for its length.

    hub:NAME fetches a dataset of Table 1, world:NAME is its stand-in in the drawn world
    (COCO-Caption, BLIP-LCS, LLaVA-23K, ShareGPT4V, ShareGPT4V-PT).
    """
    if all_:
        refuse_ignored("--all", "sample", "seed")
    size = None if all_ else sample
    read = [convert(resolve(f)) for f in files]
    reports = [_report(one, images, tokenizer, size, seed) for one in read]
    if json_:
        return json.dumps(reports, indent=1, ensure_ascii=False)
    told = [_text(one) for one in reports]
    if len(read) > 1:
        found = statistics.table1({recognise(one.file): one for one in read})
        table = found.astype(object).fillna("").to_string()
        told.append(f"the paper's Table 1, and what was found\n{table}")
    return "\n\n".join(told)


def _report(
    captions: Captions, images: Path | None, tokenizer: str | None, size: int | None, seed: int
) -> dict[str, Any]:
    """Everything ``sgv-lab stats`` tells about a file, as JSON can hold it.

    ``size``: how many captions are tagged, None for all.
    """
    found, name = statistics.totals(captions), recognise(captions.file)
    texts = statistics.sample(captions, size, seed)
    found["mean_sentences"] = statistics.mean_sentences(texts)
    tagged, problems = lexical.analyse(texts), defects(captions, images)
    rejected = captions.rejected()
    parts = lexical.composition(tagged, found["samples"]).set_index("part")
    result: dict[str, Any] = {"file": captions.file.name, "source": name}
    if name in SOURCES:
        result |= {"visible": SOURCES[name].visible, "captioned_by": SOURCES[name].captioned_by}
        result["paper_mean_characters"] = int(statistics.printed(name, "mean characters"))
    result |= found | {
        "rejected": {"count": rejected.height, "examples": rejected.head(5).to_dicts()},
        "defects": {kind: one.count for kind, one in problems.items()},
        "defect_examples": {kind: one.examples for kind, one in problems.items() if one.examples},
        "duplication": statistics.duplication(captions),
        "lengths": {
            c: statistics.lengths(captions, c).to_dict("list") for c in ("characters", "words")
        },
        "image_sources": statistics.image_sources(captions).to_dict("records"),
        "sample": {"captions": len(texts), "seed": seed},
        "lexical": parts.T.to_dict("list"),
        "noun_verbs": lexical.noun_verbs(tagged).to_numpy().tolist(),
        "vocabulary": statistics.vocabulary_growth(texts).iloc[-1].to_dict(),
    }
    if images is not None and layout(captions.file) != "coco":
        result["training"] = _training(captions.file, images)
    if tokenizer is not None:
        result["tokens"] = statistics.tokens(texts, tokenizer, found["samples"])
    return result


def _training(file: Path, images: Path) -> dict[str, Any]:
    """How many records training would refuse, whatever the template, and why."""
    broken, records = [], enumerate(read_records(file))
    while some := list(islice(records, 10_000)):
        asked = {r["image"] for _, (r, _, wrong) in some if not wrong and r.get("image")}
        bad = dict(zip(asked, map(image_problem, images_kinds(images, asked)), strict=True))
        for number, (record, line, wrong) in some:
            if not wrong and (problem := file_problem([record.get("image", "")], bad)):
                wrong = Broken(number, record["id"], line, problem)
            broken += [wrong] if wrong else []
    reasons = Counter(one.reason for one in broken)
    return {"refused": len(broken), "reasons": reasons, "examples": list(map(str, broken[:5]))}


def _text(one: dict[str, Any]) -> str:
    """A report for reading."""
    by = paper = ""
    if "captioned_by" in one:
        by = f", captioned by {one['captioned_by']}"
        paper = f" (paper: {one['paper_mean_characters']})"
    lines = [
        f"{one['file']}: {one['source']}{by}",
        f"  {one['samples']:,} captions of {one['images']:,} images; {one['rejected']['count']:,} "
        "records rejected",
        f"  mean {one['mean_characters']:.2f} characters{paper}, {one['mean_words']:.2f} words, "
        f"{one['mean_sentences']:.2f} sentences",
        f"  repeated: {one['duplication']['exact']:.2%} exactly, "
        f"{one['duplication']['normalised']:.2%} but for case and punctuation",
        f"  words by part of speech (English), {one['sample']['captions']:,} captions "
        "(95 % intervals):",
    ]
    for part, (share, low, high) in one["lexical"].items():
        lines.append(f"    {part:6}{share:7.1%}  [{low:.1%}, {high:.1%}]")
    if "tokens" in one:
        told = "  mean tokens of {tokenizer}: {mean_tokens:.1f} [{low:.1f}, {high:.1f}]"
        lines.append(told.format(**one["tokens"]))
    for example in one["rejected"]["examples"]:
        lines.append(f"  rejected {Broken(*example.values())}; {example['fix']}")
    if "training" in one:
        lines.append(f"  cannot be trained on: {one['training']['refused']:,} records")
        lines += [f"    {reason}: {n:,}" for reason, n in one["training"]["reasons"].items()]
        lines += [f"    {example}" for example in one["training"]["examples"]]
    for kind, examples in one["defect_examples"].items():
        count, about = one["defects"][kind], KINDS[kind]
        lines.append(f"  {kind}: {count:,} ({about.what}; {about.fix})")
        for example in examples:
            lines.append("    record {record}, id {id}: {snippet!r}".format(**example))
    return "\n".join(lines)
