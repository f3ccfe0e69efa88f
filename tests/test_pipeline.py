"""Runs of tiny notebooks: in order, refused before work, finished after every kind of death."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image

from sgv_lab import closure, pipeline
from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.provenance import provenance
from sgv_lab.report import write_report
from sgv_lab.study import ledger, publishing

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'profile: str = "smoke"  # smoke, mini or paper\n'


def write(folder: Path, name: str, cells: list[str], parameters: str = "") -> Path:
    """A notebook with a parameters cell and ``cells``."""
    new = nbformat.v4.new_code_cell
    first = new(PARAMETERS + parameters, metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell(f"# The title of {name}")
    book = nbformat.v4.new_notebook(cells=[title, first, *map(new, cells)])
    folder.mkdir(exist_ok=True)
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def counting(name: str, log: Path) -> str:
    """A cell that leaves a line in ``log`` whenever it is run."""
    return f"print({name!r}, file=open({str(log)!r}, 'a'))"


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipeline, "provenance", dict)  # imports torch; the killed run has it
    return tmp_path / "books"


def run(books: Path, out: Path, names: tuple[str, ...] = (), **given: str) -> list[str]:
    return list(pipeline.run(pipeline.plan(names, "smoke", given, books), books, out))


def test_values_reach_only_the_notebooks_that_declare_them_with_their_types(
    books: Path, tmp_path: Path
) -> None:
    declared = 'lr: float = 0.1  # a\nflag: bool = True  # b\nname: str = "x"  # c\n'
    declared += "many: list[str] = []  # d\n"
    write(books, "00_a", ["print(lr, flag, name, many, profile)"], declared)
    write(books, "01_b", ["print(profile)"])
    run(books, tmp_path / "out", lr="1e-3", flag="false", name="007", many="a,b")
    text = nbformat.read(tmp_path / "out" / "00_a.ipynb", as_version=4).cells[-1].outputs[0].text
    assert text == "0.001 False 007 ['a', 'b'] smoke\n"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [book["parameters"] for book in manifest["notebooks"]] == [
        {"flag": False, "lr": 0.001, "many": ["a", "b"], "name": "007", "profile": "smoke"},
        {"profile": "smoke"},
    ]


@pytest.mark.parametrize(
    ("names", "profile", "given", "said"),
    [
        ((), "mini", {"lrr": "1"}, "'lr'"),
        ((), "mini", {"lr": "fast"}, "'lr' is float"),
        ((), "mini", {"profil": "paper"}, "'profile'"),
        ((), "mini", {"profile": "papr"}, "'paper'"),
        ((), "mni", {}, "'mini'"),
        (("01_q",), "mini", {}, "'01_b'"),
        (("07",), "mini", {}, "'00'|'01'"),
        (("01",), "mini", {"lr": "1"}, "parameter 'lr'"),
    ],
)
def test_is_refused_before_anything_runs(
    books: Path, names: tuple[str, ...], profile: str, given: dict[str, str], said: str
) -> None:
    write(books, "00_a", [], "lr: float = 0.1  # a\n")
    write(books, "01_b", [])
    with pytest.raises(LabError, match=said):
        pipeline.plan(names, profile, given, books)


def test_the_profile_may_be_given_as_a_parameter(books: Path) -> None:
    write(books, "00_a", [])
    (job,) = pipeline.plan((), "smoke", {"profile": "paper"}, books)
    assert job.parameters == {"profile": "paper"}


def test_runs_in_order_and_repeats_nothing_complete(books: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    for name in ("02_c", "00_a"):
        write(books, name, [counting(name, log)])
    lines = run(books, out, ("02", "00"))
    assert [line.split()[:2] for line in lines] == [["00_a", "ok"], ["02_c", "ok"]]
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert run(books, out) == ["00_a  done before", "02_c  done before"]
    assert log.read_text() == "00_a\n02_c\n"
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    write(books, "02_c", [counting("changed", log)])
    run(books, out)
    assert log.read_text() == "00_a\n02_c\nchanged\n"


def test_only_a_change_of_the_code_it_rests_on_makes_a_notebook_run_again(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(books, "00_a", ["%matplotlib inline", "from sgv_lab import errors\nerrors.unknown"])
    write(books, "01_b", ["!ls"])
    copy = shutil.copytree(ROOT / "sgv_lab", tmp_path / "sgv_lab", ignore=lambda _, names: [
        name for name in names if "." in name and not name.endswith(".py")])  # fmt: skip
    found = []
    for body in ("", "\n\n# a comment\n", "\n\nget_close_matches = None\n"):
        with (copy / "errors.py").open("a") as file:
            file.write(body)
        monkeypatch.setattr(closure, "_sources", lambda: closure.Sources(copy))
        found.append([job.code for job in pipeline.plan((), "smoke", {}, books)])
    assert found[0] == found[1]
    assert found[0][0] != found[2][0] and found[0][1] == found[2][1]


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "DeadKernelError"),
        pytest.param(
            "open('/dev/full', 'w').write('x' * 9999)",
            "No space left on device",
            marks=pytest.mark.slow,
        ),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_a_death_is_named_and_the_same_command_finishes(
    books: Path, tmp_path: Path, death: str, said: str
) -> None:
    log, out, broken = tmp_path / "log", tmp_path / "out", tmp_path / "broken"
    broken.touch()
    cell = f"if __import__('pathlib').Path({str(broken)!r}).exists():\n    {death}"
    write(books, "01_b", [counting("01_b", log), cell, counting("end", log)])
    with pytest.raises(LabError) as failure:
        run(books, out)
    assert re.search(rf"01_b, code cell 3 of 4 \(if __import.*{said}", str(failure.value))
    assert not (out / "manifest.json").exists() and not (out / "01_b.ipynb").exists()
    broken.unlink()
    run(books, out)
    assert log.read_text() == "01_b\n01_b\nend\n"
    assert (out / "manifest.json").exists() and not list(out.glob("work-*"))


def test_after_a_sigkill_of_the_pipeline_nothing_goes_on_and_the_rest_is_done(
    books: Path, tmp_path: Path
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    wait = f"import os, time\nprint('pid', os.getpid(), file=open({str(log)!r}, 'a'))\n"
    wait += f"if os.path.exists({str(tmp_path / 'slow')!r}): time.sleep(60)"
    (tmp_path / "slow").touch()
    write(books, "00_a", [counting("00_a", log)])
    write(books, "01_b", [wait, counting("end", log)])
    command = [sys.executable, "-m", "sgv_lab", "run", "--out", str(out)]
    environment = os.environ | {"SGV_NOTEBOOKS": str(books)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: log.exists() and "pid" in log.read_text())
    kernel = int(log.read_text().split()[-1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not alive(kernel))
    (tmp_path / "slow").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "00_a  done before" in done.stdout
    assert log.read_text().count("00_a") == 1 and log.read_text().endswith("end\n")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["profile"] == "mini" and manifest["packages"]["papermill"]
    assert not any(str(value).startswith("/") for value in manifest.values())


def test_two_runs_do_not_share_a_folder(books: Path, tmp_path: Path) -> None:
    write(books, "00_a", [])
    with FileLock(tmp_path / ".lock"), pytest.raises(LabError, match="another run"):
        run(books, tmp_path)


def wait_for(truth: object, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


def test_the_report_is_one_page_that_needs_no_network(books: Path, tmp_path: Path) -> None:
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    write(books, "00_a", [plot, "from IPython.display import HTML\nHTML('<b>bold</b>')"])
    write(books, "01_b", ["1 + 1"])
    run(books, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<a href="#00_a">The title of 00_a</a>' in page and 'id="01_b"' in page
    assert "data:image/png;base64," in page
    folded = re.findall(r"<details><summary>code</summary>.*?</details>", page, re.DOTALL)
    assert len(folded) == 3 and "plt.plot" in re.sub(
        "<.*?>", "", folded[0]
    )  # those that show something
    assert not re.search(r"""(src|href)=["']?(https?:)?//|import\(|url\(["']?http""", page)


def test_a_report_begins_with_its_summary_and_folds_what_has_no_figure(tmp_path: Path) -> None:
    path = write(tmp_path / "notebooks", "00_a", [])
    book = nbformat.read(path, as_version=4)
    for heading in ("Numbers & more", "What to take away"):
        book.cells.append(nbformat.v4.new_markdown_cell(f"## {heading}\n\nwords"))
    bar = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Loading: 0%"}
    dead = nbformat.v4.new_output("display_data", bar)
    book.cells.append(nbformat.v4.new_code_cell("load()", outputs=[dead]))
    nbformat.write(book, path)
    write_report([path], tmp_path / "report.html", path, "# In short\n\nno verdict")
    page = (tmp_path / "report.html").read_text()
    assert page.index('href="#summary">In short') < page.index('href="#00_a"')
    assert page.index("no verdict") < page.index(">words<")
    assert re.findall('<details class="part"><summary>(.*)</summary>', page) == [
        "Numbers &amp; more"
    ]
    assert "Loading: 0%" not in page and "load()" not in page


def test_a_report_s_first_page_shows_what_the_ledger_records_for_the_first_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = ledger.tasks()
    tasks.at["C1", "miniature"] = ["table5-llava-1.5-7b"]
    monkeypatch.setattr(ledger, "tasks", lambda: tasks)
    made = {"notebooks": [{"notebook": "12_captions_to_buy", "seconds": 60}], "profile": "smoke"}
    made |= provenance()
    page = pipeline._summary(made, publishing.folder().parent)
    assert page.startswith("*This run*: profile smoke, 1 notebook, 1 minutes")
    made["notebooks"] += [{"notebook": "08_claims", "seconds": 60}]
    page = pipeline._summary(made, publishing.folder().parent)
    assert "(../figures/table5-llava-1.5-7b.png)" in page and "+32.4 (13.3 to 51.5)" in page
    assert "C10" in page and "pilot" not in page.partition("![")[2]


def test_a_path_that_is_given_holds_wherever_the_notebook_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "A.json").write_text("[]")
    declared = '\nfirst: str = ""\nfiles: list[str] = []\nname: str = ""'
    book = write(tmp_path / "notebooks", "00_a", [], declared)
    given = {"first": "A.json", "files": "A.json,B.json", "name": "x" * 5_000}
    (job,) = pipeline.plan([], "smoke", given, book.parent)
    assert job.parameters["first"] == str(tmp_path / "A.json")
    assert job.parameters["files"] == [str(tmp_path / "A.json"), "B.json"]
    assert job.parameters["name"] == given["name"]


