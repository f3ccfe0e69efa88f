"""Files of predictions and questions, as tests write them."""

import json
from pathlib import Path
from typing import Any


def lines(path: Path, rows: list[Any]) -> Path:
    """``path``, with ``rows`` as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """``path``, with ``rows`` as a table."""
    text = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(text) + "\n")
    return path
