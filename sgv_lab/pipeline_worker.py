"""The process that runs one notebook for the pipeline: ``python -m sgv_lab.pipeline_worker TASK``.

Standard output carries one JSON line for each code cell begun and, on failure, one for the error.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

_LAST = "sgv-lab-last-cell"


def _say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


class _Engine(NBClientEngine):
    """Papermill's own engine, saying which cell begins; metadata cannot tell after a crash."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **kwargs: Any
    ) -> None:
        begin = nb_man.cell_start
        own = [cell for cell in nb_man.nb.cells if _is_own_code(cell)]

        def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
            if _is_own_code(cell):
                line = (cell.source.strip().splitlines() or [""])[0][:60]
                _say(cell=own.index(cell) + 1, cells=len(own), line=line)
            begin(cell, cell_index, **more)

        nb_man.cell_start = cell_start
        super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


def _is_own_code(cell: Any) -> bool:
    tags = set(cell.metadata.get("tags", ()))
    return cell.cell_type == "code" and not tags & {"injected-parameters", _LAST}


def execute(task: dict[str, Any]) -> None:
    """Run ``task["path"]`` with ``task["parameters"]`` into ``task["executed"]``.

    A last cell makes the file ``task["reached"]`` from inside the kernel: the one proof that all
    cells ran, also when one of them left by ``sys.exit(0)``, which papermill calls a success.
    """
    notebook = nbformat.read(task["path"], as_version=4)
    source = f"open({task['reached']!r}, 'x').close()"
    notebook.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": [_LAST]}))
    papermill_engines.register("sgv-lab", _Engine)
    papermill.execute_notebook(
        notebook,
        task["executed"],
        parameters=task["parameters"],
        engine_name="sgv-lab",
        kernel_name="python3",
        language="python",
        progress_bar=False,
    )
    executed = nbformat.read(task["executed"], as_version=4)
    executed.cells = [c for c in executed.cells if _LAST not in c.metadata.get("tags", ())]
    nbformat.write(executed, task["executed"])


def _end_with_parent() -> None:
    """Leave when the pipeline dies, however it dies: its end of our standard input closes."""
    sys.stdin.read()
    os._exit(1)


def main() -> int:
    """Run the task in the file named by the first argument; 0 if papermill was content."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        execute(json.loads(Path(sys.argv[1]).read_text()))
    except papermill.PapermillExecutionError as error:
        _say(error=f"{error.ename}: {error.evalue}")
        return 1
    except Exception as error:  # a dead kernel, a full disk: said in one line, as the others
        _say(error=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
