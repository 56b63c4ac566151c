"""Every figure and table of the study that the results allow.

python -m figures.everything
python -m figures.everything --store results/results.sqlite --csv results --out results/figures

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

FROM_STORE: dict[str, Callable[[Settings], Iterable[Path]]] = {
    **sweeps.DRAWS,
    **{m.__name__.partition(".")[2]: m.draw for m in (images, ablations, pareto, traces, relaxations, graphs)},
}
FROM_CSV: dict[str, Callable[[list[str]], int]] = {
    "monotonicity": monotonicity.main,
    "solver_swap": solver_swap.main,
    "branching": branching.main,
    "relaxations": relaxation_sweeps.main,
}
"""By the experiment whose file they read."""


def main(arguments: list[str] | None = None) -> int:
    """Draw all; 1 if some results were missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=STORE, help="results store (default: %(default)s)")
    parser.add_argument(
        "--csv", type=Path, default=STORE.parent, help="folder of the .csv results (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    missing = []
    for name, draw in FROM_STORE.items():
        try:
            count = len(list(draw(Settings(chosen.store, chosen.out))))
        except LipcompareError as error:
            missing.append(name)
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {count} files")
    for name, script in FROM_CSV.items():
        code = script(["--data", str(chosen.csv / f"{name}.csv"), "--out", str(chosen.out)])
        missing += [name] * (code != 0)
    print(f"Figures and tables are in {chosen.out}." + (f" Missing: {', '.join(missing)}." if missing else ""))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
