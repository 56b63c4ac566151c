"""Linear maps on functionals that live on windows, in both directions."""

from __future__ import annotations

from lipcompare.network.grids import Grid, between, factors
from lipcompare.network.linear_maps import Conv, Identity, LinearMap, Scale, Transposed
from lipcompare.network.patches.convolution import conv_adjoint, conv_forward
from lipcompare.network.patches.table import Table
from lipcompare.network.patches.windows import Patches


def push_back(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A^T`` on weights: from a value that ``m`` writes to the one of shape ``grid`` that it reads."""
    shapes = between(m, grid, patches.grid)
    parts = factors(m)
    for part, shape in zip(reversed(parts), reversed(shapes[:-1]), strict=True):
        patches = _adjoint(part, patches, shape).settled()
    return patches


def push_on(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A`` on tangents: from a value that ``m`` reads to the one of shape ``grid`` that it writes."""
    return push_back(Transposed(m), patches, grid)


def _adjoint(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A^T`` for a map that is no product."""
    base, turned = m, False
    while isinstance(base, Transposed):
        base, turned = base.base, not turned
    if isinstance(base, Identity) and grid == patches.grid:
        return patches
    if isinstance(base, Scale) and grid == patches.grid:
        return _scaled(base, patches)
    if isinstance(base, Conv):
        if turned and (base.in_shape, base.out_shape) == (patches.grid, grid):
            return conv_forward(base, patches.cleaned())
        if not turned and (base.in_shape, base.out_shape) == (grid, patches.grid):
            return conv_adjoint(base, patches.cleaned())
    return Patches.from_flat(m.adjoint(patches.flat()), patches.items, grid)


def _scaled(m: Scale, patches: Patches) -> Patches:
    return patches.with_rows(patches.rows * Table(m.factor.unsqueeze(0), patches.grid).alike(patches))
