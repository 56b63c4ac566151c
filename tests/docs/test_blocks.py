"""Every block of Python in the documentation runs, page by page, from top to bottom."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md")
    if path.parent.name not in ("methods", "_build") and path.stem != "study"  # which has tests of its own
    and "```python" in path.read_text()
)  # fmt: skip


def test_the_pages_are_found() -> None:
    assert {"index", "start", "comparing", "certificates", "entries", "radius"} <= {path.stem for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "demo").mkdir()
    np.save(tmp_path / "demo" / "digit.npy", random.random(24))
    weights = {"W0": random.normal(size=(5, 24)), "W1": random.normal(size=(3, 5))}
    np.savez(tmp_path / "demo" / "digits_mlp.npz", b0=np.zeros(5), b1=np.arange(3.0), **weights)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    runpy.run_path(str(script))


def test_links_between_pages_lead_somewhere() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        if path.parent.name in ("methods", "_build"):
            continue
        for target in re.findall(r"\]\(([\w/.-]+\.md)(?:#[\w-]+)?\)", path.read_text()):
            assert (path.parent / target).is_file(), f"{path.name}: {target}"


def test_notebooks_are_run_by_the_build_of_the_documentation() -> None:
    """There, once: ``make docs`` fails where a cell does. A page with cells that is no notebook only shows them."""
    settings = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    assert settings["nb_execution_mode"] == "force" and settings["nb_execution_raise_on_error"]
    pages = [path for path in (ROOT / "docs").rglob("*.md") if "{code-cell}" in path.read_text()]
    assert {path.stem for path in pages} == {"cnn", "twenty"}
    for path in pages:
        assert path.read_text().startswith("---\nfile_format: mystnb\n") and path not in PAGES
