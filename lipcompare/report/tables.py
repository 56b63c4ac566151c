"""Tables of a results store: a row per method, a pair of columns (value, seconds) per group, the best value marked."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lipcompare.display.frames import two_digits
from lipcompare.display.style import ordered
from lipcompare.report.facts import CUT_SHORT, RAN
from lipcompare.report.templating import render
from lipcompare.rounding import lower_text, upper_text
from lipcompare.store.export import csv_cell

WIDEST = 8
"""Columns side by side; more groups of them go into further blocks below, so that a table fits a page."""

_WORDS = {
    "unsupported": "n/a",
    "unavailable": "not here",
    "licence_too_small": "licence",
    "out_of_memory": "memory",
    "crashed": "crashed",
    "time_limit": "time out",
    "pending": "pending",
}
_MEANINGS = {
    "≥": "a lower bound",
    "†": "cut short by its limits",
    "n/a": "the method does not apply to this network",
    "time out": "no bound within the time limit",
    "memory": "no bound within the memory limit",
    "not here": "a solver that is not installed",
    "licence": "more than the solver's licence allows",
    "crashed": "the method failed",
    "pending": "not computed yet",
}
"""What the notes under a table say of the words and signs in it."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that knows how to be written down.

    Attributes:
        groups: headings over groups of columns.
        rows: name of the row and its cells, one per group and column.
        note: what the numbers are.
        columns: their headings within every group.
        corner: what the rows are.
    """

    caption: str
    groups: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str
    columns: Sequence[str] = ("value", "s")
    corner: str = "method"

    def blocks(self) -> list[Table]:
        """The table cut into parts of at most ``WIDEST`` columns, as equal as they can be."""
        wide = len(self.columns)
        count = max(1, -(-len(self.groups) // max(1, WIDEST // wide)))
        size = -(-len(self.groups) // count)
        return [
            dataclasses.replace(
                self,
                groups=self.groups[k : k + size],
                rows=[(name, cells[k * wide : (k + size) * wide]) for name, cells in self.rows],
            )
            for k in range(0, max(len(self.groups), 1), size or 1)
        ]

    def markdown(self) -> str:
        """A title, a table per block, and the note."""
        parts = [f"**{self.caption}**", *(block._markdown_block() for block in self.blocks()), self.note]
        return "\n\n".join(parts) + "\n"

    def _markdown_block(self) -> str:
        heads = [self.corner, *(f"{g} {what}" for g in self.groups for what in self.columns)]
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
        lines += [[name, *(f"**{c.text}**" if c.best else c.text for c in cells)] for name, cells in self.rows]
        return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)

    def latex(self) -> str:
        """With booktabs: ``\\usepackage{booktabs}``; the blocks stand below each other."""
        tabulars = "\\par\\medskip\n".join(block._latex_block() for block in self.blocks())
        return (
            "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\\small\n"
            f"\\caption{{{_tex(self.caption)}. {_tex(self.note)}}}\n{tabulars}\\end{{table}}\n"
        )

    def _latex_block(self) -> str:
        count, wide = len(self.groups), len(self.columns)
        rules = " ".join(f"\\cmidrule(lr){{{wide * k + 2}-{wide * (k + 1) + 1}}}" for k in range(count))
        heads = " & ".join(f"\\multicolumn{{{wide}}}{{c}}{{{_tex(g)}}}" for g in self.groups)
        columns = "".join(f" & {_tex(what)}" for what in self.columns)
        body = [
            " & ".join([_tex(name), *(f"\\textbf{{{_tex(c.text)}}}" if c.best else _tex(c.text) for c in cells)])
            for name, cells in self.rows
        ]
        lines = [
            f"\\begin{{tabular}}{{l{'r' * wide * count}}}", "\\toprule",
            f" & {heads} \\\\", rules,
            _tex(self.corner) + columns * count + " \\\\", "\\midrule",
            *(f"{line} \\\\" for line in body),
            "\\bottomrule", "\\end{tabular}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """A column ``best`` after each group names the columns whose value is the best one."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        heads = [self.corner, *(f"{g} {what}" for g in self.groups for what in (*self.columns, "best"))]
        writer.writerow(map(csv_cell, heads))
        for name, cells in self.rows:
            line = [name]
            for k in range(0, len(cells), len(self.columns)):
                group = cells[k : k + len(self.columns)]
                line += [c.text for c in group]
                line.append(" ".join(what for what, c in zip(self.columns, group, strict=True) if c.best))
            writer.writerow(map(csv_cell, line))
        return out.getvalue()

    def html(self) -> str:
        """The blocks below each other, the title above the first and the note below the last."""
        return render("table.html", table=self)

    def save(self, folder: Path, name: str) -> list[Path]:
        """Write NAME.tex, NAME.md and NAME.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        writers: dict[str, Callable[[], str]] = {".tex": self.latex, ".md": self.markdown, ".csv": self.csv}
        paths = []
        for ending, text in writers.items():
            path = folder / f"{name}{ending}"
            path.write_text(text(), encoding="utf-8")
            paths.append(path)
        return paths


def by_group(frame: pd.DataFrame, group: Sequence[str], caption: str, *, heading: str = "{}") -> Table:
    """A row per series; a pair of columns per combination of the ``group`` columns, over whose tasks means are taken.

    Args:
        heading: format of a group's heading, with a place per group column.
    """
    rows = frame.assign(status=frame["status"].fillna("pending"))
    keys = list(dict.fromkeys(rows[list(group)].itertuples(index=False, name=None)))
    names = ordered(list(rows["series"]))
    columns = []
    for key in keys:
        same = rows[(rows[list(group)] == list(key)).all(axis=1)]
        entries = {name: _Entry.of(same[same["series"] == name]) for name in names}
        # A mean over fewer examples than another's is no better for being smaller.
        full = [e.value for e in entries.values() if e.counts and e.complete]
        best = min(full, default=math.nan)
        columns.append({name: entry.cells(best) for name, entry in entries.items()})
    body = [(name, [cell for column in columns for cell in column[name]]) for name in names]
    return Table(caption, [heading.format(*map(_short, key)) for key in keys], body, _note(rows, group, body))


def _note(rows: pd.DataFrame, group: Sequence[str], body: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """What the numbers are, over how many examples and within which limits, and each sign that occurs."""
    counts = sorted(set(rows.groupby(list(group))["task"].nunique()))
    several = counts[-1] > 1
    examples = "-".join(str(c) for c in dict.fromkeys((counts[0], counts[-1])))
    limits = ", ".join(f"{limit:g}" for limit in sorted(rows["time_limit"].dropna().unique()))
    parts = [
        "Value: upper bound on the local Lipschitz constant; s: seconds"
        + (f"; both are means over {examples} problems." if several else ".")
    ]
    if limits:
        parts.append(f"Limit per problem and method: {limits} s.")
    parts.append("Bold: the smallest upper bound.")
    texts = [cell.text for _, cells in body for cell in cells]
    parts += [f"{sign}: {means}." for sign, means in _MEANINGS.items() if any(sign in text for text in texts)]
    if any("/" in text and text not in _MEANINGS for text in texts):
        parts.append("(k/n): only k of n problems gave a bound, and the means are over these.")
    return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A series on a group of examples: means over those that gave a bound."""

    value: float = math.nan
    seconds: float = math.nan
    lower: bool = False
    short: bool = False
    proved: int = 0
    of_all: int = 0
    word: str = "-"

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Entry:
        if rows.empty:
            return cls()
        ran = rows[rows["status"].isin(RAN)]
        upper = ran[ran["upper"].map(math.isfinite)]
        only_lower = upper.empty and bool((ran["lower"] > 0).any())
        proved = ran[ran["lower"] > 0] if only_lower else upper
        if proved.empty:
            worst = rows["status"].value_counts().index[0]
            return cls(of_all=len(rows), word=_WORDS.get(worst, "nothing"))
        value = float((proved["lower"] if only_lower else proved["upper"]).mean())
        short = bool(proved["status"].isin(CUT_SHORT).any())
        return cls(
            value=value,
            seconds=float(proved["seconds"].mean()),
            lower=only_lower,
            short=short,
            proved=len(proved),
            of_all=len(rows),
        )

    @property
    def complete(self) -> bool:
        return self.proved == self.of_all

    @property
    def counts(self) -> bool:
        """Whether it takes part in the comparison of upper bounds."""
        return self.proved > 0 and not self.lower

    def cells(self, best: float) -> tuple[Cell, Cell]:
        if not self.proved:
            return Cell(self.word), Cell("")
        text = f"≥ {lower_text(self.value, 4)}" if self.lower else upper_text(self.value, 4)
        text += "" if self.complete else f" ({self.proved}/{self.of_all})"
        # As good as the best within the gap at which exact methods stop.
        is_best = self.counts and self.complete and self.value <= best * (1 + 1e-4)
        return Cell(text, is_best), Cell(f"{two_digits(self.seconds)}{'†' if self.short else ''}")


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≥": r"$\geq$", "†": r"$\dagger$", "ε": r"$\varepsilon$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)
