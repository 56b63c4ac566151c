"""Branch and bound: interval against time, and subdomains to close, for each bound and each splitting heuristic.

python -m experiments.branching
python -m experiments.branching --reference ../shared/reference --time-limit 60

By default the networks are small random ones, made here; --reference takes trained ones. Then:
python -m figures.branching
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

import lipcompare
from experiments.solver_swap import random_network
from experiments.study import Choices, main
from lipcompare import Problem
from lipcompare.branching.cuts import MOST_CUTS
from lipcompare.study.definition import Option
from lipcompare.study.run import Setting, Study, Task

NAME = "branching"
WIDTHS = (12, 20)
EPS = 0.5
TRAINED = (("mlp3_w16", 0.3), ("mlp3_w32", 0.3), ("mlp_d4_w32", 0.1), ("mlp3_w64", 0.1))

_BASE: dict[str, Option] = {"bound": "lbp", "heuristic": "area"}
_OURS: dict[str, Option] = {"bound": "sdp", "cuts": 0}
VARIANTS: dict[str, dict[str, Option]] = {
    "paper: lbp, area, class by class": {**_BASE, "schedule": "classes", "pivots": 0},
    "lbp, area": _BASE,
    "lbp, babsr": {"bound": "lbp", "heuristic": "babsr"},
    "lbp, area, no half-spaces": {**_BASE, "pivots": 0},
    "sdp, area": {**_OURS, "heuristic": "area"},
    "sdp, babsr": {**_OURS, "heuristic": "babsr"},
    "sdp, moment": {**_OURS, "heuristic": "moment"},
    "sdp, mixed": {**_OURS, "heuristic": "mixed"},
    "sdp, mixed, cuts": {**_OURS, "heuristic": "mixed", "cuts": MOST_CUTS},
    "sdp, mixed, no half-spaces": {**_OURS, "heuristic": "mixed", "pivots": 0},
    "race": {"bound": "race"},
}
"""Options of ``bab`` by the name of the series."""


def problems(reference: Path | None) -> Iterator[tuple[str, Problem]]:
    """Labelled problems, from the easiest to the hardest."""
    if reference is None:
        yield from ((f"random_w{w}@{EPS:g}", Problem.around(random_network(w), 0.0, EPS)) for w in WIDTHS)
        return
    yield from ((f"{n}@{e:g}", Problem.around(lipcompare.load(reference / f"{n}.npz"), 0.5, e)) for n, e in TRAINED)


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Every problem by every variant."""
    tasks = [Task(problem, {"problem": label}) for label, problem in problems(chosen.reference)]
    settings = [Setting("bab", options, series=series) for series, options in VARIANTS.items()]
    return [Study(NAME, tasks, chosen.settings(settings), chosen.limits(4.0), chosen.device)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
