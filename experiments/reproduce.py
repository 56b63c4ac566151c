"""The whole study: every experiment into one results store, resumable at any point.

python -m experiments.reproduce --jobs 2
python -m experiments.reproduce --full --jobs 8 --data-root ../shared/data

By default at reduced sizes, in minutes and without any file; --full takes the paper's sizes and limits, hours.
Then: python -m figures.everything, and lipcompare report results/results.sqlite -o results/report
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from experiments import (
    ablations,
    branching,
    images,
    monotonicity,
    radius,
    solver_swap,
    study,
    tiny_cnn,
    tiny_depth,
    tiny_width,
)
from lipcompare.errors import LipcompareError
from lipcompare.runner import Study

PARTS = (tiny_width, tiny_depth, tiny_cnn, radius, ablations, images)


@dataclasses.dataclass(frozen=True)
class Script:
    """An experiment that writes a CSV file of its own, with its options for a reduced and for a full run."""

    name: str
    main: Callable[[list[str]], int]
    reduced: tuple[str, ...]
    full: tuple[str, ...] = ()


SCRIPTS = (
    Script("solver_swap", solver_swap.main, ("--time-limit", "2"), ("--time-limit", "60")),
    Script("branching", branching.main, ("--time-limit", "4"), ("--time-limit", "60")),
    Script("monotonicity", monotonicity.main, ("--synthetic", "--examples", "20"), ("--examples", "200")),
)


def everything(chosen: study.Choices, console: Console) -> Sequence[Study]:
    """All studies; cells that several share are computed once."""
    return [made for part in PARTS for made in part.studies(chosen, console)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the store and the folder lack; 130 if it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    study.add_options(parser)
    given = parser.parse_args(arguments)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120, highlight=False)
    try:
        if study.compute(everything, study.choices(given), given, console):
            return 130
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    folder: Path = given.store.parent
    for script in SCRIPTS:
        out = folder / f"{script.name}.csv"
        if out.exists():
            console.print(f"{script.name}: {out} is there; delete it to compute it again.")
            continue
        part = out.with_suffix(".part.csv")
        options = [*(script.full if given.full else script.reduced), "--out", str(part)]
        if script.name == "monotonicity":
            options += ["--cache", str(given.cache), *(["--data-root", given.data_root] if given.data_root else [])]
        if code := script.main(options):
            return code
        part.rename(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
