"""One self-contained HTML page of executed notebooks: figures inline, code folded, no network."""

import re
from pathlib import Path
from posixpath import normpath

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

from sgv_lab.files import atomic

_PICTURE = re.compile(r"(!\[[^\]]*\]\()(?!\w+:|/)([^)\s]+)")  # in markdown, by a relative path
# nbconvert's page without what it loads from the network, and with code to be unfolded by a click
_PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block input_group %}<details><summary>code</summary>{{ super() }}</details>{% endblock %}
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
            if cell.cell_type == "markdown":  # nbconvert embeds nothing from outside its folder
                cell.source = _PICTURE.sub(
                    lambda m: m[1] + normpath(f"{source.parent.name}/{m[2]}"), cell.source
                )
            book.cells.append(cell)
    book.cells.insert(0, nbformat.v4.new_markdown_cell("\n".join(contents)))
    book.metadata.pop("widgets", None)
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"report.html.j2": _PAGE})],
        template_file="report.html.j2",
        embed_images=True,
        exclude_anchor_links=True,
    )
    resources = {"metadata": {"name": "sgv-lab", "path": str(source.parent.parent)}}
    page, _ = exporter.from_notebook_node(book, resources=resources)
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
