"""Piecewise linear operations written with ReLUs, against torch."""

from __future__ import annotations

from collections.abc import Callable

import lowered
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.network.lowering import piecewise
from lipcompare.network.lowering.builder import Builder, NotLinear
from lipcompare.network.room import Room

ROW = torch.tensor([0.5, -2.0, 3.0, 0.1], dtype=torch.float64)

CASES: dict[str, tuple[lowered.Lowering, Callable[[Tensor], Tensor]]] = {
    "absolute": (piecewise.absolute, torch.abs),
    "clip": (lambda b, x: piecewise.clip(b, x, -1.0, 0.5), lambda x: x.clamp(-1.0, 0.5)),
    "clip from below": (lambda b, x: piecewise.clip(b, x, 0.5, None), lambda x: x.clamp(min=0.5)),
    "hard sigmoid": (lambda b, x: piecewise.hard_sigmoid(b, x, 1 / 6, 0.5), lambda x: (x / 6 + 0.5).clamp(0, 1)),
    "soft shrink": (lambda b, x: piecewise.soft_shrink(b, x, 0.5), lambda x: F.softshrink(x, 0.5)),
    "maximum": (lambda b, x: piecewise.maximum(b, x, ROW), lambda x: torch.maximum(x, ROW)),
    "minimum": (lambda b, x: piecewise.maximum(b, x, ROW, smallest=True), lambda x: torch.minimum(x, ROW)),
    "sort": (lambda b, x: piecewise.sort(b, x, -1, descending=False), lambda x: x.sort(-1).values),
    "sort down": (lambda b, x: piecewise.sort(b, x, 1, descending=True), lambda x: x.sort(1, descending=True).values),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_computes(name: str) -> None:
    lowering, function = CASES[name]
    made = lowered.check(lowering, function, (3, 4))
    assert made.activations and all(made.activation(k).piecewise_linear for k in made.activations)


def test_jumps_are_refused() -> None:
    b = Builder((1, 4), Room())
    for jump in (lambda: piecewise.threshold(b, b.input, 0.5, 2.0), lambda: piecewise.hard_shrink(b, b.input, 0.5)):
        with pytest.raises(NotLinear):
            jump()
    lowered.check(lambda b, x: piecewise.threshold(b, x, 0.5, 0.5), lambda x: F.threshold(x, 0.5, 0.5), (4,))


@pytest.mark.parametrize("smallest", [False, True])
def test_maxima_over_sets_share_pairs(smallest: bool) -> None:
    """Sets {0, 1, 2}, {1, 2}, {3}: the pair (1, 2) is compared once."""
    table = torch.tensor([[1, 1, 3], [2, 2, -1], [0, -1, -1]])
    best = torch.amin if smallest else torch.amax
    made = lowered.check(
        lambda b, x: piecewise.maximum_over(b, x, table, smallest=smallest),  # type: ignore[arg-type]
        lambda x: torch.stack([best(x[0, :3], 0), best(x[0, 1:3], 0), x[0, 3]])[None, :],
        (4,),
    )
    assert made.neurons == 2
