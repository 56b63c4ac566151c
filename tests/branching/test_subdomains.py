"""Some subdomains of a batch are those subdomains."""

from __future__ import annotations

import nets
import torch

from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.subdomains import Subdomains
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.preactivation import interval_bounds


def test_a_selection_is_bounded_as_in_the_batch() -> None:
    problem = nets.problem(nets.dense(3, (3, 6, 5, 2)), 0.6, batch=4)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    functionals = problem.functionals[:, :1]
    gradients = gradient_intervals(network, gates, functionals, norm=problem.norm)
    linear = norm_bound(network, functionals, gradients, problem.norm).squeeze(1)
    multipliers = torch.arange(4.0).unsqueeze(-1).expand(-1, 1 + network.neurons + network.in_size)
    batch = Subdomains(gates=gates, functionals=functionals, gradients=gradients, linear=linear,
                       multipliers=multipliers, cuts=NamedCuts(torch.zeros(4, 1, 2).long(), multipliers[:, :1]),
                       depth=torch.arange(4))  # fmt: skip
    index = torch.tensor([3, 1])
    some = batch.select(index)
    again = norm_bound(network, some.functionals, some.gradients, problem.norm).squeeze(1)
    torch.testing.assert_close(again, linear[index])
    assert torch.equal(some.linear, linear[index]) and some.depth.tolist() == [3, 1]
    assert some.multipliers[:, 0].tolist() == [3.0, 1.0] and some.cuts.nu.tolist() == [[3.0], [1.0]]
    for k, line in some.gradients.lines.items():
        whole = gradients.lines[k].slope
        assert torch.equal(line.slope, whole[index] if len(whole) > 1 else whole)
