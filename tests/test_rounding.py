"""What is rounded upward lies above the same in rational arithmetic, and what is rounded downward below; zeros stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from lipcompare import rounding

DTYPES = [torch.float32, torch.float64]


def numbers(dtype: torch.dtype, count: int = 400) -> Tensor:
    """Numbers of all sizes that are not negative, the smallest, the largest and zero among them."""
    generator = torch.Generator().manual_seed(0)
    least, most = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    span = math.log2(most) - math.log2(least)
    exponents = torch.rand(count, generator=generator, dtype=torch.float64) * span + math.log2(least)
    some = torch.tensor([0.0, least, least * torch.finfo(dtype).eps, most, 1.0], dtype=dtype)
    return torch.cat([some, torch.exp2(exponents).to(dtype)])


def exact(values: Tensor) -> list[Fraction]:
    return [Fraction(float(v)) for v in values]


@pytest.mark.parametrize("operations", [1, 1000, 10**6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_raised_and_lowered_cover_the_error_that_they_are_asked_for(dtype: torch.dtype, operations: int) -> None:
    value = numbers(dtype)
    factor = Fraction(rounding.gamma(operations, dtype))
    finite = [(v, u) for v, u in zip(value.tolist(), rounding.raised(value, operations).tolist(), strict=True)]
    for v, u in finite:
        assert u == 0 if v == 0 else u > v
        assert math.isinf(u) or Fraction(u) >= Fraction(v) * (1 + factor)
    for v, low in zip(value.tolist(), rounding.lowered(value, operations).tolist(), strict=True):
        assert low == 0 if v == 0 else 0 <= low < v
        assert Fraction(low) <= Fraction(v) * (1 - factor)


def test_nothing_covers_more_operations_than_the_precision_has_room_for() -> None:
    raised = rounding.raised(torch.tensor([0.0, 1e-30, 1.0, math.inf]), 1e8)
    assert raised.tolist() == [0.0, math.inf, math.inf, math.inf]
    assert math.isnan(float(rounding.raised(torch.tensor(math.nan), 3)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_total_of_terms_of_either_sign_is_rounded_upward(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 7, 3000):
        terms = torch.randn(20, n, generator=generator).to(dtype)
        terms[::2] = -terms[::2].abs()  # of one sign, where a factor on the sum would have to know it
        for row, total in zip(terms, rounding.total_above(terms).tolist(), strict=True):
            truth = sum(exact(row))
            assert truth <= Fraction(total)
            assert Fraction(total) - truth <= Fraction(8 * n * torch.finfo(dtype).eps + 1e-5) * sum(
                map(abs, exact(row))
            )
    assert float(rounding.total_above(torch.zeros(5))) == 0.0


OPERATIONS: dict[str, tuple[Callable[..., rounding.Number], Callable[[Fraction, Fraction], Fraction]]] = {
    "product": (rounding.product_above, lambda a, b: a * b),
    "sum": (rounding.sum_above, lambda a, b: a + b),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_one_operation_on_numbers_or_tensors_is_rounded_upward(name: str) -> None:
    above, truth = OPERATIONS[name]
    first = numbers(torch.float64)
    second = first.flip(0)
    for a in (0.0, 5e-324, 1e-200, 0.1, 1e300):
        for b, together in zip(second.tolist(), torch.as_tensor(above(a, second)).tolist(), strict=True):
            alone = float(above(a, b))
            assert together == alone == float(above(torch.tensor(b, dtype=torch.float64), a))
            value = truth(Fraction(a), Fraction(b))
            assert alone == 0 if value == 0 else math.isinf(alone) or Fraction(alone) >= value
            assert alone > 0 or value == 0
    both = torch.as_tensor(above(first, second))
    for a, b, value in zip(exact(first), exact(second), both.tolist(), strict=True):
        assert math.isinf(value) or Fraction(value) >= truth(a, b)


def test_what_is_not_a_number_says_nothing() -> None:
    assert math.isnan(float(rounding.product_above(0.0, math.inf)))
    assert math.isnan(float(rounding.product_above(0.0, torch.tensor(math.inf))))


def test_roots_are_rounded_upward_and_infinite_where_squares_underflow() -> None:
    for value in numbers(torch.float64, 100).tolist():
        assert Fraction(rounding.sqrt_above(value)) ** 2 >= Fraction(value)
    square = torch.tensor([4.0, 0.0, 1e-310], dtype=torch.float64)
    roots = rounding.root_above(square, square).tolist()
    assert 2 < roots[0] < 2 + 1e-12 and roots[1] == 0 and roots[2] == math.inf


def test_text_is_rounded_to_the_proved_side() -> None:
    assert (rounding.lower_text(2 / 3, 3), rounding.upper_text(2 / 3, 3)) == ("0.666", "0.667")
    assert (rounding.signed_lower_text(-2 / 3, 3), rounding.signed_upper_text(-2 / 3, 3)) == ("-0.667", "-0.666")
    assert rounding.lower_text(0.0) == rounding.upper_text(math.inf) == rounding.gap_text(math.inf) == "-"
    assert (rounding.gap_text(5e-5), rounding.gap_text(0.5), rounding.gap_text(0.0)) == ("<0.01%", "50.00%", "0.00%")
