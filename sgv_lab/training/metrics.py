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


class MetricsFile:
    """JSON lines, one per update, flushed at once. Rows past a resumed step are dropped."""

    def __init__(self, path: Path, resume_at: int) -> None:
        self.path = path
        rows = read(path) if path.is_file() else []
        write_jsonl(path, (row for row in rows if row["step"] <= resume_at))

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut off by a kill is left out."""
    rows = []
    for line in Path(path).read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


def peak_bytes(on_gpu: bool) -> int:
    """The most memory this process has held: of the GPU, or of the machine."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def pace(
    rows: list[dict[str, Any]], updates: int, price: float = 0.0, devices: int = 1
) -> dict[str, float]:
    """Where a run of ``updates`` stands, from the rows of its metrics.jsonl.

    tokens_per_second of all devices and hours_left, by the last 20 updates; hours and, at
    ``price`` an hour of one device, cost so far and cost_left.
    """
    last = rows[-20:]
    seconds = sum(row["seconds"] for row in last)
    hours = sum(row["seconds"] for row in rows) / 3600
    left = (updates - rows[-1]["step"]) * seconds / len(last) / 3600
    return {
        "tokens_per_second": sum(row["tokens"] for row in last) / seconds,
        "hours": hours,
        "hours_left": left,
        "cost": hours * price * devices,
        "cost_left": left * price * devices,
    }


class Progress(TrainerCallback):
    """A plain bar in a terminal; in a notebook the bar and the loss curve, redrawn in place.

    Both tell throughput, memory and time left, and, at ``price`` an hour of a device, the cost.
    """

    def __init__(self, metrics: Path, enabled: bool, price: float = 0.0) -> None:
        self.metrics, self.enabled, self.price = metrics, enabled, price
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
                loss=f"{logs['loss']:.3f}", lr=f"{logs['learning_rate']:.1e}", **self._told(args)
            )
        if self.curve is not None and time.monotonic() - self.drawn > REDRAW_SECONDS:
            self.draw(args)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the whole curve and close the bar."""
        if self.curve is not None:
            self.draw(args)
        self.bar.close()

    def _told(self, args: Any) -> dict[str, str]:
        """Speed, memory, and at a price the cost so far and in the end."""
        now = pace(read(self.metrics), args.max_steps, self.price, args.world_size)
        told = {
            "tokens/s": f"{now['tokens_per_second']:,.0f}",
            "memory": f"{peak_bytes(args.device.type == 'cuda') / 1e9:.1f} GB",
        }
        if self.price:
            told["cost"] = f"{now['cost']:,.2f} of {now['cost'] + now['cost_left']:,.2f}"
        return told

    def draw(self, args: Any) -> None:
        """Redraw the loss curve from metrics.jsonl."""
        from matplotlib.figure import Figure

        rows = read(self.metrics)
        figure = Figure(figsize=(5, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], linewidth=1)
        axes.set(xlabel=f"update of {args.max_steps}", ylabel="loss per supervised token")
        left = pace(rows, args.max_steps)["hours_left"] * 3600
        told = [f"{what} {value}" for what, value in self._told(args).items()]
        axes.set_title(" · ".join([*told, f"{tqdm.format_interval(left)} left"]), fontsize=9)
        self.curve.update(figure)
        self.drawn = time.monotonic()
