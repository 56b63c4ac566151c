"""Iterates in parts and together again, and what their pairs add up to."""

from __future__ import annotations

import torch
from quadratic.programs import small

from lipcompare.quadratic.solver.advance import advance
from lipcompare.quadratic.solver.iterate import Iterate, joined
from lipcompare.quadratic.solver.start import default_start, first_iterate


def one() -> Iterate:
    data = small()
    iterate, _ = advance(first_iterate(data, default_start(data), torch.float64))
    return iterate


def test_problems_apart_and_together_again() -> None:
    iterate = one()
    count = len(iterate.y)
    order = [2, 0, 1]
    parts = [iterate.select(torch.tensor([i], device=iterate.y.device)) for i in order]
    together, picked = joined(parts), iterate.select(torch.tensor(order, device=iterate.y.device))
    assert count == 3
    for name in ("y", "tau", "blocks", "slacks", "matrices", "inverses", "infeasible", "caution", "complementarity"):
        torch.testing.assert_close(getattr(together, name), getattr(picked, name))
    for name in ("k", "g", "b", "signs", "pairs", "trace", "bound", "scale", "order", "linear"):
        torch.testing.assert_close(getattr(together.coefficients, name), getattr(picked.coefficients, name))


def test_complementarity_pair_by_pair() -> None:
    iterate = one()
    c = iterate.coefficients
    for i in range(len(iterate.y)):
        m, s = iterate.matrices[:, i]
        real = c.present[i].bool()
        total = torch.trace(m[real][:, real] @ s[real][:, real]) + (iterate.slacks[i] * iterate.scalars[i]).sum()
        for j in c.signs[i].nonzero().flatten().tolist():
            x11, x12, x22 = iterate.blocks[:, i, j]
            primal = torch.stack([torch.stack([x11, x12]), torch.stack([x12, x22])])
            half = torch.full_like(x11, -0.5)
            dual = torch.stack([torch.stack([iterate.tau[i, j], half]), torch.stack([half, iterate.lam[i, j]])])
            total = total + (primal * dual).sum()
        torch.testing.assert_close(iterate.complementarity[i], total)
