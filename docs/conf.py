"""Sphinx: pages in Markdown; those of the methods and the API are made from docstrings."""

from __future__ import annotations

import inspect
from pathlib import Path

from sphinx.application import Sphinx

import lipcompare
from lipcompare.cli.printing.registries import method_json, paragraphs
from lipcompare.methods import METHODS

project, author = "lipcompare", "The lipcompare authors"
copyright = author  # noqa: A001  # Sphinx's name for it
version = release = lipcompare.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "results/figures"]  # whose tables are on the page of results
nb_execution_mode = "force"  # notebooks are kept as text, without outputs
nb_execution_in_temp = True  # where the files go that they write
nb_execution_timeout = 300  # seconds for a cell: an idle machine takes a few
nb_execution_raise_on_error = True
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository, which are no pages
    "ref.python",  # a word in a docstring that is an attribute of two classes
]
html_theme = "alabaster"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_theme_options = {"page_width": "1060px", "description": "Certified local Lipschitz constants"}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_use_ivar = True


def _methods(app: Sphinx) -> None:
    """A page per method: what it proves, how, its options, its reference."""
    folder = Path(app.srcdir) / "methods"
    folder.mkdir(exist_ok=True)
    for name, cls in METHODS.items():
        if not cls.__module__.startswith("lipcompare."):
            continue
        found = method_json(cls)
        facts = f"Proves: {found['proves']}. Norms: {', '.join(found['norms'])}. Reference: {found['reference']}."
        code = f'lipcompare.bound("demo/digits_mlp.npz", "{name}", center=0.5, eps=0.01)'
        lines = [
            f"# {name}: {found['summary']}",
            f"*{facts}*",
            *paragraphs(cls),
            "## Use",
            f"```python\nimport lipcompare\n\nprint({code})\n```",
            f"```console\n$ lipcompare bound MODEL --center 0.5 --eps 0.01 --method {name}\n```",
            "## Options",
        ]
        if found["options"]:
            table = ["| option | default | values | meaning |", "| --- | --- | --- | --- |"]
            table += [
                "| "
                + " | ".join(str(o[k]).replace("|", "\\|") for k in ("name", "default", "values", "meaning"))
                + " |"
                for o in found["options"]
            ]
            lines.append("\n".join(table))
        else:
            lines.append("It has none.")
        source = Path(inspect.getfile(cls)).name
        lines.append(f"The code is `lipcompare/methods/{source}`.")
        text = "\n\n".join(lines) + "\n"
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _results(app: Sphinx, page: str, source: list[str]) -> None:
    """Leave the page of results out of the contents where no study was recorded (``python -m figures.record``)."""
    if page == "index" and not (Path(app.srcdir) / "results" / "index.md").exists():
        source[0] = source[0].replace("results/index\n", "")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _results)
    app.connect("builder-inited", _methods)
