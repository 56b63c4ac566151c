"""Tables of a results store: a row per method, a pair of columns (value, seconds) per group, the best value marked."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lipcompare.report_plots import CUT_SHORT, RAN
from lipcompare.report_style import ordered
from lipcompare.rounding import lower_text, upper_text

NOTE = (
    "Mean over the examples of the upper bound on the local Lipschitz constant (of the lower bound where marked with "
    "≥) and of the seconds per example. Bold: the smallest upper bound. †: cut short by its limits. k/n: only k of n "
    "examples gave a bound, and the means are over these. n/a: the method cannot; else the reason."
)

_WORDS = {
    "unsupported": "n/a",
    "unavailable": "not here",
    "licence_too_small": "licence",
    "out_of_memory": "memory",
    "crashed": "crashed",
    "time_limit": "time out",
    "pending": "pending",
}


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
    note: str = NOTE
    columns: Sequence[str] = ("value", "s")
    corner: str = "method"

    def markdown(self) -> str:
        heads = [self.corner, *(f"{g} {what}" for g in self.groups for what in self.columns)]
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
        lines += [[name, *(f"**{c.text}**" if c.best else c.text for c in cells)] for name, cells in self.rows]
        body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        return f"**{self.caption}**\n\n{body}\n\n{self.note}\n"

    def latex(self) -> str:
        """With booktabs: ``\\usepackage{booktabs}``."""
        count, wide = len(self.groups), len(self.columns)
        rules = " ".join(f"\\cmidrule(lr){{{wide * k + 2}-{wide * (k + 1) + 1}}}" for k in range(count))
        heads = " & ".join(f"\\multicolumn{{{wide}}}{{c}}{{{_tex(g)}}}" for g in self.groups)
        columns = "".join(f" & {_tex(what)}" for what in self.columns)
        body = [
            " & ".join([_tex(name), *(f"\\textbf{{{_tex(c.text)}}}" if c.best else _tex(c.text) for c in cells)])
            for name, cells in self.rows
        ]
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}", "\\centering",
            f"\\caption{{{_tex(self.caption)}. {_tex(self.note)}}}",
            f"\\begin{{tabular}}{{l{'r' * wide * count}}}", "\\toprule",
            f" & {heads} \\\\", rules,
            _tex(self.corner) + columns * count + " \\\\", "\\midrule",
            *(f"{line} \\\\" for line in body),
            "\\bottomrule", "\\end{tabular}", "\\end{table}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """A column ``best`` after each group names the columns whose value is the best one."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([self.corner, *(f"{g} {what}" for g in self.groups for what in (*self.columns, "best"))])
        for name, cells in self.rows:
            line = [name]
            for k in range(0, len(cells), len(self.columns)):
                group = cells[k : k + len(self.columns)]
                line += [c.text for c in group]
                line.append(" ".join(what for what, c in zip(self.columns, group, strict=True) if c.best))
            writer.writerow(line)
        return out.getvalue()

    def html(self) -> str:
        heads = "".join(f'<th colspan="{len(self.columns)}">{html.escape(g)}</th>' for g in self.groups)
        units = "".join(f'<th scope="col">{html.escape(what)}</th>' for what in self.columns) * len(self.groups)
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            + "".join(
                f"<td>{'<b>' if c.best else ''}{html.escape(c.text)}{'</b>' if c.best else ''}</td>" for c in cells
            )
            + "</tr>"
            for name, cells in self.rows
        )
        return (
            f"<table><caption>{html.escape(self.caption)}</caption><thead><tr><th></th>{heads}</tr>"
            f'<tr><th class="corner">{html.escape(self.corner)}</th>{units}</tr></thead><tbody>{body}</tbody></table>'
            f'<p class="note">{html.escape(self.note)}</p>'
        )

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
        here = rows[(rows[list(group)] == list(key)).all(axis=1)]
        entries = {name: _Entry.of(here[here["series"] == name]) for name in names}
        # A mean over fewer examples than another's is no better for being smaller.
        full = [e.value for e in entries.values() if e.counts and e.complete]
        best = min(full, default=math.nan)
        columns.append({name: entry.cells(best) for name, entry in entries.items()})
    body = [(name, [cell for column in columns for cell in column[name]]) for name in names]
    return Table(caption, [heading.format(*map(_short, key)) for key in keys], body)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A series on a group of examples: means over those that gave a bound."""

    value: float = math.nan
    seconds: float = math.nan
    lower: bool = False
    short: bool = False
    known: int = 0
    of_all: int = 0
    word: str = "-"

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Entry:
        if rows.empty:
            return cls()
        ran = rows[rows["status"].isin(RAN)]
        upper = ran[ran["upper"].map(math.isfinite)]
        only_lower = upper.empty and bool((ran["lower"] > 0).any())
        known = ran[ran["lower"] > 0] if only_lower else upper
        if known.empty:
            worst = rows["status"].value_counts().index[0]
            return cls(of_all=len(rows), word=_WORDS.get(worst, "nothing"))
        value = float((known["lower"] if only_lower else known["upper"]).mean())
        short = bool(known["status"].isin(CUT_SHORT).any())
        return cls(value, float(known["seconds"].mean()), only_lower, short, len(known), len(rows))

    @property
    def complete(self) -> bool:
        return self.known == self.of_all

    @property
    def counts(self) -> bool:
        """Whether it takes part in the comparison of upper bounds."""
        return self.known > 0 and not self.lower

    def cells(self, best: float) -> tuple[Cell, Cell]:
        if not self.known:
            return Cell(self.word), Cell("")
        text = f"≥ {lower_text(self.value, 4)}" if self.lower else upper_text(self.value, 4)
        text += "" if self.complete else f" ({self.known}/{self.of_all})"
        is_best = self.counts and self.complete and self.value <= best * (1 + 1e-4)
        return Cell(text, is_best), Cell(f"{self.seconds:.2g}{'†' if self.short else ''}")


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≥": r"$\geq$", "†": r"$\dagger$", "ε": r"$\varepsilon$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)
