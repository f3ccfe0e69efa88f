"""Papermill runs of the notebooks, in order, one kernel each; a run that died is finished.

What is complete is decided by our own records, never by notebook metadata: when a kernel dies,
papermill's metadata calls cells completed that never ran. A notebook is complete when its record
under ``done/`` was written; a run is complete when ``manifest.json`` was.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbformat import NotebookNode

from sgv_lab import closure, profiles
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import full_disk, only_writer, write_json
from sgv_lab.notebook import convert, parameters
from sgv_lab.provenance import provenance
from sgv_lab.report import write_report

KERNEL = "python3"
LEDGER = "08"  # the number of the notebook whose verdicts a report begins with


@dataclass(frozen=True)
class Job:
    """A notebook to run, its parameters, and the hash of its cells and the code they rest on."""

    notebook: str
    parameters: Mapping[str, Any]
    code: str


def plan(names: Iterable[str], profile: str, given: Mapping[str, str], folder: Path) -> list[Job]:
    """The jobs for the notebooks ``names`` ("01" or "01_x"; none: all) of ``folder``, in order.

    ``given`` are raw parameter values; each goes to the notebooks that declare it, converted to
    the type declared there. What is unknown or does not convert is refused.
    """
    given = dict(given)
    profile = given.pop("profile", profile)  # -p profile=mini, as for papermill
    if profile not in profiles.PROFILES:
        raise unknown("profile", profile, profiles.PROFILES)
    declared = {path: parameters(path) for path in _choose(list(names), folder)}
    allowed = sorted({name for each in declared.values() for name in each})
    for name in given:
        if name not in allowed:
            raise unknown("parameter", name, allowed, where=", ".join(p.stem for p in declared))
    jobs = []
    for path, known in declared.items():
        own = {"profile": profile}
        for name, kind in known.items():
            if name in given:
                own[name] = _from_anywhere(convert(given[name], kind, name, path.stem))
        jobs.append(Job(path.stem, dict(sorted(own.items())), _code(path)))
    return jobs


def _from_anywhere(value: Any) -> Any:
    """A parameter, absolute if it names a path: Jupyter runs a notebook in its own folder."""
    if isinstance(value, list):
        return [_from_anywhere(one) for one in value]
    if isinstance(value, str) and value:
        with suppress(OSError, ValueError):  # nothing there, or no path at all
            return str(Path(value).resolve(strict=True))
    return value


def _choose(names: list[str], folder: Path) -> list[Path]:
    """The notebooks' files, in the order of their numbers, each once."""
    known = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not known:
        raise LabError("no notebook NN_name.ipynb here", where=folder, fix="run from a checkout")
    chosen = set()
    for name in names:
        found = [stem for stem in known if name.removesuffix(".ipynb") in (stem, stem[:2])]
        if not found:
            raise unknown("notebook", name, [*known, *(stem[:2] for stem in known)])
        chosen.update(found)
    return [path for stem, path in known.items() if not names or stem in chosen]


def _code(path: Path) -> str:
    """The hash of a notebook's cells (not their outputs) and of the code that they rest on."""
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    text = json.dumps([closure.of_text(code), [(cell.cell_type, cell.source) for cell in cells]])
    return hashlib.sha256(text.encode()).hexdigest()


def default_out(jobs: list[Job], whole: bool) -> Path:
    """``runs/PROFILE`` for the ``whole`` study; else with a hash of what is asked for.

    So a run with other parameters never takes the place of an earlier one.
    """
    profile = jobs[0].parameters["profile"]
    if whole:
        return Path("runs") / profile
    asked = json.dumps([(job.notebook, job.parameters) for job in jobs])
    return Path("runs") / f"{profile}-{hashlib.sha256(asked.encode()).hexdigest()[:6]}"


def run(jobs: list[Job], folder: Path, out: Path, bars: bool = False) -> Iterator[str]:
    """Run what is missing of ``jobs``, notebooks of ``folder``, into ``out``; a line for each.

    ``out`` then holds the executed notebooks, report.html and manifest.json, written last.
    ``bars``: show each notebook's progress. Raises LabError naming the first cell that fails.
    """
    fix = "free some space and run the same command again: it does only what is missing"
    with full_disk(out, fix):
        (out / "done").mkdir(parents=True, exist_ok=True)
        with only_writer(out):
            for left in out.glob("work-*"):  # by a run that was killed
                shutil.rmtree(left)
            for job in jobs:
                if is_done(job, out):
                    yield f"{job.notebook}  done before"
                    continue
                (out / "manifest.json").unlink(missing_ok=True)
                seconds = _run_one(job, folder / f"{job.notebook}.ipynb", out, bars)
                yield f"{job.notebook}  ok  {seconds:.0f} s"
            _finish(jobs, folder, out)


def is_done(job: Job, out: Path) -> bool:
    """Whether ``out`` holds this very job, executed to its end."""
    record = out / "done" / f"{job.notebook}.json"
    if not (record.is_file() and (out / f"{job.notebook}.ipynb").is_file()):
        return False
    stored = json.loads(record.read_text(encoding="utf-8"))
    return {key: stored[key] for key in asdict(job)} == asdict(job)


