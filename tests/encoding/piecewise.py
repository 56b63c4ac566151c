"""Piecewise linear networks and what programs of them need."""

from __future__ import annotations

import nets
from hypothesis import strategies as st

from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.programs.prepared import prepare

PIECEWISE = sorted(f for f, make in nets.FAMILIES.items() if make(0).piecewise_linear)


def piecewise() -> st.SearchStrategy:
    """A piecewise linear network of any family."""
    return st.builds(
        lambda family, seed: nets.FAMILIES[family](seed), st.sampled_from(PIECEWISE), st.integers(0, 10**6)
    )


def prepared(problem, tightening=Tightening.CROWN):
    return prepare(problem, preactivation_bounds(problem.network, problem.box.interval, tightening))
