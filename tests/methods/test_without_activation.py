"""The simplest network there is: one linear layer, whose constant is a row sum that every method finds."""

from __future__ import annotations

import pytest
import torch

import lipcompare
from lipcompare.methods import METHODS, get
from lipcompare.problem import Problem


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_linear_layer(name: str, norm: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    problem = Problem.around(lipcompare.load(layer), 0.3, 0.1, norm=norm)
    method = get(name)
    if method.supports(problem) is not None:
        pytest.skip(str(method.supports(problem)))
    weight = layer.weight.detach().double()
    truth = float((weight.abs().sum(1) if norm == "inf" else weight.square().sum(1).sqrt()).max())
    result = lipcompare.bound(problem, method, time_limit=30)
    lower, upper = float(result.overall_lower[0]), float(result.overall_upper[0])
    assert lower <= truth * (1 + 1e-12) and truth <= upper
    assert lower == pytest.approx(truth, rel=1e-9) or upper == pytest.approx(truth, rel=1e-9)
