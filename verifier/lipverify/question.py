"""What is asked: a network, a box, rows and a norm, in one arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np

from lipverify.network import Kink, Network
from lipverify.numbers import GROWTH, SMALL, Arithmetic, Array


class Refused(Exception):
    """A part of a certificate proves nothing; the message says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """The dual norm of the gradient of every row times the network, over a box.

    Attributes:
        lower, upper: (inputs,).
        rows: (rows, outputs).
        norm: ``inf``, ``2`` or ``1``, the norm on the input. Bounds for ``2`` are on squares until the end.
    """

    network: Network
    arithmetic: Arithmetic
    lower: Array
    upper: Array
    rows: Array
    norm: str

    def to(self, arithmetic: Arithmetic) -> Question:
        """The same question in another arithmetic.

        Raises:
            Refused: doubles might overflow or underflow in a way that their error bounds do not cover.
        """
        if not arithmetic.exact and not self._fits():
            raise Refused("numbers are too large or too small for doubles: only rational arithmetic proves anything")
        lower, upper, rows = (arithmetic.array(v) for v in (self.lower, self.upper, self.rows))
        return Question(self.network.to(arithmetic), arithmetic, lower, upper, rows, self.norm)

    def _fits(self) -> bool:
        """Whether no number that a pass forms is above 2^GROWTH, and no product of numbers that are not 0 vanishes."""
        nodes = self.network.nodes
        inner = ([n.alpha] if isinstance(n, Kink) else [n.bias, *(m.matrix for _, m in n.terms)] for n in nodes)
        large, small = 0.0, 0.0
        for parts in ([self.lower, self.upper], [self.rows], *inner):
            sizes = [np.abs(part) for part in parts]
            large += 2 + np.log2(1 + sum(max(v.sum(axis).max() for axis in range(v.ndim)) for v in sizes))
            small -= np.log2(min(v.min(initial=1.0, where=v > 0) for v in sizes))
        return bool(large <= GROWTH and small <= SMALL)
