"""Values of a node, read by the windows of functionals on it."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from lipcompare.network.grids import Grid
from lipcompare.network.patches.windows import Patches


class Table:
    """Values of one node for several fields (examples, or examples and rows), to be read by windows.

    Over the edges of the image everything is zero.
    """

    def __init__(self, values: Tensor, grid: Grid) -> None:
        """``values``: (fields, size)."""
        channels, *spatial = grid
        self.fields, self.positions, self.channels = int(values.shape[0]), math.prod(spatial), channels
        rows = values.reshape(self.fields, channels, self.positions).transpose(1, 2)
        # One more position per field holds the zeros.
        self.rows = F.pad(rows, (0, 0, 0, 1)).reshape(-1, channels)

    def index(self, patches: Patches, field: Tensor | None = None) -> Tensor | None:
        """Rows that the patches read, for :meth:`read`; None where all read the whole of the only field."""
        if patches.is_whole and self.fields == 1:
            return None
        field = patches.items.field.unsqueeze(-1) if field is None else field
        return field.unsqueeze(-1) * (self.positions + 1) + patches.index.unsqueeze(1)

    def read(self, patches: Patches, index: Tensor | None = None) -> Tensor:
        """(groups or 1, slots or 1, entries of a window): what lies under each window.

        ``index``: what :meth:`index` of this table, or of one of the same shape, says; with it, fields are as given
        there: (groups, slots), and otherwise those of the groups.
        """
        index = self.index(patches) if index is None else index
        if index is None:
            return self.rows[:-1].reshape(1, 1, -1)
        return self.rows.index_select(0, index.flatten()).view(*index.shape[:2], -1)

    def alike(self, patches: Patches) -> Tensor:
        """The same of a table with one field, whatever the fields of the items."""
        return self.read(patches, self.index(patches, patches.items.field.new_zeros(patches.items.groups, 1)))


def dot(weights: Tensor, values: Tensor) -> Tensor:
    """(signs, groups, slots, n) times (groups or 1, slots or 1, n): (signs, items)."""
    signs, n = weights.shape[0], weights.shape[-1]
    if values.shape[:2] == (1, 1):
        return (weights.reshape(-1, n) @ values.view(n)).view(signs, -1)
    if values.shape[1] == 1:
        return (weights @ values.transpose(1, 2)).flatten(1)
    each = weights.view(signs, -1, n).transpose(0, 1) @ values.view(-1, n, 1)
    return each.squeeze(-1).T
