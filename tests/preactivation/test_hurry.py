"""Passes that are cut short hold, lie between interval arithmetic and CROWN, and are taken where time is short."""

from __future__ import annotations

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import conv_networks

from lipcompare.budget import Deadline
from lipcompare.network import Interval
from lipcompare.preactivation import Tightening, interval_bounds, preactivation_bounds
from lipcompare.preactivation.hurry import Hurry


def short(self: Hurry, node: int, wanted: int, bounds: dict[int, Interval]) -> dict[int, Interval]:
    return {k: self.network.activation(k).image(bounds[k]) for k in self._far(node)}


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["dense", "leaky", "conv", "residual", "pooling", "images"]), st.integers(0, 10**6), st.data())
def test_short_passes_hold(family: str, seed: int, data: st.DataObject) -> None:
    network = data.draw(conv_networks(60)) if family == "images" else nets.FAMILIES[family](seed)
    problem = nets.problem(network, 0.3, seed, batch=2)
    box = problem.box.interval
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hurry, "ends", short)
        found = preactivation_bounds(network, box, Tightening.CROWN, deadline=Deadline.after(1e6))
    plain = interval_bounds(network, box)
    unit = torch.rand(200, 1, network.in_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = network.values(box.lower + unit * (box.upper - box.lower))
    rounded = 1e-12  # of the values at points, which lie on an end where pooling ties, and of either bound
    for k, (lower, upper) in found.items():
        z = values[network.nodes[k].parents[0]]
        assert bool((z >= lower - rounded).all() and (z <= upper + rounded).all())
        assert bool((lower >= plain[k].lower - rounded).all() and (upper <= plain[k].upper + rounded).all())


def test_a_short_pass_is_tighter_than_none() -> None:
    network = nets.dense(3, (3, 8, 8, 8, 2))
    box = nets.problem(network, 0.3).box.interval
    last = network.activations[-1]

    def width(bounds: dict[int, Interval]) -> float:
        return float((bounds[last].upper - bounds[last].lower).sum())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hurry, "ends", short)
        cut = width(preactivation_bounds(network, box, Tightening.CROWN, deadline=Deadline.after(1e6)))
    assert width(preactivation_bounds(network, box, Tightening.CROWN)) < cut < width(interval_bounds(network, box))


@pytest.mark.parametrize(("seconds", "cut"), [(1e6, False), (1e-9, True), (float("inf"), False)])
def test_passes_are_cut_where_they_do_not_fit_in_time(seconds: float, cut: bool) -> None:
    """And where that saves half of the work: not close to the input."""
    network = nets.dense(3, (3, *(8,) * 7, 2))
    bounds = interval_bounds(network, nets.problem(network, 0.3).box.interval)
    hurry = Hurry(network, Deadline.after(seconds))
    *before, last = network.activations
    ends = hurry.ends(network.nodes[last].parents[0], 8, bounds)
    assert list(ends) == (before[:-1] if cut else [])
    assert hurry.ends(network.nodes[before[2]].parents[0], 8, bounds) == {}


def test_the_work_of_later_nodes_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted again at every node it took most of the time on deep networks."""
    network = nets.dense(3, (3, *(4,) * 12, 2))
    counted: list[int] = []

    def counts(self: Hurry, node: int, ends: tuple[int, ...]) -> float:
        counted.append(node)
        return work(self, node, ends)

    work = Hurry._work
    monkeypatch.setattr(Hurry, "_work", counts)
    preactivation_bounds(network, nets.problem(network, 0.3).box.interval, Tightening.CROWN, deadline=Deadline.after(9))
    assert 0 < len(counted) <= 4 * len(network.activations)


class Moments:
    """A clock that stands nearly still, and jumps far ahead after it was asked a number of times."""

    def __init__(self, asked: float) -> None:
        self.asked, self.calls = asked, 0

    def perf_counter(self) -> float:
        self.calls += 1
        return 1e-6 * self.calls + (1e6 if self.calls > self.asked else 0.0)


@pytest.mark.parametrize(("tightening", "moments"), [(Tightening.CROWN, 50), (Tightening.ALPHA_CROWN, 6)])
def test_bounds_hold_whenever_the_clock_runs_out(
    tightening: Tightening, moments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one question to the clock after another; against interval arithmetic, and against the values at points."""
    seed = 3
    network = nets.dense(seed, (2, 5, 5, 5, 2))
    box = nets.problem(network, 0.3, seed, batch=2).box.interval
    plain = interval_bounds(network, box)
    unit = torch.rand(200, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = network.values(box.lower + unit * (box.upper - box.lower))

    def bounds(asked: float) -> tuple[dict[int, Interval], int]:
        clock = Moments(asked)
        monkeypatch.setattr("lipcompare.budget.time", clock)
        found = preactivation_bounds(network, box, tightening, deadline=Deadline.after(1.0))
        return dict(found), clock.calls

    _, calls = bounds(float("inf"))
    assert calls > 5
    widths = []
    for asked in range(1, calls + 1, max(1, calls // moments)):
        found, _ = bounds(asked)
        for k, (lower, upper) in found.items():
            z = values[network.nodes[k].parents[0]]
            assert bool((z >= lower).all() and (z <= upper).all())
            assert bool((lower >= plain[k].lower).all() and (upper <= plain[k].upper).all())
        widths.append(float(sum((upper - lower).sum() for lower, upper in found.values())))
    assert widths[-1] < widths[0]
