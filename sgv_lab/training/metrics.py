"""What a run shows while it runs: metrics.jsonl, a bar, and in notebooks a live loss curve."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.utils import is_in_notebook

from sgv_lab.files import write_jsonl

REDRAW_SECONDS = 1.0
LAST = 20  # updates that speed and time left are told by


class MetricsFile:
    """JSON lines, one per update, flushed at once. Rows past a resumed step are dropped."""

    def __init__(self, path: Path, resume_at: int) -> None:
        self.path = path
        rows = read(path) if path.is_file() else []
        write_jsonl(path, (row for row in rows if row["step"] <= resume_at))

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut off by a kill is left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


def peak_bytes(on_gpu: bool) -> int:
    """The most memory this process has held: of the GPU, or of the machine."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Progress(TrainerCallback):
    """A plain bar in a terminal; in a notebook the bar and the loss curve, redrawn in place.

    Both tell throughput, memory and time left, and, at ``price`` an hour of a device, the cost.
    """

    def __init__(self, enabled: bool, price: float = 0.0) -> None:
        self.enabled, self.price = enabled, price
        self.curve = None
        self.drawn = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        shown = self.enabled and state.is_world_process_zero
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, disable=not shown, unit="update"
        )
        if shown and is_in_notebook():
            from IPython.display import display

            self.curve = display(display_id=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict, **kwargs: Any) -> None:
        """Move the bar; redraw the curve at most once a second."""
        if "loss" not in logs:
            return
        self.bar.update(state.global_step - self.bar.n)
        if not self.bar.disable:
            self.bar.set_postfix(
                loss=f"{logs['loss']:.3f}",
                lr=f"{logs['learning_rate']:.1e}",
                **self._told(args, _updates(state)),
            )
        if self.curve is not None and time.monotonic() - self.drawn > REDRAW_SECONDS:
            self.draw(args, _updates(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the whole curve and close the bar."""
        if self.curve is not None:
            self.draw(args, _updates(state))
        self.bar.close()

    def _told(self, args: Any, rows: list[dict[str, Any]]) -> dict[str, str]:
        """Speed of all devices, by the last updates; memory; the cost so far and in the end."""
        last = rows[-LAST:]
        speed = sum(row["tokens"] for row in last) / sum(row["seconds"] for row in last)
        told = {
            "tokens/s": f"{speed:,.0f}",
            "memory": f"{peak_bytes(args.device.type == 'cuda') / 1e9:.1f} GB",
        }
        if self.price:
            spent, left = sum(row["seconds"] for row in rows), _seconds_left(args, rows)
            cost = [self.price * args.world_size * t / 3600 for t in (spent, spent + left)]
            told["cost"] = "{:,.2f} of {:,.2f}".format(*cost)
        return told

    def draw(self, args: Any, rows: list[dict[str, Any]]) -> None:
        """Redraw the loss curve from what was logged at every update."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], linewidth=1)
        axes.set(xlabel=f"update of {args.max_steps}", ylabel="loss per supervised token")
        told = [f"{what} {value}" for what, value in self._told(args, rows).items()]
        left = tqdm.format_interval(_seconds_left(args, rows))
        axes.set_title(" · ".join([*told, f"{left} left"]), fontsize=9)
        self.curve.update(figure)
        self.drawn = time.monotonic()


def _updates(state: Any) -> list[dict[str, Any]]:
    """What the trainer logged at every update, those before a resume too."""
    return [row for row in state.log_history if "loss" in row]


def _seconds_left(args: Any, rows: list[dict[str, Any]]) -> float:
    last = rows[-LAST:]
    pace = sum(row["seconds"] for row in last) / len(last)
    return (args.max_steps - rows[-1]["step"]) * pace
