"""With which weight the linear bound uses every gate: the functional that reaches the gate on its way to the output."""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients
from lipcompare.jacobian.lines import constants
from lipcompare.jacobian.norms import absolute_chord, square_chord
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward, linear_value
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm


def gate_weights(
    network: Network, gates: Gates, functionals: Tensor, gradients: Gradients, norm: Norm
) -> dict[int, Tensor]:
    """Absolute weights (batch, rows, neurons) per activation node in the linear bound on the norm.

    For p = 1, where one entry of the gradient decides, the entry with the largest interval is taken. Where gradients
    come without lines around the gates (interval arithmetic), those of constants say the same.
    """
    lines = gradients.lines or {
        k: constants(gradients.intervals[k], Interval(*(v.unsqueeze(1) for v in slope)))
        for k, slope in gates.slopes.items()
        if k in gradients.intervals
    }
    interval = gradients.intervals[0]
    if norm is Norm.ONE:
        weight = torch.zeros_like(interval.lower)
        largest = interval.magnitude.argmax(-1, keepdim=True)
        weight.scatter_(-1, largest, 1.0)
    else:
        weight, _ = (absolute_chord if norm is Norm.INF else square_chord)(interval)
    weights: dict[int, Tensor] = {}

    def activation(k: int, node: Activate, tangent: Tensor) -> Tensor | None:
        if k not in lines:
            return None
        line = lines[k]
        weights[k] = tangent.abs()
        return tangent * line.slope + weights[k] * line.slope_spread

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return linear_value(terms)

    fold_forward(network, {0: weight}, activation, affine)
    return {k: w.expand(*functionals.shape[:2], -1) for k, w in weights.items()}
