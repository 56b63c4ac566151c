"""Every margin for rounding is needed: with one of them set to zero, something no longer holds in real numbers."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import lipcompare
from lipcompare.jacobian import norms, relaxations
from lipcompare.jacobian.lines import GateLines, chords, constants
from lipcompare.network import LeakyReLU
from lipcompare.network.interval import Interval
from lipcompare.preactivation import split
from lipcompare.preactivation.split import HalfSpaces
from lipcompare.problem import Norm, Problem
from lipcompare.programs.tolerance import solver_error
from lipcompare.quadratic.cuts import forms
from lipcompare.rounding import product_above
from lipcompare.testing import exact, hostile
from lipcompare.witness import check_witnesses, make_witnesses
from solvers import MixedIntegerProgram, Solution
from solvers.highs import Highs


def nothing(*_: object, **__: object) -> float:
    return 0.0


def unchanged(value: Tensor, *_: object) -> Tensor:
    return value


def interval(count: int = 4000) -> Interval:
    """Random intervals around 0 in float32."""
    random = torch.Generator().manual_seed(0)
    ends = torch.rand(2, 1, count, generator=random)
    return Interval(-ends[0], ends[1])


def bound_holds(family: str, seed: int, norm: str, dtype: torch.dtype, method: str, **options: str) -> bool:
    problem = hostile.problem(family, seed, norm, dtype)
    upper, truth = lipcompare.bound(problem, method, **options).upper, exact.truth(problem)
    return all(truth.admits_upper(row, problem.norm, float(upper[0, row])) for row in range(problem.rows))


def activation_lines_hold(alpha: float) -> bool:
    """Both lines at both ends; products of float32 are exact in float64, whose own rounding is far below theirs."""
    z = interval()
    activation = LeakyReLU(alpha).to(torch.device("cpu"), torch.float32)
    lines = activation.relaxation(z, torch.full_like(z.lower, 1 / 3))
    low_slope, low, high_slope, high = (v.double() for v in lines)
    ends = torch.stack([z.lower, torch.zeros_like(z.lower), z.upper]).double()
    values = torch.maximum(ends, activation.alpha * ends)
    return bool((high_slope * ends + high >= values).all() and (low_slope * ends + low <= values).all())


def gate_lines_hold(relaxation: Callable[[Interval, Interval], GateLines]) -> bool:
    gradient = interval()
    slope = Interval(torch.full_like(gradient.lower, 0.1), torch.full_like(gradient.lower, 0.9))
    lines = relaxation(gradient, slope)
    middle, spread, half = (v.double() for v in (lines.slope, lines.slope_spread, lines.offset_spread))
    offset = 0.0 if lines.offset is None else lines.offset.double()
    holds = True
    for j in gradient:
        for a in slope:
            u, j64 = a.double() * j.double(), j.double()
            holds &= bool(((middle + spread) * j64 + offset + half >= u).all())
            holds &= bool(((middle - spread) * j64 + offset - half <= u).all())
    return holds


def chord_holds(chord: Callable[[Interval], tuple[Tensor, Tensor]], value: Callable[[Tensor], Tensor]) -> bool:
    gradient = interval()
    slope, intercept = (v.double() for v in chord(gradient))
    return all(bool((slope * end.double() + intercept >= value(end.double())).all()) for end in gradient)


def cut_chords_hold() -> bool:
    """Both chords of gates with a constant ``K`` at an end of its interval, without any rounding."""
    ends = torch.rand(2, 1, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lower, upper = -ends[0], ends[1]
    k = torch.zeros(1, 501, 500, dtype=torch.float64)
    none, every = torch.zeros_like(lower), torch.ones_like(lower)
    data = types.SimpleNamespace(problems=1, size=501, columns=k)
    for constant in (lower, upper):
        k[:, 0] = constant
        gates = forms._Gates(k, lower, upper, none, every)
        with mock.patch("lipcompare.quadratic.cuts.forms._gates", lambda *_, gates=gates: gates):
            found = forms.chords(data, None, none.long(), none.long()[0])  # type: ignore[arg-type]
        top = found.columns[0, 0].tolist()
        slope = (found.columns[0, 1:, :500].diagonal().tolist(), found.columns[0, 1:, 500:].diagonal().tolist())
        for form, (first, error) in enumerate(zip(top, found.error[0].tolist(), strict=True)):
            ends_of_v = (Fraction(0), Fraction(float(constant[0, form % 500])))
            at = [Fraction(first) + Fraction(slope[form // 500][form % 500]) * v for v in ends_of_v]
            if min(at) < -Fraction(error):
                return False
    return True


def norm_holds() -> bool:
    values = torch.rand(500, 40, generator=torch.Generator().manual_seed(0))
    found = [norms.norm_above(values, norm).double() for norm in (Norm.ONE, Norm.TWO)]
    true = [torch.linalg.vector_norm(values.double(), ord=p, dim=-1) for p in (1, 2)]
    return all(bool((f >= t).all()) for f, t in zip(found, true, strict=True))


def small_norms_hold() -> bool:
    return 0.9e-30 < float(Norm.TWO.of(torch.tensor([0.6e-30, 0.8e-30]))) < 1.1e-30


def products_hold() -> bool:
    pairs = [(0.1, 0.3), (1e-200, 1e-200), (1 / 3, 1 / 7), (3.3, 1e-9)]
    return all(Fraction(float(norms.product_above(a, b))) >= Fraction(a) * Fraction(b) for a, b in pairs)


def spectral_norms_hold() -> bool:
    """Of rank one and whole numbers: the product of two lengths."""
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randint(1, 1000, (200, size), generator=random).double() for size in (5, 7))
    found = norms.spectral_norm((a.unsqueeze(2) * b.unsqueeze(1)).float()).double().tolist()
    squares = (a.square().sum(1), b.square().sum(1))
    return all(
        Fraction(f) ** 2 >= Fraction(int(s)) * Fraction(int(t))
        for f, s, t in zip(found, *(v.tolist() for v in squares), strict=True)
    ) and not any(math.isinf(f) for f in found)


def witnesses_hold(norm: str) -> bool:
    """What is reported at random points, against the truth at the point alone."""
    for seed in range(1, 40):
        whole = hostile.problem("cancelling terms", 3 * seed + 1, norm, torch.float64)
        center = whole.box.lower
        problem = Problem(whole.network, lipcompare.Box(center, center), whole.norm)
        points = center.unsqueeze(1).expand(-1, problem.rows, -1)
        attained, truth = check_witnesses(problem, make_witnesses(problem, points)), exact.truth(problem)
        if not all(truth.admits_lower(row, whole.norm, float(attained[0, row])) for row in range(problem.rows)):
            return False
    return True


def halfspaces(count: int) -> tuple[Interval, HalfSpaces]:
    """Boxes around 10 (count, inputs) in float32, half-spaces that touch each in one corner.

    Products of float32 are exact in float64, whose own rounding is far below theirs.
    """
    random = torch.Generator().manual_seed(0)
    box = Interval(9 + torch.rand(count, 3, generator=random), 11 + torch.rand(count, 3, generator=random))
    normal = torch.randn(count, 1, 3, generator=random)
    ends = torch.maximum(normal[:, 0].double() * box.lower.double(), normal[:, 0].double() * box.upper.double()).sum(-1)
    offset = (-ends).float()
    offset = torch.where(offset.double() + ends < 0, torch.nextafter(offset, offset.new_tensor(torch.inf)), offset)
    index = torch.zeros(count, 1, dtype=torch.int64)
    return box, HalfSpaces(normal, offset.unsqueeze(1), index, index)


def boxes_that_are_touched_are_kept() -> bool:
    box, spaces = halfspaces(2000)
    return not bool(split._excluded(box, spaces).any())


def maxima_over_half_spaces_hold() -> bool:
    """``-x`` over ``x in [9, 11], a x + h >= 0``, the sides of the two at ``-h / a`` in between."""
    count = 2000
    random = torch.Generator().manual_seed(0)
    a, x = 1 + torch.rand(count, generator=random), 9.5 + torch.rand(count, generator=random)
    h = -(a * x)
    index = torch.zeros(count, 1, dtype=torch.int64)
    box = Interval(torch.full((count, 1), 9.0), torch.full((count, 1), 11.0))
    spaces = HalfSpaces(a.view(-1, 1, 1), h.view(-1, 1), index, index)
    found = split.constrained_maximum(-torch.ones(count, 1, 1), torch.zeros(count, 1), box, spaces, 2)
    return bool((found[:, 0].double() >= h.double() / a.double()).all())


def combinations_hold() -> bool:
    """Functionals of known gradients; products of float32 are exact in float64."""
    random = torch.Generator().manual_seed(0)
    values, vectors = torch.randn(500, 5, generator=random), torch.randn(4, 5, generator=random)
    found, true = relaxations.combined(Interval(values, values), vectors), values.double() @ vectors.double().T
    return bool((found.lower.double() <= true).all() and (found.upper.double() >= true).all())


def words_of_solvers_hold() -> bool:
    """Of one that takes almost all that it says it may be off by; no point makes up for it."""
    problem = hostile.problem("plain", 4, "inf", torch.float64)
    truth = exact.truth(problem)
    kept, solve = "lipcompare.methods.milp._Example", Highs.solve

    def optimistic(self: Highs, program: MixedIntegerProgram, *arguments: Any, **options: Any) -> Solution:
        found = solve(self, program, *arguments, **{**options, "on_progress": None})
        missed = solver_error(self, program) - 0.1 * self.capabilities.pruning
        assert found.objective is not None
        return dataclasses.replace(found, dual_bound=found.objective + missed)

    with (
        mock.patch(f"{kept}._attack"),
        mock.patch(f"{kept}._take"),
        mock.patch("solvers.highs.Highs.solve", optimistic),
    ):
        upper = lipcompare.bound(problem, "milp", screen=False, gap=0.0).upper
    return all(truth.admits_upper(row, problem.norm, float(upper[0, row])) for row in range(problem.rows))


def coarse_bounds_say_so() -> bool:
    problem = hostile.problem("small scales", 1, "inf", torch.float32)
    return "float64" in lipcompare.bound(problem, "lbp").detail


def square(value: Tensor) -> Tensor:
    return value.square()


def plain_length(value: Tensor) -> Tensor:
    return value.square().sum(-1).sqrt()


def plain_product(a: float, b: float) -> float:
    return a * b


MARGINS: dict[str, tuple[str, Callable[..., object], Callable[[], bool]]] = {
    "bounds passed back to the input": (
        "lipcompare.preactivation.forward.outward",
        lambda z, refined, network: refined,
        lambda: bound_holds("cancelling pre-activations", 7, "2", torch.float32, "lbp"),
    ),
    "intervals of gradients": (
        "lipcompare.jacobian.interval.allowance",
        nothing,
        lambda: bound_holds("small scales", 1, "2", torch.float32, "ibp"),
    ),
    "functionals of gradients": (
        "lipcompare.jacobian.passes.allowance",
        nothing,
        lambda: bound_holds("small scales", 1, "2", torch.float32, "lbp"),
    ),
    "lines of a ReLU": (
        "lipcompare.network.activations.leaky.unit_roundoff",
        nothing,
        lambda: activation_lines_hold(0),
    ),
    "lines of a leaky ReLU": (
        "lipcompare.network.activations.leaky.unit_roundoff",
        nothing,
        lambda: activation_lines_hold(-0.7),
    ),
    "chords of gates": (
        "lipcompare.jacobian.lines.unit_roundoff",
        nothing,
        lambda: gate_lines_hold(chords),
    ),
    "constants around gates": (
        "lipcompare.jacobian.lines.unit_roundoff",
        nothing,
        lambda: gate_lines_hold(constants),
    ),
    "chords of absolute values": (
        "lipcompare.jacobian.norms.unit_roundoff",
        nothing,
        lambda: chord_holds(norms.absolute_chord, torch.abs),
    ),
    "chords of squares": (
        "lipcompare.jacobian.norms.unit_roundoff",
        nothing,
        lambda: chord_holds(norms.square_chord, square),
    ),
    "chords of gates in cuts": ("lipcompare.quadratic.cuts.forms.allowance", nothing, cut_chords_hold),
    "half-spaces that miss a box": (
        "lipcompare.preactivation.split.allowance",
        nothing,
        boxes_that_are_touched_are_kept,
    ),
    "maxima over half-spaces": ("lipcompare.preactivation.split.allowance", nothing, maxima_over_half_spaces_hold),
    "tangents of all rows": (
        "lipcompare.jacobian.shared.allowance",
        nothing,
        lambda: bound_holds("small scales", 1, "inf", torch.float32, "lbp", relaxation="middle"),
    ),
    "combinations of entries": ("lipcompare.jacobian.relaxations.allowance", nothing, combinations_hold),
    "bounds that rounding makes coarse": ("lipcompare.propagation.allowance", nothing, coarse_bounds_say_so),
    "what solvers cut off": (
        "lipcompare.methods.milp.solver_error",
        lambda solver, program, *_: solver_error(solver, program) - solver.capabilities.pruning,
        words_of_solvers_hold,
    ),
    "words of solvers": ("lipcompare.methods.milp.solver_error", nothing, words_of_solvers_hold),
    "norms": ("lipcompare.jacobian.norms.raised", unchanged, norm_holds),
    "scaled norms": ("lipcompare.domain.euclidean", plain_length, small_norms_hold),
    "products of norms": ("lipcompare.jacobian.norms.product_above", plain_product, products_hold),
    "spectral norms": ("lipcompare.jacobian.norms.raised", unchanged, spectral_norms_hold),
    "gradients of witnesses": ("lipcompare.witness.allowance", nothing, lambda: witnesses_hold("inf")),
    "data of programs": (
        "lipcompare.encoding.network._Encoder.error",
        lambda self, size: 0.0 * size,
        lambda: bound_holds("cancelling terms", 2, "inf", torch.float64, "lp"),
    ),
    "data of LipSDP": (
        "lipcompare.methods.lipsdp._rounding",
        lambda problem, gates: [0.0] * problem.rows,
        lambda: bound_holds("cancelling terms", 4, "inf", torch.float64, "lipsdp"),
    ),
}


@pytest.mark.parametrize("name", sorted(MARGINS))
def test_a_margin_is_needed(name: str) -> None:
    target, replacement, holds = MARGINS[name]
    assert holds()
    with mock.patch(target, replacement):
        assert not holds()


def test_products_of_positive_numbers_are_positive() -> None:
    tiny = torch.tensor([1e-300, 0.0], dtype=torch.float64)
    found = product_above(tiny, tiny)
    assert isinstance(found, Tensor) and found[0] > 0 and found[1] == 0
