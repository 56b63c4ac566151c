"""The pass with middle slopes: equal to the recursion with symmetric lines, and never below a gradient."""

from __future__ import annotations

import images
import nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian.shared import shared_gradients
from lipcompare.preactivation import interval_bounds


def dense_recursion(network: Network, gates: Gates, functionals: torch.Tensor) -> torch.Tensor:
    """The same from full matrices: per gate layer the derivative of its pre-activation by autograd on middle slopes."""
    middle = {k: slope.center for k, slope in gates.slopes.items()}
    half = {k: slope.radius for k, slope in gates.slopes.items()}
    batch, rows, _ = functionals.shape
    errors = {
        k: torch.zeros(batch, rows, network.nodes[k].size, dtype=functionals.dtype, device=functionals.device)
        for k in (0, *middle)
    }
    wide = {k: v.unsqueeze(1) for k, v in middle.items()}
    for k in sorted(middle, reverse=True):
        reach = half[k].unsqueeze(1) * (network.pull_back(wide, functionals, stop=k).abs() + errors[k])
        # The derivative of the pre-activation: the network cut off there.
        node = network.nodes[k].parents[0]
        short = Network(network.nodes[: node + 1], network.input_shape, (network.nodes[node].size,))
        eye = torch.eye(network.nodes[node].size, dtype=functionals.dtype, device=functionals.device).expand(
            batch, -1, -1
        )
        for earlier in (0, *(j for j in middle if j < k)):
            tangent = short.pull_back({j: wide[j] for j in middle if j < k}, eye, stop=earlier)
            errors[earlier] = errors[earlier] + reach @ tangent.abs()
    return errors[0]


@settings(max_examples=15)
@given(st.one_of(images.conv_networks(), nets.networks()), st.integers(1, 3))
def test_equals_symmetric_lines(network: Network, batch: int) -> None:
    problem = nets.problem(network, 0.1, batch=batch)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    found = shared_gradients(network, gates, problem.functionals, memory=2**14).intervals[0]
    wanted = dense_recursion(network, gates, problem.functionals)
    # The radius also holds what rounding may do, measured by sums without signs.
    torch.testing.assert_close(found.radius, wanted, rtol=1e-9, atol=1e-9 * float(found.magnitude.max()))


@settings(max_examples=10)
@given(st.one_of(images.conv_networks(), nets.networks()))
def test_holds_every_gradient(network: Network) -> None:
    problem = nets.problem(network, 0.2)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    found = shared_gradients(network, gates, problem.functionals, memory=2**30).intervals[0].magnitude.sum(-1)
    assert bool((found.cpu() >= nets.sampled_norms(problem, samples=60) * (1 - 1e-9)).all())


@settings(max_examples=10)
@given(st.one_of(images.conv_networks(), nets.networks()), st.integers(0, 3))
def test_late_or_in_parts_it_still_holds(network: Network, asked: int) -> None:
    """The time runs out after some groups of gates; the rest gets sums of absolute values."""
    problem = nets.problem(network, 0.2)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    whole = shared_gradients(network, gates, problem.functionals, memory=2**30)
    parts = shared_gradients(network, gates, problem.functionals, memory=1)
    for k, interval in whole.intervals.items():
        torch.testing.assert_close(interval, parts.intervals[k], rtol=1e-11, atol=1e-11)
    late = _After(asked)
    hurried = shared_gradients(network, gates, problem.functionals, memory=1, deadline=late).intervals[0]
    assert bool((hurried.magnitude.sum(-1).cpu() >= nets.sampled_norms(problem, samples=30) * (1 - 1e-9)).all())
    assert bool((hurried.magnitude >= whole.intervals[0].magnitude * (1 - 1e-9)).all())


class _After(Deadline):
    """Passes when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def passed(self, ahead: float = 0.0) -> bool:
        self.times -= 1
        return self.times < 0
