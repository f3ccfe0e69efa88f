"""What code a result rests on: all on the way to it, and nothing beside it."""

import ast
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from sgv_lab import closure
from sgv_lab.errors import LabError
from sgv_lab.study import cached_training, mix, run_arm, runner, share_captioner

PACKAGE = Path(closure.__file__).parent
RUN = "sgv_lab.study.run_arm"
ENTRIES = {
    "run": RUN,
    "training": "sgv_lab.study.cached_training",
    "captioning": "sgv_lab.study.share_captioner",
    "images": "sgv_lab.study.mix",
    "questions": "sgv_lab.world.benchmarks",
    "captions": "sgv_lab.captions.convert",
    "100K": "sgv_lab.captioning.miniature",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A copy of the library's source to edit."""
    out = tmp_path_factory.mktemp("copy") / "sgv_lab"
    leave = shutil.ignore_patterns("__pycache__", "foundations")
    return shutil.copytree(PACKAGE, out, ignore=leave)


@pytest.fixture(scope="module")
def parsed(library):
    """The copy's modules, parsed once."""
    return closure.Sources(library)


@pytest.fixture(scope="module")
def before(parsed):
    return {name: parsed.closure(entry) for name, entry in ENTRIES.items()}


def changed(library, before, parsed, file, edit):
    """The artefacts that are others with a file of the library edited."""
    path = library / file
    text = path.read_text(encoding="utf-8")
    edited = edit(text)
    assert edited != text, file
    try:
        path.write_text(edited, encoding="utf-8")
        sources = closure.Sources(library)
        elsewhere = {n for n, p in parsed.paths.items() if p.parent != path.parent}  # no tables
        kept = {name: one for name, one in parsed.parsed.items() if name in elsewhere}
        sources.parsed.update(kept)
        return {name for name, entry in ENTRIES.items() if sources.closure(entry) != before[name]}
    finally:
        path.write_text(text, encoding="utf-8")


def body(name, text):
    """The text with a statement more at the top of a function or method."""
    tree = ast.parse(text)
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    found.body.insert(0, ast.parse("edited = 1").body[0])
    return ast.unparse(tree)


ON_THE_WAY = {  # file, function -> artefacts that have to be made again
    ("benchmarks/mme.py", "parse"): {"run"},
    ("benchmarks/mmbench.py", "extract"): {"run"},
    ("benchmarks/qbench.py", "score"): {"run"},  # reached through the registry alone
    ("benchmarks/vqa.py", "score"): {"run"},
    ("benchmarks/core.py", "index"): {"run"},
    ("benchmarks/tasks.py", "_mme"): {"run"},
    ("benchmarks/evaluate.py", "_batches"): {"run"},
    ("benchmarks/exam.py", "marked"): {"run"},
    ("captioning/bulk.py", "prefill"): {"run"},
    ("world/benchmarks_exam.py", "exam"): {"questions"},
    ("study/scores.py", "points"): {"run"},
    ("captioning/bulk.py", "decode"): {"run", "captioning"},
    ("models/architectures.py", "template"): {"run", "training", "captioning"},
    ("models/checkpoints.py", "load"): {"run", "training", "captioning"},
    ("training/collate.py", "collator"): {"run", "training", "captioning"},
    ("training/trainer.py", "supervised_loss"): {"run", "training"},
    ("world/reader.py", "read"): {"run"},
    ("world/render.py", "render"): {"run", "images", "questions"},
    ("world/questions.py", "questions"): {"run", "questions"},
    ("world/annotators.py", "caption"): {"run", "100K", "questions"},
    ("captions/scan.py", "layout"): {"captions", "run"},
}


@pytest.mark.parametrize("place", ON_THE_WAY, ids=":".join)
def test_a_function_on_the_way_makes_another(library, before, parsed, place):
    file, name = place
    found = changed(library, before, parsed, file, partial(body, name))
    assert ON_THE_WAY[place] <= found


@pytest.mark.parametrize(
    ("file", "old", "new", "made"),
    [
        ("world/phrases.json", "{", '{"more": 1,', {"run", "captioning", "questions"}),
        ("world/drawings.json", "{", '{"more": 1,', {"run", "images", "questions"}),
        ("models/qwen_vl_visual.py", "def forward(", "edited = 1\n\n    def forward(",
         {"run", "training", "captioning"}),
        ("models/qwen_vl.py", "exist_ok=True", "exist_ok=1",
         {"run", "training", "captioning"}),
        ("training/trainer.py", "import torch", "import numpy as torch", {"run", "training"}),
        ("training/config.py", 'annotator: str = "gpt4_blind"', 'annotator: str = "blip"',
         {"run", "training"}),
    ],
)  # fmt: skip
def test_so_do_tables_registrations_defaults_and_imports(
    library, before, parsed, file, old, new, made
):
    found = changed(library, before, parsed, file, lambda text: text.replace(old, new, 1))
    assert made - {"captioning"} <= found


def undocumented(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body[0].value.value = "Told otherwise."
    return "# a comment\n\n" + ast.unparse(tree)


@pytest.mark.parametrize(
    "file",
    ["benchmarks/mme.py", "training/trainer.py", "captioning/bulk.py", "study/run_arm.py",
     "world/scene.py", "models/qwen_vl.py", "captions/convert.py", "store.py"],
)  # fmt: skip
def test_docstrings_comments_and_layout_do_not_count(library, before, parsed, file):
    assert changed(library, before, parsed, file, undocumented) == set()


@pytest.mark.parametrize(
    "file",
    ["training/commands.py", "captioning/commands.py", "benchmarks/commands.py", "cli.py",
     "commands.py", "study/publishing.py", "widgets.py", "notebook.py", "pipeline.py",
     "figures/study.py", "figures/style.py", "figures/captions.py", "figures/published.py",
     "profiles.py",
     "benchmarks/rule_comparison.py", "training/throughput.py", "captioning/speed.py",
     "study/measure.py", "store.py"],
)  # fmt: skip
def test_help_texts_figures_commands_and_notebooks_do_not_count(library, before, parsed, file):
    def edit(text):
        return text.replace('help="', 'help="Otherwise: ') + "\n\nEDITED = print('edited')\n"

    assert changed(library, before, parsed, file, edit) == set()


def test_what_an_arm_is_called_does_not_count_what_it_is_does(library, before, parsed):
    edit = lambda text: text.replace("GPT4-Vision captions", "GPT4-Vision's captions")  # noqa: E731
    assert changed(library, before, parsed, "study/arms.py", edit) == set()
    edit = lambda text: text.replace("max_grad_norm: float = 0.0", "max_grad_norm: float = 2.0")  # noqa: E731
    assert "run" in changed(library, before, parsed, "training/config.py", edit)


def test_every_scorer_that_is_loaded_by_name_is_in_a_runs_code():
    from sgv_lab.benchmarks import MODULES

    found = closure.Sources().closure(RUN)
    assert {f"sgv_lab.benchmarks.{module}" for module, *_ in MODULES.values()} <= set(found)
    assert not [name for name in found if "command" in name or "figure" in name]


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/') if name[0] != '_' else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


KINDS = {  # how a module is reached -> the entry's module, with {} where `other` is used
    "imported within": "def entry():\n    from sgv_lab import other\n    return other.f()",
    "by name": "from sgv_lab.other import f as g\ndef entry():\n    return g()",
    "in full": "import sgv_lab.other\ndef entry():\n    return sgv_lab.other.f()",
    "passed on": "from sgv_lab import again\ndef entry():\n    return again.f()",
    "as a value": "from sgv_lab import other\ndef entry():\n    return getattr(other, 'f')()",
    "in a table": "from sgv_lab.other import f\nTABLE = {'f': f}\ndef entry(x):\n    TABLE[x]()",
    "a default": "from sgv_lab.other import f\ndef entry(x=f):\n    return x()",
    "a method's": "from sgv_lab.other import f\nclass entry:\n    def g(self):\n        f()",
    "a type": "from sgv_lab.other import K\ndef entry(k: K):\n    return k.f()",
    "a base": "from sgv_lab.other import K\nclass entry(K):\n    pass",
    "a decorator": "from sgv_lab.other import f\n@f\ndef entry():\n    pass",
    "named in a string": "import importlib as i\ndef entry():\n    i.f('sgv_lab.other')",
    "put together": "def entry(x):\n    __import__(f'sgv_lab.{x}')\nentry('other')",
    "registered": "from sgv_lab import register\ndef entry():\n    pass",
    "for its effect": "def entry():\n    import sgv_lab.register",
    "by a decorator": "from sgv_lab import marked\ndef entry():\n    pass",
    "on one of two ways": "try:\n    from sgv_lab.other import f\nexcept OSError:\n    f = 1\n"
                          "def entry():\n    f()",
    "through its globals": "from sgv_lab.other import f\ndef g():\n    f()\n"
                           "def entry(n):\n    globals()[n]()",
}  # fmt: skip
OTHER = """
def f():
    return 1
class K:
    def f(self):
        return 1
"""


@pytest.mark.parametrize("kind", KINDS)
def test_however_a_module_is_reached_it_counts(tmp_path, kind):
    found = []
    for number in (1, 2):
        write(tmp_path, __init__="", main=KINDS[kind], other=OTHER.replace("1", str(number)),
              again="from sgv_lab.other import f", hook="ALL = []\ndef mark(f):\n    return f",
              register="from sgv_lab import other\nprint(other.f())",
              marked="from sgv_lab import other\nfrom sgv_lab.hook import mark\n@mark\n"
                     "def nobody_names_it():\n    other.f()")  # fmt: skip
        found.append(closure.Sources(tmp_path).closure("sgv_lab.main"))
    assert found[0] != found[1]
    write(tmp_path, unrelated="def g():\n    return 3\n")
    if kind != "put together":
        assert closure.Sources(tmp_path).closure("sgv_lab.main") == found[1]


def test_what_a_build_holds_counts(tmp_path, monkeypatch):
    write(tmp_path, maker="""
        def one(): return 1
        def two(): return 2
        def make(length):
            def build(folder): return length()
            return build
        """)  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    import maker

    held = [closure.closure(maker.make(function)) for function in (maker.one, maker.two)]
    assert held[0] != held[1]
    assert closure.closure(partial(maker.make, maker.one)) != closure.closure(maker.make)


def test_a_build_without_a_source_file_is_refused():
    build = eval("lambda folder: None", {"__name__": "__nowhere__"})
    with pytest.raises(LabError, match="is in no source file"):
        closure.closure(build)


def test_builds_of_the_study_are_found_and_the_order_of_processes_does_not_matter():
    asked = [
        run_arm.execute,
        cached_training.train_cached,
        mix.mix_artifact,
        share_captioner.captioned,
        runner.jobs,
    ]
    said = [closure.digest(one) for one in asked]
    assert len(set(said)) == len(asked)
    script = "from sgv_lab.study import run_arm\nprint(run_arm.code())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [said[0]]
