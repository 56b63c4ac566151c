"""The builder's nodes: copies are selections, equal nodes are one, what does not fit is said before it exists."""

from __future__ import annotations

import lowered
import pytest
import torch

from lipcompare import InvalidInput
from lipcompare.network.activations import relu
from lipcompare.network.lowering.builder import Builder, Value, as_value, expand, known, rearrange, take
from lipcompare.network.room import Room


def test_rearrangements_copy_entries_and_fill_holes() -> None:
    constant = torch.tensor([[7.0, 8.0]], dtype=torch.float64)
    lowered.check(lambda b, x: rearrange(b, [x], lambda t: t.transpose(1, 2)), lambda x: x.transpose(1, 2), (2, 3))
    pad = lambda t: torch.nn.functional.pad(t, (1, 2))  # noqa: E731
    lowered.check(
        lambda b, x: rearrange(b, [x], pad, fill=5.0), lambda x: torch.nn.functional.pad(x, (1, 2), value=5.0), (3,)
    )
    both = lambda *ts: torch.cat(ts, -1)  # noqa: E731
    lowered.check(lambda b, x: rearrange(b, [x, constant, x], both), lambda x: both(x, constant, x), (2,))
    lowered.check(lambda b, x: take(b, x, torch.tensor([[2, 0]])), lambda x: x[:, [2, 0]], (3,))
    lowered.check(lambda b, x: expand(b, x, (1, 4, 3)), lambda x: x.expand(1, 4, 3), (1, 3))


def test_a_reshape_is_no_node_and_equal_nodes_are_one() -> None:
    b = Builder((1, 2, 3), Room())
    assert rearrange(b, [b.input], lambda t: t.reshape(1, 6)) == Value(0, (1, 6))
    first, second = (rearrange(b, [b.input], lambda t: t.transpose(1, 2)) for _ in range(2))
    assert first == second and b.activate(as_value(b, first), relu()) == b.activate(as_value(b, second), relu())
    assert len(b.nodes) == 3


def test_what_no_input_reaches_is_a_constant() -> None:
    b = Builder((1, 2), Room())
    fixed = b.constant(torch.tensor([[-1.0, 2.0]]))
    assert known(b, b.activate(fixed, relu())).tolist() == [[0.0, 2.0]]  # type: ignore[union-attr]
    assert known(b, b.activate(b.input, relu())) is None


def test_what_does_not_fit_is_said_before_it_exists() -> None:
    b = Builder((1, 8), Room(memory=2**12))
    with pytest.raises(InvalidInput, match="more than is left of the memory limit"):
        expand(b, b.input, (10**6, 8))
    with pytest.raises(InvalidInput, match="no entries"):
        b.finish(torch.zeros(1, 0), (8,), (0,), "empty")
