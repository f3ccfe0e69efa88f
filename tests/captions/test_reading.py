"""Readers: every kind of bad input is refused or counted, and the good records are kept."""

import gzip
import io
import json
from pathlib import Path

import polars as pl
import pytest

from sgv_lab.captions import scan as scanning
from sgv_lab.captions.convert import convert
from sgv_lab.captions.records import read_records
from sgv_lab.captions.sources import find, recognise
from sgv_lab.errors import LabError


def record(name: str, caption: str = "A dog.", **more: object) -> dict[str, object]:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": caption}]
    return {"id": name, "image": f"coco/train2017/{name}.jpg", "conversations": turns} | more


def written(path: Path, data: object) -> Path:
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        path.write_text(data if isinstance(data, str) else json.dumps(data, indent=2))
    return path


GOOD = [record("a"), record("b"), record("c")]
TEXT = json.dumps(GOOD, indent=2)
LINES = "\n".join(map(json.dumps, GOOD[:2]))
DEEP = '{"id": "deep", "more": ' + '[{"a": ' * 1500 + "1" + "}]" * 1500 + "}"


@pytest.mark.parametrize("layout", ["indented", "compact", "lines", "bom"])
def test_layouts_agree(tmp_path: Path, layout: str) -> None:
    text = {
        "indented": TEXT,
        "compact": json.dumps(GOOD, separators=(",", ":")),
        "lines": "\n".join(map(json.dumps, GOOD)) + "\n",
        "bom": "\ufeff" + TEXT,
    }[layout]
    captions = convert(written(tmp_path / "x.json", text))
    rows = captions.rows().collect()
    assert rows["id"].to_list() == ["a", "b", "c"]
    assert rows["record"].to_list() == [0, 1, 2]
    assert rows["caption"].to_list() == ["A dog."] * 3
    assert captions.rejected().height == 0


