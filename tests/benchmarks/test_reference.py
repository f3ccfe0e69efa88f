"""Every case of the reference folder, through the command, to all printed digits."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sgv_lab.benchmarks import captions, chair, llava_w, mme, seed_bench, vqa
from sgv_lab.cli import main

pytestmark = pytest.mark.reference

CASES = {  # case id -> the command's arguments below reference/eval
    "mme/lavin": ["mme", "mme/eval_tool/LaVIN"],
    "pope/llava-v1.5-13b": [
        "POPE",
        "pope/llava-v1.5-13b.answers.jsonl",
        "--annotations=pope/coco_e3e3926",
        "--questions=pope/llava_pope_test.jsonl",
    ],
    "seed/llava-v1.5-13b": [
        "seed-bench",
        "seed/llava-v1.5-13b.upload.jsonl",
        "--annotations=seed/GPT-4V.json",
    ],
    "scienceqa/gpt3-cot": [
        "scienceqa",
        "scienceqa/gpt3_final_test_QCM-ALE_2_seed_3.json",
        "--annotations=scienceqa",
    ],
    "scienceqa/llava-13b-v0": [
        "sqa",
        "scienceqa/test_sqa_llava_13b_v0.json",
        "--questions=scienceqa/llava_test_CQM-A.json",
        "--annotations=scienceqa/id_grade_subject.csv",
    ],
    **{
        f"mmvet/llava-v1.5-7b-{n}": [
            "MM-Vet",
            f"mmvet/llava-v1.5-7b_gpt-4-grade-{n.removesuffix('s')}s.json",
            "--annotations=mmvet/capability.json",
        ]
        for n in ("3runs", "1run")
    },
    **{
        f"llava_w/llava-v1.5-7b-eval{n}": [
            "llava_w",
            f"llava_w/reviews/llava-v1.5-7b-eval{n}.jsonl",
        ]
        for n in (1, 2, 3)
    },
    "vizwiz/llava-v1.5-13b-postproc": [
        "VizWiz",
        "vizwiz/llava-v1.5-13b.answers.jsonl",
        "--questions=vizwiz/llava_test.jsonl",
        "--annotations=vizwiz/llava-v1.5-13b.upload.json",
    ],
    "chair/maxlinn-example": [
        "chair",
        "chair/maxlinn_example_inputs.jsonl",
        "--annotations=chair/maxlinn_outputs.json",
    ],
}


def expected(reference: Path, case: str) -> dict[str, Any]:
    cases = json.loads((reference / "eval" / "expected.json").read_text())
    return next(c["expected"] for c in cases if c["id"] == case)


def command(folder: Path, arguments: list[str]):
    benchmark, predictions, *options = arguments
    absolute = [f"{name}={folder / value}" for name, value in (o.split("=", 1) for o in options)]
    where = folder / predictions
    return CliRunner().invoke(main, ["score", benchmark, "--predictions", str(where), *absolute])


def agree(printed: Any, want: Any, name: str) -> None:
    if isinstance(want, dict):
        for key, value in want.items():
            agree(printed[key], value, f"{name}.{key}")
    else:
        assert printed == want, name


@pytest.mark.parametrize("case", CASES)
def test_prints_what_the_official_tool_prints(reference: Path, case: str) -> None:
    run = command(reference / "eval", CASES[case])
    assert run.exit_code == 0, run.output
    printed = json.loads(run.stdout)  # one JSON object and nothing else
    agree(printed, expected(reference, case), case)
    assert {"unparsed", "missing"} <= printed.keys()


def test_every_shown_case_is_tested(reference: Path) -> None:
    cases = {c["id"] for c in json.loads((reference / "eval" / "expected.json").read_text())}
    elsewhere = {
        "pope/llava-v1.5-13b-misaligned",
        "qbench/dev-baselines",
        "captions/human-loo",
        "captions/nlg-eval-example",
    }
    assert cases == CASES.keys() | elsewhere


def test_misaligned_pope_is_refused(reference: Path) -> None:
    arguments = [a.replace("coco_e3e3926", "coco_head") for a in CASES["pope/llava-v1.5-13b"]]
    run = command(reference / "eval", arguments)
    assert run.exit_code == 1
    assert "answers.jsonl, line 11" in run.output and not run.stdout


LETTERS = "ABCD"
RESPONSES = {
    "always_A": lambda q: "A",
    "always_B.": lambda q: "B.",
    "always_C": lambda q: "C",
    "always_D": lambda q: "D",
    "last_letter": lambda q: LETTERS[len(q["candidates"]) - 1],
    "correct_text": lambda q: q["correct_ans"],
    "correct_letter_with_text": lambda q: (
        f"{LETTERS[q['candidates'].index(q['correct_ans'])]}. {q['correct_ans']}"
    ),
    "first_candidate_text": lambda q: q["candidates"][0],
    "correct_text_lower": lambda q: q["correct_ans"].lower(),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_qbench_baselines(reference: Path, tmp_path: Path, name: str) -> None:
    questions = json.loads((reference / "eval/qbench/llvisionqa_dev.json").read_text())
    rows = [json.dumps(q | {"response": RESPONSES[name](q)}) for q in questions]
    (tmp_path / "answers.jsonl").write_text("".join(rows))  # as the runner writes: no newline
    run = command(tmp_path, ["q-bench", "answers.jsonl"])
    agree(json.loads(run.stdout), expected(reference, "qbench/dev-baselines")[name], name)


def human(reference: Path, candidate: int) -> tuple[dict, dict]:
    """The 79 images of COCO-MINI val2017: one caption against the other four."""
    merged = json.loads((reference / "eval/captions/captions_merged.json").read_text())
    images = {k: v["captions"] for k, v in merged.items() if "val2017" in v["source"]}
    references = {k: v[:candidate] + v[candidate + 1 :] for k, v in images.items()}
    return {k: v[candidate] for k, v in images.items()}, references


def test_caption_metrics(reference: Path, tmp_path: Path) -> None:
    candidates, references = human(reference, 0)
    rows = [{"image_id": key, "caption": text} for key, text in candidates.items()]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    (tmp_path / "references.json").write_text(json.dumps(references))
    run = command(tmp_path, ["captions", "captions.json", "--annotations=references.json"])
    assert run.exit_code == 0, run.output
    want = expected(reference, "captions/human-loo")["coco_mini_val2017/cand0"]
    agree(json.loads(run.stdout), {k: v for k, v in want.items() if k != "METEOR"}, "cand0")


def test_caption_tokens_are_the_official_ones(reference: Path) -> None:
    tokens = json.loads((reference / "eval/captions/tokenized_all_cand4.json").read_text())
    merged = json.loads((reference / "eval/captions/captions_merged.json").read_text())
    assert (
        captions.tokenise({k: [v["captions"][4]] for k, v in merged.items()}) == tokens["res_tok"]
    )


def test_caption_metrics_without_a_tokeniser(reference: Path) -> None:
    want = expected(reference, "captions/nlg-eval-example")
    hypotheses, references = want.pop("hyp"), want.pop("refs")
    printed = captions.metrics(
        {str(i): [text] for i, text in enumerate(hypotheses)},
        {str(i): texts for i, texts in enumerate(references)},
        "whitespace",
    )
    del want["METEOR"]
    assert {k: round(printed[k], 6) for k in want} == want


@pytest.mark.parametrize(
    ("variant", "cider"),
    [("whitespace", 0.82409), ("lower", 0.89155), ("lower_no_punctuation", 1.13320)],
)
def test_cider_of_other_tokenisers(reference: Path, variant: str, cider: float) -> None:
    candidates, references = human(reference, 0)
    one = {key: [text] for key, text in candidates.items()}
    assert round(captions.metrics(one, references, variant)["CIDEr"], 5) == cider


def test_mme_word_search_reads_lavin_otherwise(reference: Path) -> None:
    folder = reference / "eval/mme/eval_tool/LaVIN"
    assert round(mme.score(folder, variant="any_word")["cognition"], 3) == 248.929
    assert mme.score(folder, variant="stripped")["cognition"] == mme.score(folder)["cognition"]
    assert mme.score(folder)["unparsed"] == 12


def test_mme_by_a_second_method(reference: Path) -> None:
    """pandas on the same lines: a group by image instead of consecutive pairs."""
    import pandas

    for path in (reference / "eval/mme/eval_tool/LaVIN").glob("*.txt"):
        frame = pandas.read_csv(path, sep="\t", header=None, quoting=3, keep_default_na=False)
        head = frame[3].str.lower().str[:4]
        said = (
            head.str.contains("yes")
            .map({True: "yes", False: ""})
            .where(
                head.str.contains("yes"), head.str.contains("no").map({True: "no", False: "other"})
            )
        )
        right = said == frame[2].str.lower()
        both = right.groupby(frame[0]).all()
        printed = mme.score(path.parent)[path.stem]
        assert printed == pytest.approx(100 * right.mean() + 100 * both.mean(), abs=1e-9)


def test_seed_leaderboard_file_scores_itself(reference: Path) -> None:
    printed = seed_bench.score(reference / "eval/seed/GPT-4V.json")
    assert (printed["image_correct"], printed["image_rows"]) == (9836, 14240)
    assert f"{printed['image_accuracy']:.4f}" == "69.0730"
    assert f"{printed['image_accuracy_unique']:.4f}" == "69.0838"


def test_llava_w_mean_of_three_runs(reference: Path) -> None:
    assert round(llava_w.score(reference / "eval/llava_w/reviews")["mean"], 1) == 65.4


def test_chair_words_of_the_upstream_output(reference: Path) -> None:
    folder = reference / "eval/chair"
    names = chair.synonyms(folder / "synonyms.txt")
    for row in json.loads((folder / "maxlinn_outputs.json").read_text())["sentences"]:
        assert chair.objects(row["caption"], names) == row["mscoco_generated_words"]


# Processor time: the wall clock of a machine that others use says little.
def test_seed_in_five_seconds(reference: Path) -> None:
    folder, start = reference / "eval/seed", time.process_time()
    seed_bench.score(folder / "llava-v1.5-13b.upload.jsonl", folder / "GPT-4V.json")
    assert time.process_time() - start < 5


def test_107000_vqa_answers_cost_little_more_than_reading(reference: Path, tmp_path: Path) -> None:
    raw = [
        json.loads(line)["text"]
        for line in (reference / "eval/vizwiz/llava-v1.5-13b.answers.jsonl").open()
    ]
    answers, truth = [], []
    for number in range(107_394):
        text = raw[number % len(raw)]
        answers.append({"question_id": number, "text": text})
        humans = [{"answer": raw[(number * 7 + j) % len(raw)]} for j in range(9)]
        truth.append(
            {
                "question_id": number,
                "image_id": number // 5,
                "answer_type": "other",
                "answers": [*humans, {"answer": text}],
            }
        )
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (tmp_path / "t.json").write_text(json.dumps({"annotations": truth}))
    start = time.process_time()
    read = [json.loads(line) for line in (tmp_path / "a.jsonl").open()]
    read += json.loads((tmp_path / "t.json").read_text())["annotations"]
    reading, start = time.process_time() - start, time.process_time()
    printed = vqa.score(tmp_path / "a.jsonl", tmp_path / "t.json")
    assert time.process_time() - start < 4 * reading
    assert printed["n"] == 107_394 and printed["overall"] > 29
