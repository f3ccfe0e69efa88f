"""What README, CONTRIBUTING, docs and notebooks say: commands parse, numbers are on record."""

import re
import shlex
from functools import cache
from pathlib import Path

import click
import nbformat
import pandas as pd
import pytest
from papermill.cli import papermill
from scipy import stats
from torch.distributed.run import get_args_parser

from sgv_lab import intervals, paper, pipeline
from sgv_lab.base.abilities import gate_bounds
from sgv_lab.cli import main
from sgv_lab.models import families, shipped
from sgv_lab.study import (
    ablations,
    caption_content,
    claims,
    criteria,
    effects,
    ledger,
    plans,
    publishing,
    runner,
    sensitivity,
    share_captioner,
)
from sgv_lab.study.arms import ARMS
from sgv_lab.study.scores import SEEN, SUBTASKS

ROOT = Path(__file__).resolve().parents[1]
FILLED = {"SPEED": "1000", "SEED": "0", "FILE…": "FILE"}  # placeholders that must be numbers, …
PROGRAMS = ("sgv-lab", "papermill", "make", "torchrun")
CODE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
SIZES = {"": 1, "K": 1e3, "M": 1e6, " million": 1e6}
STRUCTURE = {  # numbers that are no results -> (file, what it holds that they follow from)
    "2023": ("CITATION.cff", "2023"),
    "2311.12793": ("CITATION.cff", "2311.12793"),
    "3.11": ("pyproject.toml", 'requires-python = ">=3.11"'),
    "50": ("tests/test_layout.py", "<= 50"),
    "350": ("tests/test_layout.py", "<= 350"),
    "80": ("sgv_lab/figures/paper.py", "0.8 * table.min()"),
    "8,192": ("sgv_lab/training/config.py", "tokens_per_batch: int = 8192"),
    "8": ("sgv_lab/training/precision.py", "8 bits a weight"),
    "4.0": ("docs/citing.md", "CC BY-NC 4.0"),
    "2.0": ("LICENSE", "Version 2.0"),
    "2": ("docs/citing.md", "Llama 2 Community License"),
    "95": ("sgv_lab/intervals.py", "LEVEL = 0.95"),
    "1.96": ("sgv_lab/figures/paper.py", "1.96"),
    "9K": ("docs/full_size.md", "coco-ap9k"),
    "3K": ("docs/full_size.md", "lcs3k"),
    "2K": ("docs/full_size.md", "div2k"),
    "128": ("sgv_lab/models/llava-1.5-7b.json", '"hidden_size": 128'),
    "210": ("sgv_lab/base/vision_tower.py", "EXAMINED = 210"),
    "300": ("LOG.md", "asked at 300 scenes"),
    "85": ("sgv_lab/base/abilities.py", "CEILING, BLIND, UNTUNED, OPEN = 85"),
    "52": ("sgv_lab/base/abilities.py", "CEILING, BLIND, UNTUNED, OPEN = 85, 52"),
    "16K": ("figures/data/plans/study-tokens-llava-1.5-7b.yaml", "(16K,"),
    "64K": ("figures/data/plans/study-tokens-llava-1.5-7b.yaml", "64K and 256K tokens"),
    "256K": ("figures/data/plans/study-tokens-llava-1.5-7b.yaml", "64K and 256K tokens"),
    "51.4": ("LOG.md", "| second | 0 | 59.5 | **51.4** |"),
    "50.6": ("LOG.md", "the former bases; 1,000 scenes) | 50.6 | 50.9 |"),
    "50.9": ("LOG.md", "the former bases; 1,000 scenes) | 50.6 | 50.9 |"),
    "290": ("figures/data/plans/study-table4-llava-1.5-7b.yaml", "the mix 290"),
    "30": ("sgv_lab/study/arms.py", '"whole captions, 30% wrong"'),
    "4,096": ("figures/data/plans/figure6-llava-1.5-7b.yaml", "captions@4096"),
}


def text(name: str) -> str:
    """A text file, or the markdown of a notebook."""
    path = ROOT / name
    if path.suffix == ".md":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


DOCS = [f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))
        if page.name != "imports.md"]  # fmt: skip
