"""``begin``: parameters checked and converted, whatever papermill made of them."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import nbformat
import pytest

from sgv_lab import notebook, profiles
from sgv_lab.errors import LabError
from sgv_lab.notebook import convert, load_settings

CELL = """profile: str = "smoke"  # the size
samples: int = 0  # 0: as the profile says
lr: float = 0.1  # the rate
flag: bool = True  # a switch
names: list[str] = []  # which
"""
DEFAULTS = MappingProxyType(
    {"profile": "smoke", "samples": 0, "lr": 0.1, "flag": True, "names": []}
)


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGV_NOTEBOOKS", str(tmp_path))
    monkeypatch.delenv("SGV_PROFILE", raising=False)
    monkeypatch.setitem(profiles.SECTIONS, "x", {"samples": (5, 50, 0), "steps": (7, 70, 0)})
    monkeypatch.setattr(notebook, "_quiet", lambda bars: None)
    save(tmp_path, CELL)
    return tmp_path


def save(folder: Path, source: str, tags: tuple[str, ...] = ("parameters",)) -> None:
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "x.ipynb")


def test_settings_are_the_profiles_with_parameters_on_top() -> None:
    settings = load_settings("x", dict(DEFAULTS))
    assert (settings.samples, settings.steps, settings.lr, settings.flag) == (5, 7, 0.1, True)
    settings = load_settings("x", {**DEFAULTS, "profile": "mini", "samples": 9, "flag": "false"})
    assert (settings.samples, settings.steps, settings.flag) == (9, 70, False)


def test_the_environment_s_profile_goes_before_the_cell_s_and_behind_papermill_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SGV_PROFILE", "mini")
    namespace = dict(DEFAULTS)
    assert load_settings("x", namespace).samples == 50 and namespace["profile"] == "mini"
    injected = {**DEFAULTS, "In": ["# Parameters\nprofile = 'smoke'\n"]}
    assert load_settings("x", injected).samples == 5


def test_progress_is_shown_where_it_takes_long_and_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert load_settings("x", {**DEFAULTS, "profile": "mini"}).bars
    assert not load_settings("x", dict(DEFAULTS)).bars
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert not load_settings("x", {**DEFAULTS, "profile": "mini"}).bars


def test_converted_values_are_written_back() -> None:
    namespace = {**DEFAULTS, "samples": 1e3, "lr": "1e-3", "names": "a, b"}
    load_settings("x", namespace)
    assert namespace["samples"] == 1000 and isinstance(namespace["samples"], int)
    assert namespace["lr"] == 0.001
    assert namespace["names"] == ["a", "b"]


def test_a_name_that_is_injected_and_not_declared_is_refused_others_are_not() -> None:
    load_settings(
        "x",
        {
            **DEFAULTS,
            "In": ["", "# Parameters\nsamples = 3\n"],
            "spark": 1,
            "load_settings": load_settings,
        },
    )
    with pytest.raises(LabError, match=r"x: unknown parameter 'sample'. Did you mean 'samples'\?"):
        load_settings("x", {**DEFAULTS, "In": ["", "# Parameters\nsample = 3\n"], "sample": 3})


def test_may_be_called_again_by_hand_when_the_notebook_has_names_of_its_own() -> None:
    namespace: dict[str, Any] = dict(DEFAULTS)
    load_settings("x", namespace)
    namespace["result"] = 3
    namespace["samples"] = 8
    assert load_settings("x", namespace).samples == 8


def test_what_a_notebook_requires_stops_it_in_words() -> None:
    notebook.require([1], "nothing is here")
    with pytest.raises(LabError, match="nothing is here"):
        notebook.require([], "nothing is here")


def test_an_answer_is_right_or_gets_a_hint() -> None:
    assert notebook.check_answer(576, 576, "squared") == "Right."
    assert notebook.check_answer(575, 576, "squared") == "Not yet. Hint: squared."
    assert notebook.check_answer(6.93, 6.9315, "a logarithm") == "Right."
    assert notebook.check_answer(0, 6.9315, "a logarithm") == "Not yet. Hint: a logarithm."


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(LabError, match="'mini'"):
        load_settings("x", {**DEFAULTS, "profile": "minni"})


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        ("bool", "false", False),
        ("bool", "True", True),
        ("int", "12", 12),
        ("int", "1e3", 1000),
        ("int", 3.0, 3),
        ("float", "1e-3", 0.001),
        ("float", 1, 1.0),
        ("str", "007", "007"),
        ("list[int]", "[1, 2]", [1, 2]),
        ("list[int]", 3, [3]),
        ("list[str]", "llava,qwen", ["llava", "qwen"]),
        ("list[float]", (1, "1e-4"), [1.0, 0.0001]),
    ],
)
def test_converts(annotation: str, given: Any, value: Any) -> None:
    got = convert(given, annotation, "p", "x")
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        ("bool", "yes please"),
        ("bool", 2),
        ("int", "1.5"),
        ("int", True),
        ("int", "inf"),
        ("float", "fast"),
        ("float", None),
        ("str", 7),
        ("list[int]", "[1, x"),
        ("list[int]", "1,b"),
    ],
)
def test_refuses_what_does_not_convert(annotation: str, given: Any) -> None:
    with pytest.raises(LabError, match=r"x: the parameter 'p' is "):
        convert(given, annotation, "p", "x")


@pytest.mark.parametrize(
    ("source", "tags", "said"),
    [
        (CELL, (), "0 cells are tagged"),
        ("profile = 'smoke'", ("parameters",), "not a parameter: profile = 'smoke'"),
        ("n: int = 2 * 3", ("parameters",), "not a parameter"),
        ("import os", ("parameters",), "not a parameter"),
    ],
)
def test_refuses_a_parameters_cell_that_is_none(
    study: Path, source: str, tags: tuple[str, ...], said: str
) -> None:
    save(study, source, tags)
    with pytest.raises(LabError, match=said):
        notebook.parameters(study / "x.ipynb")
