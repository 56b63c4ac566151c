"""Iterates stay inside of the cone, and the multipliers and matrices go together."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import pytest
import torch
from quadratic.programs import small
from torch import Tensor

from lipcompare.quadratic.solver import advance as module
from lipcompare.quadratic.solver.advance import (
    ATTEMPTS,
    HOPELESS,
    SHORTER,
    SIGMA,
    _after,
    _complementarity_after,
    advance,
    with_loose_trace,
)
from lipcompare.quadratic.solver.dual import Dual, slack_matrix
from lipcompare.quadratic.solver.iterate import Iterate
from lipcompare.quadratic.solver.newton import NewtonSystem, Step
from lipcompare.quadratic.solver.start import default_start, first_iterate


def test_iterates_stay_inside_with_and_without_asking() -> None:
    data = small(4, (6, 16, 16, 16, 3), 0.8)
    for ask in (True, False):
        iterate = first_iterate(data, default_start(data), torch.float64)
        for _ in range(8):
            iterate, healthy = advance(iterate, ask=ask)
            assert bool(healthy.all())
            assert bool((torch.linalg.eigvalsh(iterate.matrices)[..., 0] > 0).all())
            factors = torch.linalg.cholesky(iterate.matrices)
            unit = torch.eye(data.size, dtype=torch.float64).expand_as(factors)
            torch.testing.assert_close(iterate.inverses @ factors, unit, atol=1e-6, rtol=0)
            # S is what the multipliers say.
            dual = Dual.of_row(iterate.y, data.size, data.entries.shape[-1])
            torch.testing.assert_close(slack_matrix(data, dual), iterate.matrices[1], atol=1e-9, rtol=0)
        assert bool((iterate.infeasible < 0.2).all())


def test_the_trace_constraint_gives_way_before_it_binds() -> None:
    """To twice its value, and no further than what is proved; not where it has room, nor far from feasible."""
    data = small()
    iterate = first_iterate(data, default_start(data), torch.float64)
    bound = iterate.coefficients.bound
    for share in (0.3, 0.8):
        trace = share * bound
        near, far = iterate.slacks.clone(), iterate.slacks.clone()
        near[:, 0], far[:, 0] = 0.1 * trace, 0.5 * trace
        tight = dataclasses.replace(
            iterate,
            coefficients=dataclasses.replace(iterate.coefficients, trace=trace),
            slacks=near,
            infeasible=torch.full_like(trace, 0.2),
        )
        loose = with_loose_trace(tight)
        torch.testing.assert_close(loose.coefficients.trace, min(1.0, 2 * share) * bound)
        torch.testing.assert_close(loose.slacks[:, 0] - near[:, 0], loose.coefficients.trace - trace)
        assert torch.equal(loose.slacks[:, 1:], near[:, 1:])
        for change in ({"slacks": far}, {"infeasible": torch.ones_like(trace)}):
            still = with_loose_trace(dataclasses.replace(tight, **change))
            assert torch.equal(still.coefficients.trace, trace)


FIELDS = {"y": 0, "tau": 0, "blocks": 1, "slacks": 0, "matrices": 1, "inverses": 1}
"""The variables of an iterate, each with the axis that its problems are on."""


def under_way(steps: int = 3) -> Iterate:
    """Of three problems."""
    data = small()
    iterate = first_iterate(data, default_start(data), torch.float64)
    for _ in range(steps):
        iterate, _ = advance(iterate)
    return iterate


def moved(iterate: Iterate, alpha: tuple[float, float]) -> Iterate:
    """All of it moved by the predictor, by so much of the way in primal and in dual variables."""
    step, (p, q) = NewtonSystem(iterate).predictor(), alpha
    both = torch.tensor(alpha, dtype=torch.float64).view(2, 1, 1, 1)
    return dataclasses.replace(
        iterate,
        y=iterate.y + q * step.y,
        tau=iterate.tau + q * step.tau,
        blocks=iterate.blocks + p * step.blocks,
        slacks=iterate.slacks + p * step.slacks,
        matrices=iterate.matrices + both * step.matrices,
    )


def test_what_a_predictor_is_expected_to_leave_of_the_complementarity() -> None:
    """The centring goes by it: what the pairs of all variables add up to after the step."""
    iterate = under_way()
    assert iterate.coefficients.sign_count and bool((iterate.slacks * iterate.scalars > 0).any())
    for alpha in ((0.9, 0.4), (0.3, 0.8)):
        lengths = torch.tensor(alpha, dtype=torch.float64).unsqueeze(-1).expand(2, 3)
        expected = _complementarity_after(iterate, NewtonSystem(iterate).predictor(), lengths)
        torch.testing.assert_close(expected, moved(iterate, alpha).complementarity, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("left", "sigma"), [(-0.1, SIGMA), (0.0, SIGMA), (0.5, 0.25), (3.0, 1.0)])
def test_the_corrector_aims_at_the_square_of_what_the_predictor_leaves(left: float, sigma: float) -> None:
    iterate = under_way()
    aims: list[Tensor] = []
    corrector = NewtonSystem.corrector

    def noted(newton: NewtonSystem, mu: Tensor, aff: Step) -> Step:
        aims.append(mu)
        return corrector(newton, mu, aff)

    with (
        mock.patch.object(NewtonSystem, "corrector", noted),
        mock.patch.object(module, "_complementarity_after", lambda it, *_: left * it.complementarity),
    ):
        advance(iterate)
    torch.testing.assert_close(aims[0], sigma * iterate.complementarity / iterate.coefficients.order)


@pytest.mark.parametrize("which", [0, 1])
def test_a_matrix_that_leaves_the_cone_takes_a_shorter_step_or_none(which: int) -> None:
    """And its multipliers with it; the other matrix goes its way."""
    iterate = under_way()
    step = NewtonSystem(iterate).predictor()
    data, c = small(), iterate.coefficients
    lowest = torch.linalg.eigvalsh(iterate.inverses[which] @ step.matrices[which] @ iterate.inverses[which].mT)[:, 0]
    boundary = -1 / lowest
    assert bool((boundary > 0).all())
    for times, asked in ((1.2, 1), (1.2 / SHORTER**4, 5), (1.2 / SHORTER**ATTEMPTS, None), (0.5, 0)):
        alpha = torch.full((2, 3), 1e-3, dtype=torch.float64)
        alpha[which] = times * boundary
        for ask in (True, False):
            after = _after(iterate, step, alpha, ask)
            taken = alpha.clone()
            shorter = asked if ask else (0 if asked == 0 else None)
            taken[which] *= 0.0 if shorter is None else SHORTER**shorter
            p, q = taken.unsqueeze(-1)
            torch.testing.assert_close(after.y, iterate.y + q * step.y)
            torch.testing.assert_close(after.tau, iterate.tau + q * step.tau)
            torch.testing.assert_close(after.blocks, iterate.blocks + p * step.blocks)
            torch.testing.assert_close(after.slacks, iterate.slacks + p * step.slacks)
            expected = iterate.matrices + taken[..., None, None] * step.matrices
            torch.testing.assert_close(after.matrices, expected)
            unit = torch.eye(data.size, dtype=torch.float64).expand_as(expected)
            torch.testing.assert_close(after.inverses @ expected @ after.inverses.mT, unit, atol=1e-6, rtol=0)
            caution = torch.ones(2, 3, dtype=torch.float64)
            caution[which] = SHORTER if shorter is None else 1.0
            assert torch.equal(after.caution, caution)
            torch.testing.assert_close(after.infeasible, iterate.infeasible * (1 - taken[0]))
            dual = Dual.of_row(after.y, c.size, c.sign_count)
            torch.testing.assert_close(slack_matrix(data, dual), after.matrices[1], atol=1e-9, rtol=0)


def test_a_problem_fails_once_both_of_its_matrices_hardly_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one that moves it goes on; the steps of one that has left the cone are shorter ever after."""
    start = under_way()
    factored = module.inverse_factor

    def outside(matrices: Tensor) -> tuple[Tensor, Tensor]:
        inverses, inside = factored(matrices)
        inside = inside.clone()
        inside[:, 0] = False
        inside[1, 1] = False
        return inverses, inside

    monkeypatch.setattr(module, "inverse_factor", outside)
    iterate = start
    cautions: list[float] = []
    for _ in range(20):
        iterate, healthy = advance(iterate, ask=False)
        assert healthy.tolist()[1:] == [True, True]
        cautions.append(float(iterate.caution[0, 0]))
        if not bool(healthy[0]):
            break
    assert cautions == [pytest.approx(SHORTER**k) for k in range(1, len(cautions) + 1)]
    assert cautions[-1] <= HOPELESS * (1 + 1e-9) and len(cautions) == 8
    assert torch.equal(iterate.matrices[:, 0], start.matrices[:, 0])


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize(
    ("field", "wrong"),
    [("y", torch.nan), ("slacks", torch.nan), ("slacks", -1e6), ("inverses", torch.nan), ("b", torch.inf)],
)
def test_a_problem_whose_system_has_no_solution_stands_still_alone(ask: bool, field: str, wrong: float) -> None:
    """One of three, with numbers out of range or a slack outside of the cone: it is told, keeps what it had, and the
    other two go on as without it."""
    iterate = under_way()
    if field == "b":
        value = iterate.coefficients.b.clone()
        value[1] = wrong
        begun = dataclasses.replace(iterate, coefficients=dataclasses.replace(iterate.coefficients, b=value))
    else:
        value = getattr(iterate, field).clone()
        value.movedim(FIELDS[field], 0)[1] = wrong
        begun = dataclasses.replace(iterate, **{field: value})
    after, healthy = advance(begun, ask=ask)
    assert healthy.tolist() == [True, False, True]
    others = torch.tensor([0, 2])
    alone, _ = advance(iterate.select(others), ask=ask)
    for name, axis in FIELDS.items():
        there: Any = getattr(after, name)
        torch.testing.assert_close(there.index_select(axis, others), getattr(alone, name), msg=name)
        before = getattr(begun, name).select(axis, 1)
        known = before.isfinite()
        assert torch.equal(there.select(axis, 1)[known], before[known]), name
