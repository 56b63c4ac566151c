"""What single precision costs, and when double precision takes over."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.methods import linear
from lipcompare.testing import exact


def bounds(dtype: torch.dtype, method: str) -> lipcompare.Bound:
    """Of eight layers over a small box, where the allowance for a pass in float32 leaves signs undecided."""
    return lipcompare.bound(Problem.around(nets.dense(3, (4, *[12] * 8, 2)), 0.5, 1e-3, dtype=dtype), method)


@pytest.mark.parametrize("method", ["ibp", "recurjac", "lbp"])
def test_where_single_precision_costs_much_and_double_little_the_better_counts(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double, single = bounds(torch.float64, method), bounds(torch.float32, method)
    assert not double.detail and linear.AGAIN in single.detail
    # The weights that float32 stores are others.
    np.testing.assert_allclose(single.upper, double.upper, rtol=1e-4)
    monkeypatch.setattr(linear, "_CHEAP", 0.0)
    alone = bounds(torch.float32, method)
    assert linear.COARSE in alone.detail
    assert (alone.upper > 1.003 * double.upper).any()


@pytest.mark.parametrize("method", ["naive", "ibp", "recurjac", "lbp", "sdp", "bab", "milp", "auto"])
def test_numbers_out_of_the_range_of_single_precision(method: str) -> None:
    """Weights of 1e27: a constant of 2.5e54, for which 0 was once a bound."""
    random = torch.Generator().manual_seed(0)
    layers = [torch.nn.Linear(a, b, bias=False, dtype=torch.float64) for a, b in ((2, 3), (3, 1))]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(1e27 * torch.randn(layer.weight.shape, generator=random, dtype=torch.float64))
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    problem = Problem.around(model, 0.5, 1.0, clip=(0, 1), input_shape=(2,), dtype=torch.float32)
    found, truth = lipcompare.bound(problem, method, time_limit=5.0), exact.truth(problem)
    assert truth.value(0, problem.norm) > 1e54
    assert np.isfinite(found.upper).all() and truth.admits_upper(0, problem.norm, found.upper[0, 0])
    assert truth.admits_lower(0, problem.norm, found.lower[0, 0])
