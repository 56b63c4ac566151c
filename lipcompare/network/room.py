"""How much memory reading a model may take.

A small file can describe a huge model: zeros compress a thousandfold, forty doublings need forty lines, a shape is a
few digits. Sizes are known before anything of that size exists, so they are checked before it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lipcompare.errors import InvalidInput

MEMORY = 2**30
"""Bytes that loading may take unless the caller says otherwise."""


class Room:
    """Counts what a model takes while it is read.

    A model may always take what its own size explains: eight bytes for every byte of its source, as float64 takes for
    weights of one byte. Beyond that it has half of the memory limit; the other half is for the copies that are made on
    the way (the precision of the source, products of layers, values of examples).
    """

    def __init__(self, memory: int = MEMORY, source: int = 0) -> None:
        self._memory = memory
        self._left = memory // 2 + 8 * source

    def require(self, numbers: float, what: str) -> None:
        """That many numbers of eight bytes, for a while.

        Raises:
            InvalidInput: they do not fit.
        """
        if 8 * numbers > self._left:
            raise InvalidInput(
                f"{what} takes {_bytes(8 * numbers)}, more than is left of the memory limit of {_bytes(self._memory)}: "
                "raise it (--memory on the command line, load(..., memory=...) in Python) or take a smaller model."
            )

    def take(self, numbers: float, what: str) -> None:
        """That many numbers of eight bytes, for good; errors as :meth:`require`."""
        self.require(numbers, what)
        self._left -= 8 * int(numbers)


def count(shape: Iterable[int]) -> int:
    """Entries of an array of that shape.

    Raises:
        InvalidInput: a size is negative.
    """
    sizes = [int(n) for n in shape]
    if any(n < 0 for n in sizes):
        raise InvalidInput(f"A shape {tuple(sizes)} has a negative size: the input may be too small for the model.")
    return math.prod(sizes)


def _bytes(n: float) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
    k = min(len(units) - 1, int(math.log2(max(n, 1)) // 10)) if n < 2.0**1000 else len(units) - 1
    return f"{n / 2.0 ** (10 * k):.3g} {units[k]}"
