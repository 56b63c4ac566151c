"""The largest singular value in the tree: what a region is closed at."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
from branching.brute import cancelling

from lipcompare import Norm
from lipcompare.branching.roots import root_bounds
from lipcompare.branching.spectral import SpectralEvaluator
from lipcompare.branching.tree import Subdomain
from lipcompare.preactivation import Tightening


def test_the_value_of_a_region_is_rounded_upward_where_paths_cancel() -> None:
    """With one row and one input the largest singular value is the gradient's size."""
    for problem, exact in cancelling():
        problem = dataclasses.replace(problem, norm=Norm.TWO)
        evaluator = SpectralEvaluator(problem, root_bounds(problem, Tightening.CROWN, 2**30)[0])
        (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, -1.0)
        assert said.chain == () and exact <= Fraction(said.upper) <= exact * (1 + Fraction(1, 10**6))
