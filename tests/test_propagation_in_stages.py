"""The order of work for large images: the largest row is the recursion's, the others keep a bound that holds."""

from __future__ import annotations

import images
import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Network, propagation
from lipcompare.jacobian import RELAXATIONS
from lipcompare.jacobian.patches import Plan
from lipcompare.network.patches import Costs
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate

COSTLY = Plan((1, 1), Costs(10**12, 10**13, 1))


@settings(max_examples=12)
@given(images.conv_networks(), st.integers(1, 3), st.sampled_from(["inf", "2", "1"]))
def test_the_largest_row_is_settled(network: Network, batch: int, norm: str) -> None:
    problem = nets.problem(network, 0.15, batch=batch, norm=norm)

    def uppers() -> torch.Tensor:
        found = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=True, memory=2**28, report=seen.append)
        return found.upper

    seen: list[torch.Tensor] = []
    usual = uppers()
    assert not seen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(propagation, "plan", lambda network, node: COSTLY)
        staged = uppers()
    assert len(seen) >= 2 and bool((seen[0] >= seen[-1]).all()) and torch.equal(seen[-1], staged)
    # Never looser where it counts, and sound everywhere.
    assert bool((staged.amax(-1) <= usual.amax(-1) * (1 + 1e-9) + 1e-12).all())
    assert bool((staged.cpu() >= nets.sampled_norms(problem, samples=60) * (1 - 1e-9)).all())


def test_no_time_leaves_a_bound_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nets.problem(nets.conv(3), 0.2)
    monkeypatch.setattr(propagation, "plan", lambda network, node: COSTLY)
    found = propagate(problem, Tightening.ALPHA_CROWN, RELAXATIONS["lbp"], joint=True, memory=2**28, seconds=0.0)
    assert found.hurried
    assert bool((found.upper.cpu() >= nets.sampled_norms(problem)).all())


@pytest.mark.parametrize("method", ["lbp", "sdp", "bab"])
def test_a_point_of_the_trace_for_every_stage(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagation, "plan", lambda network, node: COSTLY)
    bound = lipcompare.bound(nets.problem(nets.conv(3), 0.2), method, tightening="crown")
    uppers = [point.upper for point in bound.trace]
    assert len(uppers) >= 3 and uppers == sorted(uppers, reverse=True)
