"""What ends a problem: its gap once it is nearly feasible, and others of its group."""

from __future__ import annotations

import torch
from quadratic.programs import small

from lipcompare.quadratic.solver.interior_point import solve
from lipcompare.quadratic.solver.start import default_start, first_iterate
from lipcompare.quadratic.solver.stopping import gap, infeasibility


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
