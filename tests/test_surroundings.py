"""No home, folders that cannot be written, odd paths and locales: works, or one line says why."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from click.testing import CliRunner

from sgv_lab.cli import main

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'profile: str = "smoke"  # the size\nsamples: int = 3  # how many\n'
BEGIN = "from sgv_lab.notebook import load_settings\nload_settings('00_start_here', globals())"


class Said(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a caption file and, in ``books``, a notebook that begins as ours do."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A café."}]
    record = {"id": "a", "image": "a.jpg", "conversations": turns}
    text = json.dumps([record], ensure_ascii=False)
    (tmp_path / "captions.json").write_text(text, encoding="utf-8")
    write_book(tmp_path / "books")
    return tmp_path


def write_book(folder: Path, *cells: str) -> None:
    new = nbformat.v4.new_code_cell
    first = new(PARAMETERS, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[first, *map(new, cells or (BEGIN, "print('é')"))])
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, folder / "00_start_here.ipynb")


def lab(*arguments: str, cwd: Path, **changes: str) -> Said:
    """What the command says and returns, asked in this process: its imports are made once."""
    environment = {"SGV_STORE": str(cwd / "store"), "OMP_NUM_THREADS": "1"} | changes
    with contextlib.chdir(cwd):
        done = CliRunner(env=environment).invoke(main, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def lab_apart(
    *arguments: str,
    cwd: Path,
    without: tuple[str, ...] = (),
    before: Sequence[str] = (),
    **changes: str,
) -> Said:
    """The same as users ask: a process of its own, which begins in these surroundings."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment = os.environ | environment | {"SGV_STORE": str(cwd / "store")} | changes
    for name in without:
        environment.pop(name, None)
    command = [*before, sys.executable, "-m", "sgv_lab", *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    return Said(done.returncode, done.stdout, done.stderr)


def says(done: Said, *words: str) -> None:
    """It failed with one line that holds ``words``, and no traceback."""
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith("Error: ") and all(word in last for word in words), last


# No home: a uid without an entry in passwd. Python looks it up, so a stand-in knows no user at all.
NO_USER = """
import os, pwd, sys
def unknown(*args):
    raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = unknown
"""


@pytest.fixture
def homeless(place: Path) -> dict[str, str]:
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(NO_USER)
    return {"PYTHONPATH": f"{place / 'site'}{os.pathsep}{ROOT}"}


def test_without_a_home(place: Path, homeless: dict[str, str]) -> None:
    done = lab_apart("stats", "captions.json", cwd=place, without=("HOME",), **homeless)
    assert done.returncode == 0, done.stderr
    done = lab_apart("stats", "captions.json", cwd=place, without=("HOME", "SGV_STORE"), **homeless)
    says(done, "no home folder", "Set SGV_STORE")
    books = str(place / "books")
    done = lab_apart("run", cwd=place, without=("HOME",), SGV_NOTEBOOKS=books, **homeless)
    says(done, "no home folder", "Set HOME")


@pytest.mark.parametrize("module", ["captions.lexical", "benchmarks.chair", "study.judging"])
def test_no_module_needs_a_home_to_be_imported(
    place: Path, homeless: dict[str, str], module: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "NLTK_DATA")}
    code = f"import sgv_lab.{module}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment | homeless, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# A file in a folder's place cannot be written into by root, either.


def test_a_store_that_cannot_be_written(place: Path) -> None:
    (place / "file").touch()
    says(
        lab("stats", "captions.json", cwd=place, SGV_STORE=str(place / "file")),
        "file: the store cannot be written",
        "Set SGV_STORE to",
    )
    done = lab("stats", "captions.json", cwd=place, SGV_STORE="", HOME=str(place / "file"))
    says(done, ".cache/sgv_lab: the store cannot be written", "Set SGV_STORE to")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--out", "file/runs"),
        ("run", "--out", "file"),
        ("world", "export", "file/x", "--scenes", "1"),
        ("figures", "--tables", "--out", "file"),
        (
            "caption",
            "--model",
            "http://127.0.0.1:9/v1",
            "--name",
            "m",
            "--out",
            "file",
            "--images",
            str(ROOT / "figures"),
        ),
    ],
)
def test_a_folder_that_cannot_be_written(place: Path, arguments: tuple[str, ...]) -> None:
    (place / "file").touch()
    done = lab(*arguments, cwd=place, SGV_NOTEBOOKS=str(place / "books"))
    says(done, "file", "cannot be written", "--out")


