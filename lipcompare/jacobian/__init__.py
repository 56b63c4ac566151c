"""Upper bounds on gradient norms as functions of the gates: interval, RecurJac, the paper's linear relaxation.

Nothing here sees an input ``x``: a bound depends on the network, the gates, the functionals and the norm alone.
"""

from lipcompare.jacobian.interval import interval_gradients
from lipcompare.jacobian.linear import GateRelaxation, Gradients, functional_bound, gradient_intervals, norm_bound
from lipcompare.jacobian.norms import interval_norm, norm_product, rounding_allowance

__all__ = [
    "GateRelaxation",
    "Gradients",
    "functional_bound",
    "gradient_intervals",
    "interval_gradients",
    "interval_norm",
    "norm_bound",
    "norm_product",
    "rounding_allowance",
]
