"""Papermill runs of the notebooks, in order, one kernel each; a run that died is finished.

What is complete is decided by our own records, never by notebook metadata: when a kernel dies,
papermill's metadata calls cells completed that never ran. A notebook is complete when its kernel
reached a last cell of ours and its record under ``done/`` was written; a run is complete when
``manifest.json`` was.
"""

import errno
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from filelock import FileLock, Timeout
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbformat import NotebookNode

from sgv_lab import profiles
from sgv_lab.errors import LabError, unknown
from sgv_lab.files import write_json
from sgv_lab.notebook import convert, parameters
from sgv_lab.provenance import provenance
from sgv_lab.report import write_report
from sgv_lab.store import source_hash

KERNEL = "python3"
_LAST = "sgv-lab-last-cell"
_OURS = {_LAST, "injected-parameters"}  # tags of cells that the notebook itself does not have


@dataclass(frozen=True)
class Job:
    """One notebook to run: its file, resolved parameters, and the hash of all code it sees."""

    notebook: str
    path: Path
    parameters: Mapping[str, Any]
    code: str

    @property
    def record(self) -> dict[str, Any]:
        """What decides whether an executed notebook is this job's."""
        return {"notebook": self.notebook, "parameters": self.parameters, "code": self.code}


class NotebookFailed(LabError):
    """A notebook did not run to its end; names notebook, cell and error."""


def plan(names: Iterable[str], profile: str, given: Mapping[str, str], folder: Path) -> list[Job]:
    """The jobs for the notebooks ``names`` ("01" or "01_x"; none: all) of ``folder``, in order.

    ``given`` are raw parameter values; each goes to the notebooks that declare it, converted to
    the type declared there.

    Raises LabError for an unknown notebook, profile or parameter, naming the nearest, and for a
    value that does not convert.
    """
    given = dict(given)
    profile = given.pop("profile", profile)  # -p profile=mini, as for papermill
    if profile not in profiles.PROFILES:
        raise unknown("profile", profile, profiles.PROFILES)
    chosen = _choose(list(names), folder)
    declared = {path.stem: parameters(path) for path in chosen}
    allowed = sorted({name for each in declared.values() for name in each})
    for name in given:
        if name not in allowed:
            raise unknown("parameter", name, allowed, where=", ".join(declared))
    library = source_hash("sgv_lab")
    jobs = []
    for path in chosen:
        own = {"profile": profile}
        for name in given.keys() & declared[path.stem].keys():
            own[name] = convert(given[name], declared[path.stem][name], path.stem)
        jobs.append(Job(path.stem, path, dict(sorted(own.items())), _code(path, library)))
    return jobs


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


def _code(path: Path, library: str) -> str:
    """The hash of a notebook's cells (not their outputs) and the library they call."""
    cells = nbformat.read(path, as_version=4).cells
    text = json.dumps([library, [(cell.cell_type, cell.source) for cell in cells]])
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


def run(
    jobs: list[Job],
    out: Path,
    say: Callable[[str], None] = print,
    progress: Callable[[str, int, int], None] = lambda notebook, cell, cells: None,
) -> Path:
    """Run what is missing of ``jobs`` into ``out``; return the manifest's path.

    ``out`` then holds the executed notebooks, report.html and manifest.json, written last.
    ``say`` gets a line a notebook, ``progress`` each cell begun.

    Raises NotebookFailed at the first notebook that fails, LabError when the disk is full.
    """
    try:
        (out / "done").mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            for left in out.glob("work-*"):  # by a run that was killed
                shutil.rmtree(left)
            for job in jobs:
                if is_done(job, out):
                    say(f"{job.notebook}  done before")
                    continue
                (out / "manifest.json").unlink(missing_ok=True)
                seconds = _run_one(job, out, progress)
                say(f"{job.notebook}  ok  {seconds:.0f} s")
            return _finish(jobs, out)
    except Timeout as error:
        fix = "wait for it, or choose another --out"
        raise LabError("another run is writing here", where=out, fix=fix) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fix = "free some space and run the same command again: it does only what is missing"
        raise LabError("the disk is full", where=out, fix=fix) from error


