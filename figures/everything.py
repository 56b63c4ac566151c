"""Every figure and table of the study that the results allow, or those that are named.

python -m figures
python -m figures profile ablation_cuts
python -m figures --store results/results.sqlite --out results/figures

Each is also a script of its own: ``python -m figures.profile``.
Figures whose results are missing are named and left out; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from figures import (
    ablation_branching,
    ablation_cuts,
    ablation_relaxation,
    branching,
    graphs,
    images,
    monotonicity,
    pareto,
    profile,
    radius,
    relaxation_sweeps,
    relaxations,
    solver_swap,
    tiny_cnn,
    tiny_depth,
    tiny_width,
    traces,
)
from figures.style import OUT, STORE, Settings
from lipcompare.errors import LipcompareError, nearest

DRAWS: dict[str, Callable[[Settings], Iterable[Path]]] = {
    m.__name__.partition(".")[2]: m.draw
    for m in (
        tiny_width, tiny_depth, tiny_cnn, radius, ablation_relaxation, ablation_cuts, ablation_branching, pareto,
        profile, images, traces, relaxations, graphs, monotonicity, solver_swap, branching, relaxation_sweeps,
    )
}  # fmt: skip
"""By name."""


def main(arguments: list[str] | None = None) -> int:
    """Draw all; 1 if some results were missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=STORE, help="results store (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures (default: %(default)s)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRAWS)} (default: all)")
    chosen = parser.parse_args(arguments)
    unknown = next((name for name in chosen.names if name not in DRAWS), None)
    if unknown is not None:
        print(f"Error: Unknown figure {unknown!r}.{nearest(unknown, DRAWS)}", file=sys.stderr)
        return 2
    missing = []
    for name in chosen.names or DRAWS:
        draw = DRAWS[name]
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
