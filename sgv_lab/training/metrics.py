"""What a run shows while it runs: metrics.jsonl, a bar, and in notebooks a live loss curve."""

import json
import time
from pathlib import Path
from typing import Any

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


class Progress(TrainerCallback):
    """A plain bar in a terminal; in a notebook the bar and the loss curve, redrawn in place."""

    def __init__(self, metrics: Path, enabled: bool) -> None:
        self.metrics, self.enabled = metrics, enabled
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
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", lr=f"{logs['learning_rate']:.1e}")
        if self.curve is not None and time.monotonic() - self.drawn > REDRAW_SECONDS:
            self.draw()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the whole curve and close the bar."""
        if self.curve is not None:
            self.draw()
        self.bar.close()

    def draw(self) -> None:
        """Redraw the loss curve from metrics.jsonl."""
        from matplotlib.figure import Figure

        rows = read(self.metrics)
        figure = Figure(figsize=(5, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], linewidth=1)
        axes.set(xlabel="update", ylabel="loss per supervised token")
        self.curve.update(figure)
        self.drawn = time.monotonic()
