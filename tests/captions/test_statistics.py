"""Statistics against a second method: plain Python, simulation, and hand-made truth."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import stats as scipy_stats

from sgv_lab.captions import lexical, quality, sources, statistics
from sgv_lab.captions.convert import Captions, captions_of, convert, convert_all, load
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.figures import captions as figures
from sgv_lab.figures.style import palette
from sgv_lab.world import export, phrases
from sgv_lab.world.annotators import ANNOTATORS, caption, claims
from sgv_lab.world.facts import facts
from sgv_lab.world.records import scene_of
from sgv_lab.world.scene import MINIATURE, scene


def made(tmp_path: Path, texts: list[str]) -> Captions:
    rows = [
        {"id": str(i), "conversations": [{"from": "gpt", "value": t}]} for i, t in enumerate(texts)
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    return convert(path)


def test_totals_and_lengths_against_plain_python(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = ["dog " * rng.randrange(60) + "end." for _ in range(500)]
    one = made(tmp_path, texts)
    found = statistics.totals(one)
    assert found["samples"] == 500
    assert found["images"] == 0
    assert found["mean_characters"] == pytest.approx(np.mean([len(t) for t in texts]))
    assert found["mean_words"] == pytest.approx(np.mean([len(t.split()) for t in texts]))
    assert statistics.mean_sentences(texts) == 1
    assert statistics.mean_sentences(["A. B! C?", "no stop"]) == 2
    assert statistics.mean_sentences(["球です。猫！？犬。", "一只猫"]) == 2
    assert statistics.mean_sentences(["It costs 3.5. 「猫。」"]) == 2
    for column, count in (("characters", len), ("words", lambda t: len(t.split()))):
        table = statistics.lengths(one, column, bins=10)
        counts, _ = np.histogram(
            [count(t) for t in texts], [*table["start"], table["end"].iloc[-1]]
        )
        assert table["captions"].to_list() == counts.tolist()


def test_duplication_and_vocabulary(tmp_path: Path) -> None:
    one = made(tmp_path, ["A dog.", "A dog.", "a dog", "A cat."])
    assert statistics.duplication(one) == {"exact": 0.25, "normalised": 0.5}
    table = statistics.vocabulary_growth(["A dog, a dog!", "A cat."], points=100)
    assert dict(table.to_numpy().tolist()) == {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 3}


def test_samples_are_seeded_and_without_replacement(tmp_path: Path) -> None:
    one = made(tmp_path, [f"number {i}" for i in range(300)])
    first = statistics.sample(one, 50, 1)
    assert first == statistics.sample(one, 50, 1) != statistics.sample(one, 50, 2)
    assert len(set(first)) == 50
    assert len(statistics.sample(one, None, 0)) == len(statistics.sample(one, 999, 0)) == 300


def test_intervals_cover_as_often_as_they_say() -> None:
    """Shares of a clustered population, sampled 400 times: about 95 % of intervals hold it."""
    rng = np.random.default_rng(0)
    wholes = rng.poisson(40, 2_000) + 1
    parts = rng.binomial(wholes, rng.beta(4, 8, 2_000))  # captions differ: words are no sample
    truth = parts.sum() / wholes.sum()
    hits = 0
    for _ in range(400):
        chosen = rng.choice(2_000, 500, replace=False)
        _, low, high = statistics.ratio(parts[chosen], wholes[chosen], 2_000)
        hits += low <= truth <= high
    assert scipy_stats.binomtest(hits, 400, 0.95).pvalue > 0.01
    assert statistics.ratio(parts, wholes, 2_000) == (truth,) * 3


def test_parts_of_speech_of_a_known_sentence() -> None:
    text = "Two small dogs quickly run over the green lawn."
    one = lexical.analyse([text, text])
    table = lexical.composition(one, 10).set_index("part")["share"]
    assert (table * 9).round(6).to_dict() == {
        "n.": 2, "adj.": 2, "adv.": 1, "v.": 1, "num.": 1, "prep.": 1,
    }  # fmt: skip
    assert one.pairs == Counter({("dog", "run"): 2})


@pytest.mark.parametrize("source", ["coco", "sam", "textcaps", "landmark"])
def test_the_oracle_is_right_and_a_liar_is_caught(source: str) -> None:
    one = scene(7, "train", source)
    judged = quality.judge_caption(caption(one, ANNOTATORS["oracle"]), one)
    assert judged.true
    assert not judged.mistaken | judged.invented
    absent = {"kite", "ball", "boat"} - {t.kind for t in one.things}
    kind = sorted(absent)[0]
    assert {f.subject for f in quality.judge_caption(f"There is a red {kind}.", one).invented} == {
        kind
    }


def test_quality_agrees_with_what_annotators_meant() -> None:
    """Judging the text against counting the claims the annotator made before writing."""
    root = sources.world(60, seed=3, size=32)
    captions = load(root)
    table = quality.quality(captions["LLaVA-23K"]).iloc[0]
    said = right = 0
    for i in range(60):
        one = scene(3_000_000 + i)
        meant = claims(one, ANNOTATORS["gpt4_blind"], 3)
        said += len(meant)
        right += len(meant & facts(one))
    assert table["precision"] == pytest.approx(right / said, abs=0.02)
    assert table["facts"] == pytest.approx(said / 60, rel=0.02)


def test_the_world_in_official_files() -> None:
    root = sources.world(14, size=32, even=True)
    captions = load(root)
    table = statistics.table1(captions)
    assert table["samples"].to_list()[:4] == [70, 14, 14, 14]
    assert table["note"].to_list() == ["", "", "", "", "nothing behind it here"]
    for image in captions["ShareGPT4V"].rows().collect()["image"]:
        said = captions_of(captions, image)
        one = scene_of(image)
        assert (root / image).is_file()
        assert one.image_name == image
        assert said["ShareGPT4V"] == [caption(one, ANNOTATORS["gpt4_vision"], 0)]
    with pytest.raises(LabError, match="neither a record's id nor an image of the drawn world"):
        scene_of("coco/train2017/000000000009.jpg")


def test_marks_name_the_wrong_words() -> None:
    one = next(
        s
        for s in map(scene, range(99))
        if {t.kind for t in s.things} == {"car"} and len(s.things) == 1
    )
    color = next(c for c in ("red", "blue") if c != one.things[0].color)
    words = dict(figures.marked(f"There is a {color} car. A kite is near. It is calm.", one))
    assert (words[color], words["car."], words["kite"]) == ("mistaken", "true", "invented")
    assert words["calm."] == "none"
    assert {mark for _, mark in figures.marked("A car.", None)} == {"none"}


def test_no_word_is_painted_that_names_nothing_wrong() -> None:
    """Of people, BLIP and the two GPT-4s, with many mistakes; filler and stock phrases beside."""
    said = "a an and another are at can has have in is it near of on see the their there they this"
    nothing = {*f"{said} to view we with".split()}
    stock = {word for phrase in (*phrases.POSES, *phrases.NOISE) for word in phrase.split()}
    careless = [ANNOTATORS[name].with_rates(None, 0.3, 0.2) for name in ANNOTATORS]
    painted: set[str] = set()
    for one in map(scene, range(60)):
        for who in careless:
            words = figures.marked(caption(one, who, 0, filler=0.2), one)
            wrong = [word.strip('.,"').lower() for word, mark in words
                     if mark in ("mistaken", "invented")]  # fmt: skip
            painted |= {*wrong}
    assert len(painted) > 50 and not painted & (nothing | stock), painted & (nothing | stock)


def test_where_a_true_word_hides_the_wrong_one_its_subject_is_painted() -> None:
    one = next(
        s
        for s in map(scene, range(999))
        if [t.kind for t in s.things].count("car") == 1
        and len({t.color for t in s.things}) == len(s.things) == 2
    )
    _, other = sorted(one.things, key=lambda thing: thing.kind != "car")
    text = f"A {other.color} {other.kind} and a {other.color} car in a calm mood - free vector"
    words = figures.marked(text, one)
    assert [word for word, mark in words if mark == "mistaken"] == ["car"]


def test_stats_as_json(tmp_path: Path) -> None:
    made(tmp_path, ["A dog runs.", "", "I'm sorry, but I can't help with that."])
    result = CliRunner().invoke(main, ["stats", str(tmp_path / "x.json"), "--json", "--all"])
    (one,) = json.loads(result.stdout)
    assert (one["source"], one["samples"], one["images"]) == ("x", 3, 0)
    assert one["mean_characters"] == pytest.approx((11 + 0 + 38) / 3)
    assert one["defects"]["empty"] == one["defects"]["refusal"] == 1
    assert one["defect_examples"]["refusal"][0]["record"] == 2
    text = CliRunner().invoke(main, ["stats", str(tmp_path / "x.json")]).stdout
    assert "3 captions" in text and "Table 1" not in text
    assert "refusal: 1" in text


def test_stats_of_several_files_shows_table_1_beside_them(tmp_path: Path) -> None:
    made(tmp_path, ["A dog runs."])
    shutil.copyfile(tmp_path / "x.json", tmp_path / "detail_23k.json")
    given = ["stats", str(tmp_path / "x.json"), str(tmp_path / "detail_23k.json")]
    table = CliRunner().invoke(main, given).stdout.partition("Table 1")[2].splitlines()
    (row,) = [line.split() for line in table if line.startswith("LLaVA-23K")]
    assert row[1:] == ["no", "GPT4", "(text)", "1", "0", "11.0", "3.0", "23000", "609"]
    assert not any("NA" in line.split() for line in table) and table[-1].startswith("x ")


@pytest.mark.reference
def test_tokens_of_the_real_llama_tokenizer(reference: Path) -> None:
    import sentencepiece

    model = reference / "data/tokenizers/llama/tokenizer.model"
    texts = ["A dog runs over a lawn.", "Two cats."]
    found = statistics.tokens(texts, model, 2)
    direct = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert found["mean_tokens"] == np.mean([len(direct.encode(t)) for t in texts])
    with pytest.raises(LabError, match="cannot be loaded as a tokenizer"):
        statistics.tokens(texts, reference / "README.md", 2)


def test_a_published_file_that_was_brought_places_its_images(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    record = {"id": "1", "image": "000000000001.jpg", "conversations": talk}
    (tmp_path / "detail_23k.json").write_text(json.dumps([record]))
    (brought,) = convert_all([str(tmp_path / "detail_23k.json")]).values()
    images = brought.rows().collect()["image"].to_list()
    assert images == ["coco/train2017/000000000001.jpg"]  # as from a data folder


def test_files_that_were_brought_stand_beside_the_five(tmp_path: Path) -> None:
    root = export.export(tmp_path / "world", scenes=12, size=32, miniature=True)
    records = json.loads((root / export.CAPTIONS["oracle"]).read_text())
    for name in ("mine", "others"):
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    brought = convert_all([str(tmp_path / "mine.json"), str(tmp_path / "others.json")])
    captions = load(root) | brought
    table = statistics.table1(captions)
    assert table.index.to_list() == [*sources.SOURCES, "mine", "others"]
    assert table.loc["mine", "samples"] == 12 and table["samples, paper"].isna().sum() == 2
    judged = quality.judgeable(captions, root)
    assert set(judged) == set(captions) - {"ShareGPT4V-PT"}
    difficulty = export.difficulty_of(root)
    assert difficulty == MINIATURE
    assert quality.quality(judged["mine"], False, difficulty)["precision"].item() == 1
    assert quality.quality(judged["mine"])["precision"].item() < 0.95  # of the full world's scenes
    assert quality.judgeable(captions, tmp_path) == {}  # as with photos: no truth is known there
    (root / records[0]["image"]).unlink()
    assert quality.judgeable(captions, root) == {}

    present = {name: one for name, one in captions.items() if one}
    lengths = {name: statistics.lengths(one) for name, one in present.items()}
    drawn = figures.length_distributions(lengths, table["characters"])
    said = [text.get_text() for axis in drawn.axes for text in axis.texts]
    assert sum("mean" in text for text in said) == len(present) and "mine" in said
    assert len(set(palette(present).values())) == len(present)
    shown = list(figures.examples(brought, root, MINIATURE))
    assert len(shown) == 1


def test_photos_that_both_caption_come_first_where_official_files_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"llava/detail_23k.json": "acb", "sharegpt4v/sharegpt4v_gpt4v.json": "dbc"}
    for name, letters in said.items():  # LLaVA-Instruct names COCO's file alone
        folder = "" if "23k" in name else "coco/train2017/"
        rows = [
            {"id": one, "image": f"{folder}{one}.png", "conversations": [
                {"from": "human", "value": "<image>"}, {"from": "gpt", "value": f"{name} {one}"}]}
            for one in letters
        ]  # fmt: skip
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(rows))
    (tmp_path / "coco/train2017").mkdir(parents=True)
    for one in "abcd":
        Image.new("RGB", (9, 9)).save(tmp_path / f"coco/train2017/{one}.png")
    monkeypatch.setattr(figures, "side_by_side", lambda image, texts, *_: texts)
    shown = list(figures.examples(load(tmp_path), tmp_path))
    names = ("LLaVA-23K", "ShareGPT4V")  # each file's first photo that the other has, too
    assert shown == [
        {name: [f"{file} {one}"] for name, file in zip(names, said, strict=True)} for one in "cb"
    ]


def test_a_file_that_is_brought_is_refused_by_name(tmp_path: Path) -> None:
    made(tmp_path, ["A dog."])
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(LabError, match="two files are called 'x'"):
        convert_all([str(made(tmp_path, ["A dog."]).file), str(made(other, ["A cat."]).file)])
    (tmp_path / "bad.json").write_text("<html>")
    with pytest.raises(LabError, match=r"bad\.json: is not JSON"):
        convert_all([str(tmp_path / "x.json"), str(tmp_path / "bad.json")])
    with pytest.raises(LabError, match=r"none\.json: cannot be read"):
        convert_all([str(tmp_path / "none.json")])


def test_stats_with_images_tells_what_training_refuses(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    rows = [{"id": name, "image": f"{name}.png", "conversations": turns} for name in "abc"]
    rows.append({"id": "d", "image": "a.png", "conversations": [turns[1]]})
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    given = [str(tmp_path / "x.jsonl"), "--images", str(tmp_path)]
    told = json.loads(CliRunner().invoke(main, ["stats", *given, "--json"]).stdout)[0]["training"]
    assert told["refused"] == 3
    assert set(told["reasons"]) == {"image empty", "image missing", "has no answer to a question"}
    assert "record 'b' (number 1 from 0, line 2): image empty: b.png" in told["examples"][0]
    text = CliRunner().invoke(main, ["stats", *given]).stdout
    assert "cannot be trained on: 3 records" in text and told["examples"][0] in text


def test_stats_refuses_options_that_all_ignores(tmp_path: Path) -> None:
    made(tmp_path, ["A dog."])
    done = CliRunner().invoke(main, ["stats", str(tmp_path / "x.json"), "--all", "--sample", "7"])
    assert done.exit_code == 1 and "--all takes no --sample" in done.output
