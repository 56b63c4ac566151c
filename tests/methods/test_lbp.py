"""What single precision costs, and when double precision takes over."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.methods import lbp


def bounds(dtype: torch.dtype, method: str) -> lipcompare.Bound:
    """Of eight layers over a small box, where the allowance for a pass in float32 leaves signs undecided."""
    return lipcompare.bound(Problem.around(nets.dense(3, (4, *[12] * 8, 2)), 0.5, 1e-3, dtype=dtype), method)


@pytest.mark.parametrize("method", ["ibp", "recurjac", "lbp"])
def test_where_single_precision_costs_much_and_double_little_the_better_counts(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double, single = bounds(torch.float64, method), bounds(torch.float32, method)
    assert not double.detail and lbp.AGAIN in single.detail
    # The weights that float32 stores are others.
    np.testing.assert_allclose(single.upper, double.upper, rtol=1e-4)
    monkeypatch.setattr(lbp, "_CHEAP", 0.0)
    alone = bounds(torch.float32, method)
    assert lbp.COARSE in alone.detail
    assert (alone.upper > 1.003 * double.upper).any()
