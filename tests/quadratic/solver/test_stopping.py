"""What ends a problem: its gap once it is nearly feasible, and others of its group."""

from __future__ import annotations

import dataclasses

import torch
from quadratic.programs import small

from lipcompare.budget import Deadline
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.advance import advance
from lipcompare.quadratic.solver.dual import Dual, dual_value
from lipcompare.quadratic.solver.interior_point import _Run, solve
from lipcompare.quadratic.solver.iterate import Iterate, inner
from lipcompare.quadratic.solver.newton import NewtonSystem
from lipcompare.quadratic.solver.start import default_start, first_iterate
from lipcompare.quadratic.solver.stopping import Remaining, Rules, gap, infeasibility


def test_a_gap_means_nothing_before_the_iterate_is_feasible() -> None:
    data = small(4, (6, 16, 16, 16, 3), 0.8)
    first = first_iterate(data, default_start(data), torch.float64)
    solution = solve(data, tolerance=0.9)
    assert bool(solution.converged.all())
    assert bool((solution.infeasibility <= 2e-3 * infeasibility(first)).all())


def test_a_problem_that_stops_by_its_gap_is_that_near_the_optimum() -> None:
    data = small()
    optimum = solve(data, tolerance=1e-9).value
    rough = solve(data, tolerance=1e-2)
    assert bool(rough.converged.all()) and bool((rough.value > optimum).all())
    assert bool((rough.value - optimum <= 1e-2 * rough.value).all())
    first = first_iterate(data, default_start(data), torch.float64)
    assert bool((gap(first) > 0.1 * optimum).all())


def test_a_problem_that_another_beats_stops_and_keeps_a_bound() -> None:
    data = small()
    alone = solve(data, tolerance=1e-6)
    group = torch.zeros(data.problems, dtype=torch.int64)
    together = solve(data, tolerance=1e-6, group=group)
    units = (alone.value + data.offset) * data.scale
    largest = int(units.argmax())
    assert not bool(together.stopped[largest]) and bool(together.stopped.any())
    torch.testing.assert_close(together.value[largest], alone.value[largest], rtol=1e-5, atol=0)
    assert bool((together.value >= alone.value * (1 - 1e-6)).all())
    assert bool(((together.value + data.offset) * data.scale <= units[largest] * (1 + 1e-6))[together.stopped].all())


def iterates(data: SdpData, steps: int) -> list[Iterate]:
    """From the first one on."""
    found = [first_iterate(data, default_start(data), torch.float64)]
    for _ in range(steps):
        found.append(advance(found[-1])[0])
    return found


def test_the_gap_is_what_a_dual_value_is_above_a_feasible_primal_one() -> None:
    """By algebra, wherever the primal equations hold; ``tau`` at its best, the trace as proved."""
    data = small()
    iterate = iterates(data, 2)[-1]
    c = dataclasses.replace(iterate.coefficients, trace=0.5 * iterate.coefficients.bound)
    iterate = dataclasses.replace(iterate, coefficients=c)
    step = NewtonSystem(iterate).predictor()
    feasible = dataclasses.replace(
        iterate,
        blocks=iterate.blocks + step.blocks,
        slacks=iterate.slacks + step.slacks,
        matrices=torch.stack([iterate.matrices[0] + step.matrices[0], iterate.matrices[1]]),
    )
    assert bool((infeasibility(feasible) < 1e-9).all())
    primal = inner(data.cost, feasible.matrices[0]) + (feasible.blocks[1] * c.signs).sum(-1)
    dual = dual_value(data, Dual.of_row(iterate.y, c.size, c.sign_count))
    gain = ((iterate.tau - 0.25 / iterate.lam) * c.signs).sum(-1)
    assert bool((gain > 1e-3).all()) and bool((iterate.d * (c.bound - c.trace) > 1e-3).any())
    torch.testing.assert_close(gap(feasible), dual - primal)


def remaining(data: SdpData) -> Remaining:
    rules = Rules(1e-4, 40, None, None, None, compete=True, deadline=Deadline(), review=1)
    return _Run.begin(data, default_start(data), rules).remaining(torch.arange(data.problems))


def test_what_a_problem_is_expected_to_end_above() -> None:
    """In the network's units: never above the optimum, in the end near it, no less than was expected before; nothing
    while an iterate is far from feasible, or where the linear algebra failed."""
    data = small()
    data = dataclasses.replace(data, offset=data.offset + 3.0, scale=torch.full_like(data.scale, 0.25))
    optimum = (solve(data, tolerance=1e-9).value + data.offset) * data.scale
    now, every = remaining(data), torch.ones(data.problems, dtype=torch.bool)
    first, *later = iterates(data, 10)
    far = dataclasses.replace(first, infeasible=torch.full_like(first.infeasible, 0.2))
    expected = [now.after(far, every, 1e-4).expected]
    assert bool((expected[0] == -torch.inf).all())
    for iterate in later:
        now = now.after(iterate, every, 1e-4)
        expected.append(now.expected)
    both = torch.stack(expected)
    assert bool((both <= optimum + 1e-9).all()) and bool((both[1:] >= both[:-1]).all())
    assert bool((both[-1] >= optimum - 1e-6).all())
    assert torch.equal(now.after(later[1], every, 1e-4).expected, now.expected)
    assert torch.equal(remaining(data).after(later[-1], ~every, 1e-4).expected, both[0])


def test_the_point_of_a_failed_iteration_is_not_kept() -> None:
    """Nor is its gap believed; that of a good one is, where it is better."""
    data = small()
    later, every = iterates(data, 10)[-1], torch.tensor([True, False, True])
    before = remaining(data)
    after = before.after(later, every, 1e-2)
    assert after.converged.tolist() == every.tolist()
    assert torch.equal(after.y[1], before.y[1]) and torch.equal(after.best[1], before.best[1])
    assert bool((after.best < before.best)[every].all())
    dual = Dual.of_row(after.y, data.size, data.entries.shape[-1])
    torch.testing.assert_close(dual_value(data, dual), after.best)


def test_a_floor_is_in_the_units_of_the_network() -> None:
    """The offset counts: what is left without it may lie far below the floor."""
    data = small()
    data = dataclasses.replace(data, offset=torch.full_like(data.offset, 10.0), scale=torch.full_like(data.scale, 0.5))
    options = {"tolerance": 1e-6, "group": torch.arange(data.problems)}
    low, high = (
        solve(data, floor=torch.full_like(data.scale, level), **options)  # type: ignore[arg-type]
        for level in (5.0, 100.0)
    )
    assert bool(low.converged.all()) and not bool(low.stopped.any())
    assert bool(high.stopped.all()) and bool((high.iterations == 1).all())
