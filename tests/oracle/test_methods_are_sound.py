"""Every registered method against the truth in rational arithmetic, on problems that attack rounding.

A reduced set; ``python -m experiments.differential`` runs many more. A new method meets it by being registered.
"""

from __future__ import annotations

import itertools

import pytest
import torch

import lipcompare
from lipcompare import METHODS, Status
from lipcompare.testing import exact, hostile

NORMS = ("inf", "2", "1")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("family", sorted(hostile.FAMILIES))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_bounds_hold_in_real_numbers(method: str, family: str, dtype: str) -> None:
    cheap = method in ("naive", "ibp", "recurjac", "lbp")
    for seed, norm in itertools.islice(zip(itertools.count(1), itertools.cycle(NORMS)), 3 if cheap else 1):
        problem = hostile.problem(family, seed, norm, DTYPES[dtype])
        truth = exact.truth(problem)
        result = lipcompare.bound(problem, method, time_limit=2.0)
        assert result.status is not Status.CRASHED, (seed, norm, result.detail)
        for row in range(problem.rows):
            upper, lower = float(result.upper[0, row]), float(result.lower[0, row])
            assert truth.admits_upper(row, problem.norm, upper), (
                seed,
                norm,
                row,
                upper,
                truth.value(row, problem.norm),
            )
            assert truth.admits_lower(row, problem.norm, lower), (
                seed,
                norm,
                row,
                lower,
                truth.value(row, problem.norm),
            )
        if result.status is Status.EXACT:
            assert (result.gap <= 1e-4).all(), (seed, norm)