def test_images_named_in_the_text_are_inside_the_report(tmp_path: Path) -> None:
    path = write(tmp_path / "notebooks", "00_a", [])
    book = nbformat.read(path, as_version=4)
    for name in ("../figures/dot.png", "dot.png"):
        book.cells.append(nbformat.v4.new_markdown_cell(f"![a dot that is red]({name})"))
        (path.parent / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2), "red").save(path.parent / name)
    nbformat.write(book, path)
    write_report([path], tmp_path / "report.html", path)
    page = (tmp_path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert page.count('alt="a dot that is red"') == 2


def test_the_command_names_what_it_made_and_fails_loudly(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGV_NOTEBOOKS", str(books))
    write(books, "00_a", ["number"], "number: int = 3  # a number\n")
    done = CliRunner().invoke(main, ["run", "--profile", "smoke", "-p", "number=4"])
    assert done.exit_code == 0, done.output
    (report,) = tmp_path.glob("runs/smoke-*/report.html")
    assert f"report: {report.relative_to(tmp_path)}" in done.output
    bad = CliRunner().invoke(main, ["run", "-p", "numbr=4"])
    assert bad.exit_code == 1 and "Did you mean 'number'?" in bad.output
    write(books, "00_a", ["1 / 0"])
    failed = CliRunner().invoke(main, ["run"])
    assert failed.exit_code == 1
    last = failed.output.strip().splitlines()[-1]
    assert "00_a, code cell 2 of 2 (1 / 0): ZeroDivisionError: division by zero" in last
