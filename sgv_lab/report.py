"""One self-contained HTML page of executed notebooks: figures inline, nothing from the network."""

from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

from sgv_lab.files import atomic

# nbconvert's page without what it loads from the network
_PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
"""


def title(notebook: nbformat.NotebookNode, default: str) -> str:
    """The first heading of a notebook."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("#"):
                return line.lstrip("#").strip()
    return default


def write_report(executed: list[Path], out: Path, source: Path) -> None:
    """Write the ``executed`` notebooks as one page with a list of contents.

    Pictures that markdown cells refer to are found relative to ``source``, a notebook.
    """
    book = nbformat.v4.new_notebook()
    contents = ["# Contents"]
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        book.metadata = notebook.metadata
        contents.append(f"- [{title(notebook, path.stem)}](#{path.stem})")
        book.cells.append(nbformat.v4.new_markdown_cell(f'<a id="{path.stem}"></a>'))
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"{path.stem}-{number}"
            book.cells.append(cell)
    book.cells.insert(0, nbformat.v4.new_markdown_cell("\n".join(contents)))
    book.metadata.pop("widgets", None)
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"report.html.j2": _PAGE})],
        template_file="report.html.j2",
        embed_images=True,
        exclude_anchor_links=True,
    )
    resources = {"metadata": {"name": "sgv-lab", "path": str(source.parent)}}
    page, _ = exporter.from_notebook_node(book, resources=resources)
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
