"""Groups hold every wanted entry once, whatever the limits."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare.network.grouping import by_entry, by_position, grouped


@settings(max_examples=20)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.integers(0, 99))
def test_every_wanted_entry_comes_once(batch: int, channels: int, most: int, together: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    wanted = torch.rand(batch, 6, channels, generator=random) < 0.4
    kinds = torch.arange(6) % 2
    seen = torch.zeros(wanted.shape, dtype=torch.int64)
    for group in grouped(wanted, most=most, together=together, kinds=kinds):
        assert group.slot.numel() <= max(most, 1) * max(1, together) and len(group.position) <= together
        assert bool((kinds[group.position] == group.kind).all())
        here = (group.example.unsqueeze(-1), group.position.unsqueeze(-1), group.slot)
        seen.index_put_(here, group.filled.to(seen.dtype), accumulate=True)
    assert torch.equal(seen, wanted.to(seen.dtype))


def test_by_entry_undoes_by_position() -> None:
    values = torch.arange(2 * 3 * 24.0).view(2, 3, 24)
    assert torch.equal(by_entry(by_position(values, (2, 3, 4)), (2, 3, 4), 3), values)


def test_places_where_nothing_is_wanted_are_passed_over_at_once() -> None:
    """One step for each of them in every group would be 10^10 steps here."""
    wanted = torch.zeros(1, 200_000, 1, dtype=torch.bool)
    wanted[0, ::2] = True
    groups = list(grouped(wanted, most=1000, together=1000))
    assert sum(int(group.filled.sum()) for group in groups) == 100_000 and len(groups) == 100
