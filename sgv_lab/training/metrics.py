"""What a run shows while it runs: metrics.jsonl, a bar, and in notebooks a live loss curve."""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from tqdm.auto import tqdm
from transformers.utils import is_in_notebook

from sgv_lab.errors import LabError
from sgv_lab.files import Journal, write_jsonl
from sgv_lab.training.config import Machine

REDRAW_SECONDS = 1.0
LAST = 20  # steps that speed and time left are told by


@dataclass
class Metrics:
    """The record of a run, one row a step: a file, and a bar that tells speed, memory, cost.

    In a notebook the loss curve is redrawn in place, too. Rows past a resumed step are dropped.
    """

    path: Path
    start: int  # the step that the run goes on from
    steps: int
    run: Machine
    processes: PartialState
    config: dict[str, Any]  # what trackers tell runs apart by

    def __post_init__(self) -> None:
        self.journal, self.rows = Journal(self.path), []
        self.main = self.processes.is_main_process
        self.on_gpu = self.processes.device.type == "cuda"
        self.curve, self.drawn, self.trackers = None, 0.0, None

    def __enter__(self) -> "Metrics":
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()  # a study's worker trains many models
        if self.main:
            self.rows = [row for row in self.journal.read() if row["step"] <= self.start]
            write_jsonl(self.path, self.rows)
        if names := [name for name in self.run.report_to.split(",") if name]:
            self._report(names)
        shown = self.run.progress and self.main
        self.restart_clock()
        self.bar = tqdm(total=self.steps, initial=self.start, disable=not shown, unit="step")
        if shown and is_in_notebook():
            from IPython.display import display

            self.curve = display(display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.curve is not None and self.rows:
            self._draw()
        self.bar.close()
        if self.trackers:
            self.trackers.end_training()

    def _report(self, names: list[str]) -> None:
        """Open the trackers; LabError for a name that is none, and for one not installed."""
        try:
            self.trackers = Accelerator(log_with=names, project_dir=self.path.parent)
        except ValueError as error:
            raise LabError(str(error), where="--report-to") from error
        known = {str(getattr(one, "value", one)) for one in self.trackers.log_with}
        if lacking := sorted({*names} - known):
            what, fix = f"{lacking[0]} is not installed", f"pip install {lacking[0]}"
            raise LabError(what, where="--report-to", fix=fix)
        self.trackers.init_trackers("sgv-lab", self.config)

    def restart_clock(self) -> None:
        """Let the next step begin now: what came since the last one was none of training's."""
        self.clock = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Write a step's row, at once; move the bar; redraw the curve at most once a second."""
        if not self.main:
            return
        seconds = time.monotonic() - self.clock
        row = {**row, "seconds": seconds, "samples_per_second": row["samples"] / seconds}
        self.restart_clock()
        self.rows.append(row)
        self.journal.append([row], sync=False)
        if self.trackers:
            self.trackers.log(row, step=row["step"])
        self.bar.update()
        if not self.bar.disable:
            rate = f"{row['learning_rate']:.1e}"
            self.bar.set_postfix(loss=f"{row['loss']:.3f}", lr=rate, **self._speed())
        if self.curve is not None and time.monotonic() - self.drawn > REDRAW_SECONDS:
            self._draw()

    def _speed(self) -> dict[str, str]:
        """Tokens a second of all devices, peak memory, the cost so far and in the end."""
        last = self.rows[-LAST:]
        speed = sum(row["tokens"] for row in last) / sum(row["seconds"] for row in last)
        memory = f"{peak_bytes(self.on_gpu) / 1e9:.1f} GB"
        found = {"tokens/s": f"{speed:,.0f}", "memory": memory}
        if self.run.price:
            spent = sum(row["seconds"] for row in self.rows)
            rate = self.run.price * self.processes.num_processes / 3600
            found["cost"] = f"{rate * spent:,.2f} of {rate * (spent + self._left()):,.2f}"
        return found

    def _left(self) -> float:
        """Seconds to the end, at the pace of the last steps."""
        last = self.rows[-LAST:]
        return (self.steps - self.rows[-1]["step"]) * sum(r["seconds"] for r in last) / len(last)

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([r["step"] for r in self.rows], [r["loss"] for r in self.rows], linewidth=1)
        axes.set(xlabel=f"step of {self.steps}", ylabel="loss per supervised token")
        words = [f"{what} {value}" for what, value in self._speed().items()]
        left = tqdm.format_interval(self._left())
        axes.set_title(" · ".join([*words, f"{left} left"]), fontsize=9)
        self.curve.update(figure)
        self.drawn = time.monotonic()


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut off by a kill is left out."""
    return Journal(path).read()


def peak_bytes(on_gpu: bool) -> int:
    """The most memory this process has held: of the GPU, or of the machine."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
