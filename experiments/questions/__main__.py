"""What else people ask: certified radii, norms of all outputs together, the whole space, and which exact method.

    python -m experiments.questions [--only radius,norms,exact,everywhere] [--full --reference DIR --data-root DIR]

Every cell runs on one thread in float64, is a row of the results store (study ``questions``), and is printed with the
seconds of the processor that it took. Values are ours only.

``radius``: certified radii in l_inf, of a network on digits; with --reference of public networks for MNIST, which lie
beside the reference networks, and the first three test images. ``norms``: operator norms of the Jacobian of all
outputs, of random networks, one of them of LipBaB's shape 10-30-30-30-3 on [0, 0.1]^10; with --reference of trained
ones too.
``exact``: ``exact`` beside the methods that it picks from, and the largest ratio of its time to that of the best of
them. ``everywhere``: constants on R^n, of tiny networks, where all patterns are tried by another linear program, and of
networks trained on tables, with ReLU and GroupSort. Ends with 1 if a value contradicts another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import measured
from experiments.questions import PARTS, check
from experiments.questions.cells import NAME
from experiments.questions.exact import ratios
from experiments.study import Choices, add_options, choices, guarded, progress_console
from lipcompare.errors import InvalidInput, nearest
from lipcompare.store.database import Store

SLOWEST = 1.3
"""What ``exact`` should not take more than, in times of the best method."""


def show(chosen: Choices, parts: Sequence[str], console: Console) -> None:
    """What the store has, a table per question."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME)
    for part in parts:
        table = Table("case", "p", "method", "seconds", "result", title=part, title_justify="left")
        rows = frame[(frame["label.question"] == part) & frame["status"].notna()]
        for _, row in rows.iterrows():
            norm = row.get("label.norm")
            case, p = str(row["label.case"]), norm if isinstance(norm, str) else "inf"
            table.add_row(case, p, row["series"], f"{row['seconds']:.2f}", _said(row))
        console.print(table)
        if part == "radius" and len(rows):
            means = rows.groupby(["label.case", "series"])[["seconds", "label.radius"]].agg(["mean", "sum"])
            for (case, method), row in means.iterrows():
                mean, total = row["label.radius", "mean"], row["seconds", "sum"]
                console.print(f"{case}, {method}: mean radius {mean:.6f} in {total:.2f} s")
        if part == "exact" and (found := ratios(frame)):
            worst = max(found, key=lambda task: found[task])
            late = sum(ratio > SLOWEST for ratio in found.values())
            console.print(
                f"exact takes at most {found[worst]:.2f} times as long as the best method ({worst}); "
                f"more than {SLOWEST} times in {late} of {len(found)} cases"
            )


def _said(row: pd.Series) -> str:
    """The result of a row in words."""
    if pd.notna(row.get("label.radius")):
        return f"{row['label.radius']:.6f}"
    if pd.notna(row.get("label.formula")):
        return f"{row['label.formula']:.5g} by the formula"
    low, high = row["lower"], row["upper"]
    ends = f"{low:.5g} to {high:.5g}" if pd.notna(low) and pd.notna(high) else f"at most {high:.5g}"
    if pd.isna(high):
        ends = "nothing proved"
    taken = row.get("label.taken")
    extra = [row["status"], taken if isinstance(taken, str) else ""]
    if pd.notna(row.get("label.missed")):
        extra.append(f"brute force missed by {row['label.missed']:.1e}")
    return ", ".join([ends, *filter(None, extra)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what the store lacks and print it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", default=",".join(PARTS), help="questions, separated by commas (default: all)")
    given = parser.parse_args(arguments)
    console = progress_console()

    def work() -> int:
        chosen, parts = choices(given), given.only.split(",")
        for part in parts:
            if part not in PARTS:
                raise InvalidInput(f"Unknown question {part!r}.{nearest(part, PARTS)}")
        for part in parts:
            if measured.compute(PARTS[part], chosen, console):
                return 130
        show(chosen, parts, Console())
        return check(chosen, console)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
