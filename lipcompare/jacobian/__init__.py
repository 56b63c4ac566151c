"""Upper bounds on gradient norms as functions of the gates: interval, RecurJac, the paper's linear relaxation.

Nothing here sees an input ``x``: a bound depends on the network, the gates, the functionals and the norm alone. The one
extension: cuts of the semidefinite bound may know the box and the pre-activation bounds that the gates come from
(:class:`~lipcompare.gates.Coupling`).
"""

from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.interval import interval_gradient
from lipcompare.jacobian.linear import gradient_intervals, norm_bound
from lipcompare.jacobian.norms import interval_norm, norm_product, pattern_bound
from lipcompare.jacobian.passes import functional_bound
from lipcompare.jacobian.relaxations import RELAXATIONS, Relaxation, relaxation_named

__all__ = [
    "RELAXATIONS",
    "Gradients",
    "Relaxation",
    "functional_bound",
    "gradient_intervals",
    "interval_gradient",
    "interval_norm",
    "norm_bound",
    "norm_product",
    "pattern_bound",
    "relaxation_named",
]