def as_another_user() -> list[str]:
    """A command's beginning that takes root's rights from it, in a uid without a passwd entry."""
    if os.getuid():
        return []
    command = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root's rights cannot be laid down here (unshare)")
    return command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "runs: cannot be written or read (Permission denied). Give this user the right"),
        (("world", "export", "x"), "cannot be written or read (Permission denied)"),
        (("run", "--out", "/proc/runs"), "/proc/runs: cannot be written or read (No such file"),
    ],
)
def test_a_working_directory_that_cannot_be_written(
    place: Path, arguments: tuple[str, ...], said: str
) -> None:
    (place / "closed").mkdir(mode=0o555)
    books = {"SGV_NOTEBOOKS": str(place / "books"), "HOME": str(place / "closed")}
    says(lab_apart(*arguments, cwd=place / "closed", before=as_another_user(), **books), said)


def test_a_home_that_cannot_be_written_is_enough_for_a_run(place: Path) -> None:
    (place / "closed").mkdir(mode=0o555)
    books = {"SGV_NOTEBOOKS": str(place / "books"), "HOME": str(place / "closed")}
    done = lab_apart("run", "--out", "out", cwd=place, before=as_another_user(), **books)
    assert done.returncode == 0, done.stderr


def test_no_tables_to_draw(place: Path) -> None:
    says(lab("figures", cwd=place), "figures/data: holds no tables", "--tables")


def test_blanks_commas_brackets_and_accents_in_paths(place: Path) -> None:
    odd = place / "a, b" / "é [1] *?"
    odd.mkdir(parents=True)
    (place / "captions.json").rename(odd / "captions.json")
    store = str(odd / "the store")
    done = lab("stats", str(odd / "captions.json"), cwd=place, SGV_STORE=store)
    assert done.returncode == 0, done.stderr
    write_book(odd / "books")
    out = str(odd / "out")
    books = {"SGV_NOTEBOOKS": str(odd / "books"), "SGV_STORE": store}
    done = lab("run", "--out", out, cwd=place, **books)
    assert done.returncode == 0, done.stderr
    assert f"report: {out}/report.html" in done.stdout
    done = lab("world", "export", str(odd / "world"), "--scenes", "2", cwd=place)
    assert done.returncode == 0, done.stderr


ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_locale_that_is_not_utf_8(place: Path) -> None:
    assert lab_apart("stats", "captions.json", cwd=place, **ASCII).returncode == 0
    assert (
        lab_apart("world", "export", "world", "--scenes", "2", cwd=place, **ASCII).returncode == 0
    )
    row = {"question_id": "1", "prediction": "é\nè", "gt_answer": "A"}
    (place / "é.jsonl").write_text(json.dumps(row), encoding="utf-8")
    done = lab_apart("score", "seed", "--predictions", "é.jsonl", cwd=place, **ASCII)
    assert done.returncode == 0, done.stderr
    assert "é.jsonl, line 1" in json.loads(done.stdout)["warnings"][0]
    books = {"SGV_NOTEBOOKS": str(place / "books")}
    assert lab_apart("run", "--out", "out", cwd=place, **ASCII, **books).returncode == 0
    done = lab_apart("run", "--out", "é", cwd=place, **ASCII, **books)
    says(done, "encoding of this locale", "PYTHONUTF8=1")


def test_startup_files_are_no_parameters(place: Path) -> None:
    """As readline's history and Spark's kernels do; only what was injected can be misspelt."""
    (place / "startup.py").write_text("histfile = '~/.history'\nsampels = 3\nspark = object()\n")
    ipython = place / "ipython" / "profile_default" / "startup"
    ipython.mkdir(parents=True)
    (ipython / "00.py").write_text("sc = {'spark': 1}\n")
    changes = {
        "SGV_NOTEBOOKS": str(place / "books"),
        "PYTHONSTARTUP": str(place / "startup.py"),
        "IPYTHONDIR": str(place / "ipython"),
    }
    done = lab("run", "--out", "out", "-p", "samples=4", cwd=place, **changes)
    assert done.returncode == 0, done.stderr
    # plain papermill: nobody looked before
    injected = "# Parameters\nsampels = 4\n"
    write_book(place / "books", injected, BEGIN)
    done = lab("run", "--out", "out", cwd=place, **changes)
    says(done, "unknown parameter 'sampels'. Did you mean 'samples'?")


def test_a_kernel_of_another_python_is_named(place: Path) -> None:
    spec = place / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [f"{place}/other/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (place / "other").mkdir()
    script = f"#!{sys.executable}\nraise SystemExit('No module named ipykernel')\n"
    (place / "other" / "python").write_text(script)
    (place / "other" / "python").chmod(0o755)
    about = {"argv": argv, "display_name": "another", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(about))
    changes = {"SGV_NOTEBOOKS": str(place / "books"), "JUPYTER_PATH": str(place / "jupyter")}
    done = lab("run", "--out", "out", cwd=place, **changes)
    says(done, f"is run by {argv[0]}, not by {sys.executable}", "JUPYTER_PATH")