OF_OTHERS = ("01", "02", "03", "06", "11")  # numbers of the run itself, of files, of other tools
NOTEBOOKS = [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
             if not path.name.startswith(OF_OTHERS)]  # fmt: skip
TEXTS = ["README.md", "CONTRIBUTING.md", *DOCS, *NOTEBOOKS]
each = pytest.mark.parametrize("name", TEXTS)


def commands() -> dict[str, bool]:
    """Commands of the texts and the ledger -> whether they are whole, not mentioned in a span."""
    found = {}
    for name in TEXTS:
        spans = re.findall(r"`([^`\n]+)`", CODE.sub("", text(name)))
        found |= dict.fromkeys(spans, False)
        lines = [line for one in CODE.findall(text(name)) for line in one.splitlines()]
        found |= {line.removeprefix("srun "): True for line in lines}
    found |= {line: True for one in ledger.tasks()["command"] for line in one.splitlines()}
    return {line: whole for line, whole in found.items() if line.split(" ")[0] in PROGRAMS}


def test_there_are_commands_to_test() -> None:
    assert sum(commands().values()) >= 15


@pytest.mark.parametrize("line, whole", commands().items())
def test_every_command_parses(line: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    words = [FILLED.get(word, word) for word in shlex.split(line, comments=True)]
    if words[0] == "torchrun":
        started = get_args_parser().parse_args(words[1:])
        assert started.module and started.training_script == "sgv_lab"
        words = ["sgv-lab", *started.training_script_args]
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
        variables = [word.split("=")[0] for word in words[1:] if "=" in word]
        assert all(re.search(rf"^{name} \?=", makefile, re.MULTILINE) for name in variables)
        return
    command, context = (papermill, None) if words[0] == "papermill" else (main, None)
    while len(words) > 1 and isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        command, words = command.get_command(context, words[1]), words[1:]
        assert command is not None, f"no such command: {line}"
    try:
        given = command.make_context(words[0], words[1:], parent=context).params
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        assert not whole, line
    if words[0] == "run" and "plaice" not in line:  # which is misspelt to be refused
        named = dict(one.split("=") for one in given["p"])
        assert pipeline.plan(given["notebooks"], given["profile"], named, ROOT / "notebooks")
    for word in words:
        assert not word.endswith(".ipynb") or word == "out.ipynb" or (ROOT / word).is_file()


def numbers(prose: str) -> list[tuple[str, float, int]]:
    """The numbers in a text: as written, value, decimals. Names such as LLaVA-1.5-7B hold none."""
    prose = re.sub(r"`[^`]*`|\[notebooks/|\]\([^)]*\)|https?://\S+", " ", CODE.sub(" ", prose))
    prose = re.sub(r"\b(Tables?|Figures?|Section) [\d(b), andto]*\d", " ", prose)
    prose = re.sub(r"^#+ \d\d · |\b\d\d_\w+|^\d\. ", " ", prose, flags=re.MULTILINE)
    prose = re.sub(r"\bnotebooks? \d\d\b|\b\d\d and \d\d\b", " ", prose, flags=re.IGNORECASE)
    prose = re.sub(r"[A-Za-z][\w.-]*\d[\w.-]*", " ", prose)
    found = []
    for whole, size in re.findall(r"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)( million|[KM]\b|)", prose):
        whole = whole.rstrip(",")
        digits = whole.replace(",", "")
        decimals = len(digits.partition(".")[2])
        found.append((whole + size, float(digits) * SIZES[size], 0 if size else decimals))
    return found


@cache
def printed() -> set[float]:
    """What the paper and others print, and the sizes that follow from the votes of Table 2."""
    votes = paper.facts("table2").set_index("row")["value"] * 10  # of 100 images × 10 volunteers
    told = " ".join(paper.claims()[["statement", "reported", "noise"]].to_numpy().ravel())
    told += " ".join(paper.facts()["note"])
    values = {value for _, value, _ in numbers(told)} | set(paper.facts()["value"].dropna())
    values |= set(votes) | {votes["GPT4-Vision"] + votes["Share-Captioner"]}
    return values | set(paper.facts("table6")["row"].astype(float))  # blocks of the vision encoder


@cache
def audited() -> list[pd.DataFrame]:
    """What the recorded studies came to when they were looked at again, and what caused it."""
    sft, _, _ = publishing.load_study("sft-llava-1.5-7b")
    surface, runs, _ = publishing.load_study("surface-llava-1.5-7b")
    held = caption_content.by_arm(surface)
    r = caption_content.follows_filler(held, runs, "MME-P")
    means = effects.by_seed(runs, "MME-P").mean().reindex(held.index)
    slope = stats.linregress(held["filler"], means).slope
    share = caption_content.by_arm(sft)["filler"]
    predicted = slope * (share.fillna(0) - share["before"])
    _, swept, _ = publishing.load_study("figure6-llava-1.5-7b")
    data = ROOT / "figures" / "data"
    table = effects.by_seed(runs, SEEN)
    first = caption_content.first_edition().query("plan == @sft.name")
    tokens = first.set_index("arm")["tokens"]
    return [
        caption_content.by_arm(sft), held.loc[["oracle", "o0e0i0"]],
        pd.DataFrame({"explained": [100 * r**2]}), predicted.to_frame(),
        pd.DataFrame([intervals.paired(table["oracle"] - table["o0e0i0"])]),
        pd.DataFrame([_right(arm) for arm in ("after", "oracle")]),
        pd.DataFrame({"as long": [100 * tokens["oracle"] / tokens["before"]]}),
        pd.DataFrame({"guessed before": [100 * (1 + 2 / 3) / 2]}),  # two of three wrong sums: never
        caption_content.slopes(runs, "MME-P"),
        ablations.most_against_fewer(ablations.scores_by_number(swept, "MME-P")),
        pd.DataFrame(runner.untuned(data / "studies" / sft.name)),
        caption_content.by_arm(plans.load(data / "plans" / "study-a-llava-1.5-7b.yaml"),
                               ["human", "blip"]),
        pd.read_csv(data / "filler_2x2.csv"),
    ]  # fmt: skip


def _right(arm: str) -> tuple[float, float, float]:
    """Percentage points of right answers that ``arm`` has more than blind captions' on SEEN."""
    _, _, points = publishing.load_study("sft-llava-1.5-7b")
    seen = points[points["stratum"].isin(SUBTASKS)].astype({"stratum": str, "arm": str})
    right = seen.assign(right=seen["points"].astype(float).replace(200, 100))  # of a pair of two
    table = right.groupby(["seed", "arm", "stratum"])["right"].mean().groupby(["seed", "arm"])
    wide = table.mean().unstack()
    return intervals.paired(wide[arm] - wide["before"])


def test_arms_rank_by_their_filler_and_a_page_says_what_each_holds() -> None:
    sft, _, _ = publishing.load_study("sft-llava-1.5-7b")
    held = caption_content.by_arm(sft)["filler"]
    found = pd.read_csv(ROOT / "figures" / "data" / f"{sft.name}.csv").query("against == 'before'")
    gained = found.set_index(["score", "arm"])["effect"]
    number = r"([+−][\d.]+) \([^|]+"
    row = rf"^\| [^|]+ \| (\d+ %|none) \| {number} \| {number} \|$"
    rows = re.findall(row, text("docs/first_instrument.md"), re.MULTILINE)
    arms = ("after", "oracle", "aa", "shuffled", "dropped")
    for name, (filler, *gains) in zip(arms, rows, strict=True):
        assert filler == ("none" if pd.isna(held[name]) else f"{held[name]:.0f} %")
        for score, said in zip(("MME-P", SEEN), gains, strict=True):
            assert said.replace("−", "-") == f"{gained[score, name]:+.1f}"


@cache
def compared(pilot: str) -> pd.DataFrame:
    """What the verdict of a pilot's own plan rests on, corrected for the number of comparisons."""
    plan, records, _ = publishing.load_study(pilot)
    return publishing.comparisons(plan, records)


PILOTS = {  # -> what a text must call it
    "pilot-a-llava-1.5-7b": "for the paper",
    "pilot-b-llava-1.5-7b": "not resolved",
    "pilot-c-llava-1.5-7b": "for the paper",
    "pilot-d-llava-1.5-7b": "for the paper",
    "study-a-llava-1.5-7b": "for the paper",
    "study-b-llava-1.5-7b": "for the paper",
    "study-alone-llava-7b": "nothing, before a control is understood",
    "study-c2-llava-1.5-13b": "for the paper",
    "study-c2-qwen-vl-chat": "nothing, before a control is understood",
    "study-c2-qwen-vl-chat-2": "for the paper",
    "study-c3-llava-7b": "for the paper",
    "study-tokens-llava-1.5-7b": "for the paper",
    "study-alone-llava-1.5-13b": "for the paper",
    "study-alone-qwen-vl-chat": "for the paper",
    "study-share-llava-1.5-7b": "not resolved",
    "study-share-llava-1.5-13b": "not resolved",
    "study-share-qwen-vl-chat": "for the paper",
    "study-table4-llava-1.5-7b": "against the paper",
    "study-table5-llava-1.5-7b": "not resolved",
    "study-table5-llava-1.5-13b": "for the paper",
    "study-table6-llava-1.5-7b": "for the paper",
    "study-weights-llava-1.5-7b": "for the paper",
    "study-weights-llava-1.5-13b": "not resolved",
}


@pytest.mark.parametrize("name", ["README.md", "docs/studies.md",
                                  "notebooks/04_sft_substitution.ipynb"])  # fmt: skip
def test_texts_give_the_paper_s_swap_its_plan_s_verdict(name: str) -> None:
    found = {pilot: criteria.verdict(compared(pilot)) for pilot in PILOTS}
    assert found == PILOTS
    assert set(pd.read_csv(ROOT / "figures/data/headlines.csv")["plan"]) == set(PILOTS)
    none = compared("pilot-b-llava-1.5-7b").query("kind == 'none'").iloc[0]
    said = f"{none['effect']:+.1f}; {none['low']:.1f} to {none['high']:.1f}".replace("-", "−")
    assert "not resolved" in text(name) and said in text(name)
    assert "0.5 to 3.3" not in text(name)  # the same, not corrected


SCORES = ("Yes/no", "Ranking", "Open")
FIGURE_6 = "study-figure6-llava-1.5-7b"


def surface() -> list[pd.DataFrame]:
    """What faults of captions cost in study A, over all seeds and by language model."""
    plan, runs, _ = publishing.load_study("study-a-llava-1.5-7b")
    grew = effects.language_models(runs)
    halves = [[run for run in runs if grew[run.seed] == which] for which in (0, 1)]
    tables = [caption_content.slopes(runs, score) for score in SCORES]
    tables.append(effects.by_language_model(runs, "after", "before", "Yes/no"))
    held = caption_content.by_arm(plan, caption_content.on_surface(plan))
    tables += [caption_content.worth_of_facts(held, runs, score) for score in SCORES]
    return tables + [caption_content.slopes(half, "Yes/no") for half in halves]


def scores_by_number(score: str) -> pd.DataFrame:
    """The runs of Figure 6's study: seeds by numbers of captions."""
    _, runs, _ = publishing.load_study(FIGURE_6)
    return ablations.scores_by_number(runs, score)


def curve() -> list[pd.DataFrame]:
    """What Figure 6's study came to: its means, the steps to the most captions, the fits."""
    plan, runs, _ = publishing.load_study(FIGURE_6)
    tables = [effects.gains(plan, runs, runner.untuned(ROOT / "figures/data/studies" / plan.name))]
    for score in SCORES:
        scores = scores_by_number(score)
        steps = ablations.most_against_fewer(scores, intervals.level_of_each(5))
        half = pd.DataFrame([ablations.saturation(scores).half])
        tables += [scores.mean().to_frame(), steps, half]
    return tables


def against_blind() -> pd.DataFrame:
    """What dense captions gain over blind ones in Table 5's study."""
    runs = effects.by_seed(publishing.load_study("study-table5-llava-1.5-7b")[1], "Yes/no")
    dense = ("vision@PT", "share@PT")
    return pd.DataFrame([intervals.paired(runs[one] - runs["blind@PT"]) for one in dense])


def few_good_ones() -> pd.DataFrame:
    """What 16K tokens of GPT4-Vision's captions teach more than 256K of BLIP's."""
    runs = effects.by_seed(publishing.load_study("study-tokens-llava-1.5-7b")[1], "Yes/no")
    return pd.DataFrame([intervals.paired(runs["after@16K"] - runs["blip@256K"])])


def towers() -> pd.DataFrame:
    """What half of a vision tower gains more with GPT4-Vision's captions than with blind ones."""
    _, records, _ = publishing.load_study("study-table6-llava-1.5-7b")
    runs = [effects.by_seed(records, score) for score in SCORES]
    gains = [(one["vision@50%"] - one["vision@0%"], one["blind@50%"] - one["blind@0%"])
             for one in runs]  # fmt: skip
    return pd.DataFrame([intervals.paired(seen - blind) for seen, blind in gains])


def beside_adapters() -> pd.DataFrame:
    """What GPT4-Vision's captions gain less with all weights than with adapters: Welch's test."""
    names = ("study-c2-llava-1.5-13b", "study-weights-llava-1.5-13b")
    runs = [effects.by_seed(publishing.load_study(name)[1], "Yes/no") for name in names]
    adapters, weights = (one["after"] - one["before"] for one in runs)
    found = stats.ttest_ind(adapters, weights, equal_var=False).confidence_interval()
    means = [run["after"].mean() for run in runs]
    return pd.DataFrame([[adapters.mean() - weights.mean(), *found, *means]])


def by_base() -> list[pd.DataFrame]:
    """What each study's main comparison gains, base by base."""
    found = []
    for plan, records, _ in map(publishing.load_study, PILOTS):
        name, score = plan.primary
        runs, base = effects.by_seed(records, score), {one.seed: one.base for one in records}
        gained = runs[name] - runs[ARMS[name].compared_with[0]]
        found.append(gained.groupby(base).mean().to_frame())
    return found


@cache
def derived() -> tuple[float, ...]:
    """What this library computes from them, its criteria, and what recorded studies came to."""
    data = ROOT / "figures" / "data"
    studies = [pd.read_csv(data / f"{one.name}.csv") for one in (data / "studies").iterdir()]
    tables = [paper.effects(), claims.effects(), claims.votes(), claims.leads(),
              claims.same_harness(), paper.reevaluations(),
              ledger.what_to_run().replace(",", "", regex=True),
              *audited(), *studies, *map(compared, PILOTS)]  # fmt: skip
    gates = [pd.read_csv(base / "gate.csv") for base in shipped.every()]
    tables += [gate[gate["asked"]].select_dtypes("number") for gate in gates]
    tables += [gate[["ceiling"]] for gate in gates]
    tables += [gate_bounds(gate)[["found"]] for gate in gates]
    for name in ("pilot-d", "study-share", "study-weights"):
        two = publishing.load_study(f"{name}-llava-1.5-7b")[1]
        tables += [effects.by_language_model(two, "after", "before", score) for score in SCORES]
    tables += [*surface(), *curve(), against_blind(), few_good_ones(), towers(), beside_adapters()]
    tables += by_base()
    share = effects.by_seed(publishing.load_study("study-share-llava-1.5-7b")[1], "Yes/no")
    tables.append(pd.DataFrame([effects.paired(share, "Yes/no", "after", "oracle")]))
    could = sensitivity.studies()
    tables += [could, 100 * could[["false_alarms", "found"]], could[["again"]].count().to_frame()]
    for family in ("llava-1.5-7b", "llava-1.5-13b"):
        tables.append(share_captioner.recorded(publishing.folder(), family))
    tables.append(
        caption_content.worth_of_telling(publishing.load_study("study-alone-llava-7b")[1])
    )
    tokens = publishing.load_study("study-tokens-llava-1.5-7b")[1]
    tables.append(effects.by_language_model(tokens, "after@256K", "blip@256K", "Yes/no"))
    values = [v for t in tables for v in pd.to_numeric(t.stack(), errors="coerce").dropna()]
    told = publishing.conclusions("aa-llava-1.5-7b").iloc[0, 0]
    told += str(ablations.saturation(scores_by_number("Yes/no")))
    values += [value for _, value, _ in numbers(told)]
    built = [families.build(key, "mini", 0, device="meta") for key in families.FAMILIES]
    counts = [sum(families.counts(model).values()) for model in built]
    values += counts + [round(count, -5) for count in counts]
    loaded = [publishing.load_study(name)[0] for name in (*PILOTS, FIGURE_6)]
    configs = [config for plan in loaded for config in plan.configs().values()]
    values += [n for one in configs for n in (one.captions.samples, one.max_steps)]
    values += [one.pretrain.captions.samples for one in configs if one.pretrain]
    values += [plan.images for plan in loaded]
    return (*map(abs, values), claims.MARGIN, claims.EXACT, claims.SEEDS)


@cache
def rounded(decimals: int) -> set[float]:
    """Every number on record, to so many decimals."""
    return {round(value, decimals) for value in (*printed(), *derived())}


@each
def test_every_number_is_on_record(name: str) -> None:
    astray = []
    for written, value, decimals in numbers(text(name)):
        if written in STRUCTURE:
            file, holds = STRUCTURE[written]
            assert holds in (ROOT / file).read_text()
        elif value not in rounded(decimals):
            astray.append(written)
    assert not astray


def test_a_number_that_is_on_no_record_would_be_found() -> None:
    (found,) = numbers("LLaVA-1.5-7B of Table 4 gains 157.3 points")
    assert found == ("157.3", 157.3, 1)
    assert 157.3 not in rounded(1)
    assert [value for _, value, _ in numbers("1.2 million, 23K and 1,246K; z = 1.07")] == [
        *(1_200_000, 23_000, 1_246_000, 1.07)
    ]


@pytest.fixture(scope="module")
def verdicts() -> pd.Series:
    return ledger.ledger()["verdict"]


@each
def test_no_text_gives_a_claim_another_verdict_than_the_ledger(
    name: str, verdicts: pd.Series
) -> None:
    words = "|".join((claims.REPRODUCED, claims.UNRESOLVED, claims.CONTRADICTED))
    for claim, said in re.findall(rf"\b(C\d+)\b[^.\n]*? is (?:\*)?({words})", text(name)):
        assert verdicts[claim] == said


def in_readme() -> dict[str, list[str]]:
    """Claim -> the cells of its row in the README's table: printed, evidence, miniature, price."""
    rows = re.findall(r"^\| (C\d+) [^|]+\| (.+) \|$", text("README.md"), re.MULTILINE)
    return {claim: rest.split(" | ") for claim, rest in rows}


def test_the_readme_s_table_is_the_ledger_s() -> None:
    table, known, effects = in_readme(), ledger.ledger(), claims.effects()
    assert list(table) == list(known.index) and set(known["verdict"]) == {claims.UNRESOLVED}
    beyond = effects["effect"] > 1.96 * effects["error"]
    for claim, own in beyond.groupby(effects["claim"]):
        assert f"{own.sum()} of {len(own)} beyond chance" in table[claim][1], claim
    priced = ledger.what_to_run()[["A100-hours", "for 80 % power on MME-P"]].agg(" / ".join, axis=1)
    for claim, (printed, _, seen, price) in table.items():
        assert printed == known.loc[claim, "reported"]
        assert (priced[claim] == price) == (claim in claims.CONTRASTS)
        silent = {"not run": "not run", "no study planned": "no study"}
        assert seen == silent.get(known.loc[claim, "miniature"], seen)
        assert (seen in silent.values()) == (known.loc[claim, "miniature"] in silent)


def test_the_readme_counts_what_chance_could_give() -> None:
    effects = claims.effects()
    small = effects["effect"] < 1.96 * effects["error"]
    seed = effects["column"] == "SEED-I"
    said = (f"{(~seed).sum()} differences on MME and MMBench, of which {small[~seed].sum()} are no",
            f"{seed.sum()} on SEED-Bench, of which {(~small)[seed].sum()} are larger")  # fmt: skip
    assert [phrase for phrase in said if phrase not in text("README.md")] == []


WITHDRAWN = (  # sentences of the first reading of the recorded studies
    "by a third of what true ones do", "might be nothing", "no number of captions stands out",
    "stays at chance", "rarely cries wolf", "detail is worth something",
    "how often does the instrument cry wolf", "32% [9%, 59%] of the oracle",
)  # fmt: skip


@pytest.mark.parametrize("name", [*TEXTS, "notebooks/04_sft_substitution.ipynb",
                                  "notebooks/07_ablations.ipynb"])  # fmt: skip
def test_no_text_says_again_what_was_withdrawn(name: str) -> None:
    whole = (ROOT / name).read_text()  # a notebook's stored outputs, too
    assert [phrase for phrase in WITHDRAWN if phrase in whole] == []


NEEDED = {  # what a reader must meet, and where
    "README.md": ("not passed the gate", "66 %", "equal filler", "another program", "−1.0 to 4.0",
                  "forgetting", "a smaller loss", "One base carries", "saturates",
                  "None of the ten claims is resolved", "too few to conclude", "none was measured"),
    "docs/commands.md": ("do **not** pass",),
    "notebooks/10_how_the_miniature_learned_to_see.ipynb": ("not passed", "another scene's image",
                                                            "no study should rest on them"),
    "docs/studies.md": ("not passed", "stock phrases", "Nothing here decides a claim"),
    "docs/first_instrument.md": ("66 %", "equal filler",
                                 "another program", "−1.0 to 4.0", "Forgetting",
                                 "One base carries", "without looking", "16 are too few",
                                 "two scales", "at the floor", "not corrected"),
    "notebooks/00_start_here.ipynb": ("filler", "another program", "forgotten", "one base"),
    "notebooks/04_sft_substitution.ipynb": ("stock phrases", "not passed", "equal filler",
                                            "another program", "without looking",
                                            "untuned base", "one base", "at the floor"),
    "notebooks/07_ablations.ipynb": ("forgetting", "One base", "16 are too few", "at the floor"),
    "notebooks/08_claims.ipynb": ("equal filler", "another program", "forgetting", "one base",
                                  "16 are too few", "two scales"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_what_weakens_the_recorded_studies_is_said(name: str) -> None:
    assert [phrase for phrase in NEEDED[name] if phrase not in text(name)] == []


SAID = {  # what the texts put in words -> whether the records say so
    "For C1, the claim in the title of the paper's Figure 2, it is hundreds of runs": lambda: (
        claims.effects().query("claim == 'C1'")["pairs"].dropna().between(100, 500).all()
    ),
    "for C3 a handful": lambda: (
        claims.effects().query("claim == 'C3'")["pairs"].dropna().le(5).all()
    ),
    "Two of Figure 2's scores fall": lambda: (
        len(ledger.inconsistencies().query("where == 'Figure 2' and what.str.contains('goes')"))
        == 2
    ),
    "A test of its votes finds no difference": lambda: claims.votes()["p"].min() > 0.05,
    "SEED-Bench asks the most questions": lambda: (
        paper.facts("noise").query("row != 'identical LLaVA-1.5 runs'")
        .sort_values("value")["column"].iloc[-1] == "SEED-I"
    ),
    "Of the five files only COCO's captions are at hand here": lambda: (
        set(ledger.files()["dataset"]) == {"COCO-Caption"}
    ),
    "most of its numbers are single runs whose differences lie within known noise": lambda: (
        (claims.effects()["effect"] < 1.96 * claims.effects()["error"]).mean() > 0.5
    ),
}  # fmt: skip


@pytest.mark.parametrize("phrase", SAID)
def test_what_the_ledger_puts_in_words_is_so(phrase: str) -> None:
    assert phrase in text("notebooks/08_claims.ipynb"), "the sentence changed: change its test"
    assert SAID[phrase]()


@each
def test_every_figure_is_there_and_described(name: str) -> None:
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text(name)):
        assert len(alt) > 40, target
        assert ((ROOT / name).parent / target).is_file()