def is_done(job: Job, out: Path) -> bool:
    """Whether ``out`` holds this very job, executed to its end."""
    record = out / "done" / f"{job.notebook}.json"
    if not (record.is_file() and (out / f"{job.notebook}.ipynb").is_file()):
        return False
    stored = json.loads(record.read_text(encoding="utf-8"))
    return {key: stored[key] for key in job.record} == job.record


def _run_one(job: Job, out: Path, progress: Callable[[str, int, int], None]) -> float:
    work = Path(tempfile.mkdtemp(prefix="work-", dir=out))
    (out / "done" / f"{job.notebook}.json").unlink(missing_ok=True)
    executed, reached = work / "executed.ipynb", work / "reached"
    book = nbformat.read(job.path, as_version=4)
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in book.cells)
    begun: list[str] = []

    def begin(cell: NotebookNode, cell_index: int) -> None:
        if not _OURS & set(cell.metadata.get("tags", ())):
            begun.append(cell.source)
            progress(job.notebook, len(begun), cells)

    # the one proof that all cells ran, also when one of them left by sys.exit(0), which papermill
    # calls a success: the kernel itself makes this file
    proof = f"open({str(reached.resolve())!r}, 'x').close()"
    book.cells.append(nbformat.v4.new_code_cell(proof, metadata={"tags": [_LAST]}))
    started, error = time.monotonic(), ""
    try:
        papermill.execute_notebook(
            book,
            str(executed),
            parameters=job.parameters,
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            on_cell_execute=begin,  # nbclient's; metadata cannot tell where a kernel died
            extra_arguments=["--IPKernelApp.log_level=40"],  # its warnings are not the reader's
        )
    except papermill.PapermillExecutionError as raised:
        error = f"{raised.ename}: {raised.evalue}"
    except UnicodeEncodeError:  # of a path, by the locale: nothing that can be mended in a cell
        raise
    except Exception as raised:  # a dead kernel, a full disk: said in one line, as the others
        error = f"{type(raised).__name__}: {raised}"
    if error or not reached.is_file():
        error = error or "the notebook ended, but did not reach its last cell"
        raise _failure(job, out, executed, error, begun, cells)
    seconds = time.monotonic() - started
    book = nbformat.read(executed, as_version=4)
    book.cells = [cell for cell in book.cells if _LAST not in cell.metadata.get("tags", ())]
    nbformat.write(book, executed)
    executed.replace(out / f"{job.notebook}.ipynb")
    write_json(out / "done" / f"{job.notebook}.json", {**job.record, "seconds": round(seconds, 1)})
    shutil.rmtree(work)
    return seconds


def _failure(
    job: Job, out: Path, executed: Path, error: str, begun: list[str], cells: int
) -> NotebookFailed:
    """Name notebook, cell and error; keep what was executed as ``NAME.failed.ipynb``."""
    fix = "mend it and run the same command again: it does only what is missing"
    if executed.is_file():
        executed.replace(out / f"{job.notebook}.failed.ipynb")
        fix += f"; what ran so far is in {out / job.notebook}.failed.ipynb"
    fix += _foreign_kernel()
    where = job.notebook
    if begun:
        line = begun[-1].strip().splitlines()[0][:60]
        where += f", code cell {len(begun)} of {cells} ({line})"
    return NotebookFailed(error, where=where, fix=fix)


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


def _finish(jobs: list[Job], out: Path) -> Path:
    """Write the report and, last, the manifest, unless this very run was complete before."""
    manifest = out / "manifest.json"
    done = [
        json.loads((out / "done" / f"{job.notebook}.json").read_text(encoding="utf-8"))
        for job in jobs
    ]
    if manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8"))["notebooks"] == done:
        return manifest
    write_report([out / f"{job.notebook}.ipynb" for job in jobs], out / "report.html", jobs[0].path)
    profile = jobs[0].parameters["profile"]
    made = {"profile": profile, "notebooks": done, "report": "report.html"}
    write_json(manifest, {**made, **provenance()})
    return manifest
