"""Intervals of tensors."""

from __future__ import annotations

import torch

from lipcompare.network import Interval


def interval(lower: list[float], upper: list[float]) -> Interval:
    return Interval(torch.tensor(lower, dtype=torch.float64), torch.tensor(upper, dtype=torch.float64))


def test_middle_width_and_size() -> None:
    z = interval([-3.0, 1.0, 0.0], [1.0, 2.0, 0.0])
    assert z.center.tolist() == [-1.0, 1.5, 0.0]
    assert z.radius.tolist() == [2.0, 0.5, 0.0]
    assert z.magnitude.tolist() == [3.0, 2.0, 0.0]


def test_the_tighter_of_two_bounds_and_crossed_ones_in_order() -> None:
    both = interval([-3.0, 1.0, 0.0], [1.0, 2.0, 1.0]).intersect(interval([-1.0, 0.0, 1.5], [3.0, 1.5, 2.0]))
    assert both.lower.tolist() == [-1.0, 1.0, 1.0]
    assert both.upper.tolist() == [1.0, 1.5, 1.5]


def test_selection_by_entry() -> None:
    mask = torch.tensor([True, False])
    chosen = interval([0.0, 0.0], [1.0, 1.0]).select(mask, interval([5.0, 5.0], [6.0, 6.0]))
    assert chosen.lower.tolist() == [0.0, 5.0]
    assert chosen.upper.tolist() == [1.0, 6.0]
