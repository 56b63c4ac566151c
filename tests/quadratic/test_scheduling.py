"""Which programs there are, and in what order they are solved."""

from __future__ import annotations

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic.programs import propagated

from lipcompare.problem import Norm
from lipcompare.quadratic.scheduling import batches, tasks_of

PROBLEM = nets.problem(nets.dense(7, (3, 7, 6, 3)), 0.4, batch=2)


@pytest.mark.parametrize("only_maximum", [True, False])
def test_one_program_per_row(only_maximum: bool) -> None:
    _, gradients, linear = propagated(PROBLEM)
    tasks = tasks_of(gradients, linear, Norm.INF, only_maximum)
    assert torch.stack([tasks.example, tasks.row]).T.tolist() == [[b, r] for b in (0, 1) for r in range(3)]
    assert torch.equal(tasks.linear, linear.flatten())
    assert tasks.group.tolist() == ([0, 0, 0, 1, 1, 1] if only_maximum else list(range(6)))
    squared = tasks_of(gradients, linear, Norm.TWO, only_maximum)
    assert bool((squared.linear >= linear.flatten().square()).all())
    torch.testing.assert_close(squared.linear.sqrt(), linear.flatten())
    some = tasks.select(torch.tensor([4, 1]))
    assert some.row.tolist() == [1, 1] and some.example.tolist() == [1, 0]


@pytest.mark.parametrize("unknown", [float("nan"), float("inf")])
def test_where_the_linear_bound_is_unknown_entries_have_none(unknown: float) -> None:
    _, gradients, linear = propagated(PROBLEM)
    tasks = tasks_of(gradients, torch.full_like(linear, unknown), Norm.ONE, True)
    assert len(tasks.linear) and bool((tasks.linear == torch.inf).all())


def test_one_program_per_signed_entry_that_may_be_positive() -> None:
    """For p = 1, each with a linear bound that is no less than what the norm's own says of it."""
    _, gradients, linear = propagated(PROBLEM)
    tasks = tasks_of(gradients, 1.5 * linear, Norm.ONE, True)
    lower, upper = gradients.intervals[0]
    expected = []
    for b in range(2):
        for r in range(3):
            scale = max(1.0, float(1.5 * linear[b, r] / gradients.intervals[0].magnitude[b, r].max()))
            for j in range(3):
                ends = ((1.0, float(upper[b, r, j])), (-1.0, -float(lower[b, r, j])))
                expected += [(b, r, j, sign, value * scale) for sign, value in ends if value > 0]
    names = [getattr(tasks, name).tolist() for name in ("example", "row", "entry", "sign", "linear")]
    assert list(zip(*names[:4], strict=True)) == [e[:4] for e in expected]
    assert names[4] == pytest.approx([e[4] for e in expected])


@settings(max_examples=25)
@given(groups=st.lists(st.integers(1, 7), min_size=1, max_size=5), width=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_batches(groups: list[int], width: int, seed: int) -> None:
    """The largest of every group first; a group's portions stay whole, and wait for each other."""
    random = torch.Generator().manual_seed(seed)
    group = torch.tensor([g for g, count in enumerate(groups) for _ in range(count)])
    value = torch.rand(len(group), generator=random)
    todo = 100 + torch.arange(len(group))
    own_width = torch.randint(1, 4, (len(groups),), generator=random)
    found = batches(todo, value, group, own_width[group], width)
    assert sorted(i for batch in found for i in batch.tolist()) == todo.tolist()
    of = {}
    for number, batch in enumerate(found):
        for i in (batch - 100).tolist():
            of[i] = number
    for g in range(len(groups)):
        mine = sorted((i for i in range(len(group)) if group[i] == g), key=lambda i: -float(value[i]))
        size = int(own_width[g])
        portions = [mine[start : start + size] for start in range(0, len(mine), size)]
        numbers = [{of[i] for i in portion} for portion in portions]
        assert all(len(n) == 1 for n in numbers), "a portion was split"
        order = [n.pop() for n in numbers]
        assert order == sorted(set(order)), "a portion does not wait for the one before"
    for batch in found:
        assert len(batch) <= max(width, int(own_width.max()))
