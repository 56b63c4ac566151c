"""Operations along one axis, and those that are read off unit vectors."""

from __future__ import annotations

import lowered
import pytest
import torch

from lipcompare.network.lowering import axes
from lipcompare.network.lowering.builder import Builder, NotLinear
from lipcompare.network.room import Room


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_a_matrix_along_an_axis(axis: int) -> None:
    matrix = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.0, 0.0, 3.0, 0.0]], dtype=torch.float64)
    lowered.check(
        lambda b, x: axes.along(b, x, axis, lambda t: t @ matrix.T, 2),
        lambda x: (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis),
        (4, 4),
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_running_sums(exclusive: bool, reverse: bool) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        turned = x.flip(1) if reverse else x
        total = turned.cumsum(1) - (turned if exclusive else 0)
        return total.flip(1) if reverse else total

    lowered.check(lambda b, x: axes.running_sum(b, x, 1, exclusive=exclusive, reverse=reverse), function, (5, 2))


def test_an_affine_operation_is_read_off_unit_vectors_and_another_refused() -> None:
    lowered.check(
        lambda b, x: axes.probed(b, x, lambda t: t.roll(1, -1) * 2 + 1), lambda x: x.roll(1, -1) * 2 + 1, (2, 3)
    )
    b = Builder((1, 4), Room())
    with pytest.raises(NotLinear):
        axes.probed(b, b.input, torch.relu)
    with pytest.raises(NotLinear):
        axes.along(b, b.input, 1, lambda t: t + 1, 4)
