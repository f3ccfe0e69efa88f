"""One self-contained HTML page of executed notebooks: figures inline, code folded, no network."""

import re
from html import escape
from itertools import pairwise
from pathlib import Path
from posixpath import normpath

import nbformat
from jinja2 import FileSystemLoader
from nbconvert import HTMLExporter

from sgv_lab.files import atomic

_IMAGE = re.compile(r"(!\[[^\]]*\]\()(?!\w+:|/)([^)\s]+)")  # in markdown, by a relative path
_HEADING = re.compile(r"^#+ *(.*?)\s*$", re.MULTILINE)
_OPEN = "## What to take away"
_WIDGET = "application/vnd.jupyter.widget-view+json"  # a bar or page that is dead without a kernel


def write_report(executed: list[Path], out: Path, source: Path, summary: str = "") -> None:
    """Write the ``executed`` notebooks as one page, a list of contents beside it.

    ``summary``: markdown that comes first. Images that markdown cells refer to are found relative
    to ``source``, a notebook. Code that shows nothing stays in the notebooks; most sections are
    folded, and open for print.
    """
    book = nbformat.v4.new_notebook()
    contents = []
    parts = [(path.stem, nbformat.read(path, as_version=4)) for path in executed]
    if summary:
        cell = nbformat.v4.new_markdown_cell(summary)
        parts.insert(0, ("summary", nbformat.v4.new_notebook(cells=[cell])))
    for name, notebook in parts:
        book.metadata = notebook.metadata
        texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        heading = _HEADING.search("\n".join(texts))
        contents.append(f'<a href="#{name}">{escape(heading[1] if heading else name)}</a>')
        book.cells.append(nbformat.v4.new_markdown_cell(f'<a id="{name}"></a>'))
        for number, cell in enumerate(_folded(list(filter(_shows, notebook.cells)))):
            cell["id"] = f"{name}-{number}"
            if cell.cell_type == "markdown":  # nbconvert embeds nothing from outside its folder
                cell.source = _IMAGE.sub(
                    lambda m: m[1] + normpath(f"{source.parent.name}/{m[2]}"), cell.source
                )
            book.cells.append(cell)
    book.metadata.pop("widgets", None)
    exporter = HTMLExporter(
        extra_loaders=[FileSystemLoader(Path(__file__).parent)],
        template_file="report.html.jinja",
        embed_images=True,
        exclude_anchor_links=True,
    )
    resources = {"metadata": {"name": "sgv-lab", "path": str(source.parent.parent)}}
    resources["contents"] = "<br>".join(contents)
    page, _ = exporter.from_notebook_node(book, resources=resources)
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shows(cell: nbformat.NotebookNode) -> bool:
    """Whether a reader sees anything of a cell, once dead widgets and noise are taken out."""
    if cell.cell_type != "code":
        return True
    cell.outputs = [
        one
        for one in cell.outputs
        if _WIDGET not in one.get("data", {}) and one.get("name") != "stderr"
    ]
    return bool(cell.outputs)


def _folded(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """A notebook's cells, with all sections marked to be folded but two.

    What stays open is the first with a figure, and what to take away.
    """
    starts, seen = [n for n, cell in enumerate(cells) if cell.source.startswith("## ")], False
    for start, end in pairwise([*starts, len(cells)]):
        heading, _, rest = cells[start].source.partition("\n")
        outputs = [one for cell in cells[start:end] for one in cell.get("outputs", ())]
        first = not seen and any("image/png" in one.get("data", {}) for one in outputs)
        seen = seen or first
        if not first and heading != _OPEN:
            cells[start].metadata["folds"] = escape(heading.removeprefix("## "))
            cells[start].source = rest
            cells[end - 1].metadata["ends"] = True
    return cells
