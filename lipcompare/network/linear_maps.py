"""Linear maps between flat vectors.

Every value in a :class:`~lipcompare.network.graph.Network` is a flat vector, so a map takes ``(..., in_size)`` to
``(..., out_size)`` with any leading axes (examples, rows, targets, subdomains) and knows by itself how to see the
vector as an image. Reshapes then vanish; transposes, slices, padding and up-sampling are one map, :class:`Select`.

A map has no bias: constants sit on the nodes of the graph. A new map is one class with its sizes, ``forward``,
``adjoint`` and ``_absolute``; ``tests/network/test_linear_maps.py`` takes it as a parameter (``MAPS``).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class LinearMap(ABC):
    """A linear map ``A``; the interface every subclass implements."""

    @property
    @abstractmethod
    def in_size(self) -> int: ...

    @property
    @abstractmethod
    def out_size(self) -> int: ...

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A x`` for ``x`` of shape (..., in_size); the result has shape (..., out_size)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y`` for ``y`` of shape (..., out_size); the result has shape (..., in_size)."""

    def rows(self, entries: Tensor, like: Tensor) -> Tensor:
        """The rows of ``A``, (some, in_size), that make some ``entries`` (some,) of its result."""
        units = like.new_zeros(len(entries), self.out_size)
        return self.adjoint(units.scatter_(1, entries.unsqueeze(-1), 1.0))

    def columns(self, entries: Tensor, like: Tensor) -> Tensor:
        """The columns of ``A``, (some, out_size), that some ``entries`` (some,) of its argument meet."""
        units = like.new_zeros(len(entries), self.in_size)
        return self.forward(units.scatter_(1, entries.unsqueeze(-1), 1.0))

    @abstractmethod
    def _absolute(self) -> LinearMap: ...

    @cached_property
    def absolute(self) -> LinearMap:
        """The map with the absolute value of every entry, for interval arithmetic."""
        return self._absolute()

    def _signs(self) -> LinearMap | None:
        return None

    @cached_property
    def signs(self) -> LinearMap | None:
        """The map with the sign of every entry, 1, 0 or -1; None if it does not know its entries."""
        return self._signs()

    def adjoint_signs(self, sides: Tensor) -> Tensor:
        """Where any term of ``A^T y`` may be negative, and where any may be positive: ones, elsewhere zeros.

        By counting, in whole numbers up to twice the terms, which no order of summation rounds.

        Args:
            sides: (2, ..., out_size) small whole numbers, 0 where ``y`` is known not to be negative, and not positive.
        """
        both = sides.sum(0)
        if self.signs is None:
            some = self.absolute.adjoint(both).sign_()
            return some.expand(2, *some.shape)
        falls, rises = sides.unbind()
        terms, balance = self.signs.absolute.adjoint(both), self.signs.adjoint(rises - falls)
        found = terms.new_empty(2, *terms.shape)
        torch.gt(terms - balance, 1, out=found[0])  # twice the number of terms that may be negative
        torch.gt(terms + balance, 1, out=found[1])
        return found

    @property
    def fan_in(self) -> int:
        """Upper bound on the terms summed in one output entry (for rounding-error allowances)."""
        return self.in_size

    @property
    def fan_out(self) -> int:
        """Upper bound on the terms summed in one entry of the adjoint's result."""
        return self.out_size

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same map with its weights on ``device`` in ``dtype``; itself where they are there already.

        Index tensors keep their integer type.
        """
        changes: dict[str, Tensor | LinearMap] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            moved = value
            if isinstance(value, Tensor):
                moved = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            elif isinstance(value, LinearMap):
                moved = value.to(device, dtype)
            if moved is not value:
                changes[field.name] = moved
        return dataclasses.replace(self, **changes) if changes else self

    def matrix(self, *, device: torch.device | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
        """Dense matrix of shape (out_size, in_size)."""
        return self.forward(torch.eye(self.in_size, device=device, dtype=dtype)).transpose(-1, -2)


@dataclasses.dataclass(frozen=True, eq=False)
class Identity(LinearMap):
    size: int

    @property
    def in_size(self) -> int:
        return self.size

    @property
    def out_size(self) -> int:
        return self.size

    @property
    def fan_in(self) -> int:
        return 1

    @property
    def fan_out(self) -> int:
        return 1

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def _absolute(self) -> LinearMap:
        return self

    def _signs(self) -> LinearMap:
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(LinearMap):
    """``y = W x`` applied to each of ``blocks`` consecutive pieces of the vector (1 for a plain linear layer)."""

    weight: Tensor  # (out, in) of one block
    blocks: int = 1

    @property
    def in_size(self) -> int:
        return int(self.weight.shape[1]) * self.blocks

    @property
    def out_size(self) -> int:
        return int(self.weight.shape[0]) * self.blocks

    @property
    def fan_in(self) -> int:
        return int(self.weight.shape[1])

    @property
    def fan_out(self) -> int:
        return int(self.weight.shape[0])

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.blocks == 1:
            return x @ weight
        return torch.matmul(x.reshape(*x.shape[:-1], self.blocks, weight.shape[0]), weight).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        return self._apply(x, self.weight.T)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y, self.weight)

    def _absolute(self) -> LinearMap:
        return Dense(self.weight.abs(), self.blocks)

    def rows(self, entries: Tensor, like: Tensor) -> Tensor:
        return super().rows(entries, like) if self.blocks > 1 else self.weight.index_select(0, entries)

    def columns(self, entries: Tensor, like: Tensor) -> Tensor:
        return super().columns(entries, like) if self.blocks > 1 else self.weight.T.index_select(0, entries)

    def _signs(self) -> LinearMap:
        return Dense(self.weight.sign(), self.blocks)

    @cached_property
    def apart(self) -> Tensor | None:
        """Positive entries above the absolute values of negative ones, (2 out, in); None for several blocks."""
        if self.blocks > 1:
            return None
        return torch.cat([self.weight.clamp(min=0), (-self.weight).clamp(min=0)])


_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(LinearMap):
    """Convolution in 1 to 3 dimensions with symmetric zero padding (asymmetric: a :class:`Select` before it)."""

    weight: Tensor  # (out_channels, in_channels / groups, *kernel)
    in_shape: tuple[int, ...]  # (in_channels, *spatial)
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def in_size(self) -> int:
        return math.prod(self.in_shape)

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        """(out_channels, *spatial)."""
        kernel = self.weight.shape[2:]
        spatial = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(self.in_shape[1:], kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return (int(self.weight.shape[0]), *spatial)

    @property
    def out_size(self) -> int:
        return math.prod(self.out_shape)

    @property
    def fan_in(self) -> int:
        return math.prod(self.weight.shape[1:])

    @property
    def fan_out(self) -> int:
        return int(self.weight.shape[0]) // self.groups * math.prod(self.weight.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        images = x.reshape(-1, *self.in_shape)
        out = _CONV[len(self.stride)](images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return out.reshape(*x.shape[:-1], self.out_size)

    def adjoint(self, y: Tensor) -> Tensor:
        images = y.reshape(-1, *self.out_shape)
        # The input rows that no window reached (stride does not divide) come back as output padding.
        output_padding = tuple(
            n - ((o - 1) * s - 2 * p + d * (k - 1) + 1)
            for n, o, k, s, p, d in zip(
                self.in_shape[1:], self.out_shape[1:], self.weight.shape[2:], self.stride, self.padding,
                self.dilation, strict=True,
            )
        )  # fmt: skip
        out = _CONV_TRANSPOSE[len(self.stride)](
            images, self.weight, None, self.stride, self.padding, output_padding, self.groups, self.dilation
        )
        return out.reshape(*y.shape[:-1], self.in_size)

    def _absolute(self) -> LinearMap:
        return dataclasses.replace(self, weight=self.weight.abs())

    def _signs(self) -> LinearMap:
        return dataclasses.replace(self, weight=self.weight.sign())


@dataclasses.dataclass(frozen=True, eq=False)
class Scale(LinearMap):
    """Entrywise product with a constant vector."""

    factor: Tensor  # (size,)

    @property
    def in_size(self) -> int:
        return int(self.factor.shape[0])

    @property
    def out_size(self) -> int:
        return int(self.factor.shape[0])

    @property
    def fan_in(self) -> int:
        return 1

    @property
    def fan_out(self) -> int:
        return 1

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.factor

    def _absolute(self) -> LinearMap:
        return Scale(self.factor.abs())

    def _signs(self) -> LinearMap:
        return Scale(self.factor.sign())


@dataclasses.dataclass(frozen=True, eq=False)
class Select(LinearMap):
    """``y_i = x[index_i]``, or 0 where ``index_i`` is -1: transpose, slice, gather, padding, nearest up-sampling."""

    index: Tensor  # (out_size,), int64
    size: int  # in_size

    @property
    def in_size(self) -> int:
        return self.size

    @property
    def out_size(self) -> int:
        return int(self.index.shape[0])

    @property
    def fan_in(self) -> int:
        return 1

    @cached_property
    def _safe(self) -> tuple[Tensor, Tensor | None]:
        """Index with the padding pointed at entry 0, and the mask that zeroes it (None without padding)."""
        hole = self.index < 0
        if not bool(hole.any()):
            return self.index, None
        return self.index.clamp(min=0), ~hole

    def forward(self, x: Tensor) -> Tensor:
        index, mask = self._safe
        y = x.index_select(-1, index)
        return y if mask is None else y * mask

    def adjoint(self, y: Tensor) -> Tensor:
        index, mask = self._safe
        if mask is not None:
            y = y * mask
        return y.new_zeros(*y.shape[:-1], self.size).index_add(-1, index, y)

    def _absolute(self) -> LinearMap:
        return self

    def _signs(self) -> LinearMap:
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class Transposed(LinearMap):
    """The adjoint of another map as a map: transposed convolution, concatenation, sums over axes."""

    base: LinearMap

    @property
    def in_size(self) -> int:
        return self.base.out_size

    @property
    def out_size(self) -> int:
        return self.base.in_size

    @property
    def fan_in(self) -> int:
        return self.base.fan_out

    @property
    def fan_out(self) -> int:
        return self.base.fan_in

    def forward(self, x: Tensor) -> Tensor:
        return self.base.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.base.forward(y)

    def _absolute(self) -> LinearMap:
        return Transposed(self.base.absolute)

    def _signs(self) -> LinearMap | None:
        return None if self.base.signs is None else Transposed(self.base.signs)


@dataclasses.dataclass(frozen=True, eq=False)
class Composed(LinearMap):
    """``outer(inner(x))``."""

    outer: LinearMap
    inner: LinearMap

    @property
    def in_size(self) -> int:
        return self.inner.in_size

    @property
    def out_size(self) -> int:
        return self.outer.out_size

    @property
    def fan_in(self) -> int:
        return self.outer.fan_in + self.inner.fan_in

    @property
    def fan_out(self) -> int:
        return self.outer.fan_out + self.inner.fan_out

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def _absolute(self) -> LinearMap:
        # |A B| <= |A| |B| entrywise: valid for intervals, and equal where one factor selects or scales.
        return Composed(self.outer.absolute, self.inner.absolute)

    def adjoint_signs(self, sides: Tensor) -> Tensor:
        return self.inner.adjoint_signs(self.outer.adjoint_signs(sides))
