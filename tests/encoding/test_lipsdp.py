"""What points of LipSDP's program prove, against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch

from lipcompare import Box, Problem
from lipcompare.encoding.lipsdp import certified, tangents
from lipcompare.gates import Gates
from lipcompare.network import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.testing import hostile


def _bounds_hold(weight: float) -> bool:
    """Whether a weight of the input differences proves no less than the length of a gradient, where no gate is open."""
    for seed in range(1, 20, 3):  # every third one has a second trouble, kinks for one
        whole = hostile.problem("plain", seed, "2", torch.float64)
        problem = Problem(whole.network, Box(whole.box.upper, whole.box.upper), whole.norm)
        network, box = problem.network.to("cpu", torch.float64), Interval(*(end.cpu() for end in problem.box.interval))
        gates = Gates.from_preactivations(network, preactivation_bounds(network, box, Tightening.INTERVAL))
        tangent = tangents(network, gates, problem.functionals[0].cpu())
        assert tangent.count == 0
        for row in range(problem.rows):
            found = certified(tangent.row(row), tangent.groups, np.array([weight]), diagonal=False)
            if Fraction(found) ** 2 < sum(Fraction(v) ** 2 for v in tangent.output[row].tolist()):
                return False
    return True


@pytest.mark.parametrize("weight", [1.0, 1 - 2**-53, 0.5])
def test_the_rounding_of_the_matrix_is_needed(weight: float) -> None:
    assert _bounds_hold(weight)
    with mock.patch("lipcompare.encoding.lipsdp.allowance", return_value=0.0):
        assert not _bounds_hold(weight)
