"""The arms from official files, in small: which captions go, which come, what is refused."""

import io
import json

import pytest
from PIL import Image

from sgv_lab.errors import LabError
from sgv_lab.files import write_json
from sgv_lab.study import official, plans, publishing, run_arm, runner
from sgv_lab.study.arms import ARMS, baseline


def record(key, text, image=None):
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": text}]
    return {"id": key, "conversations": turns} | ({"image": image} if image else {})


COCO = "coco/train2017/{:012d}.jpg"
BEFORE = [record("a", "long and blind", COCO.format(7)), record("q", "yes", COCO.format(8)),
          record("b", "blind too", COCO.format(9)), record("t", "text")]  # fmt: skip
DETAIL = [record("7", "long and blind", "000000000007.jpg"), record("9", "blind too", "9.jpg")]
CAPTIONS = [
    record("z", "seen 12", COCO.format(12)),
    record("s", "seen", "sam/images/sa_1.jpg"),
    record("x", "seen 3", COCO.format(3)),
    record("y", "seen 5", COCO.format(5)),
]
RELEASED = [BEFORE[1], BEFORE[3], record("sa_1", "seen", "sam/images/sa_1.jpg")]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SGV_STORE", str(tmp_path / "store"))
    folder = tmp_path / "data" / "sharegpt4v"
    folder.mkdir(parents=True)
    for name, rows in zip(official.FILES, (BEFORE, DETAIL, CAPTIONS, RELEASED), strict=True):
        (folder / official.FILES[name]).write_text(json.dumps(rows))
    return tmp_path / "data"


def mixed(name):
    return ARMS[name].config(baseline()).captions


def ids(folder, name="records"):
    return [row["id"] for row in json.loads((folder / f"{name}.json").read_text())]


def test_the_first_coco_captions_by_name_take_the_place_of_the_blind_ones(root):
    after = official.official_mix(mixed("after"), root)
    assert ids(after) == ["x", "q", "y", "t"]  # 3 and 5 come before 12; each in a blind one's place
    rows = json.loads((after / "replaced.json").read_text())
    assert rows == [{"id": "a", "by": "x"}, {"id": "b", "by": "y"}]  # a swap is one row
    assert ids(official.official_mix(mixed("before"), root)) == ["a", "q", "b", "t"]
    assert ids(official.official_mix(mixed("sft"), root)) == ["q", "t", "sa_1"]
    assert ids(official.official_mix(mixed("dropped"), root)) == ["q", "t"]


@pytest.mark.parametrize(
    "name", ["oracle", "aa", "both-oracle", "shuffled", "o25e0i0", "style", "questions"]
)
def test_what_no_official_file_holds_is_refused(root, name):
    with pytest.raises(LabError, match="no official file has captions of"):
        official.official_mix(mixed(name), root)


def test_a_missing_file_is_named(root):
    (root / "sharegpt4v" / official.FILES["detail"]).unlink()
    with pytest.raises(LabError, match=r"lacks detail_23k\.json"):
        official.official_mix(mixed("before"), root)


def test_test_images_that_were_trained_on_are_counted(tmp_path):
    def png(color):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(stream, "PNG")
        return stream.getvalue()

    images, data = tmp_path / "images", tmp_path / "mme" / "existence"
    (images / "coco/train2017").mkdir(parents=True)
    data.mkdir(parents=True)
    for number, color in ((7, "red"), (8, "blue")):
        (images / COCO.format(number)).write_bytes(png(color))
    for name, color in (("000000000007", "green"), ("000000000099", "blue"), ("other", "white")):
        (data / f"{name}.jpg").write_bytes(png(color))
        (data / f"{name}.txt").write_text("Is it?\tYes\nIs it not?\tNo\n")
    found = official.overlap(BEFORE[:2], images, {"mme": tmp_path / "mme"})
    assert found.loc["mme"].tolist() == [3, 1, 1]


def test_a_study_is_refused_before_it_trains_where_questions_or_models_are_missing(tmp_path):
    plan = plans.load(publishing.folder() / "plans" / "full-table5-llava-1.5-7b.yaml")
    with pytest.raises(LabError, match="needs both models and data"):
        runner.jobs(plan)
    base = tmp_path / "models" / plan.family
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    for name in ("mme", "mmbench"):
        (tmp_path / "benchmarks" / name).mkdir(parents=True)
    with pytest.raises(LabError, match="lacks the folder seed"):
        runner.jobs(plan, base.parent, tmp_path)
    (tmp_path / "benchmarks" / "seed").mkdir()
    with pytest.raises(LabError, match=r"benchmarks/mme"):  # an empty folder has no questions
        run_arm.check(runner.jobs(plan, base.parent, tmp_path))


def test_a_benchmark_without_its_images_or_its_truth_is_refused(tmp_path):
    asked = {"data_subtype": "test-dev2015", "questions": [
        {"image_id": 7, "question_id": 1, "question": "Is it?"}]}  # fmt: skip
    write_json(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json", asked)
    image = "test2015/COCO_test2015_000000000007.jpg"
    with pytest.raises(LabError, match=f"lacks the image {image}"):
        run_arm._check_questions("vqav2", tmp_path)
    (tmp_path / image).parent.mkdir()
    (tmp_path / image).touch()
    with pytest.raises(LabError, match=rf"lacks the image {image} \(empty: 0 bytes\)"):
        run_arm._check_questions("vqav2", tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / image)
    with pytest.raises(LabError, match="no right answers to score by"):
        run_arm._check_questions("vqav2", tmp_path)


def test_files_of_different_releases_are_refused():
    coco = [{"id": "x", "image": COCO.format(1), "conversations": BEFORE[0]["conversations"]}]
    shown = mixed("after")
    for detail, captions in (([], coco), (BEFORE[:2], coco)):  # nothing in the mix; too few
        with pytest.raises(LabError, match="detailed captions in the mix"):
            official.arm(shown, BEFORE, detail, captions)
