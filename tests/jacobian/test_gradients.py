"""What is known of gradients, of some examples and in another precision."""

from __future__ import annotations

import nets
import torch

from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients, gradient_intervals
from lipcompare.preactivation import interval_bounds


def found(dtype: torch.dtype = torch.float64) -> Gradients:
    problem = nets.problem(nets.residual(3), 0.3, batch=3)
    network, box = problem.network.to(problem.device, dtype), problem.box.interval
    box = type(box)(*(end.to(dtype) for end in box))
    gates = Gates.from_preactivations(network, interval_bounds(network, box))
    return gradient_intervals(network, gates, problem.functionals.to(dtype))


def test_some_examples() -> None:
    whole = found()
    part, chosen = whole.part(slice(1, 3)), whole.of(torch.tensor([2, 0], device=whole.intervals[0].lower.device))
    for k, interval in whole.intervals.items():
        assert torch.equal(part.intervals[k].lower, interval.lower[1:]) and part.scales[k].shape[0] == 2
        assert torch.equal(chosen.intervals[k].upper, interval.upper[[2, 0]])
    assert all(line.slope.shape[0] == 2 for line in part.lines.values()) and not chosen.lines


def test_what_was_known_in_single_precision_is_no_constant_in_double() -> None:
    single, double = found(torch.float32), found()
    assert single.constant and single.double().constant == frozenset() and double.double().constant == double.constant
    assert all(interval.lower.dtype is torch.float64 for interval in single.double().intervals.values())
