"""The checker stays small enough to be read: under 1,000 lines of code, and it needs numpy alone."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

import lipverify

FILES = sorted(Path(lipverify.__file__).parent.glob("*.py"))
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def code_lines(text: str) -> int:
    """Lines that are neither blank nor a comment nor part of a docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for t in tokens if t.type not in _LAYOUT for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_it_is_read_in_an_hour() -> None:
    assert code_lines('"""Doc."""\n\n# why\nx = (1,\n     2)\n') == 2
    assert sum(code_lines(path.read_text()) for path in FILES) < 1000


def test_it_imports_numpy_alone() -> None:
    wanted = {"lipverify", "numpy", "flint", *sys.stdlib_module_names}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= wanted, path
