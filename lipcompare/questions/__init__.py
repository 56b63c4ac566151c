"""Questions answered from the same machinery as Lipschitz constants: entries of the Jacobian, directional derivatives,
monotonicity, certified radii, operator norms."""

from lipcompare.questions.certify import AUTO, EXACT_RADIUS, FORWARD, Certificate, Route, certified_radius
from lipcompare.questions.entries import EntryBounds, directional_bounds
from lipcompare.questions.jacobian import jacobian_bounds
from lipcompare.questions.monotone import Direction, Monotonicity, monotonicity
from lipcompare.questions.operator_norm import (
    BAB,
    LIPBAB,
    LIPSDP,
    NAIVE,
    SDP,
    OperatorNorm,
    exact_operator_norms,
    operator_norm_bounds,
)

__all__ = [
    "AUTO",
    "BAB",
    "EXACT_RADIUS",
    "FORWARD",
    "LIPBAB",
    "LIPSDP",
    "NAIVE",
    "SDP",
    "Certificate",
    "Direction",
    "EntryBounds",
    "Monotonicity",
    "OperatorNorm",
    "Route",
    "certified_radius",
    "directional_bounds",
    "exact_operator_norms",
    "jacobian_bounds",
    "monotonicity",
    "operator_norm_bounds",
]
