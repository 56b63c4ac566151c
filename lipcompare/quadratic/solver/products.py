"""Products with ``K``, which is half the identity plus blocks above the diagonal, one per activation node.

A gate's gradient depends on gates nearer the output only. Where the blocks are large, products skip the zeros.
"""

from __future__ import annotations

from torch import Tensor

from lipcompare.quadratic.solver.iterate import Coefficients

_SMALLEST = 80  # coordinates from which on skipping pays
_PER_NODE = 12  # coordinates per activation node, on average, from which on it does


class Products:
    """Products with the ``K`` of a batch of problems."""

    def __init__(self, coefficients: Coefficients) -> None:
        self.k = coefficients.k
        self.half = self.k.diagonal(dim1=-2, dim2=-1)
        self.ranges = coefficients.ranges
        self.sparse = coefficients.size >= _SMALLEST and len(self.ranges) < coefficients.size // _PER_NODE

    def right(self, x: Tensor) -> Tensor:
        """``x K`` for ``x`` of shape (problems, m, n)."""
        if not self.sparse:
            return x @ self.k
        out = x * self.half.unsqueeze(-2)
        for start, stop in self.ranges:
            out[..., start:stop] += x[..., :start] @ self.k[:, :start, start:stop]
        return out

    def left(self, x: Tensor) -> Tensor:
        """``K' x`` for ``x`` of shape (problems, n, m)."""
        if not self.sparse:
            return self.k.mT @ x
        out = x * self.half.unsqueeze(-1)
        for start, stop in self.ranges:
            out[:, start:stop] += self.k[:, :start, start:stop].mT @ x[:, :start]
        return out

    def from_left(self, x: Tensor) -> Tensor:
        """``K x`` for ``x`` of shape (problems, n, m)."""
        if not self.sparse:
            return self.k @ x
        out = x * self.half.unsqueeze(-1)
        for start, stop in self.ranges:
            out[:, :start] += self.k[:, :start, start:stop] @ x[:, start:stop]
        return out
