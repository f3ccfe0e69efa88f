"""What every notebook calls first: its parameters checked, its environment quiet.

Papermill injects whatever it is given after the cell tagged ``parameters``, misspelt names and
wrong types too. `load_settings` refuses what that cell does not declare.
"""

import ast
import math
import os
import warnings
from collections.abc import MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pandas as pd

from sgv_lab import profiles
from sgv_lab.errors import LabError, unknown

CONTENTS = {  # the study in reading order
    "00_start_here": "what is claimed, what can be checked, how to run it",
    "01_caption_datasets": "five caption data sets: length, words, quality, defects",
    "02_collect_captions": "asking a GPT4-Vision-class model for the 100K",
    "03_share_captioner": "a captioner trained on them, captioning the 1.2M",
    "04_sft_substitution": "better captions in fine-tuning, for four model families",
    "05_sharegpt4v_7b": "the two training stages of the paper's model",
    "06_benchmarks": "eleven benchmarks, scored from prediction files",
    "07_ablations": "where, how many and how good; and what was never separated",
    "08_claims": "ten claims and their verdicts",
    "09_explore": "caption an image, talk with a model",
    "10_how_the_miniature_learned_to_see": "its vision tower, projector and language model",
    "11_inside_the_model": "one image through a LLaVA, by hand and by the library",
    "12_captions_to_buy": "two offers of captions: defects, truth, votes, price",
}
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}
_TYPES |= {f"list[{name}]": list[kind] for name, kind in _TYPES.items()}
_INJECTED = "# Parameters"  # how the cell begins that papermill puts in


def folder() -> Path:
    """The folder of the notebooks: ``SGV_NOTEBOOKS``, or ``notebooks`` beside the package."""
    beside = Path(__file__).resolve().parents[1] / "notebooks"
    return Path(os.environ.get("SGV_NOTEBOOKS") or beside)


def contents() -> pd.DataFrame:
    """The study's notebooks: number and name, and what each is about."""
    return pd.Series(CONTENTS, name="about").rename_axis("notebook").to_frame()


def parameters(path: str | Path) -> dict[str, str]:
    """The parameters a notebook declares, in order: name -> type.

    Raises LabError unless exactly one cell is tagged ``parameters`` and every line of it is an
    annotated literal.
    """
    import nbformat

    path, declared = Path(path), {}
    try:
        cells = nbformat.read(path, as_version=4).cells
    except OSError as error:
        raise LabError("cannot read the notebook", where=path) from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        what = f"{len(tagged)} cells are tagged 'parameters'"
        raise LabError(what, where=path.name, fix="tag exactly one")
    for node in ast.parse(tagged[0].source).body:
        try:
            ast.literal_eval(node.value)
            declared[node.target.id] = ast.unparse(node.annotation)
        except (AttributeError, ValueError) as error:
            fix, line = "write each parameter as `name: type = literal  # help`", ast.unparse(node)
            raise LabError(f"not a parameter: {line}", where=path.name, fix=fix) from error
    return declared


def load_settings(name: str, namespace: MutableMapping[str, Any]) -> SimpleNamespace:
    """Check the parameters in ``namespace`` (a notebook's ``globals()``) and return the settings.

    Settings are the profile's section for this notebook with the parameters on top, unless one is
    0, "", [] or None: these mean "as the profile says" (papermill's help cannot read
    ``int | None``). Converted values are written back to the namespace. The environment's
    SGV_PROFILE goes before the profile that the cell declares, and behind one that papermill puts
    in. ``bars``: whether progress is shown.

    Raises LabError for an injected name the parameters cell does not declare, a value that does not
    convert to the declared type, and an unknown profile.
    """
    declared, given = parameters(folder() / f"{name}.ipynb"), _injected(namespace)
    for stray in sorted(given - set(declared)):
        raise unknown("parameter", stray, declared, where=name)
    if "profile" not in given:
        namespace["profile"] = os.environ.get("SGV_PROFILE") or namespace["profile"]
    values = {key: convert(namespace[key], kind, key, name) for key, kind in declared.items()}
    section = profiles.section(name, values["profile"])
    namespace.update(values)
    section.bars = values["profile"] != "smoke" and not os.environ.get("TQDM_DISABLE")
    _quiet(section.bars)
    pd.set_option("display.max_colwidth", None, "display.max_columns", None)
    for key, value in values.items():
        if value or value is False or not hasattr(section, key):
            setattr(section, key, value)
    return section


def require(truth: object, what: str) -> None:
    """Stop the notebook with a LabError that says ``what``, unless ``truth`` holds."""
    if not truth:
        raise LabError(what)


def check_answer(given: float, truth: float, hint: str) -> str:
    """What a reader is told of an answer to an exercise: "Right.", or a hint.

    Where ``truth`` is no whole number, three digits of it are enough.

    >>> check_answer(0, 6, "two times three")
    'Not yet. Hint: two times three.'
    """
    right = math.isclose(given, truth, rel_tol=0 if isinstance(truth, int) else 5e-3)
    return "Right." if right else f"Not yet. Hint: {hint}."


def _injected(namespace: MutableMapping[str, Any]) -> set[str]:
    """The names in the last cell that papermill put in, by IPython's history.

    Other names may be a startup file's or the kernel's own (PYTHONSTARTUP, Spark's ``sc``).
    """
    cells = [cell for cell in namespace.get("In", ()) if cell.lstrip().startswith(_INJECTED)]
    nodes = [node for cell in cells[-1:] for node in ast.walk(ast.parse(cell))]
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def convert(value: Any, kind: str, name: str, where: str) -> Any:
    """``value`` as a parameter's declared type, from text too.

    >>> convert("1e-3", "float", "lr", "notebook")
    0.001

    Raises LabError naming the parameter, the value and the type.
    """
    try:
        given = _items(value) if kind.startswith("list[") else value
        return msgspec.convert(given, _TYPES[kind], strict=False)
    except (msgspec.ValidationError, ValueError, SyntaxError) as error:
        fix = f"give a {kind}"
        if kind == "str":
            fix = "papermill reads -p as a number where it can: use -r for text, or sgv-lab run"
        problem = f"the parameter {name!r} is {kind}, and {value!r} is not"
        raise LabError(problem, where=where, fix=fix) from error


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("[", "(")):
            return list(ast.literal_eval(text))
        return [part.strip() for part in text.split(",") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _quiet(bars: bool) -> None:
    """Keep other libraries' warnings off the outputs (this one raises), and bars if not wanted.

    Set before torch, transformers and tqdm are imported: they read these variables once.
    """
    warnings.simplefilter("ignore")
    os.environ.update(PYTHONWARNINGS="ignore", TRANSFORMERS_VERBOSITY="error")
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1")
    if not bars:
        os.environ.update(TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