@pytest.mark.parametrize("block", [64, 700, 1 << 20])
def test_strings_full_of_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Quotes, backslashes and brackets inside strings, cut anywhere, against json.load."""
    monkeypatch.setattr(scanning, "BLOCK", block)
    texts = ['{"id": "x"}', "\\", '\\"', "]}[{", '"' * 7, "\\\\" * 5 + '"', "é\u00a0漢字😀", "\n\t"]
    data = [record(str(i), text * (i % 3 + 1)) for i, text in enumerate(texts * 9)]
    path = written(tmp_path / "x.json", data)
    rows = convert(path).rows().collect()
    expected = [r["conversations"][1]["value"] for r in json.loads(path.read_text())]
    assert rows["caption"].to_list() == expected
    assert rows["characters"].to_list() == list(map(len, expected))


def test_words_are_those_of_split(tmp_path: Path) -> None:
    texts = ["", " ", "one", " two  words ", "tab\tand\nline", "日本 語", "a", "x y z ",
             "two\u00a0words", "a\u3000b\u2003c\u2028d", "a\u0085b\x1cc", "a\u200bb", "\x00 \x01a",
             "\u00a0", "一只红色的球。旁边有一只猫！"]  # fmt: skip
    rows = convert(written(tmp_path / "x.json", [record(str(i), t) for i, t in enumerate(texts)]))
    assert rows.rows().collect()["words"].to_list() == [len(t.split()) for t in texts]


BROKEN = {  # name -> (file, ids kept, what the reason says)
    "truncated in a record": (TEXT[:-60], ["a", "b"], "ends inside the record"),
    "truncated between records": (TEXT[: TEXT.rindex(",\n  {")], ["a", "b"], "before it is closed"),
    "no conversations": ([GOOD[0], {"id": "bad", "image": "x.jpg"}, GOOD[2]], ["a", "c"],
                         "conversations"),
    "wrong type of value": ([GOOD[0], record("bad", 7), GOOD[2]], ["a", "c"],
                            "has a turn that is not {from, value} with text"),
    "wrong type of turns": ([GOOD[0], record("bad", conversations="no"), GOOD[2]], ["a", "c"],
                            "has no conversations"),
    "wrong type of image": ([GOOD[0], record("bad", image=["x"]), GOOD[2]], ["a", "c"],
                            "has an image that is not a path: ['x']"),
    "no answer": ([GOOD[0], record("bad", conversations=[]), GOOD[2]], ["a", "c"],
                  "has no conversations"),
    "not an object": ([GOOD[0], None, GOOD[2]], ["a", "c"], "not an object"),
    "a number": ([GOOD[0], 5, GOOD[2]], ["a", "c"], "not an object"),
    "nested": (TEXT.replace('"A dog."', "[" * 3000 + "]" * 3000, 1), ["b", "c"], "too deeply"),
    "nested in a key of its own": ("\n".join([json.dumps(GOOD[0]), DEEP, json.dumps(GOOD[2])]),
                                   ["a", "c"], "nested too deeply"),
    "null first": ("null\n" + LINES, ["a", "b"], "not an object"),
    "a number first": ("-1.5e3 \r\n" + LINES, ["a", "b"], "not an object"),
    "a text first": ('"a \\" [{"\n' + LINES, ["a", "b"], "not an object"),
    "an array first": ("[1, 2]\n" + LINES, ["a", "b"], "not an object"),
    "the byte order mark and true first": ("\ufefftrue\n" + LINES, ["a", "b"], "not an object"),
    "invalid UTF-8": (TEXT.encode().replace(b'"b"', b'"b\xff"'), ["a", "c"], "tf-8"),
    "unescaped quote": (TEXT.replace('"b"', '"b""'), ["a", "c"], "malformed"),
    "missing bracket": (TEXT.replace("  },\n  {", "  {", 1), ["b", "c"], "malformed"),
    "climbs out": ([GOOD[0], record("bad", image="../../etc/passwd")], ["a"], "leaves the image"),
    "absolute path": ([GOOD[0], record("bad", image="/etc/passwd")], ["a"], "leaves the image"),
    "drive": ([GOOD[0], record("bad", image="C:\\x.jpg")], ["a"], "leaves the image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_record_costs_itself_alone(tmp_path: Path, case: str) -> None:
    data, kept, reason = BROKEN[case]
    captions = convert(written(tmp_path / "x.json", data))
    rejected = captions.rejected()
    assert captions.rows().collect()["id"].to_list() == kept
    assert rejected.height == 1
    assert reason.lower() in rejected["reason"][0].lower()
    assert rejected["fix"][0]
    assert rejected["record"][0] <= 2


def test_many_broken_records_in_one_file(tmp_path: Path) -> None:
    parts = [json.dumps(record(f"{i:04d}")) for i in range(3000)]
    for i in range(0, 3000, 100):
        parts[i] = parts[i].replace('"A dog."', '"A "dog."')
    captions = convert(written(tmp_path / "x.json", "[" + ",".join(parts) + "]"))
    assert captions.rows().collect().height == 2970
    assert captions.rejected().height == 30


def test_empty_and_huge_captions_are_kept(tmp_path: Path) -> None:
    huge = "word " * 250_000
    rows = convert(written(tmp_path / "x.json", [record("a", ""), record("b", huge)])).rows()
    assert rows.collect().select("characters", "words").rows() == [(0, 0), (1_250_000, 250_000)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"<html>", "is not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "begins with b'version https"),
        (b"[]", "no usable caption"),
        (b'[{"id": "x"}]', "no usable caption"),
        (b'{"images": [], "annotations": [{"image_id": 1, "id": 2}]}', "without caption"),
    ],
)
def test_a_file_without_captions_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(LabError, match=message) as error:
        convert(written(tmp_path / "bad.json", data))
    assert "bad.json" in str(error.value)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nothing.json", tmp_path / "file" / "below.json"):
        with pytest.raises(LabError, match="cannot be read"):
            convert(path)
    for folder in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(LabError, match="not a readable folder"):
            find(folder)


def test_coco_names_its_images(tmp_path: Path) -> None:
    data = {
        "info": {"year": 2017, "nested": {"id": 1}},
        "images": [{"id": 9, "file_name": "9.jpg", "coco_url": "http://x.org/val2017/9.jpg"}],
        "licenses": [{"id": 1, "name": "a"}],
        "annotations": [{"image_id": 9, "id": 3, "caption": "A cat."}, {"id": 4, "caption": "?"}],
    }
    captions = convert(written(tmp_path / "captions_x.json", data))
    assert captions.rows().select("id", "image", "caption").collect().rows() == [
        ("3", "coco/val2017/9.jpg", "A cat.")
    ]
    assert captions.rejected()["reason"].to_list() == ["an annotation without image_id"]


_ANNOTATIONS = [{"id": "c1", "image_id": "x9", "caption": "A cat."},
                {"caption": "A dog.", "image_id": 25, "id": 7, "is_rejected": False},
                {"id": 8, "image_id": 25, "caption": None}]  # fmt: skip
_IMAGES = [{"id": "x9", "file_name": "9.jpg"},
           {"vizwiz_url": "u", "id": 25, "file_name": "25.jpg"}]  # fmt: skip
COCO = {  # a file of COCO's family -> its text
    "data_type first": json.dumps({"data_type": "m", "images": _IMAGES,
                                   "annotations": _ANNOTATIONS}),
    "annotations first": json.dumps({"annotations": _ANNOTATIONS, "images": _IMAGES}),
    "a number first": json.dumps({"version": 1, "annotations": _ANNOTATIONS, "images": _IMAGES}),
    "indented": json.dumps({"split": "val", "x": {"id": 3}, "images": _IMAGES,
                            "annotations": _ANNOTATIONS}, indent=2),
    "of Windows": "\ufeff" + json.dumps({"type": "captions", "images": _IMAGES,
                                         "annotations": _ANNOTATIONS}, indent=1),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", COCO)
def test_cocos_family_is_known_by_its_annotations(tmp_path: Path, case: str, packed: bool) -> None:
    data = COCO[case].encode()
    path = tmp_path / "mine.txt"
    captions = convert(written(path, gzip.compress(data) if packed else data))
    assert captions.rows().select("id", "image", "caption").collect().rows() == [
        ("c1", "9.jpg", "A cat."),
        ("7", "25.jpg", "A dog."),
    ]
    assert captions.rejected()["reason"].to_list() == ["an annotation without caption"]


_CAT = {"image_id": 1, "id": 7, "caption": "A cat."}
_A = {"id": 1, "file_name": "a.jpg"}
ODD_COCO = {  # what is odd -> (images, annotations or their text, what is told of what is left out)
    "a whole number as a fraction": ([_A], [_CAT | {"image_id": 1.0, "id": 7.0}], []),
    "a number as text": ([_A | {"id": "1"}], [_CAT | {"id": "7"}], []),
    "a list as id": ([_A | {"id": [1]}], [_CAT | {"image_id": [1]}], []),
    "an id of many digits": ([_A | {"id": 10**25}], [_CAT | {"image_id": 10**25}], []),
    "no address": ([_A | {"coco_url": None}], [_CAT], []),
    "an address that is a number": ([_A | {"coco_url": 5}], [_CAT], []),
    "no name": ([{"id": 2, "file_name": None}, _A], [_CAT], ["an image without file_name"]),
    "a name that is a list": ([{"id": 2, "file_name": ["b"]}, _A], [_CAT],
                              ["an image without file_name"]),
    "an image that is null": ([None, _A], [_CAT], ["an image without file_name"]),
    "half a name": ([{"id": 2, "file_name": "\ud83d.jpg"}, _A], [_CAT], [f"has {scanning.HALF}"]),
    "a caption that is a number": ([_A], [_CAT | {"caption": 5}, _CAT],
                                   ["has a caption that is not text: 5"]),
    "a list of captions": ([_A], [_CAT | {"caption": ["A.", "B."]}, _CAT],
                           ["has a caption that is not text: ['A.', 'B.']"]),
    "half a surrogate": ([_A], [_CAT | {"caption": "A \ud83d"}, _CAT], [f"has {scanning.HALF}"]),
    "an annotation that is null": ([_A], [None, _CAT], ["an annotation without image_id"]),
    "an annotation that is text": ([_A], ["A.", _CAT], ["an annotation without image_id"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_COCO)
def test_an_odd_field_of_coco_costs_its_record_alone(tmp_path: Path, case: str) -> None:
    images, annotations, told = ODD_COCO[case]
    data = {"images": images, "annotations": annotations}
    captions = convert(written(tmp_path / "x.json", data))
    rows = captions.rows().select("id", "image", "caption").collect().rows()
    assert rows == [("7", "a.jpg", "A cat.")]
    assert captions.rejected()["reason"].to_list() == told


@pytest.mark.parametrize("images", [None, {"1": "a"}, 5, "a", []])
def test_cocos_captions_are_read_without_a_list_of_images(tmp_path: Path, images: object) -> None:
    data = {"images": images, "annotations": [_CAT]}
    rows = convert(written(tmp_path / "x.json", data)).rows().collect()
    assert rows["image"].to_list() == [None] and rows["caption"].to_list() == ["A cat."]


def test_bytes_of_coco_that_are_no_text_cost_their_caption_alone(tmp_path: Path) -> None:
    data = json.dumps({"images": [_A], "annotations": [_CAT | {"caption": "caf#"}, _CAT]})
    captions = convert(written(tmp_path / "x.json", data.encode().replace(b"#", b"\xe9")))
    assert captions.rows().collect()["caption"].to_list() == ["A cat."]
    assert captions.rejected()["reason"].to_list() == [f"has {scanning.HALF}"]
    deep = data.replace('"caf#"', "[" * 3000 + "]" * 3000)
    with pytest.raises(LabError, match=r"no sound COCO file \(nested too deeply"):
        convert(written(tmp_path / "deep.json", deep))


ODD = [
    record("bad", 7), record("bad", conversations={}), record("bad", image=["x"]), None, 5,
    record("bad", conversations=[]), record("bad", conversations=[1]), {"id": "bad"},
    record("bad", conversations=[{"from": "human", "value": "<image>"}]),
    record("bad", conversations=[{"from": None, "value": "<image>"}]),
    record("bad", conversations=[{"from": "bot", "value": "<image>"}]),
    record("bad", image="../x.jpg"), record("bad", "A \ud83d"),
]  # fmt: skip


@pytest.mark.parametrize("layout", ["array", "lines"])
def test_stats_and_training_say_the_same_of_a_record(tmp_path: Path, layout: str) -> None:
    lines = [json.dumps(one) for one in (*ODD, GOOD[0])]
    text = "\n".join(lines) if layout == "lines" else f"[{', '.join(lines)}]"
    path = written(tmp_path / "x.json", text)
    told = [broken.problem for _, _, broken in read_records(path) if broken]
    rejected = convert(path).rejected().sort("record")
    assert rejected["reason"].to_list() == told and len(told) == len(ODD)
    assert not any("$" in one or "`" in one for one in told)


@pytest.mark.parametrize("name", ["data", "records", "train"])
def test_an_object_around_the_records_is_named(tmp_path: Path, name: str) -> None:
    for indent in (None, 2):
        text = json.dumps({"version": 1, name: GOOD}, indent=indent)
        path = written(tmp_path / f"{indent}.json", text)
        told = f"is an object with records under '{name}', where a list of records is wanted"
        assert [broken.problem for _, _, broken in read_records(path)] == [told]
        with pytest.raises(LabError, match=told):
            convert(path)


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_coco_is_known_behind_many_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(scanning, "BLOCK", block)
    images = [{"id": i, "file_name": f"{i}.jpg", "n": "x" * 90} for i in range(40_000)]
    data = {"data_type": "m", "images": images[: 40_000 if block > 64 else 40],
            "annotations": [{"image_id": 3, "id": 1, "caption": "A cat."}]}  # fmt: skip
    captions = convert(written(tmp_path / "x.json", data))
    assert captions.rows().select("image").collect().rows() == [("3.jpg",)]


def test_a_record_that_speaks_of_annotations_is_no_coco(tmp_path: Path) -> None:
    one = record("a", 'The JSON says "annotations": [1].', annotations=[1])
    for text in (json.dumps(one), json.dumps(record("a", '"annotations": ['), indent=1)):
        assert convert(written(tmp_path / "x.json", text)).rows().collect()["id"].to_list() == ["a"]


def _table(rows: list[dict[str, object]]) -> bytes:
    sink = io.BytesIO()
    pl.DataFrame(rows).write_parquet(sink)
    return sink.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["array", "lines", "crlf", "parquet"])
def test_kinds_of_files_agree_under_any_name(tmp_path: Path, kind: str, packed: bool) -> None:
    lines = list(map(json.dumps, GOOD))
    data = {
        "array": TEXT.encode(),
        "lines": ("\n" + "\n\n".join(lines) + "\n\n").encode(),
        "crlf": ("\ufeff" + "\r\n".join(lines)).encode(),
        "parquet": _table(GOOD),
    }[kind]
    captions = convert(written(tmp_path / "x.dat", gzip.compress(data) if packed else data))
    assert captions.rows().select("record", "id", "caption").collect().rows() == [
        (i, name, "A dog.") for i, name in enumerate("abc")
    ]
    assert captions.rejected().height == 0


@pytest.mark.parametrize("layout", ["lines", "indented", "objects"])
def test_a_rejected_record_is_named_by_number_and_line(tmp_path: Path, layout: str) -> None:
    records = [GOOD[0], record("bad", 7), GOOD[2]]
    text, line = {
        "lines": ("\n\n".join(map(json.dumps, records)), 3),
        "indented": (json.dumps(records, indent=2), 16),
        "objects": ("\n".join(json.dumps(one, indent=2) for one in records), 15),
    }[layout]
    rejected = convert(written(tmp_path / "x.json", text)).rejected()
    assert rejected.select("record", "line").rows() == [(1, line)]
    assert text.split("\n")[line - 1].strip().startswith("{")


def test_half_of_a_surrogate_pair_is_told(tmp_path: Path) -> None:
    texts = ["\\ud83d", "\\ude00", "\\ude00\\ud83d", "\\uD83Dx"]
    data = [json.dumps(record(str(i), "TEXT")).replace("TEXT", t) for i, t in enumerate(texts)]
    data += [json.dumps(record("whole", "😀 \\ud83d"))]
    captions = convert(written(tmp_path / "x.json", "[" + ",".join(data) + "]"))
    assert captions.rows().collect()["caption"].to_list() == ["😀 \\ud83d"]
    reasons = captions.rejected()["reason"].to_list()
    assert reasons == [f"{scanning.HALF}"] * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("utf-16"), r"is not JSON.* UTF-8"),
        (TEXT.encode("utf-16-le"), r"is not JSON.* UTF-8"),
        (b"PK\x03\x04...", r"is not JSON: it begins with b'PK.* unpack"),
        (b"BZh91AY", r"is not JSON: it begins with b'BZh.* unpack"),
        (b"\xfd7zXZ\x00", r"is not JSON.* unpack"),
        (gzip.compress(TEXT.encode() * 99)[:-30], "damaged gzip"),
        (b"PAR1" + b"\0" * 40, "Parquet"),
        (_table([{"text": "x"}]), "no column conversations"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(LabError, match=message):
        convert(written(tmp_path / "x.json", data))


def test_a_file_is_converted_once(tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", GOOD)
    first = convert(path)
    stamp = (first.folder / "captions.parquet").stat().st_mtime_ns
    second = convert(path)
    assert second.folder == first.folder
    assert (second.folder / "captions.parquet").stat().st_mtime_ns == stamp


def test_official_names_are_recognised() -> None:
    assert recognise("captions_val2017.json") == "COCO-Caption"
    assert recognise("blip_laion_cc_sbu_558k.json") == "BLIP-LCS"
    assert recognise("detail_23k.json") == "LLaVA-23K"
    assert recognise("sharegpt4v_instruct_gpt4-vision_cap100k.json") == "ShareGPT4V"
    assert recognise("share-captioner_coco_lcs_sam_1246k_1107.json") == "ShareGPT4V-PT"
    mix = "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json"
    assert recognise(mix) == Path(mix).stem


@pytest.mark.reference
def test_coco_val2017_as_published(reference: Path) -> None:
    path = reference / "data/coco/annotations/captions_val2017.json"
    rows = convert(path).rows().collect()
    truth = json.loads(path.read_text())
    assert rows["caption"].to_list() == [one["caption"] for one in truth["annotations"]]
    assert rows["image"].n_unique() == 5_000
    assert rows.height == 25_014
    assert round(rows["characters"].mean(), 2) == 52.42
    assert rows["words"].to_list() == [len(c.split()) for c in rows["caption"]]


@pytest.mark.reference
@pytest.mark.parametrize("name", ["sharegpt4v/sharegpt4v_gpt4v_excerpt", "llava/llava_excerpt"])
def test_real_records_as_json_reads_them(reference: Path, name: str) -> None:
    path = reference / f"data/{name}.json"
    truth = json.loads(path.read_text())
    rows = convert(path).rows().collect()
    assert rows["caption"].to_list() == [one["conversations"][1]["value"] for one in truth]
    assert rows.filter(pl.col("prompt").is_null()).is_empty()
