"""What else people ask: certified radii, norms of all outputs together, the whole space, and which exact method.

    python -m experiments.questions [--only radius,norms,exact,everywhere,monotone]
        [--cases mlp3_w16@0.1,mlp_d2_w32@0.1] [--full --reference DIR --data-root DIR]

Every cell runs on one thread in float64, is a row of the results store (study ``questions``), and is printed with the
seconds of the processor that it took: the median of three runs, of what takes over two seconds one. Values
are ours only.

``radius``: certified radii in l_inf, of a network on digits; with --reference of public networks for MNIST, which lie
beside the reference networks, and the first three test images. ``norms``: operator norms of the Jacobian of all
outputs, of random networks, one of them of LipBaB's shape 10-30-30-30-3 on [0, 0.1]^10; with --reference of trained
ones too.
``exact``: ``exact`` beside the methods that it picks from, all of them in turns on every case, and the largest ratio of
its time to that of the best of them. ``everywhere``: constants on R^n, of tiny networks, where all patterns are tried
by another linear program, and of networks trained on tables, with ReLU and GroupSort. ``monotone``: the shares of
``experiments.monotonicity`` that bounds leave undecided, with and without halving of boxes. Where a figure is aimed at,
whether it was kept is printed too. Ends with 1 if a value contradicts another.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import measured, monotonicity
from experiments.measured import Build, Measured
from experiments.questions import PARTS, check, norms, radius
from experiments.questions.cells import NAME, verdict
from experiments.questions.exact import ratios
from experiments.study import Choices, add_options, choices, guarded, progress_console
from lipcompare.errors import InvalidInput, nearest
from lipcompare.store.database import Store

VERDICTS: dict[str, Callable[[pd.DataFrame], Iterable[str]]] = {"radius": radius.verdicts, "norms": norms.verdicts}
"""What rows say of the figures that a question is measured by."""
MONOTONE = "monotone"
"""The study of monotonicity, which has a program of its own."""
SLOWEST = 1.3
"""What ``exact`` should not take more than, in times of the best method."""


def show(chosen: Choices, parts: Sequence[str], console: Console) -> None:
    """What the store has, a table per question."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME)
    for part in parts:
        if part == MONOTONE:
            with Store(chosen.store, read_only=True) as store:
                console.print(monotonicity.shares(store.frame(monotonicity.NAME)), soft_wrap=True)
            continue
        table = Table("case", "p", "method", "seconds", "result", title=part, title_justify="left")
        rows = frame[(frame["label.question"] == part) & frame["status"].notna()]
        for _, row in rows.iterrows():
            norm = row.get("label.norm")
            case, p = str(row["label.case"]), norm if isinstance(norm, str) else "inf"
            seconds = row["seconds"]
            table.add_row(case, p, row["series"], f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.4f}", _said(row))
        console.print(table)
        for line in VERDICTS.get(part, lambda frame: [])(rows):
            console.print(line, soft_wrap=True)
        if part == "exact" and len(found := ratios(rows)):
            _show_ratios(found, console)


def _show_ratios(found: pd.DataFrame, console: Console) -> None:
    """A line per case, and the largest ratio."""
    table = Table("case", "p", "exact, s", "best, s", "by", "ratio", title_justify="left")
    for row in found.itertuples():
        ends = (f"{row.seconds:.3f}", f"{row.best_seconds:.3f}")
        table.add_row(row.case, row.norm, *ends, row.best, f"{row.ratio:.2f}")
    console.print(table)
    worst, late = found.loc[found["ratio"].idxmax()], int((found["ratio"] > SLOWEST).sum())
    console.print(
        f"exact takes at most {worst['ratio']:.2f} times as long as the best method ({worst['case']}, p = "
        f"{worst['norm']}); more than {SLOWEST} times in {late} of {len(found)} cases: {verdict(not late)}"
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


def _some(build: Build, cases: str) -> Build:
    """The cases of a question that were asked for, separated by commas; all of them where none is named.

    Raises:
        InvalidInput: it has none of them.
    """
    names = {name for name in cases.split(",") if name}

    def built(chosen: Choices, console: Console) -> Measured:
        whole = build(chosen, console)
        tasks = [task for task in whole.study.tasks if not names or str(task.labels.get("case")) in names]
        if not tasks:
            raise InvalidInput(f"No case is called {cases}: the tables name them.")
        return dataclasses.replace(whole, study=dataclasses.replace(whole.study, tasks=tasks))

    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what the store lacks and print it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    builds = {**PARTS, MONOTONE: monotonicity.build}
    parser.add_argument("--only", default=",".join(builds), help="questions, separated by commas (default: all)")
    parser.add_argument("--cases", default="", help="their cases, as the tables name them (default: all)")
    given = parser.parse_args(arguments)
    console = progress_console()

    def work() -> int:
        chosen, parts = choices(given), given.only.split(",")
        for part in parts:
            if part not in builds:
                raise InvalidInput(f"Unknown question {part!r}.{nearest(part, builds)}")
        for part in parts:
            if measured.compute(_some(builds[part], given.cases), chosen, console):
                return 130
        show(chosen, parts, Console())
        wrong = monotonicity.check(chosen, console) if MONOTONE in parts else 0
        return check(chosen, console) or wrong

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
