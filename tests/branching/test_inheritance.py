"""What a subdomain leaves to its children comes back as it was."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.inheritance import (
    inherited_bounds,
    inherited_cuts,
    inherited_multipliers,
    pack_cuts,
    pack_multipliers,
    pack_sides,
)
from lipcompare.network import Interval


@pytest.mark.parametrize("seed", range(5))
def test_what_is_known_survives_packing(seed: int) -> None:
    """What is known to be on one side of its kink stays there, off the kink; everything else keeps its bounds."""
    network = nets.dense(seed, (3, 9, 4, 2))
    numbering = Numbering(network)
    random = torch.Generator().manual_seed(seed)
    narrow, wide = {}, {}
    for k in network.activations:
        size = network.nodes[k].size
        low = torch.randn(6, size, generator=random, dtype=torch.float64)
        high = low + torch.rand(6, size, generator=random, dtype=torch.float64)
        low[0, 0], high[1, 1] = 0.0, 0.0  # touching the kink is not being off it
        narrow[k], wide[k] = Interval(low, high), Interval(low[:1] - 9, high[:1] + 9)
    kept = torch.randn(6, 1 + numbering.gates + 3, generator=random) * (torch.rand(6, 1, generator=random) < 0.5)
    names = torch.randint(50, (6, 4, 2), generator=random)
    nu = torch.rand(6, 4, generator=random) * (torch.rand(6, 4, generator=random) < 0.5)
    parts = zip(pack_sides(numbering, narrow), pack_multipliers(kept), pack_cuts(NamedCuts(names, nu)), strict=True)
    packed = [sides + multipliers + cuts for sides, multipliers, cuts in parts]
    told = inherited_multipliers(numbering, [*packed, b""])
    assert (told[:-1] == kept).all() and (told[-1] == 0).all()
    cuts = inherited_cuts(numbering, [*packed, b"", pack_sides(numbering, narrow)[0]])
    assert not cuts.nu[-2:].any() and cuts.nu.shape[-1] == int((nu > 0).sum(-1).max())
    for i in range(6):
        here = cuts.nu[i] > 0
        assert (cuts.nu[i, here] == nu[i, nu[i] > 0]).all() and (cuts.names[i, here] == names[i, nu[i] > 0]).all()
    cut = inherited_bounds(numbering, [*packed, b""], wide)
    for k in network.activations:
        on, off = narrow[k].lower > 0, narrow[k].upper < 0
        lower, upper = (v[:-1] for v in cut[k])
        assert ((lower > 0) == on).all() and ((upper < 0) == off).all()
        assert (lower <= narrow[k].lower)[on].all() and (upper >= narrow[k].upper)[off].all()
        assert (lower == wide[k].lower)[~on].all() and (upper == wide[k].upper)[~off].all()
        assert (cut[k].lower[-1] == wide[k].lower[0]).all() and (cut[k].upper[-1] == wide[k].upper[0]).all()


def test_only_multipliers_that_are_not_zero_take_room() -> None:
    rows = torch.zeros(2, 50)
    rows[1, [3, 40]] = torch.tensor([0.5, -2.0])
    assert [len(packed) for packed in pack_multipliers(rows)] == [4, 20]
