"""Every figure and table of the study that the results allow.

python -m figures.everything
python -m figures.everything --store results/results.sqlite --out results/figures

Figures whose results are missing are named and left out; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from figures import (
    ablations,
    branching,
    graphs,
    images,
    monotonicity,
    pareto,
    relaxation_sweeps,
    relaxations,
    solver_swap,
    sweeps,
    traces,
)
from figures.style import OUT, STORE, Settings
from lipcompare.errors import LipcompareError

DRAWS: dict[str, Callable[[Settings], Iterable[Path]]] = {
    **sweeps.DRAWS,
    **{
        m.__name__.partition(".")[2]: m.draw
        for m in (
            images, ablations, pareto, traces, relaxations, graphs, monotonicity, solver_swap, branching,
            relaxation_sweeps,
        )
    },
}  # fmt: skip
"""By name."""


def main(arguments: list[str] | None = None) -> int:
    """Draw all; 1 if some results were missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=STORE, help="results store (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    missing = []
    for name, draw in DRAWS.items():
        try:
            count = len(list(draw(Settings(chosen.store, chosen.out))))
        except LipcompareError as error:
            missing.append(name)
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {count} files")
    print(f"Figures and tables are in {chosen.out}." + (f" Missing: {', '.join(missing)}." if missing else ""))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
