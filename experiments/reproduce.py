"""The whole study: every experiment into one results store, resumable at any point.

python -m experiments.reproduce --jobs 2
python -m experiments.reproduce --full --jobs 8 --data-root ../shared/data --store results/full/results.sqlite

By default at reduced sizes, in minutes and without any file; --full takes the paper's sizes and limits, hours.
``make reproduce`` and ``make reproduce-full`` draw the figures and write the report afterwards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments import (
    ablations,
    branching,
    images,
    measured,
    monotonicity,
    questions,
    relaxations,
    solver_swap,
    study,
    sweeps,
)
from lipcompare.study.run import Study

PARTS = (sweeps, ablations, images, relaxations, branching)
MEASURED = (
    (monotonicity.build, monotonicity.check),
    (solver_swap.build, solver_swap.check),
    *((part, questions.check) for part in questions.PARTS.values()),
)
"""Studies of methods, and experiments whose cells are something else."""


def everything(chosen: study.Choices, console: Console) -> Sequence[Study]:
    """All studies; cells that several share are computed once."""
    return [made for part in PARTS for made in part.studies(chosen, console)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the store and the folder lack; 130 if it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    study.add_options(parser)
    given = parser.parse_args(arguments)
    console = study.progress_console()

    def work() -> int:
        chosen = study.choices(given)
        if study.compute(everything, chosen, given, console):
            return 130
        for build, check in MEASURED:
            if measured.compute(build, chosen, console):
                return 130
            if code := check(chosen, console):
                return code
        return 0

    return study.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