def _run_one(job: Job, path: Path, out: Path, bars: bool) -> float:
    """Execute a notebook and write its record; the seconds it took."""
    work = Path(tempfile.mkdtemp(prefix="work-", dir=out))
    record, executed = out / "done" / f"{job.notebook}.json", work / "executed.ipynb"
    record.unlink(missing_ok=True)
    book, begun = nbformat.read(path, as_version=4), list[NotebookNode]()
    started, error = time.monotonic(), ""
    try:
        ran = papermill.execute_notebook(
            book,
            str(executed),
            parameters=job.parameters,
            kernel_name=KERNEL,
            language="python",
            progress_bar=bars,
            on_cell_execute=lambda cell, cell_index: begun.append(cell),  # see above: metadata
            extra_arguments=["--IPKernelApp.log_level=40"],  # its warnings are not the reader's
        )
        # by what a notebook left that papermill calls a success: sys.exit(0)
        outputs = [output for cell in ran.cells for output in cell.get("outputs", ())]
        errors = (f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error")
        error = next(errors, "")
    except papermill.PapermillExecutionError as raised:
        error = f"{raised.ename}: {raised.evalue}"
    except UnicodeEncodeError:  # of a path, by the locale: nothing that can be mended in a cell
        raise
    except Exception as raised:  # a dead kernel, a full disk: said in one line, as the others
        error = f"{type(raised).__name__}: {raised}"
    if error:
        raise _failure(job, out, executed, error, _place(book, begun))
    seconds = time.monotonic() - started
    executed.replace(out / f"{job.notebook}.ipynb")
    write_json(record, {**asdict(job), "seconds": round(seconds, 1)})
    shutil.rmtree(work)
    return seconds


def _place(book: NotebookNode, begun: list[NotebookNode]) -> str:
    """Which of a notebook's own cells was the last to begin; "" if none did."""
    own = [cell.source for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    reached = [cell.source for cell in begun if cell.source in own]
    if not reached:
        return ""
    return f", code cell {len(reached)} of {len(own)} ({reached[-1].strip().splitlines()[0][:60]})"


def _failure(job: Job, out: Path, executed: Path, error: str, place: str) -> LabError:
    """Name notebook, cell and error; keep what was executed as ``NAME.failed.ipynb``."""
    fix = "mend it and run the same command again: it does only what is missing"
    if executed.is_file():
        executed.replace(out / f"{job.notebook}.failed.ipynb")
        fix += f"; what ran so far is in {out / job.notebook}.failed.ipynb"
    return LabError(error, where=job.notebook + place, fix=fix + _foreign_kernel())


def _foreign_kernel() -> str:
    """What to do about a kernel "python3" that another Python runs, if there is one."""
    try:
        interpreter = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        return f"; there is no kernel {KERNEL!r}: install ipykernel"
    place = Path(interpreter).parent  # not the file: virtual environments link to one
    if not place.is_absolute() or place.resolve() == Path(sys.executable).parent.resolve():
        return ""
    return (
        f"; the kernel {KERNEL!r} is run by {interpreter}, not by {sys.executable}: take it out of "
        "JUPYTER_PATH or remove it (jupyter kernelspec list)"
    )


def _finish(jobs: list[Job], folder: Path, out: Path) -> None:
    """Write the report and, last, the manifest, unless this very run was complete before."""
    manifest = out / "manifest.json"
    places = [out / "done" / f"{job.notebook}.json" for job in jobs]
    done = [json.loads(place.read_text(encoding="utf-8")) for place in places]
    if manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8"))["notebooks"] == done:
        return
    executed = [out / f"{job.notebook}.ipynb" for job in jobs]
    profile = jobs[0].parameters["profile"]
    made = {"profile": profile, "notebooks": done, "report": "report.html", **provenance()}
    summary = _summary(made, folder.parent / "figures")
    write_report(executed, out / "report.html", folder / f"{jobs[0].notebook}.ipynb", summary)
    write_json(manifest, made)


def _summary(made: Mapping[str, Any], figures: Path) -> str:
    """A report's first page: the verdicts, what is recorded for the first claim, what ran where.

    Only what ran where, if the ledger was not among the notebooks; "" for notebooks of somebody's
    own, without records beside them.
    """
    from sgv_lab.figures.tables import Table
    from sgv_lab.study import ledger, publishing

    if not (figures / "data" / "studies").is_dir():
        return ""
    minutes = sum(one["seconds"] for one in made["notebooks"]) / 60
    versions = ", ".join(f"{name} {made['packages'][name]}" for name in ("torch", "transformers"))
    where = f"Python {made['python']}, {versions}, {made['device']}, {made['platform']}"
    count = len(made["notebooks"])
    ran = f"{count} notebook{'s' * (count > 1)}, {minutes:.0f} minutes, revision {made['revision']}"
    this_run = f"*This run*: profile {made['profile']}, {ran}; {where}."
    if not any(one["notebook"].startswith(LEDGER) for one in made["notebooks"]):
        return this_run
    claim, (plan, *_) = next(ledger.tasks()["miniature"].items())
    lines = [
        "# Do better captions make better multimodal models?",
        "The ten claims of ShareGPT4V ([arXiv 2311.12793](https://arxiv.org/abs/2311.12793)). "
        "*Beyond chance*: how many of a claim's numbers are more than 1.96 standard errors from 0. "
        "*In miniature*: a recorded study's main effect with its 95 % interval, in points of right "
        "yes/no answers, the smallest effect that it *shows* (in 80 % of such studies), the same "
        "over no captions where its plan asks for it, and what follows by the plan.",
        Table(ledger.verdicts(figures / "data"))._repr_html_(),
        f"![Recorded for {claim}: runs of each kind of captions, and their differences with "
        f"intervals.](../figures/{plan}.png)",
        f"*In miniature, recorded*, for {claim}: {publishing.conclusions(plan).loc[plan].item()}",
        this_run,
    ]
    return "\n\n".join(lines)
