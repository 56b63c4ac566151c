"""The two precisions: when iterations begin in single precision, and how double precision goes on from there."""

from __future__ import annotations

import dataclasses

import torch

from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.dual import Dual, slack_matrix
from lipcompare.quadratic.solver.iterate import Coefficients, Iterate
from lipcompare.quadratic.solver.steps import inverse_factor

SINGLE = 1e-3
"""Gap that single precision reaches, in as many iterations as double, on every reference program."""
SWITCH = 1e-2
"""Gap at which double precision takes over where a smaller one is asked for."""
MOST_SINGLE = 25
"""Iterations; what has not come there by then is left to double precision."""
MARGIN_SINGLE = 1e-5
"""Relative: what the certificate may add to a point of single precision."""
_LARGE = 48
"""Coordinates from which on single precision pays."""


def pays_single(data: SdpData) -> bool:
    """Whether to begin in single precision: it takes half the time where matrices are large; small programs are mostly
    the overhead of their operations. Equations of cuts are nearly dependent, which it cannot tell from dependent."""
    if data.size < _LARGE or data.columns.dtype != torch.float64:
        return False
    return not data.cuts.count or not bool(data.cuts.equal.any())


def restored(data: SdpData, single: Iterate) -> Iterate:
    """An iterate in the precision of the data, with ``S`` formed anew from the multipliers.

    What rounding took from either matrix comes back as a multiple of the identity, for ``S`` by way of ``d``.
    """
    dtype = data.columns.dtype
    c = dataclasses.replace(Coefficients.of(data, dtype), trace=single.coefficients.trace.to(dtype))
    y, trace = single.y.to(dtype), c.size + c.sign_count
    slack = slack_matrix(data, Dual.of_row(y, c.size, c.sign_count))
    matrices = torch.stack([single.matrices[0].to(dtype), slack])
    inverses, inside = inverse_factor(matrices)
    # From the roundoff of single precision on: what that takes for the inside of the cone may be outside by as much.
    for relative in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
        if bool(inside.all()):
            break
        size = relative * (matrices.diagonal(dim1=-2, dim2=-1) * c.present).sum(-1) / c.present.sum(-1)
        shift = torch.where(inside, 0.0, size)
        matrices.diagonal(dim1=-2, dim2=-1).add_(shift.unsqueeze(-1) * c.present)
        y[:, trace] += shift[1]
        inverses, inside = inverse_factor(matrices)
    return Iterate(
        coefficients=c,
        y=y,
        tau=single.tau.to(dtype),
        blocks=single.blocks.to(dtype),
        slacks=single.slacks.to(dtype),
        matrices=matrices,
        inverses=inverses,
        infeasible=single.infeasible.to(dtype),
        caution=torch.ones_like(single.caution, dtype=dtype),
    )
